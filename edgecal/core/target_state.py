"""What is known of a target: what it said, what is active there, which bundles fit it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgecal.core.findings import refused
from edgecal.errors import ConnectError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from edgecal.core.findings import Finding
    from edgecal.core.manifest import Digest
    from edgecal.core.target import Target, TargetFacts
    from edgecal.core.versions import TensorRTVersion
    from edgecal.errors import EdgecalError


@dataclass(frozen=True, slots=True, kw_only=True)
class LastFacts:
    """What is known of a target: just asked, remembered, or nothing."""

    target: Target
    facts: TargetFacts | None = None
    seen: datetime | None = None
    live: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFacts:
    """What an audit compares of a bundle."""

    name: str
    path: str
    tensorrt: TensorRTVersion
    manifest: Digest
    network: Digest
    """The same for all bundles of one network."""
    files: Mapping[str, Digest]

    @property
    def word(self) -> str:
        """The bundle in a command line."""
        return shlex.quote(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveRelease:
    """What is active on a target under one model's name."""

    model: str
    release: str
    record: Mapping[str, Any] | None
    """Its build.json; `None` where it is gone or unreadable."""
    found: Mapping[str, Digest | None]
    """Digests of the files it names as they are now; `None` for one that is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One bundle held against one target, by every rule."""

    bundle: BundleFacts
    findings: tuple[Finding, ...]

    @property
    def fits(self) -> bool:
        """Tell whether nothing refuses the pair."""
        return not refused(self.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetState:
    """Everything an audit learnt of one target."""

    last: LastFacts
    active: tuple[ActiveRelease, ...] = ()
    error: EdgecalError | None = None
    """Why it could not be asked, or not all of it."""
    asked: bool = True

    @property
    def reachable(self) -> bool | None:
        """Tell whether it answered; `None` where nobody asked."""
        return not isinstance(self.error, ConnectError) if self.asked else None

    @property
    def name(self) -> str:
        """The target's name."""
        return self.last.target.name

    @property
    def tensorrt(self) -> TensorRTVersion | None:
        """The TensorRT that it has, as far as known."""
        return self.last.facts.tensorrt if self.last.facts else None
