"""What the journal says of a device once a task on it has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgecal.core.rollout.events import Event, Kind
from edgecal.core.rollout.retries import OFFLINE, UNREACHED, push_fault, rollback_fault
from edgecal.core.rollout.state import DevicePhase, Fault
from edgecal.workflows.rollout.tasks import Action, DeviceTask, Outcome, Result

if TYPE_CHECKING:
    from edgecal.core.rollout.state import Device, Retries

_RUNS: Final = {Result.ACTIVE: Kind.PUSH_ACTIVATED, Result.KEPT: Kind.PUSH_KEPT}
NEVER_BEGUN: Final = Outcome(
    result=Result.FAULT,
    fault=Fault(code="cancelled", what="stopped before it began", remedy="resume the rollout"),
)


def event_of(
    task: DeviceTask,
    outcome: Outcome,
    device: Device,
    *,
    before: Fault | None,
    now_ms: int,
    retries: Retries,
) -> Event:
    """Say what follows from an outcome that is clear.

    Parameters
    ----------
    before
        Of a device that had to be asked: what the task broke off with, if this process saw that.
    """
    fault = outcome.fault or before
    if device.phase is DevicePhase.ROLLING_BACK:
        gone = outcome.result is Result.NOT_OURS
        if gone or (task.action is Action.ASK and outcome.result is Result.FAULT):
            return Event(kind=Kind.ROLLBACK_DONE, at_ms=now_ms, target=task.target)
        if fault is None:
            return Event(kind=Kind.ROLLBACK_STOPPED, at_ms=now_ms, target=task.target)
        return rollback_fault(task.target, device, fault, now_ms=now_ms, retries=retries)
    if outcome.result in _RUNS:
        kind = _RUNS[outcome.result]
        return Event(kind=kind, at_ms=now_ms, target=task.target, release=outcome.release)
    if fault is None:
        return Event(kind=Kind.PUSH_STOPPED, at_ms=now_ms, target=task.target)
    return push_fault(task.target, device, fault, now_ms=now_ms, retries=retries)


def given_up(target: str, device: Device, fault: Fault | None, *, now_ms: int) -> Event:
    """Say of a device that nobody could ask that it is not asked any more."""
    if device.phase is DevicePhase.ROLLING_BACK:
        kind = Kind.ROLLBACK_FAILED
    elif fault is not None and fault.code in OFFLINE | UNREACHED:
        kind = Kind.PUSH_UNREACHED
    else:
        kind = Kind.PUSH_FAILED
    return Event(kind=kind, at_ms=now_ms, target=target, fault=fault)
