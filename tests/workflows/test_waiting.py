"""Threads side by side, and the one that waits for them."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from edgecal.workflows.waiting import side_by_side


def test_what_a_thread_raises_is_raised_where_one_waits() -> None:
    def work(item: int) -> int:
        if item == 2:
            raise ValueError(item)
        return item

    with pytest.raises(ValueError, match="2"):
        list(side_by_side([1, 2, 3], work, at_once=1))


def test_an_interrupt_does_not_wait_for_what_hangs() -> None:
    hangs = threading.Event()
    timer = threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT))
    timer.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(side_by_side([1, 2], lambda _item: hangs.wait(60), at_once=2))
    assert time.monotonic() - began < 10
    hangs.set()
    timer.join()


@pytest.mark.parametrize("at_once", [1, 3, 50])
def test_every_item_has_its_result_and_no_more_run_at_once_than_may(at_once: int) -> None:
    lock = threading.Lock()
    running = most = 0

    def work(item: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1
        return item * item

    results = list(side_by_side(range(20), work, at_once=at_once))
    assert sorted(results) == [one * one for one in range(20)]
    assert most <= at_once
    assert list(side_by_side([], work, at_once=at_once)) == []
