"""What a rollout does on every device: written down with its plan, so that any shell can go on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from edgecal.core.build import BuildOptions, parse_build_options
from edgecal.core.verification import Thresholds

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """How every device of a rollout is pushed to."""

    places: tuple[str, ...] = ()
    """Where the bundles lay when the rollout began, in the order of the plan's digests."""
    inventory: str = ""
    """The file that the targets came from; empty: whatever is found where the command runs."""
    name: str | None = None
    """The model's on the targets; the bundle's by default."""
    builder: str | None = None
    builds: Mapping[str, BuildOptions] = field(default_factory=dict)
    """By target; the default for the others."""
    accept_unproven: bool = False
    accept_restamped: bool = False
    thresholds: Thresholds = field(default_factory=Thresholds)
    build_timeout_s: float = 4 * 3600.0
    activate_within_s: float = 60.0


def job_json(job: Job) -> dict[str, Any]:
    """Spell a job; targets that are built alike stand together."""
    alike: dict[BuildOptions, list[str]] = {}
    for target, options in job.builds.items():
        alike.setdefault(options, []).append(target)
    return {
        "places": list(job.places),
        "inventory": job.inventory,
        "name": job.name,
        "builder": job.builder,
        "builds": [
            {"options": asdict(options), "targets": targets} for options, targets in alike.items()
        ],
        "accept_unproven": job.accept_unproven,
        "accept_restamped": job.accept_restamped,
        "thresholds": asdict(job.thresholds),
        "build_timeout_s": float(job.build_timeout_s),
        "activate_within_s": float(job.activate_within_s),
    }


def parse_job(document: Mapping[str, Any]) -> Job:
    """Read what `job_json` spells; anything else raises a KeyError, TypeError or ValueError."""
    return Job(
        places=tuple(document["places"]),
        inventory=document["inventory"],
        name=document["name"],
        builder=document["builder"],
        builds={
            target: parse_build_options(one["options"])
            for one in document["builds"]
            for target in one["targets"]
        },
        accept_unproven=document["accept_unproven"],
        accept_restamped=document["accept_restamped"],
        thresholds=Thresholds(**document["thresholds"]),
        build_timeout_s=document["build_timeout_s"],
        activate_within_s=document["activate_within_s"],
    )
