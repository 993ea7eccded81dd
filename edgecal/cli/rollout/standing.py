"""How a rollout stands by its journal: what was written of it, why it stopped, who drives it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edgecal.cli.rollout.documents import rollout_document
from edgecal.core.rollout.events import Kind
from edgecal.core.rollout.machine import replay
from edgecal.core.rollout.state import DevicePhase, Phase
from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgecal.core.project import Project
    from edgecal.core.rollout.events import Event
    from edgecal.core.rollout.state import Rollout
    from edgecal.ports import Journal, JournalRow

OVER: Final = frozenset({Phase.FINISHED, Phase.FAILED, Phase.HALTED})
PAUSED: Final = frozenset({Phase.PAUSED, Phase.PAUSED_ROLLING_BACK})
_REASONS: Final = frozenset({Kind.WAVE_FAILED, Kind.WAVE_REVERTED, Kind.HALTED, Kind.PAUSED})
_MISSED: Final = (
    DevicePhase.FAILED,
    DevicePhase.UNREACHABLE,
    DevicePhase.ROLLED_BACK,
    DevicePhase.ROLLBACK_FAILED,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A rollout as its journal has it."""

    rollout: Rollout
    entries: int
    row: JournalRow
    reason: str
    """Why it does not go on: which gate has tripped, or who wished so; empty if it does."""

    def document(self) -> dict[str, Any]:
        """Spell it as JSON."""
        return {
            **rollout_document(self.rollout, entries=self.entries),
            "reason": self.reason or None,
            "driver": self.row.driver or None,
            "digest": self.row.digest,
        }


def find_row(journal: Journal, name: str | None) -> JournalRow:
    """Find a rollout in the journal; without a name the latest.

    Raises
    ------
    InputError
        If there is none.
    """
    rows = journal.rollouts()
    found = next((row for row in rows if name in {None, row.rollout}), None)
    if found is None:
        raise InputError(
            f"there is no rollout {name!r:.80}" if name else "there is no rollout yet",
            where="journal",
            remedy="run 'edgecal rollout list' for those there are, with --journal if they lie "
            "elsewhere"
            if name
            else "begin one: 'edgecal rollout start BUNDLE --on EXPR'",
        )
    return found


def stand(journal: Journal, name: str | None) -> Standing:
    """Read how a rollout stands; without a name the latest.

    Raises
    ------
    InputError
        If there is none, or its journal was changed.
    """
    row = find_row(journal, name)
    events = journal.read(row.rollout)
    rollout = replay(events, source=f"rollout {row.rollout}")
    reason = "" if rollout.phase not in OVER | PAUSED else _reason(events)
    return Standing(rollout=rollout, entries=len(events), row=row, reason=reason)


def _reason(events: Sequence[Event]) -> str:
    for event in reversed(events):
        if event.kind in _REASONS:
            by = "by " if event.kind in {Kind.HALTED, Kind.PAUSED} else ""
            return f"{by}{event.why}" if event.why else ""
        if event.kind is Kind.FINISHED:
            return ""
    return ""


def end_code(rollout: Rollout) -> int:
    """Give the exit code that the end of a rollout calls for.

    5 if it did not finish; else 4 if devices of its waves failed or were not reached, 3 if only
    refusals kept some from it, and 0. Those that the plan refused never count.
    """
    if rollout.phase is not Phase.FINISHED:
        return 5
    if any(rollout.in_phase(phase) for phase in _MISSED):
        return 4
    return 3 if rollout.in_phase(DevicePhase.REFUSED) else 0


def journal_url(said: str | None, project: Project) -> str:
    """Say which database: the command's, else the project's, else the user's own."""
    return said or project.rollout.journal or ""
