"""The one table of what may follow what, and the step it allows: a rollout and an event, a rollout.

Replaying a journal is nothing but `advance` over its events. What the tables lack raises: it is a
wish that came too late, or a journal that nobody wrote like this.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from edgecal.core.rollout.events import Event, Kind
from edgecal.core.rollout.retries import BROKEN_OFF
from edgecal.core.rollout.state import Device, DevicePhase, Members, Phase, Rollout, begin
from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_OUTCOMES: Final = (
    Kind.PUSH_ACTIVATED,
    Kind.PUSH_KEPT,
    Kind.PUSH_FAILED,
    Kind.PUSH_REFUSED,
    Kind.PUSH_UNREACHED,
    Kind.PUSH_DEFERRED,
    Kind.PUSH_STOPPED,
    Kind.ROLLBACK_DONE,
    Kind.ROLLBACK_FAILED,
    Kind.ROLLBACK_DEFERRED,
    Kind.ROLLBACK_STOPPED,
)
"""What became of work under way: told in every phase, for the devices did it already."""

TRANSITIONS: Final[Mapping[tuple[Phase, Kind], Phase]] = {
    # what starts work stands here once: no other phase starts any
    (Phase.RUNNING, Kind.PUSH_STARTED): Phase.RUNNING,
    (Phase.HELD, Kind.PUSH_STARTED): Phase.HELD,
    (Phase.ROLLING_BACK, Kind.ROLLBACK_STARTED): Phase.ROLLING_BACK,
    # waves
    (Phase.RUNNING, Kind.WAVE_STARTED): Phase.RUNNING,
    (Phase.RUNNING, Kind.WAVE_PASSED): Phase.RUNNING,
    (Phase.RUNNING, Kind.WAVE_HELD): Phase.HELD,
    (Phase.RUNNING, Kind.WAVE_FAILED): Phase.FAILED,
    (Phase.RUNNING, Kind.WAVE_REVERTED): Phase.ROLLING_BACK,
    (Phase.RUNNING, Kind.WAVE_EXCUSED): Phase.RUNNING,
    (Phase.RUNNING, Kind.FINISHED): Phase.FINISHED,
    (Phase.HELD, Kind.WAVE_FAILED): Phase.FAILED,  # an earlier wave's late devices
    (Phase.HELD, Kind.WAVE_REVERTED): Phase.ROLLING_BACK,
    (Phase.HELD, Kind.WAVE_EXCUSED): Phase.HELD,
    (Phase.ROLLING_BACK, Kind.ROLLBACK_ENDED): Phase.FAILED,
    # wishes
    (Phase.RUNNING, Kind.PAUSED): Phase.PAUSED,
    (Phase.HELD, Kind.PAUSED): Phase.PAUSED,
    (Phase.PAUSED, Kind.PAUSED): Phase.PAUSED,
    (Phase.ROLLING_BACK, Kind.PAUSED): Phase.PAUSED_ROLLING_BACK,
    (Phase.PAUSED_ROLLING_BACK, Kind.PAUSED): Phase.PAUSED_ROLLING_BACK,
    (Phase.PAUSED, Kind.RESUMED): Phase.RUNNING,  # held again at once if it was
    (Phase.PAUSED_ROLLING_BACK, Kind.RESUMED): Phase.ROLLING_BACK,
    (Phase.RUNNING, Kind.RESUMED): Phase.RUNNING,  # after the controller's end
    (Phase.HELD, Kind.RESUMED): Phase.HELD,
    (Phase.ROLLING_BACK, Kind.RESUMED): Phase.ROLLING_BACK,
    (Phase.HELD, Kind.PROMOTED): Phase.RUNNING,
    (
        Phase.RUNNING,
        Kind.PROMOTED,
    ): Phase.RUNNING,  # once the condition holds: neither soak nor wait
    (Phase.RUNNING, Kind.DEVICE_REQUEUED): Phase.RUNNING,
    (Phase.HELD, Kind.DEVICE_REQUEUED): Phase.HELD,
    (Phase.PAUSED, Kind.DEVICE_REQUEUED): Phase.PAUSED,
    (Phase.FAILED, Kind.DEVICE_REQUEUED): Phase.FAILED,
    (Phase.FINISHED, Kind.DEVICE_REQUEUED): Phase.FINISHED,
    (Phase.RUNNING, Kind.RETRIED): Phase.RUNNING,
    (Phase.HELD, Kind.RETRIED): Phase.HELD,
    (Phase.PAUSED, Kind.RETRIED): Phase.PAUSED,
    (Phase.FAILED, Kind.RETRIED): Phase.RUNNING,
    (Phase.FINISHED, Kind.RETRIED): Phase.RUNNING,
    # halt wins, and nothing follows it but the outcomes of what was under way
    **{(phase, Kind.HALTED): Phase.HALTED for phase in Phase},
    **{(phase, kind): phase for phase in Phase for kind in _OUTCOMES},
}

DEVICE_TRANSITIONS: Final[Mapping[tuple[DevicePhase, Kind], DevicePhase]] = {
    (DevicePhase.PENDING, Kind.PUSH_STARTED): DevicePhase.PUSHING,
    (DevicePhase.WAITING, Kind.PUSH_STARTED): DevicePhase.PUSHING,
    (DevicePhase.PUSHING, Kind.PUSH_ACTIVATED): DevicePhase.ACTIVE,
    (DevicePhase.PUSHING, Kind.PUSH_KEPT): DevicePhase.KEPT,
    (DevicePhase.PUSHING, Kind.PUSH_FAILED): DevicePhase.FAILED,
    (DevicePhase.PUSHING, Kind.PUSH_REFUSED): DevicePhase.REFUSED,
    (DevicePhase.PUSHING, Kind.PUSH_UNREACHED): DevicePhase.UNREACHABLE,
    (DevicePhase.PUSHING, Kind.PUSH_DEFERRED): DevicePhase.WAITING,
    (DevicePhase.PUSHING, Kind.PUSH_STOPPED): DevicePhase.PENDING,
    (DevicePhase.ACTIVE, Kind.ROLLBACK_STARTED): DevicePhase.ROLLING_BACK,
    (DevicePhase.ROLLING_BACK, Kind.ROLLBACK_DONE): DevicePhase.ROLLED_BACK,
    (DevicePhase.ROLLING_BACK, Kind.ROLLBACK_FAILED): DevicePhase.ROLLBACK_FAILED,
    (DevicePhase.ROLLING_BACK, Kind.ROLLBACK_DEFERRED): DevicePhase.ACTIVE,
    (DevicePhase.ROLLING_BACK, Kind.ROLLBACK_STOPPED): DevicePhase.ACTIVE,
    (DevicePhase.WAITING, Kind.DEVICE_REQUEUED): DevicePhase.PENDING,
    (DevicePhase.FAILED, Kind.DEVICE_REQUEUED): DevicePhase.PENDING,
    (DevicePhase.UNREACHABLE, Kind.DEVICE_REQUEUED): DevicePhase.PENDING,
    (DevicePhase.ROLLED_BACK, Kind.DEVICE_REQUEUED): DevicePhase.PENDING,
    (DevicePhase.ROLLBACK_FAILED, Kind.DEVICE_REQUEUED): DevicePhase.PENDING,
}

_DEVICE_KINDS: Final = frozenset(kind for _phase, kind in DEVICE_TRANSITIONS)


def advance(rollout: Rollout, event: Event) -> Rollout:
    """Take one step.

    Raises
    ------
    InputError
        If this event cannot follow: a wish that came too late, or a journal that was changed.
    """
    phase = TRANSITIONS.get((rollout.phase, event.kind))
    if phase is None:
        raise _illegal(rollout, event, f"is {rollout.phase.value}")
    if event.kind in _DEVICE_KINDS:
        return _device_step(rollout, event)
    return replace(rollout, phase=phase, **_wave_step(rollout, event))


def replay(events: Iterable[Event], *, source: str) -> Rollout:
    """Read a journal from its first event on.

    Raises
    ------
    InputError
        If it is empty, does not begin with the plan, or holds what cannot follow.
    """
    rollout: Rollout | None = None
    for event in events:
        if rollout is not None:
            rollout = advance(rollout, event)
        elif event.kind is Kind.PLANNED and event.plan is not None:
            rollout = begin(event.plan)
        else:
            break
    if rollout is None:
        raise InputError(
            "expected a journal that begins with a plan",
            where=source,
            remedy="run 'edgecal rollout list' for the rollouts there are",
        )
    return rollout


def _wave_step(rollout: Rollout, event: Event) -> dict[str, Any]:
    """Say what changes beside the phase; raise if the wave is not the one whose turn it is."""
    if event.kind is Kind.WAVE_STARTED:
        ready = rollout.wave < 0 or rollout.passed_ms is not None
        if not ready or event.wave != rollout.wave + 1 or event.wave >= len(rollout.plan.waves):
            raise _illegal(rollout, event, f"is at wave {rollout.wave + 1}, which has not passed")
        return {"wave": event.wave, "passed_ms": None, "promoted": False}
    if event.kind is Kind.WAVE_PASSED:
        if event.wave != rollout.wave or rollout.passed_ms is not None:
            raise _illegal(rollout, event, f"is at wave {rollout.wave + 1}")
        return {"passed_ms": event.at_ms}
    if event.kind in {Kind.WAVE_FAILED, Kind.WAVE_REVERTED, Kind.WAVE_EXCUSED}:
        if not 0 <= event.wave <= rollout.wave:
            raise _illegal(rollout, event, f"is at wave {rollout.wave + 1}")
        if event.kind is Kind.WAVE_EXCUSED:
            return {"excused": rollout.excused | {event.wave}}
        return {"failed_wave": event.wave}
    if event.kind is Kind.PROMOTED:
        return {"promoted": True}
    return {"failed_wave": None} if event.kind is Kind.RETRIED else {}


def _device_step(rollout: Rollout, event: Event) -> Rollout:
    """Move one device; the mappings are copied, for somebody may hold the old ones."""
    device = rollout.devices.get(event.target)
    if device is None:
        raise _illegal(rollout, event, f"has no device {event.target!r}")
    phase = DEVICE_TRANSITIONS.get((device.phase, event.kind))
    if phase is None:
        raise _illegal(rollout, event, f"has {event.target!r} {device.phase.value}")
    if event.kind is Kind.PUSH_STARTED and device.wave > rollout.wave:
        raise _illegal(rollout, event, f"is at wave {rollout.wave + 1}")
    devices = dict(rollout.devices)
    devices[event.target] = _moved(device, phase, event)
    members: Members = dict(rollout.members)
    here, there = (device.wave, device.phase), (device.wave, phase)
    members[here] = dict(members[here])
    del members[here][event.target]
    if event.kind is Kind.PUSH_STOPPED:  # its turn had come already
        members[there] = {event.target: None, **members.get(there, {})}
    else:
        members[there] = {**members.get(there, {}), event.target: None}
    return replace(rollout, devices=devices, members=members)


def _moved(device: Device, phase: DevicePhase, event: Event) -> Device:
    if event.kind is Kind.DEVICE_REQUEUED:
        return Device(wave=device.wave)
    device = replace(device, phase=phase, not_before_ms=0)
    if event.kind is Kind.PUSH_STARTED:
        first = device.first_ms if device.attempts else event.at_ms
        return replace(device, attempts=device.attempts + 1, first_ms=first)
    if event.kind is Kind.ROLLBACK_STARTED:
        return replace(device, rollbacks=device.rollbacks + 1)
    if event.kind is Kind.PUSH_STOPPED:
        return replace(device, attempts=device.attempts - 1)
    if event.kind is Kind.ROLLBACK_STOPPED:
        return replace(device, rollbacks=device.rollbacks - 1)
    if event.kind in {Kind.PUSH_DEFERRED, Kind.ROLLBACK_DEFERRED}:
        device = replace(device, not_before_ms=event.until_ms)
        again = event.kind is Kind.PUSH_DEFERRED and event.fault and event.fault.code in BROKEN_OFF
        device = replace(device, broken_off=device.broken_off + bool(again))
    return replace(device, release=event.release or device.release, fault=event.fault)


def _illegal(rollout: Rollout, event: Event, standing: str) -> InputError:
    return InputError(
        f"the rollout {standing}: {event.kind.value!r} cannot follow",
        where=f"rollout {rollout.plan.rollout}",
        remedy="look at 'edgecal rollout status'; a rollout that is over needs a new one",
    )
