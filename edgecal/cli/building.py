"""How an engine is to be built: as the command says, else as the target, else as the project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgecal.core.build import BuildOptions
    from edgecal.core.project import Project
    from edgecal.core.target import Target


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
