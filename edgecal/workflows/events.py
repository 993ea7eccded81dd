"""What a push says while it runs: one typed event per thing that happened or is about to."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgecal.core.build import BuildResult
    from edgecal.core.findings import Finding
    from edgecal.core.latency import Latency
    from edgecal.core.signing import Verdict
    from edgecal.core.target import BuilderFact, TargetFacts
    from edgecal.core.verification import Verification
    from edgecal.errors import EdgecalError


class Step(enum.Enum):
    """What a push does next."""

    CONNECT = "connect"
    SHIP = "ship"
    SIGNATURE = "signature"
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
class SignatureChecked:
    """The target has nothing against the bundle's signature, or the lack of one."""

    verdict: Verdict


@dataclass(frozen=True, slots=True)
class BuildRuns:
    """The builder is at work; comes every few seconds."""

    seconds: float
    log: str
    """What it said since the last time."""


@dataclass(frozen=True, slots=True)
class CacheReheaded:
    """The builder refused the cache for its header; it is built once more, from a copy of it."""

    builder: BuilderFact


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
class EngineMeasured:
    """The engine ran for some seconds; `None` where the builder at hand does not measure."""

    latency: Latency | None
    power_mode: str | None
    """In which the target said it was when it was probed."""


@dataclass(frozen=True, slots=True)
class EngineActivated:
    """The engine is the active one; `changed` is false where it already was."""

    release: str
    changed: bool


@dataclass(frozen=True, slots=True)
class ActivationWaits:
    """An application on the target asked that nothing be activated now."""

    seconds: float


@dataclass(frozen=True, slots=True)
class TrialRuns:
    """The engine is active, and its health is being checked there."""

    seconds: float
    soak_s: int


@dataclass(frozen=True, slots=True)
class EngineConfirmed:
    """The health check passed, and the target knows that we know."""

    release: str


@dataclass(frozen=True, slots=True)
class StepFailed:
    """The push ended here."""

    error: EdgecalError


PushEvent = (
    StepDue
    | TargetProbed
    | PairingChecked
    | CacheShipped
    | SignatureChecked
    | BuildRuns
    | CacheReheaded
    | EngineBuilt
    | EngineVerified
    | EngineMeasured
    | EngineActivated
    | ActivationWaits
    | TrialRuns
    | EngineConfirmed
    | StepFailed
)
