"""What a rollout looks like at a moment, as values: who is at work, how far, how fast."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from edgecal.core.rollout.events import Kind
from edgecal.workflows.events import (
    ActivationWaits,
    BuildRuns,
    CacheReheaded,
    CacheShipped,
    EngineBuilt,
    Step,
    StepDue,
    TargetProbed,
    TrialRuns,
)
from edgecal.workflows.rollout.tasks import Begun, Journaled

if TYPE_CHECKING:
    from edgecal.core.rollout.events import Event
    from edgecal.core.rollout.state import Fault, Rollout
    from edgecal.workflows.events import PushEvent
    from edgecal.workflows.rollout.tasks import Happening

_STEPS: Final = {
    Step.CONNECT: "connecting",
    Step.SHIP: "shipping",
    Step.SIGNATURE: "signature",
    Step.BUILD: "building",
    Step.VERIFY: "verifying",
    Step.ACTIVATE: "activating",
}
_WINDOW_MS: Final = 10_000
"""The rate is that of so long a while."""
_SAMPLE_MS: Final = 250
"""No closer are the moments that rates are made of."""
_SOONEST_MS: Final = 500
"""Before that, a rate is a guess."""
_LINGER_MS: Final = 6_000
"""A device that has ended is shown for so long; one that went wrong is shown longer."""
_LINGER_BAD_MS: Final = 30_000
_REMEMBERED: Final = 200
"""So many ended devices are kept: more than a screen has lines."""

ENDED: Final = {
    Kind.PUSH_ACTIVATED: "active",
    Kind.PUSH_KEPT: "active as before",
    Kind.PUSH_FAILED: "failed",
    Kind.PUSH_REFUSED: "refused",
    Kind.PUSH_UNREACHED: "unreachable",
    Kind.PUSH_DEFERRED: "waiting",
    Kind.PUSH_STOPPED: "stopped",
    Kind.ROLLBACK_DONE: "rolled back",
    Kind.ROLLBACK_FAILED: "rollback failed",
    Kind.ROLLBACK_DEFERRED: "waiting",
    Kind.ROLLBACK_STOPPED: "stopped",
}
_GOOD: Final = {"active", "active as before", "rolled back"}
_BEGUN: Final = {Kind.PUSH_STARTED: "pushing", Kind.ROLLBACK_STARTED: "rolling back"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One device for one moment."""

    wave: int
    """From 1."""
    target: str
    step: str
    seconds: float
    """Since the step began, or since the device's work ended."""
    sent: int = 0
    total: int = 0
    """Bytes; 0 while nobody knows."""
    rate: float | None = None
    """Bytes a second."""
    eta_s: float | None = None
    """Until everything is sent."""
    note: str = ""
    """As the device or the error says it: not yet fit for a terminal."""
    ended: bool = False
    good: bool = False
    again_s: float = 0.0
    """Until it is tried again, if it waits for that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """As many rows as there is room for, and how many devices at work have none."""

    rows: tuple[Row, ...]
    hidden: int


@dataclass(slots=True, kw_only=True)
class _Work:
    step: str
    since_ms: int
    sent: int = 0
    total: int = 0
    note: str = ""
    samples: deque[tuple[int, int]] = field(default_factory=deque)
    """Moments, and the bytes sent until then; none older than the window but the last such."""

    def count(self, sent: int, now_ms: int) -> None:
        if not self.samples:
            self.samples.append((self.since_ms, self.sent))
        self.sent += sent
        if len(self.samples) > 1 and now_ms - self.samples[-2][0] < _SAMPLE_MS:
            self.samples.pop()
        self.samples.append((now_ms, self.sent))
        while len(self.samples) > 2 and self.samples[1][0] <= now_ms - _WINDOW_MS:
            self.samples.popleft()

    def rate(self, now_ms: int) -> float | None:
        """Say how fast it has been lately; a transfer that stands still is slower each moment."""
        if self.step != _STEPS[Step.SHIP] or not self.samples:
            return None
        begun = max(
            (sample for sample in self.samples if sample[0] <= now_ms - _WINDOW_MS),
            default=self.samples[0],
        )
        elapsed = now_ms - begun[0]
        return None if elapsed < _SOONEST_MS else 1000 * (self.sent - begun[1]) / elapsed


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    target: str
    wave: int
    at_ms: int
    step: str
    sent: int
    note: str
    until_ms: int
    """When it is tried again; 0 if it is not."""

    def shows(self, now_ms: int) -> bool:
        linger = _LINGER_MS if self.step in _GOOD else _LINGER_BAD_MS
        return now_ms - self.at_ms < linger or now_ms < self.until_ms


class Board:
    """Hears what happens in a rollout, and says how it stands. Times are milliseconds since 1970.

    It knows a device's steps only where the work is done by this process, or told to it: whoever
    looks on from another shell sees what stands in the journal.
    """

    def __init__(self, rollout: Rollout) -> None:
        self._ends: dict[str, _End] = {}
        self.bytes_sent = 0
        """To all devices, as far as this board was told."""
        self._begin(rollout)

    def _begin(self, rollout: Rollout) -> None:
        """Take a rollout as it stands; what was under way is to be asked of the devices."""
        self.rollout = rollout
        self._works = {
            name: _Work(step="under way", since_ms=rollout.devices[name].first_ms)
            for name in rollout.busy()
        }

    def hear(self, happening: Happening, *, now_ms: int) -> None:
        """Take in what happened."""
        if isinstance(happening, Begun):
            self._begin(happening.rollout)
            return
        if isinstance(happening, Journaled):
            self.rollout = happening.rollout
            self._turn(happening.event)
            return
        work = self._works.get(happening.target)
        if work is None:  # the last words of one that has ended
            return
        if isinstance(happening.news, int):
            self.bytes_sent += happening.news
            work.count(happening.news, now_ms)
        else:
            _follow(work, happening.news, now_ms)

    def steps(self) -> dict[str, int]:
        """Count the devices at work by what they do."""
        return dict(Counter(work.step for work in self._works.values()))

    def rate(self, now_ms: int) -> float:
        """Add up how fast bytes go out."""
        return sum(work.rate(now_ms) or 0.0 for work in self._works.values())

    def rows(self, *, now_ms: int, room: int) -> Rows:
        """Say who is at work, in the order of beginning, and who ended lately, latest first."""
        working = [self._row(name, work, now_ms) for name, work in self._works.items()]
        working.sort(key=lambda row: row.wave)
        shown = working[:room]
        ended = [
            Row(
                wave=end.wave + 1,
                target=end.target,
                step=end.step,
                seconds=(now_ms - end.at_ms) / 1000,
                again_s=max(0.0, (end.until_ms - now_ms) / 1000),
                sent=end.sent,
                note=end.note,
                ended=True,
                good=end.step in _GOOD,
            )
            for end in reversed(self._ends.values())
            if end.shows(now_ms)
        ]
        return Rows(rows=(*shown, *ended[: room - len(shown)]), hidden=len(working) - len(shown))

    def _turn(self, event: Event) -> None:
        name = event.target
        if event.kind in _BEGUN:
            self._ends.pop(name, None)
            self._works[name] = _Work(step=_BEGUN[event.kind], since_ms=event.at_ms)
        elif event.kind in ENDED:
            work = self._works.pop(name, None)
            self._ends.pop(name, None)
            self._ends[name] = _End(
                target=name,
                wave=self.rollout.devices[name].wave,
                at_ms=event.at_ms,
                step=ENDED[event.kind],
                sent=work.sent if work else 0,
                note=_reason(event.fault),
                until_ms=event.until_ms,
            )
            if len(self._ends) > _REMEMBERED:
                del self._ends[next(iter(self._ends))]

    def _row(self, name: str, work: _Work, now_ms: int) -> Row:
        rate = work.rate(now_ms)
        left = work.total - work.sent
        return Row(
            wave=self.rollout.devices[name].wave + 1,
            target=name,
            step=work.step,
            seconds=max(0.0, (now_ms - work.since_ms) / 1000),
            sent=work.sent,
            total=work.total,
            rate=rate,
            eta_s=left / rate if rate and left > 0 else None,
            note=work.note,
        )


def _reason(fault: Fault | None) -> str:
    return "" if fault is None else fault.what


def _follow(work: _Work, news: PushEvent, now_ms: int) -> None:
    """Note what a device's push says."""
    if isinstance(news, StepDue):
        work.step, work.since_ms, work.note = _STEPS[news.step], now_ms, ""
        if news.step is Step.SHIP:
            work.total, work.sent = int(news.detail), 0
            work.samples.clear()
        return
    if isinstance(news, CacheShipped):
        work.sent = work.total
    elif isinstance(news, TrialRuns):
        work.step = "health check"
    work.note = _note(news, work.note)


def _note(news: PushEvent, before: str) -> str:
    """Say in a few words what a device is about; `before` where that is nothing new."""
    said = before
    match news:
        case BuildRuns(_, log):
            lines = [line.strip() for line in log.splitlines() if line.strip()]
            said = lines[-1].removeprefix("edgecal: ") if lines else before
        case ActivationWaits():
            said = "an application there holds 'not-now'"
        case TrialRuns(_, soak_s):
            said = f"for {soak_s} s"
        case TargetProbed(facts):
            said = f"TensorRT {facts.tensorrt}" if facts.tensorrt else ""
        case CacheReheaded(builder):
            said = f"once more, with a copy of the cache headed for {builder.tensorrt}"
        case EngineBuilt(_, _, seconds):
            said = f"built in {seconds:.0f} s"
    return said
