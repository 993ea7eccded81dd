"""Questions to one target that change nothing, and the way back to an earlier release."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgecal.core.activations import previous_release
from edgecal.core.versions import parse_tensorrt
from edgecal.errors import CommandError, IncompatibleError, InputError
from edgecal.workflows.device import Device
from edgecal.workflows.world import probe_over, reach, utc_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgecal.core.manifest import Digest
    from edgecal.core.target import Target, TargetFacts
    from edgecal.workflows.kept import ModelState
    from edgecal.workflows.world import World


def probe_target(target: Target, world: World) -> TargetFacts:
    """Ask a target what it is.

    Raises
    ------
    TargetError
        If it cannot be reached or gives no answer.
    """
    with closing(reach(target, world)) as transport:
        return probe_over(transport, target, world)


def list_models(target: Target, world: World) -> tuple[ModelState, ...]:
    """Ask a target what it keeps and what is active."""
    with open_device(target, world) as (device, _):
        return device.models()


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackPlan:
    """What a rollback would do."""

    model: str
    current: str | None
    to: str
    engine: str
    digest: Digest


def plan_rollback(
    target: Target, world: World, *, name: str | None, to: str | None
) -> RollbackPlan:
    """Find the release to go back to, and make sure that its engine is whole and still fits.

    Raises
    ------
    InputError
        If the model or release is not there, or there is nothing to go back to.
    IncompatibleError
        If the engine was built with another TensorRT than the one installed now.
    CommandError
        If its engine is damaged.
    """
    with open_device(target, world) as (device, facts):
        model = pick_model(device.models(), name, target)
        if model.current is None:
            raise InputError(
                f"no release of {model.name} is active",
                where=target.name,
                remedy="push a bundle first",
            )
        release = to or previous_release(model.activations, model.current)
        if release is None:
            raise InputError(
                f"there is no earlier release of {model.name} to go back to",
                where=target.name,
                remedy="see 'edgecal status'; --to RELEASE names any release that is kept",
            )
        if release not in model.releases:
            raise InputError(
                f"release {release!r} of {model.name} is not on the target; it keeps "
                f"{', '.join(model.releases)}",
                where=target.name,
                remedy="name one of these with --to",
            )
        return rollback_to(release, model, device, facts)


def rollback_to(
    release: str, model: ModelState, device: Device, facts: TargetFacts
) -> RollbackPlan:
    """Make sure that the engine of a release that the target keeps is whole and still fits.

    Raises
    ------
    IncompatibleError
        If the engine was built with another TensorRT than the one installed now.
    CommandError
        If it is damaged.
    """
    record = device.record(model.name, release)
    engine = record.get("engine", {})
    built_with = record.get("builder", {}).get("tensorrt")
    if built_with is not None:
        installed = [one.tensorrt for one in facts.builders if one.tensorrt is not None]
        if parse_tensorrt(built_with) not in installed:
            now = ", ".join(str(version) for version in installed) or "none"
            raise IncompatibleError(
                f"release {release} was built with TensorRT {built_with}, installed is {now}",
                where=device.target,
                remedy="build it again from what is stored there: edgecal rebuild --target "
                f"{device.target} {model.name} --release {release}",
            )
    found = device.digest(device.release_folder(model.name, release), str(engine.get("file")))
    if found is None or found != engine.get("digest"):
        raise CommandError(
            f"the engine of release {release} is not the one that was verified",
            where=device.target,
            remedy="push its bundle with --rebuild",
        )
    return RollbackPlan(
        model=model.name,
        current=model.current,
        to=release,
        engine=engine["file"],
        digest=found,
    )


def roll_back(
    target: Target, world: World, plan: RollbackPlan, *, break_lock: bool = False
) -> None:
    """Make the planned release the active one, if nothing else was activated since.

    A build that runs is no obstacle. With `break_lock` neither is an application that asked that
    nothing be activated now.
    """
    with open_device(target, world, break_lock=break_lock) as (device, _):
        go_back(device, plan, world, force=break_lock)


def go_back(device: Device, plan: RollbackPlan, world: World, *, force: bool = False) -> None:
    """Activate what a rollback's plan says, on a device that is open."""
    device.activate(
        plan.model,
        plan.to,
        expected=plan.current,
        engine=plan.engine,
        digest=plan.digest,
        record={
            "action": "rollback",
            "release": plan.to,
            "from": plan.current,
            "by": world.owner,
            "time": utc_text(world.now()),
        },
        force=force,
    )


@contextmanager
def open_device(
    target: Target, world: World, *, break_lock: bool = False
) -> Iterator[tuple[Device, TargetFacts]]:
    """Connect to a target and have edgecal's script there, for as long as the block runs."""
    with closing(reach(target, world)) as transport:
        facts = probe_over(transport, target, world)
        device = Device(transport, world.scripts, facts.root, target.name, break_lock=break_lock)
        device.install_agent()
        yield device, facts


def pick_model(models: tuple[ModelState, ...], name: str | None, target: Target) -> ModelState:
    """Find the model that is meant; it need not be named where there is one."""
    names = [model.name for model in models]
    if name is None and len(models) == 1:
        return models[0]
    if name in names:
        return models[names.index(name)]
    raise InputError(
        f"there is no model {name!r}; there are {', '.join(names) or 'none'}"
        if name
        else f"there are {len(models)} models: {', '.join(names) or 'none'}",
        where=target.name,
        remedy="name one of them" if names else "push a bundle first",
    )
