"""Waits for what other threads send, and stays open to an interrupt."""

from __future__ import annotations

import contextlib
import queue
from typing import Final, TypeVar

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
