"""What a target no longer needs, removed under its lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecal.core.pruning import Doomed, choose_doomed
from edgecal.errors import InputError
from edgecal.workflows.targets import open_device

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgecal.core.target import Target
    from edgecal.workflows.answers import Pruned
    from edgecal.workflows.kept import ModelState
    from edgecal.workflows.world import World


def plan_prune(
    target: Target, world: World, *, name: str | None, keep: int, break_lock: bool
) -> tuple[tuple[Doomed, ...], Pruned]:
    """Choose what goes, and ask the target what that would free.

    Raises
    ------
    InputError
        If there is no such model.
    """
    with open_device(target, world) as (device, _):
        models = device.models()
        if name is not None and name not in {model.name for model in models}:
            there = ", ".join(model.name for model in models) or "none"
            raise InputError(
                f"there is no model {name!r}; there are {there}",
                where=target.name,
                remedy="name one of them, or none for all",
            )
        chosen = tuple(_choose(models, name, keep))
        return chosen, device.prune(chosen, remove=False, force=break_lock)


def prune(target: Target, world: World, doomed: Sequence[Doomed], *, break_lock: bool) -> Pruned:
    """Remove what was chosen, and every stored file that nothing refers to then.

    Raises
    ------
    CommandError
        If another release was activated since the choice.
    """
    with open_device(target, world, break_lock=break_lock) as (device, _):
        return device.prune(doomed, remove=True, force=break_lock)


def _choose(models: Sequence[ModelState], name: str | None, keep: int) -> Iterator[Doomed]:
    for model in models:
        if name in {None, model.name}:
            yield from choose_doomed(
                name=model.name,
                current=model.current,
                releases=model.releases,
                built=model.built,
                activations=model.activations,
                idle_jobs=[job.release for job in model.jobs if job.state != "running"],
                keep=keep,
            )
