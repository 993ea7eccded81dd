"""What a target keeps of each model, read from its own words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgecal.core.activations import Activation, parse_activation

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEntry:
    """A build that runs, or that no release was made of."""

    release: str
    state: str
    """`running`, `done`, or `lost`: its supervisor is gone and left no status."""
    status: int | None
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """Everything a target keeps of one model."""

    name: str
    current: str | None
    releases: tuple[str, ...]
    activations: tuple[Activation, ...]
    built: Mapping[str, str] = field(default_factory=dict)
    """When releases were built, by the controller's clock; UTC, and so in order as text."""
    jobs: tuple[JobEntry, ...] = ()
    trial: str = "none"
    """How the active release's health check stands."""
    switching: str = ""
    """What somebody is at right now that may change what is active, such as `activate`."""


def parse_models(text: str) -> tuple[ModelState, ...]:
    """Read the agent's answer to `models`."""
    blocks: list[list[tuple[str, str]]] = []
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key == "model":
            blocks.append([])
        if blocks:
            blocks[-1].append((key, value))
    return tuple(_model(block) for block in blocks)


def _model(pairs: list[tuple[str, str]]) -> ModelState:
    last = dict(pairs)
    built: dict[str, str] = {}
    release = ""
    for key, value in pairs:
        if key == "release":
            release = value
        elif key == "built":
            built[release] = value
    activations = (parse_activation(value) for key, value in pairs if key == "activation")
    return ModelState(
        name=last["model"],
        current=last.get("current") or None,
        releases=tuple(value for key, value in pairs if key == "release"),
        activations=tuple(one for one in activations if one is not None),
        built=built,
        jobs=tuple(_job(value) for key, value in pairs if key == "job"),
        trial=last.get("trial", "none"),
        switching=last.get("switching", ""),
    )


def _job(text: str) -> JobEntry:
    release, state, status, owner = [*text.split(" ", 3), "", "", ""][:4]
    return JobEntry(
        release=release,
        state=state,
        status=int(status) if status.isdigit() else None,
        owner=owner,
    )
