"""One bandwidth that all uploads of a command share."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from edgecal.core.bandwidth import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable


class Pace:
    """Told of the bytes just sent, it says how long to wait if that was too fast.

    From several threads at once: each waits for its own bytes, together they keep the rate.
    """

    def __init__(self, rate: float, *, clock: Callable[[], float]) -> None:
        self._bucket = TokenBucket(rate, now=clock())
        self._clock = clock
        self._lock = threading.Lock()

    def take(self, count: int) -> float:
        """Account for bytes just sent; gives seconds to wait before the next."""
        with self._lock:
            return self._bucket.take(count, now=self._clock())
