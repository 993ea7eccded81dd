"""A build on a target that somebody started: found, watched to its end, or ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgecal.errors import InputError
from edgecal.workflows.targets import open_device

if TYPE_CHECKING:
    from collections.abc import Generator

    from edgecal.core.target import Target
    from edgecal.workflows.answers import JobState
    from edgecal.workflows.device import Device
    from edgecal.workflows.world import World

_WAIT_S: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundBuild:
    """A build on a target."""

    name: str
    release: str
    state: str
    """`running`, `done` (and not yet verified, or failed) or `lost`."""
    owner: str


def find_build(device: Device, target: Target, *, name: str | None, running: bool) -> FoundBuild:
    """Find the one build that is meant: a running one before one that has ended.

    Parameters
    ----------
    running
        Whether one that has ended is no answer.

    Raises
    ------
    InputError
        If there is none, or it takes a name to tell which.
    """
    builds = [
        FoundBuild(name=model.name, release=job.release, state=job.state, owner=job.owner)
        for model in device.models()
        for job in model.jobs
        if name in {None, model.name}
    ]
    going = [one for one in builds if one.state == "running"]
    found = going or ([] if running else builds)
    if len(found) == 1:
        return found[0]
    of = f" of {name}" if name else ""
    if not found:
        raise InputError(
            f"no build{of} runs there{'' if running else ', and none waits to be verified'}",
            where=target.name,
            remedy="see 'edgecal status' for what is active; 'edgecal push' starts a build",
        )
    names = ", ".join(sorted({one.name for one in found}))
    raise InputError(
        f"there are {len(found)} builds{of}: {names}",
        where=target.name,
        remedy="name a model, or push its bundle: that goes on with its build"
        if name is None
        else "push the bundle: that goes on with its build",
    )


def attach(
    target: Target, world: World, *, name: str | None
) -> Generator[bytes, None, tuple[FoundBuild, JobState]]:
    """Give a build's log as it grows; returns how it ended. Leaving early does no harm.

    Raises
    ------
    InputError
        If there is no such build.
    """
    with open_device(target, world) as (device, _):
        build = find_build(device, target, name=name, running=False)
        read = 0
        while True:
            job = device.wait(build.name, build.release, offset=read, seconds=_WAIT_S)
            read += len(job.log)
            if not job.log and job.job != "running":
                return build, job
            yield job.log
            world.cancel.check()


def plan_cancel(target: Target, world: World, *, name: str | None) -> FoundBuild:
    """Find the running build that would be ended."""
    with open_device(target, world) as (device, _):
        return find_build(device, target, name=name, running=True)


def cancel(target: Target, world: World, build: FoundBuild) -> bool:
    """End a build and everything it started; tell whether it still ran."""
    with open_device(target, world) as (device, _):
        return device.cancel(build.name, build.release)
