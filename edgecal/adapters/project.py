"""Finds and reads `edgecal.toml`, in the working directory or a parent."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING, Final

from edgecal.core.project import Project, parse_project
from edgecal.errors import InventoryError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE_NAME: Final = "edgecal.toml"


def find_project(folder: Path, *, warn: Callable[[str], object]) -> Project:
    """Read the nearest `edgecal.toml` from `folder` upwards; an empty project if there is none.

    Raises
    ------
    InventoryError
        If the file cannot be read or says something unknown.
    """
    for parent in (folder, *folder.parents):
        file = parent / FILE_NAME
        if os.path.isfile(file):  # noqa: PTH113 - false, not an error, where we may not look
            return read_project(file, warn=warn)
    return Project()


def read_project(file: Path, *, warn: Callable[[str], object]) -> Project:
    """Read settings; commands in them count only in a file that nobody else can change.

    Parameters
    ----------
    warn
        Hears of commands that are ignored, and what would make them count.

    Raises
    ------
    InventoryError
        If the file cannot be read or says something unknown.
    """
    file = file.absolute()  # paths in it mean its folder
    project = parse_project(read_toml(file), source=str(file))
    commands = [f"'{name}'" for name in project.commands()]
    if not commands:
        return project
    ignored = f"{' and '.join(commands)} {'is' if len(commands) == 1 else 'are'} ignored"
    status = file.stat()
    if status.st_uid not in {os.geteuid(), 0}:
        warn(f"{file}: {ignored}, for the file belongs to another user; make a copy of it")
    elif status.st_mode & stat.S_IWOTH:
        warn(f"{file}: {ignored}, for anyone may write the file; 'chmod o-w' it")
    else:
        return project
    return project.without_commands()


def read_toml(file: Path) -> dict[str, object]:
    """Decode a TOML file.

    Raises
    ------
    InventoryError
        If it cannot be read; the message names the line.
    """
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InventoryError(
            f"cannot read the settings: {error}", where=str(file), remedy="correct the file"
        ) from error
