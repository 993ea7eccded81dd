"""What a rollout tells programs while it is driven: lines of JSON, a command, figures.

Each listener makes texts of what happens and hands them to a sink, which may be slow or broken
without the rollout noticing: `edgecal.adapters.rollout_outputs` has such sinks.

**The lines.** Each is a JSON object with `"schema": "edgecal.rollout-line/1"`, the rollout's name
as `rollout`, and `kind`. For an entry of the journal that is the kind of the event, and the object
holds the event's own keys and the entry's number as `entry`, from 1. With `"kind": "progress"` it
tells how far a device has come, at most once a second for each: `target`, `at_ms`, `step`, the
`bytes_sent` to it since its task began, and where they are known `bytes_to_send` and the `seconds`
that the step has taken. Waves are counted from 1 as people do; `wave` also stands in what concerns
a device.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from edgecal.core.rollout.events import Kind, event_json
from edgecal.core.rollout.exposition import Sight, exposition
from edgecal.workflows.events import ActivationWaits, BuildRuns, Step, StepDue, TrialRuns
from edgecal.workflows.rollout.tasks import Begun, Journaled, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgecal.core.rollout.state import Rollout
    from edgecal.workflows.events import PushEvent
    from edgecal.workflows.rollout.tasks import Happening

SCHEMA: Final = "edgecal.rollout-line/1"
_EVERY_S: Final = 1.0
_BEGINS: Final = (Kind.PUSH_STARTED, Kind.ROLLBACK_STARTED)


class Listener(Protocol):
    """Hears everything that happens, in order, from one thread."""

    def hear(self, happening: Happening) -> None:
        """Take note, without holding anything up."""
        ...

    def close(self) -> None:
        """Tell what is left to tell; nothing more happens."""
        ...


class Listeners:
    """Several as one."""

    def __init__(self, several: Sequence[Listener]) -> None:
        self._several = several

    def hear(self, happening: Happening) -> None:
        """Tell each."""
        for one in self._several:
            one.hear(happening)

    def close(self) -> None:
        """End each."""
        for one in self._several:
            one.close()


class Sink(Protocol):
    """Takes texts, one after the other."""

    def put(self, text: str) -> None:
        """Take one, and come back at once."""
        ...

    def close(self) -> None:
        """Wait, within bounds, until all are dealt with."""
        ...


class CommandSink(Protocol):
    """Runs a command for each text."""

    def put(self, text: str, environment: Mapping[str, str]) -> None:
        """Take one, and come back at once."""
        ...

    def close(self) -> None:
        """Wait, within bounds, until all are dealt with."""
        ...


def entry_line(happening: Journaled) -> str:
    """Write an entry of the journal as a line of JSON, without its end."""
    document: dict[str, Any] = {
        **event_json(happening.event),
        "schema": SCHEMA,
        "rollout": happening.rollout.plan.rollout,
        "entry": happening.entry,
    }
    wave = _wave(happening)
    if wave is not None:
        document["wave"] = wave
    return json.dumps(document)


def _wave(happening: Journaled) -> int | None:
    """Count from 1, of a device the wave that it is in."""
    event = happening.event
    device = happening.rollout.devices.get(event.target)
    wave = event.wave if device is None else device.wave
    return wave + 1 if wave >= 0 else None


@dataclass(slots=True)
class _Course:
    """How far a device's task has come."""

    step: Step | None = None
    bytes_sent: int = 0
    bytes_to_send: int | None = None
    seconds: float | None = None
    told: float = float("-inf")
    news: bool = False

    def take(self, news: PushEvent | int) -> None:
        if isinstance(news, int):
            self.bytes_sent += news
        elif isinstance(news, StepDue):
            self.step, self.seconds = news.step, None
            if news.step is Step.SHIP and news.detail.isdecimal():
                self.bytes_to_send = int(news.detail)
        elif isinstance(news, BuildRuns | TrialRuns | ActivationWaits):
            self.seconds = news.seconds
        else:
            return
        self.news = True


class EventLines:
    """Writes a line of JSON for each entry, and now and then one for each device at work."""

    def __init__(
        self, sink: Sink, *, clock: Callable[[], float], now_ms: Callable[[], int]
    ) -> None:
        self._sink = sink
        self._clock = clock
        self._now_ms = now_ms
        self._rollout: Rollout | None = None
        self._courses: dict[str, _Course] = {}
        self._looked = float("-inf")

    def hear(self, happening: Happening) -> None:
        """Write it, or keep it for the second's line."""
        if isinstance(happening, Progress):
            self._courses.setdefault(happening.target, _Course()).take(happening.news)
            if self._clock() - self._looked >= _EVERY_S / 4:
                self._tell_due()
            return
        self._rollout = happening.rollout
        if isinstance(happening, Begun):
            return
        event = happening.event
        course = self._courses.pop(event.target, None)
        if course is not None and event.kind not in _BEGINS:  # what it came to, before the outcome
            self._tell(event.target, course)
        self._sink.put(entry_line(happening))

    def close(self) -> None:
        """Write what was kept, and end the sink."""
        for target, course in self._courses.items():
            self._tell(target, course)
        self._courses.clear()
        self._sink.close()

    def _tell_due(self) -> None:
        self._looked = self._clock()
        for target, course in self._courses.items():
            if self._looked - course.told >= _EVERY_S:
                self._tell(target, course)

    def _tell(self, target: str, course: _Course) -> None:
        if not course.news or self._rollout is None:
            return
        course.news, course.told = False, self._clock()
        device = self._rollout.devices.get(target)
        document = {
            "schema": SCHEMA,
            "rollout": self._rollout.plan.rollout,
            "kind": "progress",
            "at_ms": self._now_ms(),
            "target": target,
            "wave": None if device is None else device.wave + 1,
            "step": course.step and course.step.value,
            "bytes_sent": course.bytes_sent,
            "bytes_to_send": course.bytes_to_send,
            "seconds": course.seconds,
        }
        self._sink.put(json.dumps({k: v for k, v in document.items() if v is not None}))


class Hook:
    """Runs a command for each entry, with its line of JSON as standard input.

    In its environment are `EDGECAL_ROLLOUT`, `EDGECAL_EVENT` (the kind), and `EDGECAL_TARGET` and
    `EDGECAL_WAVE`, which are empty where there is none.
    """

    def __init__(self, sink: CommandSink) -> None:
        self._sink = sink

    def hear(self, happening: Happening) -> None:
        """Have the command run, if it is an entry."""
        if isinstance(happening, Journaled):
            environment = {
                "EDGECAL_ROLLOUT": happening.rollout.plan.rollout,
                "EDGECAL_EVENT": happening.event.kind.value,
                "EDGECAL_TARGET": happening.event.target,
                "EDGECAL_WAVE": str(_wave(happening) or ""),
            }
            self._sink.put(f"{entry_line(happening)}\n", environment)

    def close(self) -> None:
        """Wait for what is still to be run."""
        self._sink.close()


class Metrics:
    """Keeps figures for Prometheus, anew at most once a second, and at the end."""

    def __init__(self, sink: Sink, *, clock: Callable[[], float]) -> None:
        self._sink = sink
        self._clock = clock
        self._told = float("-inf")
        self._rollout: Rollout | None = None
        self._entries = 0
        self._event_ms: int | None = None
        self._bytes_sent = 0

    def hear(self, happening: Happening) -> None:
        """Count it; write if it is time to."""
        if isinstance(happening, Progress):
            self._bytes_sent += happening.news if isinstance(happening.news, int) else 0
        else:
            self._rollout, self._entries = happening.rollout, happening.entry
            if isinstance(happening, Journaled):
                self._event_ms = happening.event.at_ms
        if self._clock() - self._told >= _EVERY_S:
            self._tell()

    def close(self) -> None:
        """Write how it ended."""
        self._tell()
        self._sink.close()

    def _tell(self) -> None:
        if self._rollout is not None:
            self._told = self._clock()
            sight = Sight(
                rollout=self._rollout,
                entries=self._entries,
                event_ms=self._event_ms,
                bytes_sent=self._bytes_sent,
            )
            self._sink.put(exposition(sight))
