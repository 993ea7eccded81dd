"""A file is whole or not there, and nothing lies beside it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from edgecal.adapters.whole_files import write_whole

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def umask() -> int:
    mask = os.umask(0o027)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("mode", [0o666, 0o600])
def test_a_file_takes_the_place_of_another(tmp_path: Path, umask: int, mode: int) -> None:
    path = tmp_path / ("n" * 255)  # as long as names may be
    path.write_text("old")
    write_whole(path, b"new", mode=mode)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == mode & ~umask
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole(path, b"new")
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "missing" / "file", b"new")
    assert list(tmp_path.iterdir()) == [path]
