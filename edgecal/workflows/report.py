"""What a push may be told, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgecal.core.build import BuildOptions, count_entries
from edgecal.core.verification import Thresholds, Verification

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgecal.core.build import BuildResult
    from edgecal.core.findings import Finding
    from edgecal.core.latency import Latency
    from edgecal.core.manifest import Digest
    from edgecal.core.target import TargetFacts
    from edgecal.errors import EdgecalError


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOptions:
    """What a user may choose."""

    name: str | None = None
    """Model's name on the target; the bundle's by default."""
    build: BuildOptions = field(default_factory=BuildOptions)
    builds: Mapping[str, BuildOptions] = field(default_factory=dict)
    """For targets that are built otherwise, by name."""
    rebuild: bool = False
    accept_unproven: bool = False
    accept_restamped: bool = False
    dry_run: bool = False
    rollout: str = ""
    """The rollout that this push is a part of: kept in the target's record of activations."""
    bench: bool = False
    """Measure the engine's latency beside verifying it."""
    thresholds: Thresholds = field(default_factory=Thresholds)
    build_timeout_s: float = 4 * 3600.0
    activate_within_s: float = 60.0
    """How long an application may put the activation off."""
    break_lock: bool = False
    """End whoever else is at work on the model there."""
    upload_progress: Callable[[int], None] | None = None
    sources: Mapping[Digest, tuple[Finding, ...]] = field(default_factory=dict)
    """What was found of each bundle's source network and data, by the digest of its manifest."""


@dataclass(slots=True, kw_only=True)
class PushReport:
    """How a push ended; filled in as it goes, so that a failed one tells how far it came."""

    target: str
    state: str = "failed"
    name: str = ""
    release: str | None = None
    builder: str | None = None
    bytes_sent: int = 0
    bytes_present: int = 0
    bytes_to_send: int = 0
    to_build: bool | None = None
    """Of a dry run: whether an engine would have to be built."""
    rollout: str | None = None
    """The rollout that made the release active."""
    build_seconds: float | None = None
    build: BuildResult | None = None
    verification: Verification | None = None
    latency: Latency | None = None
    health: str | None = None
    """How the health check stands; `None` where there is none."""
    findings: tuple[Finding, ...] = ()
    facts: TargetFacts | None = None
    error: EdgecalError | None = None

    @property
    def exit_code(self) -> int:
        """Give the exit code that this one target calls for."""
        return self.error.exit_code if self.error else 0

    def to_json(self) -> dict[str, object]:
        """Give the keys scripts rely on."""
        build = None
        if self.build is not None:
            build = {
                "seconds": self.build_seconds,
                "proof": self.build.proof.value,
                "reason": self.build.reason,
                "cache": count_entries(self.build),
                "precisions": self.build.precisions,
                "fell_back": len(self.build.fell_back),
            }
        latency = None
        if self.latency is not None:
            power_mode = self.facts.power_mode if self.facts else None
            latency = {**self.latency.to_json(), "power_mode": power_mode}
        return {
            "target": self.target,
            "state": self.state,
            "name": self.name,
            "release": self.release,
            "builder": self.builder,
            "bytes_sent": self.bytes_sent,
            "bytes_present": self.bytes_present,
            "bytes_to_send": self.bytes_to_send,
            "to_build": self.to_build,
            "build": build,
            "verification": self.verification.to_json() if self.verification else None,
            "latency": latency,
            "health": self.health,
            "findings": [finding.to_json() for finding in self.findings],
            "error": self.error.to_json() if self.error else None,
        }
