"""The texts of what runs on a target, out of the installed package."""

from __future__ import annotations

from importlib import resources
from typing import Final

from edgecal.ports import Scripts

AGENT_PARTS: Final = ("base", "lock", "build", "release", "prune", "main")
"""Of the agent, in the order in which they make one script."""


def load_scripts() -> Scripts:
    """Read every script once."""
    folder = resources.files("edgecal") / "target_scripts"
    agent = (folder / "agent" / f"{part}.sh" for part in AGENT_PARTS)
    return Scripts(
        agent="".join(part.read_text("utf-8") for part in agent),
        **{
            name: (folder / f"{name}.sh").read_text("utf-8")
            for name in ("probe", "receive", "verify", "run", "digests")
        },
    )
