"""What people wish of a rollout from any shell: written to its journal, where its driver reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgecal.core.rollout.events import Event, Kind
from edgecal.core.rollout.machine import advance, replay
from edgecal.core.rollout.state import DevicePhase, Phase
from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection

    from edgecal.core.rollout.state import Rollout
    from edgecal.ports import Journal

FAILED: Final = (DevicePhase.FAILED, DevicePhase.ROLLBACK_FAILED)
UNREACHED: Final = (DevicePhase.UNREACHABLE,)
ROLLED_BACK: Final = (DevicePhase.ROLLED_BACK,)


def look(journal: Journal, rollout: str) -> tuple[Rollout, int]:
    """Read how a rollout stands, and how many entries say so.

    Raises
    ------
    InputError
        If there is no such rollout, or its journal was changed.
    """
    events = journal.read(rollout)
    return replay(events, source=f"rollout {rollout}"), len(events)


def wish(journal: Journal, rollout: str, kind: Kind, *, who: str, now_ms: int) -> Rollout:
    """Write a wish down, and give the rollout with it.

    Raises
    ------
    InputError
        If it comes too late.
    """
    while True:
        standing, entries = look(journal, rollout)
        event = Event(kind=kind, at_ms=now_ms, why=who)
        wished = advance(standing, event)
        if journal.append(rollout, event, after=entries):
            return wished


def retry(
    journal: Journal, rollout: str, phases: Collection[DevicePhase], *, who: str, now_ms: int
) -> tuple[Rollout, tuple[str, ...]]:
    """Have devices in these phases tried again, and the rollout run on; says which.

    A retry that was cut short is completed by the next one: nothing is tried before its last entry.

    Raises
    ------
    InputError
        If there is none, or the rollout was halted for good.
    """
    names: list[str] = []
    standing, entries = look(journal, rollout)
    while True:
        due = [name for phase in phases for name in standing.in_phase(phase)]
        if not due and not names and not _is_requeued(standing):
            raise InputError(
                "no device is there to be tried again",
                where=f"rollout {rollout}",
                remedy="see who stands where: 'edgecal rollout status'",
            )
        event = Event(kind=Kind.RETRIED, at_ms=now_ms, why=who)
        if due:
            event = Event(kind=Kind.DEVICE_REQUEUED, at_ms=now_ms, target=due[0], why=who)
        wished = advance(standing, event)
        if not journal.append(rollout, event, after=entries):
            standing, entries = look(journal, rollout)
            continue
        if not due:
            return wished, tuple(names)
        names.append(due[0])
        standing, entries = wished, entries + 1


def _is_requeued(rollout: Rollout) -> bool:
    """Tell whether devices of a rollout that is over wait for their turn."""
    over = rollout.phase in {Phase.FAILED, Phase.FINISHED}
    return over and bool(rollout.in_phase(DevicePhase.PENDING, waves=rollout.wave + 1))
