"""What a rollout asks of one device and what comes back: values that may cross machines."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from concurrent.futures import Future

    from edgecal.core.rollout.events import Event
    from edgecal.core.rollout.state import Fault, Rollout
    from edgecal.workflows.events import PushEvent


class Action(enum.Enum):
    """What is to be done with a device."""

    PUSH = "push"
    ASK = "ask"
    """Whether the release that this rollout brings is active there; changes nothing."""
    ROLL_BACK = "roll-back"
    """To what was active before, if this rollout's release still is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTask:
    """One thing to do with one device."""

    rollout: str
    target: str
    """Its name in the inventory of whoever does it."""
    action: Action
    release: str = ""
    """To roll back: this rollout's release there."""
    since_ms: int = 0
    """To ask: what the device did before that is of no interest."""


class Result(enum.Enum):
    """What is true of a device at the end of a task."""

    ACTIVE = "active"
    """It runs the release, because of this rollout."""
    KEPT = "kept"
    """It ran the release before the rollout came."""
    NOT_OURS = "not-ours"
    """It does not run the release: it never came to that, or was taken back."""
    FAULT = "fault"
    """The task did not succeed, and changed nothing; of a question: the release was active, and
    the device took it back by itself."""
    UNCLEAR = "unclear"
    """The task broke off when the device may have gone through with it already, or there was no
    answer: ask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a task ended."""

    result: Result
    release: str = ""
    fault: Fault | None = None
    """Of a fault, and of what is unclear."""


class Hands(Protocol):
    """Whoever does the work on devices: threads of this process, or workers of a cluster.

    What a task does in between is told to whomever the hands were made with: `tell(target, news)`,
    from any thread.
    """

    def begin(self, task: DeviceTask) -> Future[Outcome]:
        """Begin a task, and come back at once.

        What the future raises ends the rollout's driver: a broken device is an outcome.
        """
        ...

    def stop(self) -> None:
        """Ask what was begun until now to stop at the next point where that leaves things whole."""
        ...


@dataclass(frozen=True, slots=True)
class Begun:
    """From here on this process drives the rollout; nobody hears the entries before again."""

    rollout: Rollout
    entry: int
    """How many entries the journal has."""


@dataclass(frozen=True, slots=True)
class Journaled:
    """An event stands in the journal, by us or by somebody else; `rollout` has it applied."""

    event: Event
    rollout: Rollout
    entry: int
    """Its place in the journal, from 1."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A device at work says something: an event of its push, or how many bytes were just sent."""

    target: str
    news: PushEvent | int


@dataclass(frozen=True, slots=True)
class Ended:
    """A task is over; its future is done."""

    task: DeviceTask
    future: Future[Outcome]


Happening = Begun | Journaled | Progress
"""What `drive` yields, in the order in which it happened."""
