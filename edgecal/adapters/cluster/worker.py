"""The process of one worker: joins a scheduler, and does what it is called for."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edgecal.adapters.cluster import far
from edgecal.adapters.cluster.security import knock, load_dask, make_security
from edgecal.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgecal.core.clusters import Certificates, ClusterAddress

_JOIN_S: Final = 30.0
_END_S: Final = 20.0
"""For work to come to a point where stopping leaves things whole; a step that takes longer is cut
off, and found again on the device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """How a worker appears in its cluster."""

    name: str
    threads: int
    host: str | None = None
    """Of this machine, as the scheduler reaches it; by default what leads to the scheduler."""
    port: int = 0
    """To listen at; 0 takes any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Duties:
    """What a worker can be called for, and how it is asked to stop."""

    operations: Mapping[str, Callable[..., Any]]
    stop: Callable[[], bool]
    """Asks what is at work to stop; tells whether nothing is any more."""


def run_worker(
    address: ClusterAddress,
    certificates: Certificates,
    settings: WorkerSettings,
    *,
    about: Mapping[str, Any],
    duties: Callable[[Callable[[str, bytes], object]], Duties],
    joined: Callable[[str], object],
) -> int | None:
    """Work until a signal ends it; gives its number, or nothing if the scheduler went away.

    Parameters
    ----------
    about
        What the worker says of itself.
    duties
        Makes what it can do, given how to say something under a topic.
    joined
        Hears the worker's own address.

    Raises
    ------
    ClusterError
        If the scheduler cannot be reached or trusted, or does not take this worker.
    """
    dask = load_dask()
    security = make_security(address, certificates)
    knock(address, security)
    with tempfile.TemporaryDirectory(prefix="edgecal-worker-") as scratch:
        return asyncio.run(
            _work(
                dask,
                {
                    "scheduler_ip": str(address),
                    "security": security,
                    "nthreads": settings.threads,
                    "name": settings.name,
                    "local_directory": scratch,
                    "memory_limit": 0,  # our own matter: nothing here may be written to a disk
                    # never where others could reach it by way of a scheduler that they cannot
                    "host": settings.host or ("127.0.0.1" if address.loopback else None),
                    "port": settings.port,
                    "protocol": address.scheme,
                    "death_timeout": _JOIN_S,
                    "dashboard": False,
                },
                about,
                duties,
                joined,
            )
        )


async def _work(
    dask: Any,
    words: dict[str, Any],
    about: Mapping[str, Any],
    duties: Callable[[Callable[[str, bytes], object]], Duties],
    joined: Callable[[str], object],
) -> int | None:
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    with _until_a_signal(ended):
        try:
            worker = dask.Worker(**words)
            mine = duties(worker.log_event)
            setattr(worker, far.ATTRIBUTE, far.Desk(dict(about), dict(mine.operations)))
            await worker
        except (OSError, ValueError, RuntimeError) as error:
            raise ClusterError(
                f"the scheduler does not take this worker: {error.__cause__ or error}",
                where=words["scheduler_ip"],
                remedy="give it another --name than the others have, and use the same version of "
                "Dask as the scheduler",
            ) from error
        joined(worker.address)
        finished = asyncio.ensure_future(worker.finished())
        await asyncio.wait({ended, finished}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            await _wind_up(mine)
        await worker.close(timeout=5, executor_wait=False)
        await finished
    return ended.result() if ended.done() else None


async def _wind_up(mine: Duties) -> None:
    loop = asyncio.get_running_loop()
    latest = loop.time() + _END_S
    while not mine.stop() and loop.time() < latest:  # noqa: ASYNC110 - threads, not events
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.1)  # the last answers are on their way


class _until_a_signal:  # noqa: N801 - read as what it does
    """Have Ctrl-C and SIGTERM settle a future in place of breaking the loop off."""

    _SIGNALS: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, ended: asyncio.Future[int]) -> None:
        self._ended = ended

    def __enter__(self) -> None:
        for one in self._SIGNALS:
            asyncio.get_running_loop().add_signal_handler(one, self._settle, int(one))

    def __exit__(self, *_: object) -> None:
        for one in self._SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(one)

    def _settle(self, number: int) -> None:
        if not self._ended.done():
            self._ended.set_result(number)
