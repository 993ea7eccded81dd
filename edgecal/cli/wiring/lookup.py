"""What is looked up: settings, inventories and the targets they name, platform tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgecal.cli.story import warn_once
from edgecal.core.targets import parse_target

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgecal.core.platforms import Platforms
    from edgecal.core.project import Project
    from edgecal.core.target import Target


def project() -> Project:
    """Read the nearest `edgecal.toml`."""
    from edgecal.adapters.project import find_project

    return find_project(Path.cwd(), warn=warn_once)


def inventory(file: Path | None = None) -> Project:
    """Read an inventory of any kind; by default the nearest `fleet.toml`, else `edgecal.toml`.

    Settings for work stand in `edgecal.toml`, unless another file of its form was given.
    """
    from dataclasses import replace

    from edgecal.adapters.inventory import find_inventory, read_inventory
    from edgecal.core.project import Project

    given = read_inventory(file, warn=warn_once) if file else None
    if given is not None and given.is_ours:
        return given
    here = project()
    if given is None:
        found = find_inventory(Path.cwd())
        if found is None or (
            here.source and here.targets and len(Path(here.source).parts) > len(found.parts)
        ):  # both lie in the working directory or above it: the longer path is the nearer one
            return here
        given = read_inventory(found, warn=warn_once)
        if given != replace(Project(), source=given.source, inventory=given.inventory):
            warn_once(f"{found}: only [targets] and [groups] of it count; see edgecal.toml")
    return replace(here, source=given.source, inventory=given.inventory)


def target(
    text: str, *, builder: str | None = None, known: Mapping[str, Target] | None = None
) -> Target:
    """Find a target by what the user calls it: in `known`, else in what lies around."""
    from dataclasses import replace

    if known is None:
        known = project().targets
        known = known if text in known else inventory().targets
    found = parse_target(text, known)
    return replace(found, builder=builder) if builder else found


def platforms() -> Platforms:
    """Read the platform tables."""
    from edgecal.adapters.tables import load_platforms

    return load_platforms()


def read_toml(file: Path) -> dict[str, object]:
    """Decode a TOML file."""
    from edgecal.adapters import project as adapter

    return adapter.read_toml(file)
