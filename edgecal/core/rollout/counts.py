"""How many devices stand where, for reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecal.core.rollout.state import DevicePhase

if TYPE_CHECKING:
    from edgecal.core.rollout.state import Rollout


def counts(rollout: Rollout) -> dict[str, int]:
    """Count every phase; those refused by the plan and those refused later are one number."""
    waves = range(len(rollout.plan.waves))
    found = {
        phase.value: sum(rollout.count(wave, phase) for wave in waves) for phase in DevicePhase
    }
    found[DevicePhase.REFUSED.value] += len(rollout.plan.refused)
    return found


def wave_counts(rollout: Rollout, wave: int) -> dict[str, int]:
    """Count the phases of one wave's devices."""
    return {phase.value: rollout.count(wave, phase) for phase in DevicePhase}
