"""New files: written whole or not at all, and never over an input."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def check(path: Path, *, inputs: Sequence[Path] = ()) -> None:
    """Make sure, before the work, that a file may be written there."""
    from edgecal.adapters.cache_files import check_new_file

    check_new_file(path, inputs=inputs)


def write(path: Path, data: bytes, *, inputs: Sequence[Path] = ()) -> None:
    """Write a file."""
    from edgecal.adapters.cache_files import write_new_file

    write_new_file(path, data, inputs=inputs)
