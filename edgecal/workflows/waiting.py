"""Waits for what other threads send, and stays open to an interrupt."""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

S = TypeVar("S")
T = TypeVar("T")

_LOOK_UP_S: Final = 0.2


def next_of(messages: queue.SimpleQueue[T]) -> T:
    """Wait for the next message.

    A signal that arrives just before the main thread begins to wait does not wake it, so it looks
    up now and then.
    """
    while True:
        with contextlib.suppress(queue.Empty):
            return messages.get(timeout=_LOOK_UP_S)


def side_by_side(items: Sequence[S], work: Callable[[S], T], *, at_once: int) -> Iterator[T]:
    """Do the same with every item, several at a time; gives results as they come.

    What `work` raises is raised here. Threads of our own and no pool: an interrupt must not wait
    for a target that hangs.
    """
    waiting: queue.SimpleQueue[S] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[T] | BaseException] = queue.SimpleQueue()
    for item in items:
        waiting.put(item)

    def run() -> None:
        while True:
            try:
                done.put((work(waiting.get_nowait()),))
            except queue.Empty:
                return
            except BaseException as error:  # noqa: BLE001 - raised again in the main thread
                done.put(error)
                return

    for _ in range(min(at_once, len(items))):
        threading.Thread(target=run, daemon=True).start()
    for _ in items:
        result = next_of(done)
        if isinstance(result, BaseException):
            raise result
        yield result[0]
