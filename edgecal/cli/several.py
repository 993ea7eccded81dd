"""The same question to several targets: one that fails does not end it for the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from edgecal.errors import EdgecalError
from edgecal.workflows.waiting import side_by_side

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from edgecal.cli.story import Story

T = TypeVar("T")

_AT_ONCE: Final = 16
"""Targets asked at the same time."""


def ask_each(
    names: Iterable[str], ask: Callable[[str], T]
) -> tuple[dict[str, T], dict[str, EdgecalError]]:
    """Ask every target, side by side; gives answers and errors by name, in the order of names."""
    answers: dict[str, T] = {}
    errors: dict[str, EdgecalError] = {}

    def asked(name: str) -> tuple[str, T | EdgecalError]:
        try:
            return name, ask(name)
        except EdgecalError as error:
            return name, error

    distinct = list(dict.fromkeys(names))
    results = dict(side_by_side(distinct, asked, at_once=_AT_ONCE))
    for name in distinct:
        result = results[name]
        if isinstance(result, EdgecalError):
            errors[name] = result
        else:
            answers[name] = result
    return answers, errors


def tell_failures(
    targets: Collection[str], errors: Mapping[str, EdgecalError], story: Story
) -> None:
    """Say what went wrong on which target.

    Raises
    ------
    EdgecalError
        If there is no other target: then that is how the command ends.
    """
    for error in errors.values():
        if len(targets) == 1:
            raise error
        story.failure(error)
