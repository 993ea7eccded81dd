"""Finds and reads `edgecal.toml`, in the working directory or a parent."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING, Final

from edgecal.core.project import Project, parse_project
from edgecal.core.toml_lines import find_lines
from edgecal.errors import InventoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
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
    text = _read_text(file)
    project = parse_project(_decode(text, file), source=str(file), lines=find_lines(text))
    if commands_count(file, project.commands(), warn=warn):
        return project
    return project.without_commands()


def commands_count(file: Path, commands: Collection[str], *, warn: Callable[[str], object]) -> bool:
    """Tell whether what a file says to run counts: not where another user may have said it.

    Parameters
    ----------
    commands
        The settings that say so; `warn` hears of them.
    """
    names = [f"'{name}'" for name in commands]
    if not names:
        return True
    doubt = doubt_of(file)
    if doubt is not None:
        what = f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} ignored"
        warn(f"{file}: {what}, for {doubt}")
    return doubt is None


def doubt_of(file: Path) -> str | None:
    """Tell why a file may hold another user's words, and what helps."""
    status = file.stat()
    if status.st_uid not in {os.geteuid(), 0}:
        return "the file belongs to another user; make a copy of it"
    if status.st_mode & stat.S_IWOTH:
        return "anyone may write the file; 'chmod o-w' it"
    return None


def read_toml(file: Path) -> dict[str, object]:
    """Decode a TOML file.

    Raises
    ------
    InventoryError
        If it cannot be read; the message names the line.
    """
    return _decode(_read_text(file), file)


def _read_text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except OSError as error:
        raise InventoryError(
            f"cannot read the settings: {error.strerror or error}",
            where=str(file),
            remedy="check the path and its permissions",
        ) from error
    except UnicodeDecodeError as error:
        raise _unreadable(file, error) from error


def _decode(text: str, file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of too many digits, too
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> InventoryError:
    return InventoryError(
        f"cannot read the settings: {error}", where=str(file), remedy="correct the file"
    )
