"""What a rollout is at one moment: its plan, its phase, and where every device stands."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from edgecal.core.rollout.gates import Condition, Gate
from edgecal.core.rollout.job import Job
from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Phase(enum.Enum):
    """Where a rollout stands."""

    RUNNING = "running"
    HELD = "held"
    """A wave has passed, and a person must promote the next; late devices are still tried."""
    PAUSED = "paused"
    """By a person; starts nothing."""
    ROLLING_BACK = "rolling-back"
    PAUSED_ROLLING_BACK = "paused-rolling-back"
    FAILED = "failed"
    """A wave has failed, and nothing starts until a person retries."""
    HALTED = "halted"
    """By a person, for good: another rollout finds what is active already and leaves it."""
    FINISHED = "finished"


class DevicePhase(enum.Enum):
    """Where a device stands in its rollout."""

    PENDING = "pending"
    PUSHING = "pushing"
    WAITING = "waiting"
    """For the next try."""
    ACTIVE = "active"
    KEPT = "kept"
    """It ran this release before the rollout came, so rolling back leaves it alone."""
    FAILED = "failed"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    ROLLING_BACK = "rolling-back"
    ROLLED_BACK = "rolled-back"
    ROLLBACK_FAILED = "rollback-failed"


class OnFailure(enum.Enum):
    """What happens when a wave has failed."""

    HALT = "halt"
    ROLLBACK = "rollback"
    """Take back this wave's devices; those of other waves stay."""
    CONTINUE = "continue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why a try did not succeed: an error's code, what happened, what to do."""

    code: str
    what: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often and how long a device is tried again. Times are milliseconds."""

    tries: int = 4
    """Pushes in all for what can pass and is nobody's absence: a transfer that broke off."""
    first_ms: int = 5_000
    """Before the second try; doubled for each further one."""
    longest_ms: int = 15 * 60_000
    deadline_ms: int = 24 * 3_600_000
    """How long offline and occupied devices are waited for, from their first try."""

    def __post_init__(self) -> None:
        if self.tries < 1 or self.deadline_ms < 0 or not 0 < self.first_ms <= self.longest_ms:
            raise InputError(
                f"expected at least one try and waits above 0, found {self}",
                remedy="shorten no wait to 0; --deadline 0 alone means: do not wait",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a rollout was told about going on and stopping."""

    passing: Condition = field(default_factory=lambda: Condition(minimum=1, percent=90))
    failing: Gate = field(default_factory=lambda: Gate(minimum=8, percent=10))
    missing: Gate | None = None
    """For unreachable devices; `None` if they never stop a rollout."""
    on_failure: OnFailure = OnFailure.HALT
    soak_ms: int = 0
    pause_after: frozenset[int] = frozenset()
    """Indices of waves after which a person must promote."""
    in_flight: int = 32
    retries: Retries = field(default_factory=Retries)

    def __post_init__(self) -> None:
        if self.in_flight < 1 or self.soak_ms < 0 or min(self.pause_after, default=0) < 0:
            raise InputError(
                f"expected at least one device at a time, and times from 0, found {self}",
                remedy="leave the option out, or give it a number above 0",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a rollout set out to do; its first entry in the journal."""

    rollout: str
    bundles: tuple[str, ...]
    """Digests of the manifests."""
    waves: tuple[tuple[str, ...], ...]
    refused: Mapping[str, tuple[str, ...]]
    """Targets in no wave, with the rules that refused them."""
    policy: Policy
    job: Job = field(default_factory=Job)

    def __post_init__(self) -> None:
        names = [name for wave in self.waves for name in wave]
        if (
            not all(self.waves)
            or not names
            or len({*names, *self.refused}) != len(names) + len(self.refused)
        ):
            raise InputError(
                "expected waves of at least one device, each device in one of them or refused",
                where=f"rollout {self.rollout}",
                remedy="plan the rollout anew",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One target in its rollout. Times are milliseconds since 1970 by the controller's clock."""

    wave: int
    phase: DevicePhase = DevicePhase.PENDING
    attempts: int = 0
    """Pushes that were started, and neither stopped nor cut short by the controller's end."""
    broken_off: int = 0
    """How many of them broke off, and were to be tried again."""
    rollbacks: int = 0
    first_ms: int = 0
    """When the first push started."""
    not_before_ms: int = 0
    release: str = ""
    fault: Fault | None = None


IN_FLIGHT: Final = (DevicePhase.PUSHING, DevicePhase.ROLLING_BACK)
SUCCEEDED: Final = (DevicePhase.ACTIVE, DevicePhase.KEPT)
Members = dict[tuple[int, DevicePhase], dict[str, None]]
"""Targets by wave and phase, in the order in which they came there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A rollout at one moment; `machine.advance` makes the next one.

    `devices` and `members` say the same twice, so that neither counting nor finding the next device
    looks at all of them. Neither is ever changed in place.
    """

    plan: Plan
    phase: Phase
    devices: dict[str, Device]
    members: Members
    wave: int = -1
    """Index of the wave that was started last."""
    passed_ms: int | None = None
    """When that wave's condition was found to hold."""
    promoted: bool = False
    """A person has asked for the next wave."""
    failed_wave: int | None = None
    excused: frozenset[int] = frozenset()
    """Waves that failed and were passed over."""

    def count(self, wave: int, *phases: DevicePhase) -> int:
        """Count a wave's devices in these phases."""
        return sum(len(self.members.get((wave, phase), ())) for phase in phases)

    def in_phase(self, phase: DevicePhase, *, waves: int | None = None) -> tuple[str, ...]:
        """Name the devices in a phase, wave by wave; only those of the first `waves`."""
        total = len(self.plan.waves) if waves is None else waves
        return tuple(name for wave in range(total) for name in self.members.get((wave, phase), ()))

    def busy(self) -> tuple[str, ...]:
        """Name the devices that somebody is at work on, in the journal's eyes."""
        return tuple(name for phase in IN_FLIGHT for name in self.in_phase(phase))


def begin(plan: Plan) -> Rollout:
    """Make a rollout that has done nothing yet."""
    return Rollout(
        plan=plan,
        phase=Phase.RUNNING,
        devices={name: Device(wave=at) for at, wave in enumerate(plan.waves) for name in wave},
        members={
            (at, DevicePhase.PENDING): dict.fromkeys(wave) for at, wave in enumerate(plan.waves)
        },
    )
