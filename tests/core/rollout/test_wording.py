"""How gates, conditions, times and pauses are written."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.rollout import wording
from edgecal.core.rollout.gates import Condition, Gate
from edgecal.core.rollout.wording import (
    parse_condition,
    parse_duration,
    parse_gate,
    parse_hook,
    parse_missing,
    parse_pauses,
    spell_duration,
    spell_gate,
)
from edgecal.errors import InputError

_NO_GATES = [
    "",
    ",",
    "10%,",
    "0",
    "10%,0",
    "101%",
    "10%,20%",
    "1,2",
    "10%,2,3",
    "-1",
    "1.5%",
    "ten",
    "٢",
    "1" * 5000,
    "9" * 10,
    "1," * 100_000,
]


@pytest.mark.parametrize("text", _NO_GATES)
def test_what_is_no_gate_is_refused_with_its_place(text: str) -> None:
    for parse in (parse_gate, parse_missing, parse_condition):
        with pytest.raises(InputError, match="expected a share to 100%") as caught:
            parse(text, source="--failures")
        assert caught.value.where == "--failures"
        assert len(str(caught.value)) < 400


def test_never_is_no_gate_for_failures() -> None:
    with pytest.raises(InputError):
        parse_gate("never", source="--failures")


@pytest.mark.parametrize(
    "text",
    ["", "90", "10 m", "-1s", "1e3s", "10min", "h", "367d", "9" * 400 + "s", "1.2345s", "nan"],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="such as 30s, 10m or 24h"):
        parse_duration(text, source="--soak")


@pytest.mark.parametrize("text", ["", "0", "4", "1,4", "1,", "-1", "a", "99999999999"])
def test_a_pause_after_no_wave_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="waves from 1 to 3"):
        parse_pauses(text, waves=3, source="--pause-after")


@pytest.mark.parametrize("text", ["", "  ", "''", "a 'b", "a\0b", "a\\"])
def test_what_is_no_command_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected a program"):
        parse_hook(text, source="--hook")


def test_a_hook_is_not_a_line_for_a_shell() -> None:
    assert parse_hook("a $HOME | 'b c' ; d", source="--hook") == (
        "a",
        "$HOME",
        "|",
        "b c",
        ";",
        "d",
    )


def test_the_order_of_share_and_number_does_not_matter() -> None:
    assert parse_gate("2,10%", source="x") == parse_gate(" 10% , 2 ", source="x")


@given(st.builds(Gate, minimum=st.integers(1, 999_999_999), percent=st.integers(0, 100)))
def test_a_gate_is_read_as_it_is_spelled(gate: Gate) -> None:
    assert parse_gate(spell_gate(gate), source="x") == gate
    assert parse_missing(spell_gate(gate), source="x") == gate


@given(st.builds(Condition, minimum=st.integers(1, 999_999_999), percent=st.integers(0, 100)))
def test_a_condition_is_read_as_it_is_spelled(condition: Condition) -> None:
    assert parse_condition(spell_gate(condition), source="x") == condition


@given(st.integers(0, 366 * 86_400_000))
def test_a_time_is_read_as_it_is_spelled(milliseconds: int) -> None:
    assert parse_duration(spell_duration(milliseconds), source="x") == milliseconds


def test_the_examples_in_the_documentation_are_true() -> None:
    found = doctest.testmod(wording)
    assert found.attempted
    assert not found.failed
