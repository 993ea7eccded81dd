"""The work on one device: push to it, ask it what it runs, take the release back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final

from edgecal.core.activations import activated_by, previous_release
from edgecal.core.build import BuildOptions
from edgecal.core.rollout.state import Fault
from edgecal.errors import CommandError, EdgecalError, HealthError, InventoryError
from edgecal.workflows.activation import UNCONFIRMED
from edgecal.workflows.events import EngineActivated, Step, StepDue
from edgecal.workflows.push import push
from edgecal.workflows.report import PushOptions
from edgecal.workflows.rollout.tasks import Action, DeviceTask, Outcome, Result
from edgecal.workflows.targets import go_back, open_device, rollback_to
from edgecal.workflows.world import utc_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgecal.core.activations import Activation
    from edgecal.core.rollout.job import Job
    from edgecal.core.target import Target
    from edgecal.ports import BundleFiles
    from edgecal.workflows.events import PushEvent
    from edgecal.workflows.kept import ModelState
    from edgecal.workflows.world import World

_BROKEN_OFF: Final = frozenset({"connect", "transfer", "command"})
"""Faults after which nobody knows whether the last command was carried out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """What the work on every device of a rollout needs."""

    job: Job
    bundles: Sequence[BundleFiles]
    targets: Mapping[str, Target]
    world: World
    tell: Callable[[str, PushEvent | int], object]
    """Hears what a device at work says, from any thread."""


def do(task: DeviceTask, crew: Crew) -> Outcome:
    """Do one thing with one device; whatever is wrong with that device is an outcome."""
    try:
        target = crew.targets.get(task.target)
        if target is None:
            raise InventoryError(
                "it is not in the inventory any more",
                where=task.target,
                remedy="put it back, or start a rollout without it",
            )
        if task.action is Action.PUSH:
            return _push(task, target, crew)
        return (_ask if task.action is Action.ASK else _roll_back)(task, target, crew)
    except EdgecalError as error:
        asked = task.action is Action.ASK
        return Outcome(result=Result.UNCLEAR if asked else Result.FAULT, fault=fault_of(error))


def fault_of(error: EdgecalError) -> Fault:
    """Give what the journal keeps of an error."""
    return Fault(code=error.code, what=error.what, remedy=error.remedy)


def push_options(job: Job, target: str, *, rollout: str = "") -> PushOptions:
    """Say how a device is pushed to."""
    return PushOptions(
        name=job.name,
        build=job.builds.get(target, BuildOptions()),
        accept_unproven=job.accept_unproven,
        accept_restamped=job.accept_restamped,
        thresholds=job.thresholds,
        build_timeout_s=job.build_timeout_s,
        activate_within_s=job.activate_within_s,
        rollout=rollout,
    )


def _push(task: DeviceTask, target: Target, crew: Crew) -> Outcome:
    def sent(count: int) -> None:
        crew.tell(task.target, count)

    options = replace(
        push_options(crew.job, task.target, rollout=task.rollout), upload_progress=sent
    )
    activating = False
    pushing = push(crew.bundles, target, options, crew.world)
    while True:
        try:
            event = next(pushing)
        except StopIteration as end:
            report = end.value
            break
        if isinstance(event, StepDue):
            activating = event.step is Step.ACTIVATE
        elif isinstance(event, EngineActivated):
            activating = False
        crew.tell(task.target, event)
    if report.error is None:
        ours = report.rollout == task.rollout
        return Outcome(result=Result.ACTIVE if ours else Result.KEPT, release=report.release)
    unclear = activating and report.error.code in _BROKEN_OFF
    return Outcome(
        result=Result.UNCLEAR if unclear else Result.FAULT,
        release=report.release or "",
        fault=fault_of(report.error),
    )


def _ask(task: DeviceTask, target: Target, crew: Crew) -> Outcome:
    """Find out whether the release that this rollout brings is active, and meant to stay.

    Raises
    ------
    CommandError
        If that may change at any moment: a command goes on there though its caller was cut off.
    """
    with open_device(target, crew.world) as (device, _):
        models = _models(device.models(), crew)
    for model in models:
        if model.switching:
            raise CommandError(
                f"somebody is at work on {model.name}: {model.switching}",
                where=target.name,
                remedy="wait for its end",
            )
        if model.current is not None and _taker(model) == task.rollout:
            if target.health and model.trial in UNCONFIRMED:
                return Outcome(result=Result.NOT_OURS)  # goes back unless somebody pushes again
            return Outcome(result=Result.ACTIVE, release=model.current)
        reason = _went_back(model.activations, task)
        if reason:
            fault = Fault(
                code=HealthError.code,
                what=f"the release did not pass its health check ({reason}), and the target "
                "has gone back",
                remedy=f"read models/{model.name}/trial.log there",
            )
            return Outcome(result=Result.FAULT, fault=fault)
    return Outcome(result=Result.NOT_OURS)


def _roll_back(task: DeviceTask, target: Target, crew: Crew) -> Outcome:
    """Go back to what was active before; nothing is active if nothing was."""
    acting = False
    try:
        with open_device(target, crew.world) as (device, facts):
            for model in _models(device.models(), crew):
                if model.current != task.release or _taker(model) != task.rollout:
                    continue
                before = previous_release(model.activations, task.release)
                crew.world.cancel.check()
                if before is None:
                    acting = True
                    device.deactivate(model.name, task.release, _record(task, crew))
                else:
                    plan = rollback_to(before, model, device, facts)
                    acting = True
                    go_back(device, plan, crew.world)
    except EdgecalError as error:
        unclear = acting and error.code in _BROKEN_OFF
        return Outcome(result=Result.UNCLEAR if unclear else Result.FAULT, fault=fault_of(error))
    return Outcome(result=Result.NOT_OURS)


def _record(task: DeviceTask, crew: Crew) -> dict[str, str]:
    return {
        "action": "deactivate",
        "release": "",
        "from": task.release,
        "by": crew.world.owner,
        "time": utc_text(crew.world.now()),
    }


def _models(models: Sequence[ModelState], crew: Crew) -> list[ModelState]:
    names = {crew.job.name or one.manifest.name for one in crew.bundles}
    return [one for one in models if one.name in names]


def _taker(model: ModelState) -> str | None:
    return activated_by(model.activations, model.current or "")


def _went_back(activations: Sequence[Activation], task: DeviceTask) -> str:
    """Say why the target took back by itself what this rollout activated since the task says."""
    since = utc_text(datetime.fromtimestamp(task.since_ms / 1000, timezone.utc))
    ours, reason = False, ""
    for one in activations:
        if one.time < since:
            continue
        if one.action == "activate":
            ours, reason = one.rollout == task.rollout, ""
        elif ours and one.reason and one.action != "confirm":
            reason = one.reason
    return reason
