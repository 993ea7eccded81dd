"""What a push says while it runs: one typed event per thing that happened or is about to."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgecal.core.build import BuildResult
    from edgecal.core.findings import Finding
    from edgecal.core.target import BuilderFact, TargetFacts
    from edgecal.core.verification import Verification
    from edgecal.errors import EdgecalError


class Step(enum.Enum):
    """What a push does next."""

    CONNECT = "connect"
    SHIP = "ship"
    BUILD = "build"
    VERIFY = "verify"
    ACTIVATE = "activate"


@dataclass(frozen=True, slots=True)
class StepDue:
    """The step begins when the caller asks for the next event."""

    step: Step
    detail: str = ""


@dataclass(frozen=True, slots=True)
class TargetProbed:
    """The target answered."""

    facts: TargetFacts


@dataclass(frozen=True, slots=True)
class PairingChecked:
    """Every rule has spoken; errors among the findings end the push here."""

    findings: tuple[Finding, ...]
    builder: BuilderFact | None


@dataclass(frozen=True, slots=True)
class CacheShipped:
    """Every file is on the target, by digest."""

    sent_bytes: int
    present_bytes: int


@dataclass(frozen=True, slots=True)
class BuildRuns:
    """The builder is at work; comes every few seconds."""

    seconds: float
    log: str
    """What it said since the last time."""


@dataclass(frozen=True, slots=True)
class EngineBuilt:
    """The build ended well, and its log was read."""

    release: str
    result: BuildResult
    seconds: float


@dataclass(frozen=True, slots=True)
class EngineVerified:
    """The golden inputs ran through the engine and passed."""

    verification: Verification


@dataclass(frozen=True, slots=True)
class EngineActivated:
    """The engine is the active one; `changed` is false where it already was."""

    release: str
    changed: bool


@dataclass(frozen=True, slots=True)
class StepFailed:
    """The push ended here."""

    error: EdgecalError


PushEvent = (
    StepDue
    | TargetProbed
    | PairingChecked
    | CacheShipped
    | BuildRuns
    | EngineBuilt
    | EngineVerified
    | EngineActivated
    | StepFailed
)
