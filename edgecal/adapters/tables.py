"""Finds the platform tables on disk: inside the installed package, else beside it."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from edgecal.core.platforms import Platforms, parse_platforms
from edgecal.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def load_platforms() -> Platforms:
    """Read the tables that belong to this edgecal.

    A wheel carries them as `edgecal/_targets`. A checkout, and an editable install of one, has
    them in `targets/` beside the package.

    Raises
    ------
    InputError
        If the tables are missing or damaged.
    """
    with resources.as_file(resources.files("edgecal")) as package:
        folder = _choose_folder(package)
        try:
            tables = {path.name: path.read_text("utf-8") for path in folder.glob("*.csv")}
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"cannot read the platform tables: {error}",
                where=str(folder),
                remedy="reinstall edgecal, or repair the checkout",
            ) from error
    return parse_platforms(tables)


def _choose_folder(package: Path) -> Path:
    candidates = (package / "_targets", package.parent / "targets")
    for folder in candidates:
        if (folder / "modules.csv").is_file():
            return folder
    raise InputError(
        "expected the platform tables inside or beside the package, found neither",
        where=" and ".join(str(folder) for folder in candidates),
        remedy="reinstall edgecal, or run it from a whole checkout",
    )
