"""What programs hear of a rollout: lines of JSON, the words for a command, figures."""

from __future__ import annotations

import doctest
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.rollout import exposition as figures
from edgecal.core.rollout.counts import counts
from edgecal.core.rollout.events import Event, Kind, event_json, parse_event
from edgecal.core.rollout.exposition import Sight, exposition
from edgecal.core.rollout.machine import advance
from edgecal.core.rollout.state import DevicePhase, Fault, Plan, Policy, Rollout, begin
from edgecal.errors import InputError
from edgecal.workflows.events import BuildRuns, CacheShipped, Step, StepDue
from edgecal.workflows.rollout.listeners import (
    SCHEMA,
    EventLines,
    Hook,
    Listeners,
    Metrics,
)
from edgecal.workflows.rollout.tasks import Begun, Journaled, Progress

if TYPE_CHECKING:
    from collections.abc import Mapping

T0 = 1_700_000_000_000


def make_plan(
    name: str = "spring", waves: tuple[tuple[str, ...], ...] = (("a",), ("b", "c"))
) -> Plan:
    return Plan(
        rollout=name,
        bundles=("sha256:ab", "sha256:cd"),
        waves=waves,
        refused={"z": ("tensorrt-version",)},
        policy=Policy(),
    )


EVENTS = (
    Event(kind=Kind.WAVE_STARTED, at_ms=T0 + 1, wave=0),
    Event(kind=Kind.PUSH_STARTED, at_ms=T0 + 2, target="a"),
    Event(
        kind=Kind.PUSH_FAILED,
        at_ms=T0 + 3,
        target="a",
        fault=Fault(code="build", what='said "no\\"\n'),
    ),
)


def happen(plan: Plan | None = None) -> list[Journaled]:
    """Begin a rollout and fail its first device."""
    plan = plan or make_plan()
    rollout = begin(plan)
    happened = [Journaled(Event(kind=Kind.PLANNED, at_ms=T0, plan=plan), rollout, 1)]
    for entry, event in enumerate(EVENTS, start=2):
        rollout = advance(rollout, event)
        happened.append(Journaled(event, rollout, entry))
    return happened


@dataclass
class Texts:
    """A sink that keeps what it gets."""

    texts: list[str] = field(default_factory=list)
    environments: list[Mapping[str, str]] = field(default_factory=list)
    closed: bool = False

    def put(self, text: str, environment: Mapping[str, str] | None = None) -> None:
        assert not self.closed
        self.texts.append(text)
        if environment is not None:
            self.environments.append(environment)

    def close(self) -> None:
        self.closed = True

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.texts]


@dataclass
class Clock:
    """A clock that stands until it is moved."""

    now: float = 50.0

    def __call__(self) -> float:
        return self.now


def make_lines() -> tuple[EventLines, Texts, Clock]:
    texts, clock = Texts(), Clock()
    return EventLines(texts, clock=clock, now_ms=lambda: T0 + int(clock.now)), texts, clock


# lines


def test_an_entry_is_one_line_with_the_events_own_keys() -> None:
    lines, texts, _ = make_lines()
    happened = happen()
    for one in happened:
        lines.hear(one)
    lines.close()
    assert texts.closed
    assert all("\n" not in text for text in texts.texts)
    for one, document in zip(happened, texts.documents, strict=True):
        assert document.pop("schema") == SCHEMA
        assert document.pop("rollout") == "spring"
        assert document.pop("entry") == one.entry
        own = event_json(one.event)
        del own["schema"]
        assert {**document, "wave": 0} == {**own, "wave": 0}
    assert [one.get("wave") for one in texts.documents] == [None, 1, 1, 1]


def test_a_line_is_not_taken_for_an_entry_of_the_journal() -> None:
    lines, texts, _ = make_lines()
    lines.hear(happen()[1])
    with pytest.raises(InputError, match=r"edgecal\.rollout-event/1"):
        parse_event(texts.texts[0], source="line")


def test_progress_is_one_line_a_device_and_second() -> None:
    lines, texts, clock = make_lines()
    lines.hear(Begun(happen()[-1].rollout, 4))
    for tenth in range(50):
        clock.now = 50 + tenth / 10
        for name in ("b", "c"):
            lines.hear(Progress(name, 100))
    told = [one for one in texts.documents if one["target"] == "b"]
    assert 4 <= len(told) <= 5
    assert {(one["kind"], one["wave"]) for one in told} == {("progress", 2)}
    lines.close()
    last = [one for one in texts.documents if one["target"] == "b"][-1]
    assert last["bytes_sent"] == 5000


def test_progress_says_the_step_and_what_is_known_of_it() -> None:
    lines, texts, clock = make_lines()
    lines.hear(happen()[2])
    del texts.texts[:]
    lines.hear(Progress("a", StepDue(Step.SHIP, "4096")))
    lines.hear(Progress("a", 1024))
    clock.now += 1
    lines.hear(Progress("a", 1024))
    lines.hear(Progress("a", CacheShipped(4096, 0)))
    clock.now += 1
    lines.hear(Progress("a", StepDue(Step.BUILD, "trtexec")))
    clock.now += 1
    lines.hear(Progress("a", BuildRuns(12.5, "log")))
    rows = [
        {key: one.get(key) for key in ("step", "bytes_sent", "seconds")} for one in texts.documents
    ]
    assert rows == [
        {"step": "ship", "bytes_sent": 0, "seconds": None},
        {"step": "ship", "bytes_sent": 2048, "seconds": None},
        {"step": "build", "bytes_sent": 2048, "seconds": None},
        {"step": "build", "bytes_sent": 2048, "seconds": 12.5},
    ]
    assert {one["bytes_to_send"] for one in texts.documents} == {4096}


def test_what_a_device_came_to_is_told_before_its_outcome_and_once() -> None:
    lines, texts, clock = make_lines()
    _, _, started, failed = happen()
    lines.hear(started)
    lines.hear(Progress("a", 10))
    lines.hear(Progress("a", 20))
    lines.hear(failed)
    assert [one["kind"] for one in texts.documents] == [
        "push-started",
        "progress",
        "progress",
        "push-failed",
    ]
    assert texts.documents[-2]["bytes_sent"] == 30
    clock.now += 1
    lines.hear(started)  # tried again: counts anew
    lines.hear(Progress("a", 1))
    assert texts.documents[-1]["bytes_sent"] == 1
    lines.close()
    assert texts.documents[-1]["bytes_sent"] == 1


def test_progress_of_a_rollout_that_nobody_named_is_not_told() -> None:
    lines, texts, _ = make_lines()
    lines.hear(Progress("a", 10))
    lines.close()
    assert texts.texts == []


# the command


def test_the_command_hears_of_entries_alone() -> None:
    texts = Texts()
    hook = Hook(texts)
    happened = happen()
    hook.hear(Begun(happened[0].rollout, 1))
    hook.hear(Progress("a", 10))
    for one in happened[1:]:
        hook.hear(one)
    hook.close()
    assert texts.closed
    assert [document["kind"] for document in texts.documents] == [
        "wave-started",
        "push-started",
        "push-failed",
    ]
    assert texts.environments[0] == {
        "EDGECAL_ROLLOUT": "spring",
        "EDGECAL_EVENT": "wave-started",
        "EDGECAL_TARGET": "",
        "EDGECAL_WAVE": "1",
    }
    assert texts.environments[2]["EDGECAL_TARGET"] == "a"


# figures

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\\\|\\"|\\n)*"'
_SAMPLE = re.compile(rf"({_NAME})\{{({_LABEL}(?:,{_LABEL})*)\}} (-?[0-9]+(?:\.[0-9]+)?)")
_HELP = re.compile(rf"# HELP ({_NAME}) [^\n\\]+")
_TYPE = re.compile(rf"# TYPE ({_NAME}) (gauge|counter)")


def read(text: str) -> dict[tuple[str, str], float]:
    """Read figures by the grammar of the text format: HELP, TYPE, then that family's samples."""
    assert text.endswith("\n")
    found: dict[tuple[str, str], float] = {}
    family, typed = "", ""
    families = set()
    for line in text.removesuffix("\n").split("\n"):
        if line.startswith("# HELP"):
            match = _HELP.fullmatch(line)
            assert match, line
            family = match[1]
            assert family not in families, "a family stands in two places"
            families.add(family)
        elif line.startswith("#"):
            match = _TYPE.fullmatch(line)
            assert match, line
            assert match[1] == family
            assert (match[2] == "counter") == family.endswith("_total")
            typed = family
        else:
            match = _SAMPLE.fullmatch(line)
            assert match, line
            assert match[1] == family == typed
            assert (family, match[2]) not in found, "a sample stands there twice"
            found[family, match[2]] = float(match[3])
    return found


def test_the_figures_say_how_the_rollout_stands() -> None:
    last = happen()[-1]
    found = read(exposition(Sight(rollout=last.rollout, entries=4, event_ms=T0 + 3, bytes_sent=77)))
    of = 'rollout="spring"'
    assert found["edgecal_rollout_devices", f'{of},wave="1",phase="failed"'] == 1
    assert found["edgecal_rollout_devices", f'{of},wave="1",phase="pending"'] == 0
    assert found["edgecal_rollout_devices", f'{of},wave="2",phase="pending"'] == 2
    assert found["edgecal_rollout_devices", f'{of},wave="0",phase="refused"'] == 1
    assert found["edgecal_rollout_phase", f'{of},phase="running"'] == 1
    assert sum(value for (name, _), value in found.items() if name.endswith("_phase")) == 1
    assert found["edgecal_rollout_wave", of] == 1
    assert found["edgecal_rollout_sent_bytes_total", of] == 77
    assert found["edgecal_rollout_journal_entries", of] == 4
    assert found["edgecal_rollout_last_event_timestamp_seconds", of] == (T0 + 3) / 1000
    assert found["edgecal_rollout_info", f'{of},bundle="sha256:ab"'] == 1


@given(st.text(max_size=30), st.integers(1, 5), st.one_of(st.none(), st.integers(0, 1 << 45)))
def test_any_name_gives_figures_that_can_be_read(name: str, waves: int, at_ms: int | None) -> None:
    rollout: Rollout = begin(make_plan(name, tuple((f"t{n}",) for n in range(waves))))
    found = read(exposition(Sight(rollout=rollout, entries=1, event_ms=at_ms)))
    devices = {key: value for (family, key), value in found.items() if family.endswith("devices")}
    assert sum(devices.values()) == sum(counts(rollout).values()) == waves + 1
    assert len(devices) == waves * len(DevicePhase) + 1


def test_figures_are_written_once_a_second_and_at_the_end() -> None:
    texts, clock = Texts(), Clock()
    metrics = Metrics(texts, clock=clock)
    metrics.hear(Progress("a", 1))
    assert texts.texts == []
    rollout = happen()[-1].rollout
    metrics.hear(Begun(rollout, 4))
    for _ in range(10):
        clock.now += 0.2
        metrics.hear(Progress("b", 10))
    assert len(texts.texts) == 3
    metrics.hear(Journaled(EVENTS[-1], rollout, 5))
    metrics.close()
    assert texts.closed
    found = read(texts.texts[-1])
    assert found["edgecal_rollout_sent_bytes_total", 'rollout="spring"'] == 101
    assert found["edgecal_rollout_journal_entries", 'rollout="spring"'] == 5


def test_several_listeners_hear_the_same() -> None:
    lines, texts, clock = make_lines()
    others = Texts()
    several = Listeners([lines, Metrics(others, clock=clock), Hook(Texts())])
    for one in happen():
        several.hear(one)
    several.close()
    assert len(texts.texts) == 4
    assert others.closed


def test_the_examples_in_the_documentation_are_true() -> None:
    found = doctest.testmod(figures)
    assert found.attempted
    assert not found.failed
