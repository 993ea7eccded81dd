"""Waves and gates: exact rules, and what is refused."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.rollout import gates, plan, retries
from edgecal.core.rollout.gates import Condition, Gate
from edgecal.core.rollout.plan import Bound, cut_waves, parse_waves
from edgecal.core.rollout.state import Plan, Policy, Retries
from edgecal.errors import InputError


@pytest.mark.parametrize(
    "text", ["", "0", "0%", "101%", "1,,2", "-1", "1.5", "10 %", "ten", "1%%", "1" * 10, "\u0661"]
)
def test_waves_that_are_no_numbers_are_refused_with_what_was_found(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_waves(text, source="--waves")
    assert caught.value.where == "--waves"
    assert "found" in caught.value.what


@pytest.mark.parametrize("text", ["10%,5%", "100%,100%", "5,1", "5,10%,5", "10%,3,10%"])
def test_waves_that_do_not_ascend_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="reaches as far"):
        parse_waves(text)


def test_waves_without_end_are_refused() -> None:
    with pytest.raises(InputError, match="at most 100 waves"):
        parse_waves(",".join(map(str, range(1, 200))))


def test_waves_that_leave_somebody_out_are_refused() -> None:
    with pytest.raises(InputError, match=r"the waves 1,10% reach 3 of 30 devices"):
        cut_waves(parse_waves("1,10%"), [f"d{number}" for number in range(30)])


def test_nobody_and_somebody_twice_are_refused() -> None:
    with pytest.raises(InputError, match="no device is left"):
        cut_waves(parse_waves("100%"), [])
    with pytest.raises(InputError, match="'a' is selected twice"):
        cut_waves(parse_waves("100%"), ["a", "b", "a"])


@pytest.mark.parametrize("module", [plan, gates, retries])
def test_the_examples_in_the_documentation_hold(module: object) -> None:
    found = doctest.testmod(module)  # type: ignore[arg-type]  # it is a module
    assert found.attempted
    assert not found.failed


@given(
    st.integers(1, 300),
    st.lists(st.integers(1, 99), unique=True, max_size=5).map(sorted),
    st.integers(0, 3),
)
def test_waves_are_cumulative_ascending_and_whole(n: int, shares: list[int], first: int) -> None:
    names = [f"d{number}" for number in range(n)]
    bounds = [Bound(number=share, percent=True) for share in [*shares, 100]]
    if first:
        bounds.insert(0, Bound(number=first, percent=False))
    waves = cut_waves(bounds, names)
    assert [name for wave in waves for name in wave] == names
    assert all(waves)
    gone = 0
    for wave, bound in zip(waves, bounds, strict=False):
        before, gone = gone, gone + len(wave)
        assert gone >= min(n, before + 1)
        if bound.percent:
            assert gone == before + 1 or 100 * (gone - 1) < bound.number * n <= 100 * gone


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 9), st.integers(0, 100))
def test_a_gates_room_is_the_first_number_that_could_trip_it(
    bad: int, good: int, minimum: int, percent: int
) -> None:
    gate = Gate(minimum=minimum, percent=percent)
    trips = [gate.trips(bad + more, bad + good + more) for more in range(300)]
    room = gate.room(bad, bad + good)
    if room < len(trips):
        assert trips.index(True) == room
    elif not good:
        assert not any(trips)


@pytest.mark.parametrize(("minimum", "percent"), [(0, 10), (1, -1), (1, 101)])
def test_gates_that_cannot_be_meant_are_refused(minimum: int, percent: int) -> None:
    with pytest.raises(InputError, match="expected a minimum from 1"):
        Gate(minimum=minimum, percent=percent)
    with pytest.raises(InputError, match="expected a minimum from 1"):
        Condition(minimum=minimum, percent=percent)


def test_policies_and_plans_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(InputError):
        Policy(in_flight=0)
    with pytest.raises(InputError):
        Policy(soak_ms=-1)
    with pytest.raises(InputError):
        Policy(pause_after=frozenset({-1}))
    with pytest.raises(InputError):
        Retries(tries=0)
    with pytest.raises(InputError):
        Retries(first_ms=0)
    for waves in [(), ((),), (("a",), ("a",)), (("old",),)]:
        with pytest.raises(InputError, match="each device in one of them or refused"):
            Plan(rollout="r", bundles=(), waves=waves, refused={"old": ()}, policy=Policy())
