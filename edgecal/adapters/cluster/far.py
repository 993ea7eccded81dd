"""What runs in a worker's process when somebody calls it; found there by its name.

Why not Dask's tasks: Dask gives a lost worker's tasks to another one, up to three times, and lets
those of a worker that never comes back wait for ever. A push must be neither repeated nor waited
for: it is asked about at the device. A call is one message and one answer, done once or lost.
"""

from __future__ import annotations

import asyncio
import pickle
import threading
import zlib
from typing import TYPE_CHECKING, Any, Final

from edgecal.errors import EdgecalError

if TYPE_CHECKING:
    from collections.abc import Callable

ATTRIBUTE: Final = "edgecal_desk"
"""Of Dask's worker object: the `Desk` of an edgecal worker."""


class Desk:
    """What an edgecal worker says of itself and can do."""

    def __init__(self, about: dict[str, Any], operations: dict[str, Callable[..., Any]]) -> None:
        self.about = about
        self.operations = operations


def greet(dask_worker: Any) -> bytes:
    """Say who this worker is; nothing if it was not started by edgecal."""
    desk = getattr(dask_worker, ATTRIBUTE, None)
    return b"" if desk is None else pickle.dumps(desk.about)


async def perform(operation: str, arguments: bytes, dask_worker: Any) -> bytes:
    """Do one thing in a thread of its own, and give what it gives or raises."""
    desk: Desk = getattr(dask_worker, ATTRIBUTE)
    done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()

    def work() -> None:
        answer = _answer(desk.operations[operation], arguments)
        loop.call_soon_threadsafe(_settle, done, answer)

    # a daemon, for a worker that is told to end must not wait for a dead target
    threading.Thread(target=work, daemon=True, name=f"edgecal-{operation}").start()
    return await done


def _answer(operation: Callable[..., Any], arguments: bytes) -> bytes:
    try:
        # written by the controller; whoever may connect could run anything with Dask's own means
        return _pack((True, operation(*pickle.loads(arguments))))  # noqa: S301
    except EdgecalError as error:
        return _pack((False, error))
    except Exception as error:  # noqa: BLE001 - a bug of ours, told where somebody sees it
        return _pack((False, RuntimeError(f"{type(error).__name__}: {error}")))


def _pack(answer: tuple[bool, Any]) -> bytes:
    # histograms are mostly zeros: an eighth is left of them
    return zlib.compress(pickle.dumps(answer, protocol=5), level=1)


def unpack(answer: bytes) -> tuple[bool, Any]:
    """Read what `perform` gave."""
    # written by a worker that has proved itself, or is on this machine
    found: tuple[bool, Any] = pickle.loads(zlib.decompress(answer))  # noqa: S301
    return found


def _settle(done: asyncio.Future[bytes], answer: bytes) -> None:
    if not done.done():
        done.set_result(answer)
