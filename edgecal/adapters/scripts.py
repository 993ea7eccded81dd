"""The texts of what runs on a target, out of the installed package."""

from __future__ import annotations

from importlib import resources

from edgecal.ports import Scripts


def load_scripts() -> Scripts:
    """Read every script once."""
    folder = resources.files("edgecal") / "target_scripts"
    return Scripts(
        **{
            name: (folder / f"{name}.sh").read_text("utf-8")
            for name in ("probe", "receive", "agent", "run", "digests")
        }
    )
