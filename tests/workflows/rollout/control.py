"""Drives rollouts in this process, over devices of a test's fleet and a journal on disk."""

from __future__ import annotations

import contextlib
import queue
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edgecal.adapters.inventory import read_inventory
from edgecal.core.rollout.events import Event, Kind
from edgecal.core.rollout.gates import Condition, Gate
from edgecal.core.rollout.plan import parse_waves
from edgecal.core.rollout.state import Policy, Retries
from edgecal.workflows.events import EngineActivated
from edgecal.workflows.push import push
from edgecal.workflows.report import PushOptions
from edgecal.workflows.rollout.draft import Draft, draft
from edgecal.workflows.rollout.drive import drive
from edgecal.workflows.rollout.tasks import Ended, Happening, Journaled, Progress
from edgecal.workflows.rollout.threads import ThreadHands
from edgecal.workflows.rollout.work import Crew

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from edgecal.adapters.bundle import Bundle
    from edgecal.adapters.journal import DatabaseJournal
    from edgecal.core.rollout.job import Job
    from edgecal.core.rollout.state import Rollout
    from edgecal.core.target import Target
    from edgecal.ports import Transport
    from edgecal.workflows.rollout.tasks import Hands
    from tests.fleets import Fleet

NAME = "test"
QUICK = Retries(tries=3, first_ms=50, longest_ms=200, deadline_ms=60_000)


def policy(**settings: object) -> Policy:
    """Make a policy that waits for nothing."""
    given = {
        "retries": QUICK,
        "passing": Condition(minimum=1, percent=50),
        "failing": Gate(minimum=2, percent=30),
        **settings,
    }
    return Policy(**given)  # type: ignore[arg-type]  # the caller's keywords


@dataclass
class Control:
    """One rollout over a fleet: planned here, driven here or elsewhere."""

    fleet: Fleet
    bundles: Sequence[Bundle]
    job: Job
    journal: DatabaseJournal
    heard: list[Happening] = field(default_factory=list)
    connect: Callable[[Target], Transport] | None = None
    """How the rollout reaches its devices, where that is to go wrong."""

    @property
    def targets(self) -> Mapping[str, Target]:
        """Read the inventory."""
        return read_inventory(self.fleet.toml, warn=lambda _text: None).inventory.targets

    def plan(self, *, waves: str = "1,50%,100%", settings: Policy | None = None) -> Draft:
        """Plan it and write the plan down."""
        made = draft(
            NAME,
            self.bundles,
            list(self.targets.values()),
            self.job,
            waves=parse_waves(waves),
            policy=settings or policy(),
            sources={},
            world=self.fleet.world(),
        )
        self.journal.create(NAME, Event(kind=Kind.PLANNED, at_ms=now_ms(), plan=made.plan))
        return made

    @contextlib.contextmanager
    def driving(self, hands: Hands | None = None) -> Iterator[Iterator[Happening]]:
        """Drive it, step by step."""
        inbox: queue.SimpleQueue[Progress | Ended] = queue.SimpleQueue()
        hands = hands or self.hands(inbox)
        with contextlib.closing(
            drive(NAME, self.journal, hands, inbox=inbox, now_ms=now_ms)
        ) as going:
            yield going

    def hands(self, inbox: queue.SimpleQueue[Progress | Ended]) -> ThreadHands:
        """Make the hands of one machine."""
        world = self.fleet.world()
        if self.connect is not None:
            world = replace(world, connect=self.connect)
        return ThreadHands(
            Crew(
                job=self.job,
                bundles=self.bundles,
                targets=self.targets,
                world=world,
                tell=lambda target, news: inbox.put(Progress(target, news)),
            )
        )

    def drive(self, watch: Callable[[Happening], object] = lambda _one: None) -> Rollout:
        """Drive it to its end; `watch` hears of everything first."""
        with self.driving() as going:
            while True:
                try:
                    happening = next(going)
                except StopIteration as end:
                    rollout: Rollout = end.value
                    return rollout
                self.heard.append(happening)
                watch(happening)

    def kinds(self, target: str = "") -> list[str]:
        """Name what the journal says, of one device or of the rollout as a whole."""
        return [one.kind.value for one in self.journal.read(NAME) if one.target == target]


def push_by_hand(fleet: Fleet, bundle: Bundle, name: str) -> None:
    """Push to one device, for no rollout."""
    targets = read_inventory(fleet.toml, warn=lambda _text: None).inventory.targets
    events = list(push([bundle], targets[name], PushOptions(), fleet.world()))
    assert isinstance(events[-1], EngineActivated), events


def now_ms() -> int:
    """Tell the time as a controller does."""
    return time.time_ns() // 1_000_000


def journaled(happening: Happening) -> Kind | None:
    """Give what was written; nothing for anything else."""
    return happening.event.kind if isinstance(happening, Journaled) else None
