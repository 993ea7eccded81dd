"""Devices that are not fine: which those are, and what a person can do about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgecal.core.rollout.state import DevicePhase, Phase

if TYPE_CHECKING:
    from edgecal.core.rollout.state import Device, Rollout

TROUBLED: Final = (
    DevicePhase.FAILED,
    DevicePhase.ROLLBACK_FAILED,
    DevicePhase.UNREACHABLE,
    DevicePhase.REFUSED,
    DevicePhase.ROLLED_BACK,
    DevicePhase.WAITING,
)
"""Where a device does not belong, worst first."""
_UNREACHED: Final = frozenset({DevicePhase.UNREACHABLE})
_FAILED: Final = frozenset(
    {DevicePhase.FAILED, DevicePhase.ROLLED_BACK, DevicePhase.ROLLBACK_FAILED}
)


def troubled(rollout: Rollout) -> tuple[tuple[str, Device], ...]:
    """Name the devices that are not fine, worst first."""
    return tuple(
        (name, rollout.devices[name]) for phase in TROUBLED for name in rollout.in_phase(phase)
    )


def remedy(device: Device, *, target: str) -> str:
    """Say what can be done about one device before it is tried again; nothing if nobody knows."""
    if device.phase is DevicePhase.ROLLBACK_FAILED:
        return f"it may still run the new release: 'edgecal status --target {target}'"
    return device.fault.remedy if device.fault else ""


def way_on(rollout: Rollout) -> str:
    """Name the command that has devices tried again; nothing where none can be, or need be."""
    options = [
        option
        for option, phases in (("--failed", _FAILED), ("--unreached", _UNREACHED))
        if any(rollout.in_phase(phase) for phase in phases)
    ]
    if not options or rollout.phase is Phase.HALTED:
        return ""
    return f"edgecal rollout retry {rollout.plan.rollout} {' '.join(options)}"
