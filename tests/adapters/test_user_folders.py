"""Folders follow the XDG Base Directory Specification."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgecal.adapters.user_folders import cache_folder, state_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize(
    ("folder", "variable", "otherwise"),
    [(state_folder, "XDG_STATE_HOME", ".local/state"), (cache_folder, "XDG_CACHE_HOME", ".cache")],
)
def test_a_folder_is_the_named_one_else_in_the_home(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    folder: Callable[[], Path],
    variable: str,
    otherwise: str,
) -> None:
    monkeypatch.setenv(variable, str(tmp_path))
    assert folder() == tmp_path / "edgecal"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for ignored in ("", "relative"):
        monkeypatch.setenv(variable, ignored)
        assert folder() == tmp_path / "home" / otherwise / "edgecal"
