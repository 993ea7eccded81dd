"""One question, yes or no."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.markup import escape

from edgecal.errors import InputError

if TYPE_CHECKING:
    from edgecal.cli.story import Story


def confirm(what: str, *, yes: bool, story: Story) -> None:
    """Show what will be done and read one line from stdin; `yes` answers.

    Raises
    ------
    InputError
        If the answer is not yes, or there is none.
    """
    if yes:
        return
    story.err.print(f"{escape(what)}\ndo it? \\[y/N] ", end="")
    answer = sys.stdin.readline()
    if answer.strip().lower() in {"y", "yes"}:
        return
    raise InputError(
        "no answer was given, so nothing was done" if not answer else "nothing was done",
        remedy="answer y, or pass --yes",
    )
