"""What a target no longer needs of the releases and jobs that it keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgecal.core.activations import previous_release

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edgecal.core.activations import Activation


@dataclass(frozen=True, slots=True, kw_only=True)
class Doomed:
    """A release or job to remove, if what is active is still `current` by then."""

    kind: Literal["releases", "jobs"]
    name: str
    current: str | None
    release: str


def choose_doomed(
    *,
    name: str,
    current: str | None,
    releases: Sequence[str],
    built: Mapping[str, str],
    activations: Sequence[Activation],
    idle_jobs: Sequence[str],
    keep: int,
) -> Iterator[Doomed]:
    """Choose what goes of one model: all but the newest, and whatever is only half-made.

    The active release stays, and the one that `rollback` would go to, whatever their age.

    Parameters
    ----------
    built
        When releases were built, as text in order; those that do not say count as the oldest.
    idle_jobs
        Builds that do not run and that no release was made of.
    keep
        How many of the newest releases stay.
    """
    newest = sorted(releases, key=lambda one: built.get(one, ""), reverse=True)[:keep]
    needed = {current, previous_release(activations, current), *newest}
    for release in releases:
        if release not in needed:
            yield Doomed(kind="releases", name=name, current=current, release=release)
    for release in idle_jobs:
        yield Doomed(kind="jobs", name=name, current=current, release=release)
