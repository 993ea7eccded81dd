"""The board of a rollout, and its picture: values in, rows and lines out; no terminal."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from edgecal.cli.rollout.board import Board
from edgecal.cli.rollout.faults import remedy, troubled, way_on
from edgecal.cli.rollout.lines import clock_text, event_line, head_lines, wait_text
from edgecal.cli.rollout.picture import draw
from edgecal.cli.rollout.standing import end_code
from edgecal.core.rollout.events import Event, Kind
from edgecal.core.rollout.gates import Condition
from edgecal.core.rollout.machine import advance
from edgecal.core.rollout.state import Fault, Plan, Policy, begin
from edgecal.workflows.events import (
    ActivationWaits,
    BuildRuns,
    CacheShipped,
    Step,
    StepDue,
    TrialRuns,
)
from edgecal.workflows.rollout.tasks import Begun, Journaled, Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgecal.workflows.events import PushEvent

GONE = Fault(code="connect", what="no route to host", remedy="plug it in")
BAD = Fault(code="build", what="it fails to build", remedy="read the log")


class Told:
    """A board that is told of a rollout's events, second by second."""

    def __init__(self, waves: Sequence[Sequence[str]], policy: Policy | None = None) -> None:
        plan = Plan(
            rollout="net-1",
            bundles=("sha256:00",),
            waves=tuple(tuple(wave) for wave in waves),
            refused={},
            policy=policy or Policy(),
        )
        self.rollout = begin(plan)
        self.board = Board(self.rollout)
        self.now_ms = 1_000_000
        self.entries = 1
        self.heard: list[str] = []

    def journal(self, kind: Kind, target: str = "", **more: Any) -> Event:  # noqa: ANN401 - what an event has
        event = Event(kind=kind, at_ms=self.now_ms, target=target, **more)
        self.rollout = advance(self.rollout, event)
        self.entries += 1
        self.board.hear(Journaled(event, self.rollout, self.entries), now_ms=self.now_ms)
        self.heard.append(event_line(event, self.rollout))
        return event

    def say(self, target: str, news: PushEvent | int, *, after_s: float = 0) -> None:
        self.now_ms += round(1000 * after_s)
        self.board.hear(Progress(target, news), now_ms=self.now_ms)

    def start(self, *names: str, wave: int = 0) -> None:
        self.journal(Kind.WAVE_STARTED, wave=wave)
        for name in names:
            self.journal(Kind.PUSH_STARTED, name)

    def picture(self, width: int, height: int) -> str:
        console = Console(file=io.StringIO(), width=width, height=height)
        console.print(draw(self.board, now_ms=self.now_ms, width=width, height=height))
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()


def test_the_last_words_of_a_device_that_has_ended_change_nothing() -> None:
    told = Told([["a"]])
    told.start("a")
    told.journal(Kind.PUSH_FAILED, "a", fault=BAD)
    before = told.board.rows(now_ms=told.now_ms, room=9)
    told.say("a", 500)
    told.say("nobody", StepDue(Step.BUILD))
    assert told.board.rows(now_ms=told.now_ms, room=9) == before
    assert told.board.bytes_sent == 0


def test_a_transfer_has_bytes_rate_and_time_left() -> None:
    told = Told([["a"]])
    told.start("a")
    told.say("a", StepDue(Step.CONNECT, "10.0.0.1"))
    told.say("a", StepDue(Step.SHIP, "10000"), after_s=1)
    for _ in range(4):
        told.say("a", 1000, after_s=1)
    (row,) = told.board.rows(now_ms=told.now_ms, room=9).rows
    assert (row.step, row.sent, row.total) == ("shipping", 4000, 10_000)
    assert row.rate == pytest.approx(1000)
    assert row.eta_s == pytest.approx(6)
    assert told.board.rate(told.now_ms) == pytest.approx(1000)
    assert told.board.bytes_sent == 4000


def test_a_transfer_that_stands_still_is_slower_each_moment_and_then_has_no_time_left() -> None:
    told = Told([["a"]])
    told.start("a")
    told.say("a", StepDue(Step.SHIP, "10000"))
    told.say("a", 1000, after_s=1)
    rates = [
        told.board.rows(now_ms=told.now_ms + wait, room=9).rows[0].rate
        for wait in (0, 1000, 5000, 60_000)
    ]
    assert rates == [1000, 500, pytest.approx(1000 / 6), 0]
    assert told.board.rows(now_ms=told.now_ms + 60_000, room=9).rows[0].eta_s is None


def test_a_clock_that_is_set_back_gives_no_rate_and_no_negative_time() -> None:
    told = Told([["a"]])
    told.start("a")
    told.say("a", StepDue(Step.SHIP, "10000"))
    told.say("a", 1000, after_s=1)
    (row,) = told.board.rows(now_ms=told.now_ms - 3_600_000, room=9).rows
    assert row.seconds == 0
    assert row.rate is None


@given(
    st.lists(
        st.tuples(st.integers(min_value=1, max_value=5000), st.integers(min_value=0, max_value=90)),
        min_size=1,
        max_size=60,
    )
)
def test_a_rate_never_exceeds_what_was_sent_in_the_fastest_moment(
    steps: list[tuple[int, int]],
) -> None:
    told = Told([["a"]])
    told.start("a")
    told.say("a", StepDue(Step.SHIP, "1000000"))
    for sent, tenths in steps:
        told.say("a", sent, after_s=tenths / 10)
    (row,) = told.board.rows(now_ms=told.now_ms + 500, room=9).rows
    assert row.sent == sum(sent for sent, _ in steps)
    assert row.rate is not None
    assert 0 <= row.rate <= 2 * row.sent


def test_steps_and_notes_follow_what_the_device_says() -> None:
    told = Told([["a"]])
    told.start("a")

    def row() -> tuple[str, str]:
        (only,) = told.board.rows(now_ms=told.now_ms, room=9).rows
        return only.step, only.note

    assert row() == ("pushing", "")
    told.say("a", StepDue(Step.SHIP, "10"))
    told.say("a", CacheShipped(10, 0))
    told.say("a", StepDue(Step.BUILD, "trtexec"))
    assert row() == ("building", "")
    told.say("a", BuildRuns(5, "one\n[I] two \n\n"))
    told.say("a", BuildRuns(9, ""))
    assert row() == ("building", "[I] two")
    told.say("a", StepDue(Step.ACTIVATE, "r"))
    told.say("a", ActivationWaits(1))
    assert row() == ("activating", "an application there holds 'not-now'")
    told.say("a", TrialRuns(1, 30))
    assert row() == ("health check", "for 30 s")


def test_ended_devices_stay_a_moment_and_those_that_went_wrong_longer() -> None:
    told = Told([["a", "b"]], Policy(in_flight=2))
    told.start("a", "b")
    told.journal(Kind.PUSH_ACTIVATED, "a", release="r1")
    told.journal(Kind.PUSH_UNREACHED, "b", fault=GONE)

    def shown(after_s: int) -> list[str]:
        return [
            f"{row.target} {row.step}"
            for row in told.board.rows(now_ms=told.now_ms + 1000 * after_s, room=9).rows
        ]

    assert shown(1) == ["b unreachable", "a active"]
    assert shown(10) == ["b unreachable"]
    assert shown(60) == []


def test_a_device_under_way_before_this_controller_is_shown_as_such() -> None:
    told = Told([["a"]])
    told.start("a")
    board = Board(told.rollout)
    board.hear(Begun(told.rollout, 3), now_ms=told.now_ms + 4000)
    (row,) = board.rows(now_ms=told.now_ms + 4000, room=9).rows
    assert (row.step, row.seconds) == ("under way", 4)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (40, 10), (20, 5)])
def test_five_thousand_devices_fit_on_any_screen(width: int, height: int) -> None:
    names = [f"camera-{n:04}-in-the-far-corner-of-the-hall" for n in range(5000)]
    told = Told([names], Policy(in_flight=500))
    told.start(*names[:60])
    for name in names[:20]:
        told.say(name, StepDue(Step.SHIP, "45600000"))
        told.say(name, 1_200_000, after_s=0.1)
    for name in names[20:40]:
        told.say(name, StepDue(Step.BUILD, "trtexec"))
        told.say(name, BuildRuns(5, "[I] " + "timing tactics " * 20))
    lines = told.picture(width, height).rstrip("\n").split("\n")
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    hidden = 60 - sum("camera-" in line for line in lines)
    if width >= 80:
        assert f"and {hidden} more at work" in lines[-1]


def test_what_devices_say_neither_moves_the_cursor_nor_is_markup() -> None:
    told = Told([["a"]])
    told.start("a")
    told.say("a", StepDue(Step.BUILD, "trtexec"))
    told.say("a", BuildRuns(1, "\x1b[2J[bold red]evil[/] \x07\r"))
    drawn = told.picture(120, 24)
    assert "\x1b" not in drawn
    assert "[bold red]evil[/]" in drawn
    told.journal(Kind.PUSH_FAILED, "a", fault=Fault(code="build", what="\x1b[2J[red]x[/]\nline 2"))
    assert "\x1b" not in told.heard[-1]
    assert "\n" not in told.heard[-1]
    assert r"\[red]x\[/]" in told.heard[-1]


def test_the_head_says_how_it_stands_at_each_turn() -> None:
    told = Told([["a"], ["b", "c"]], Policy(soak_ms=90_000, pause_after=frozenset({0})))

    def head() -> str:
        console = Console(file=io.StringIO(), width=200, no_color=True)
        for line in head_lines(told.board, now_ms=told.now_ms):
            console.print(line)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    assert "net-1  begins" in head()
    told.start("a")
    assert "wave 1 of 2, 0 of 1 done" in head()
    assert "1 at work, 2 pending" in head()
    assert "at work  1 pushing" in head()
    told.journal(Kind.PUSH_ACTIVATED, "a", release="r1")
    told.journal(Kind.WAVE_PASSED, wave=0)
    assert "wave 1 of 2 has passed, soaking for 1m 30s more" in head()
    told.now_ms += 90_000
    told.journal(Kind.WAVE_HELD, wave=0)
    assert "held after wave 1 of 2: edgecal rollout promote net-1" in head()
    told.journal(Kind.PROMOTED, why="ann@desk")
    assert "promoted[/] by ann@desk" in told.heard[-1]
    told.start("b", "c", wave=1)
    told.journal(Kind.PUSH_FAILED, "b", fault=BAD)
    assert "1 of 1 reached failed (limit 10%,8), 0 succeeded (needs 90%)" in head()
    told.journal(Kind.HALTED, why="bob@desk")
    assert "halted in wave 2 of 2" in head()
    assert "1 active, 1 failed" in head()


def test_every_kind_of_event_has_its_line() -> None:
    told = Told([["a", "b"]], Policy(in_flight=2))
    for kind in Kind:
        event = Event(kind=kind, at_ms=0, target="a", wave=0, until_ms=5000, why="x", fault=BAD)
        assert event_line(event, told.rollout), kind


def test_devices_that_are_not_fine_are_named_with_what_to_do() -> None:
    told = Told([["a", "b", "c", "d"]], Policy(in_flight=4))
    told.start("a", "b", "c", "d")
    told.journal(Kind.PUSH_UNREACHED, "b", fault=GONE)
    told.journal(Kind.PUSH_DEFERRED, "c", fault=GONE, until_ms=told.now_ms + 9000)
    told.journal(Kind.PUSH_FAILED, "a", fault=BAD)
    told.journal(Kind.PUSH_ACTIVATED, "d", release="r")
    found = troubled(told.rollout)
    assert [name for name, _ in found] == ["a", "b", "c"]
    assert [remedy(device, target=name) for name, device in found] == [
        "read the log",
        "plug it in",
        "plug it in",
    ]
    assert way_on(told.rollout) == "edgecal rollout retry net-1 --failed --unreached"
    assert "next try in 9s" in told.heard[-3]


def test_times_are_written_for_people() -> None:
    assert [clock_text(one) for one in (0, 14.4, 65, 3600, 7325)] == [
        "0:00",
        "0:14",
        "1:05",
        "1:00:00",
        "2:02:05",
    ]
    assert [wait_text(one) for one in (1, 61_000, 600_000, 3_600_000, 86_400_000)] == [
        "1s",
        "1m 1s",
        "10m",
        "1h",
        "1d",
    ]


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        ((Kind.PUSH_ACTIVATED, Kind.PUSH_KEPT), 0),
        ((Kind.PUSH_ACTIVATED, Kind.PUSH_REFUSED), 3),
        ((Kind.PUSH_REFUSED, Kind.PUSH_FAILED), 4),
        ((Kind.PUSH_ACTIVATED, Kind.PUSH_UNREACHED), 4),
    ],
)
def test_the_exit_code_says_whether_every_device_runs_it(ends: tuple[Kind, ...], code: int) -> None:
    told = Told([["a", "b"]], Policy(passing=Condition(minimum=1, percent=0)))
    told.start("a", "b")
    assert end_code(told.rollout) == 5
    for name, kind in zip("ab", ends, strict=True):
        told.journal(kind, name, fault=BAD)
    told.journal(Kind.WAVE_PASSED, wave=0)
    told.journal(Kind.FINISHED)
    assert end_code(told.rollout) == code
    told.journal(Kind.HALTED)
    assert end_code(told.rollout) == 5
