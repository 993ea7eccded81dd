"""Work that is done in order, one piece at a time, by a thread that nobody waits for."""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_MOST: Final = 100_000
"""Pieces that may wait: no rollout has so many entries in the time that anything may take."""
_LOOK_UP_S: Final = 0.1


class Aside(Generic[T]):
    """A thread for one kind of work, which deals with its errors itself; `put` is for one thread.

    Parameters
    ----------
    drain_s
        How long `close` may take for what still waits.
    """

    def __init__(self, work: Callable[[T], object], *, drain_s: float) -> None:
        self._work = work
        self._drain_s = drain_s
        self._waiting: queue.Queue[T] = queue.Queue(_MOST)
        self._closing = threading.Event()
        self._given_up = threading.Event()
        self._busy = False
        self._lost = 0
        self._thread: threading.Thread | None = None

    def put(self, piece: T) -> None:
        """Add a piece; comes back at once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait(piece)
        except queue.Full:
            self._lost += 1

    def close(self) -> int:
        """Wait until all is done, or the time is up; gives how many pieces were not."""
        self._closing.set()
        until = time.monotonic() + self._drain_s
        while self._thread and self._thread.is_alive() and time.monotonic() < until:
            self._thread.join(_LOOK_UP_S)  # and not for all of it: an interrupt is heard between
        self._given_up.set()
        return self._lost + self._waiting.qsize() + self._busy

    def _run(self) -> None:
        while not self._given_up.is_set():
            closing = self._closing.is_set()  # asked before looking: nothing comes after it
            try:
                piece = self._waiting.get(timeout=_LOOK_UP_S)
            except queue.Empty:
                if closing:
                    return
                continue
            self._busy = True
            self._work(piece)
            self._busy = False
