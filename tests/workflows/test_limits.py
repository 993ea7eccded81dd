"""Limits that a command's pushes share, in all and for each bastion."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from edgecal.core.target import Target
from edgecal.errors import Cancelled, InputError
from edgecal.workflows.limits import (
    BASTION_CONNECTIONS,
    DIRECT_CONNECTIONS,
    LimitOptions,
    shared_limits,
)
from edgecal.workflows.world import CancelToken

if TYPE_CHECKING:
    from edgecal.workflows.world import Limits, Slot

HELD_S = 0.05


def target(name: str) -> Target:
    """Make one; the first letters of its name are its bastion's."""
    return Target(name=name, host=name)


def make_limits(options: LimitOptions) -> Limits:
    return shared_limits(
        options,
        bastion=lambda one: one.name.partition("-")[0] if "-" in one.name else "",
        clock=time.monotonic,
        sleep=time.sleep,
    )


def most_at_once(slot: Slot, names: list[str]) -> int:
    lock = threading.Lock()
    inside = most = 0

    def work(name: str) -> None:
        nonlocal inside, most
        with slot(target(name), CancelToken()):
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(HELD_S)
            with lock:
                inside -= 1

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(work, names))
    return most


def test_who_waits_for_a_place_stops_within_a_second_of_a_cancel() -> None:
    slot = make_limits(LimitOptions(transfers=1)).transfers
    cancel = CancelToken()
    ended: list[float] = []

    def wait() -> None:
        with pytest.raises(Cancelled), slot(target("b"), cancel):
            pytest.fail("there was no place")
        ended.append(time.monotonic())

    with slot(target("a"), CancelToken()):
        threads = [threading.Thread(target=wait) for _ in range(5)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        assert not ended
        asked = time.monotonic()
        cancel.cancel()
        for thread in threads:
            thread.join(10)
    assert len(ended) == 5
    assert max(ended) - asked < 1
    with slot(target("c"), CancelToken()):  # nobody took the place with them
        pass


def test_a_free_place_is_not_given_to_who_was_told_to_stop() -> None:
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled), make_limits(LimitOptions()).connections(target("a"), cancel):
        pytest.fail("it went on")


def test_who_waits_for_bandwidth_stops_within_a_second_of_a_cancel() -> None:
    limits = make_limits(LimitOptions(rate=1000))
    cancel = CancelToken()
    timer = threading.Timer(0.1, cancel.cancel)
    began = time.monotonic()
    timer.start()
    with pytest.raises(Cancelled):
        limits.pace(target("a"), 1_000_000, cancel)
    assert time.monotonic() - began < 1.1


def test_a_place_is_free_again_after_a_failure() -> None:
    slot = make_limits(LimitOptions(builds=1)).builds
    for _ in range(3):
        with pytest.raises(InputError), slot(target("a"), CancelToken()):
            raise InputError("no", remedy="none")


def test_a_bastion_that_cannot_be_named_fails_the_one_that_asked() -> None:
    def bastion(_one: Target) -> str:
        raise InputError("no such settings", remedy="none")

    limits = shared_limits(LimitOptions(), bastion=bastion, clock=time.monotonic, sleep=time.sleep)
    with pytest.raises(InputError), limits.connections(target("a"), CancelToken()):
        pytest.fail("it went on")


def test_each_bastion_has_its_own_connections() -> None:
    slot = make_limits(LimitOptions(connections=2)).connections
    assert most_at_once(slot, [f"a-{n}" for n in range(8)]) == 2
    assert 2 < most_at_once(slot, [f"{letter}-{n}" for letter in "abc" for n in range(5)]) <= 6


def test_targets_without_a_bastion_share_one_limit() -> None:
    slot = make_limits(LimitOptions(connections=2)).connections
    assert most_at_once(slot, [f"t{n}" for n in range(8)]) == 2


def test_the_default_stays_below_what_sshd_begins_to_drop_at() -> None:
    slot = make_limits(LimitOptions()).connections
    assert BASTION_CONNECTIONS < 10
    assert most_at_once(slot, [f"a-{n}" for n in range(24)]) <= BASTION_CONNECTIONS
    assert most_at_once(slot, [f"t{n}" for n in range(48)]) <= DIRECT_CONNECTIONS


def test_transfers_and_builds_count_over_all_bastions() -> None:
    limits = make_limits(LimitOptions(transfers=2, builds=3))
    names = [f"{letter}-{n}" for letter in "abc" for n in range(4)]
    assert most_at_once(limits.transfers, names) == 2
    assert most_at_once(limits.builds, names) == 3


def test_without_a_number_nobody_waits_to_send_or_build() -> None:
    limits = make_limits(LimitOptions())
    names = [f"a-{n}" for n in range(20)]
    barrier = threading.Barrier(len(names), timeout=10)

    def work(name: str) -> None:
        one, cancel = target(name), CancelToken()
        with limits.transfers(one, cancel), limits.builds(one, cancel):
            barrier.wait()
        limits.pace(one, 1 << 40, cancel)

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(work, names))


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        (LimitOptions(rate=1e6), 20),
        (LimitOptions(bastion_rate=1e6), 10),
        (LimitOptions(rate=1e6, bastion_rate=1e6), 20),
        (LimitOptions(rate=1e6, bastion_rate=4e5), 25),
    ],
)
def test_two_bastions_share_the_whole_and_have_each_their_own(
    options: LimitOptions, seconds: float
) -> None:
    clock = Clock()
    limits = shared_limits(
        options,
        bastion=lambda one: one.name.partition("-")[0],
        clock=clock,
        sleep=clock.sleep,
    )
    for _ in range(100):  # one after the other: both sleep, and the other's sleep counts
        for name in ("a-1", "b-1"):
            limits.pace(target(name), 100_000, CancelToken())
    assert clock.now - 100 == pytest.approx(seconds, rel=0.06)
