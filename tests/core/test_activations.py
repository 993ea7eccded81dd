from __future__ import annotations

import pytest

from edgecal.core.activations import Activation, parse_activation, previous_release


def history(*steps: str) -> list[Activation]:
    """`A` activates A, `<A` rolls back to it."""
    return [
        Activation(
            action="rollback" if step.startswith("<") else "activate",
            release=step.lstrip("<"),
            time="2026-11-21T12:00:00Z",
            by="me@desk",
            target_time_s=0,
        )
        for step in steps
    ]


@pytest.mark.parametrize(
    ("steps", "current", "expected"),
    [
        ("", None, None),
        ("A", "A", None),
        ("A B", "B", "A"),
        ("A B C", "C", "B"),
        ("A B C <B", "B", "A"),
        ("A B C <B <A", "A", None),
        ("A B C <B D", "D", "B"),
        ("A B A", "A", "B"),
        ("A B <A B", "B", "A"),
        ("A B C <B <C", "C", "A"),  # --to C: then B is what was rolled back from
        ("A B C <B", "C", "B"),  # the way back to B was written down, and never happened
        ("A B A", "B", "A"),
        ("A B", "A", None),  # B's line was written, and its activation never happened
    ],
)
def test_a_rollback_goes_to_the_latest_activation_not_itself_rolled_back_from(
    steps: str, current: str | None, expected: str | None
) -> None:
    assert previous_release(history(*steps.split()), current) == expected


def test_a_line_is_read_and_half_a_line_is_nothing() -> None:
    line = '1763726400 {"action":"activate","release":"A","time":"t","by":"me"}'
    found = parse_activation(line)
    assert found == Activation(
        action="activate", release="A", time="t", by="me", target_time_s=1763726400
    )
    for cut in range(len(line)):
        assert parse_activation(line[:cut]) is None


def test_a_confirmation_is_no_activation_and_a_deactivation_leaves_nothing_behind() -> None:
    def line(action: str, release: str) -> Activation:
        return Activation(action=action, release=release, time="", by="", target_time_s=0)

    confirmed = [line("activate", "a"), line("activate", "b"), line("confirm", "b")]
    assert previous_release(confirmed, "b") == "a"
    taken_back = [line("activate", "a"), line("deactivate", "")]
    assert previous_release(taken_back, None) is None
    assert previous_release([*taken_back, line("activate", "b")], "b") is None
    # the power failed between the record and the removal
    assert previous_release([*confirmed, line("deactivate", "")], "b") == "a"
