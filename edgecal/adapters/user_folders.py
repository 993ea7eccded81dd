"""Where a user's files lie that may be lost (XDG Base Directory Specification 0.8)."""

from __future__ import annotations

import os
from pathlib import Path


def state_folder() -> Path:
    """Name the folder for what would be missed a little: XDG_STATE_HOME, else `~/.local/state`."""
    return _folder("XDG_STATE_HOME", ".local/state")


def cache_folder() -> Path:
    """Name the folder for what can be made again: XDG_CACHE_HOME, else `~/.cache`."""
    return _folder("XDG_CACHE_HOME", ".cache")


def _folder(variable: str, otherwise: str) -> Path:
    named = os.environ.get(variable, "")
    # a relative path is to be ignored
    base = Path(named) if named.startswith("/") else Path.home() / otherwise
    return base / "edgecal"
