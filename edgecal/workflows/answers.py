"""What a target's agent answers, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseState:
    """What a target says of one release of one model."""

    current: str | None
    ready: bool
    job: str
    status: int | None
    lock_owner: str | None
    trial: str = "none"
    """How the health check of the active release stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """How a build stands, and what its log said since the last look."""

    job: str
    status: int | None
    log: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What decides on the target whether a release stays active."""

    health: tuple[str, ...]
    soak_s: int
    back: str | None
    """What was active before; nothing is active again if nothing was."""
    record: Mapping[str, Any]
    """What the target writes down if it goes back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialState:
    """How a trial stands: see the agent for the words."""

    state: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What a target removed, or would remove."""

    releases: tuple[tuple[str, str, int], ...]
    """Model, release and bytes."""
    jobs: tuple[tuple[str, str, int], ...]
    kept: tuple[tuple[str, str], ...]
    """Model and release of what a build or a push is using."""
    blobs: int
    freed_bytes: int


def read_pairs(text: str) -> dict[str, str]:
    """Read lines of `key=value`."""
    return dict(line.partition("=")[::2] for line in text.splitlines())


def read_number(text: str | None) -> int | None:
    """Read a number; `None` where there is none."""
    return int(text) if text and text.isdigit() else None


def read_release_state(text: str) -> ReleaseState:
    """Read the answer to `state`."""
    answer = read_pairs(text)
    return ReleaseState(
        current=answer.get("current") or None,
        ready=answer.get("release") == "ready",
        job=answer.get("job", "none"),
        status=read_number(answer.get("status")),
        lock_owner=answer.get("lock_owner") if answer.get("lock") == "held" else None,
        trial=answer.get("trial", "none"),
    )


def read_job_state(answer: bytes) -> JobState:
    """Read the answer to `wait`: one line of words, then the log."""
    head, _, log = answer.partition(b"\n")
    words = dict(word.partition("=")[::2] for word in head.decode().split(" "))
    return JobState(job=words.get("job", "none"), status=read_number(words.get("status")), log=log)


def read_pruned(text: str) -> Pruned:
    """Read the answer to `prune`."""
    sized: dict[str, list[tuple[str, str, int]]] = {"releases": [], "jobs": []}
    kept = []
    blobs = freed = 0
    for line in text.splitlines():
        kind, *words = line.split(" ")
        if kind in sized:
            name, release, size = words
            sized[kind].append((name, release, int(size)))
        elif kind == "kept":
            kept.append((words[0], words[1]))
        elif kind == "blob":
            blobs += 1
        elif line.startswith("freed="):
            freed = int(line.removeprefix("freed="))
    return Pruned(
        releases=tuple(sized["releases"]),
        jobs=tuple(sized["jobs"]),
        kept=tuple(kept),
        blobs=blobs,
        freed_bytes=freed,
    )
