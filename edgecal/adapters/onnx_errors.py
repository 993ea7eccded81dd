"""What is wrong with an ONNX file, in words of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgecal.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

_LONGEST_MESSAGE: Final = 300


def one_line(said: object) -> str:
    """Give the beginning of what a library says, which may be pages, on one line."""
    words = " ".join(str(said).split()) or "no reason was given"
    return words if len(words) <= _LONGEST_MESSAGE else f"{words[:_LONGEST_MESSAGE]} ..."


def corrupt(path: Path, what: str) -> ModelError:
    """Make the error of a file that is damaged."""
    return ModelError(
        f"the model is corrupt: {what}",
        where=str(path),
        remedy="export it again, or copy it again if it was transferred",
    )
