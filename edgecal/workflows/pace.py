"""One bandwidth that all uploads of a command share."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from edgecal.core.bandwidth import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable


class Pace:
    """Called with the bytes just sent, it sleeps as long as that was too fast.

    From several threads at once: each waits for its own bytes, together they keep the rate.
    """

    def __init__(
        self, rate: float, *, clock: Callable[[], float], sleep: Callable[[float], object]
    ) -> None:
        self._bucket = TokenBucket(rate, now=clock())
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()

    def __call__(self, count: int) -> None:
        """Account for bytes just sent."""
        with self._lock:
            wait_s = self._bucket.take(count, now=self._clock())
        if wait_s > 0:
            self._sleep(wait_s)
