"""What is to be built and how: as the command says, else as the target, else as the project."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgecal.adapters.bundle import Bundle
    from edgecal.core.build import BuildOptions
    from edgecal.core.project import Project
    from edgecal.core.target import Target

_BUILD_MINUTES: Final = 240.0


def choose_options(
    project: Project, target: Target | None, said: Mapping[str, Any]
) -> BuildOptions:
    """Choose build options.

    Parameters
    ----------
    target
        `None` where a bundle is looked at for no target in particular.
    said
        Options of the command by the names that `BuildOptions` has for them; `None` where the
        command does not say.
    """
    from edgecal.core.build import BuildOptions

    defaults = project.push
    values: dict[str, Any] = {
        "dla_core": defaults.dla,
        "gpu_fallback": defaults.gpu_fallback,
        "fp16": defaults.fp16,
        "precision": defaults.precision,
        "workspace_mib": defaults.workspace_mib,
        "layout": defaults.layout,
    }
    of_target = {}
    if target is not None:
        of_target = {
            "dla_core": target.dla,
            "precision": target.precision,
            "workspace_mib": target.workspace_mib,
        }
    for more in (of_target, said):
        values.update({key: one for key, one in more.items() if one is not None})
    return BuildOptions(**{key: one for key, one in values.items() if one is not None})


def choose_profile(texts: Sequence[str] | None, project: Project) -> object:
    """Choose the optimization profile: as the command says, else as the project."""
    from edgecal.core.profiles import parse_profile_table, parse_profiles

    if texts:
        return parse_profiles(texts)
    return parse_profile_table(project.push.profile, source=f"{project.source}: [push.profile]")


def build_timeout_s(minutes: float | None, project: Project) -> float:
    """Say how long a build may take."""
    return 60 * (minutes or project.push.build_timeout_minutes or _BUILD_MINUTES)


def read_bundles(paths: Sequence[Path] | None, project: Project) -> list[Bundle]:
    """Read the bundles that the command names, else those that the project does.

    Raises
    ------
    InputError
        If there is none.
    """
    from edgecal.cli.wiring import bundling
    from edgecal.errors import InputError

    wanted = paths or [Path(one) for one in project.push.bundle]
    if not wanted:
        raise InputError(
            "no bundle was given",
            where="the command line",
            remedy="name one, such as NAME.edgecal; or write [push] bundle in edgecal.toml",
        )
    return [bundling.read_bundle(path) for path in wanted]
