"""Driving a rollout from a command: until it ends, halts, or is interrupted."""

from __future__ import annotations

import contextlib
import queue
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgecal.cli.interrupts import INTERRUPTED, exit_code_of
from edgecal.cli.rollout.lines import plain
from edgecal.cli.rollout.shown import show_rollout
from edgecal.cli.rollout.standing import end_code, stand
from edgecal.cli.rollout.watching import Watch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from edgecal.adapters.bundle import Bundle
    from edgecal.cli.cluster import ClusterRequest
    from edgecal.cli.rollout.options import LimitWords, ListenerWords
    from edgecal.cli.story import Story
    from edgecal.core.project import Project
    from edgecal.core.target import Target
    from edgecal.ports import Journal
    from edgecal.workflows.rollout.listeners import Listeners
    from edgecal.workflows.rollout.tasks import Ended
    from edgecal.workflows.world import World


def make_world(limits: LimitWords, project: Project) -> World:
    """Make the world with as much at once as the command says, else as the project does."""
    from edgecal.cli.wiring import remote
    from edgecal.core.bandwidth import parse_rate

    defaults = project.rollout
    rate, bastion_rate = defaults.limit_rate, defaults.limit_rate_per_bastion
    if limits.limit_rate:
        rate = parse_rate(limits.limit_rate, source="--limit-rate")
    if limits.bastion_rate:
        bastion_rate = parse_rate(limits.bastion_rate, source="--limit-rate-per-bastion")
    return remote.world(
        limit_rate=rate,
        bastion_rate=bastion_rate,
        connections=limits.connections or defaults.connections,
        transfers=limits.transfers or defaults.transfers,
        builds=limits.builds or defaults.builds,
    )


def make_listeners(words: ListenerWords, project: Project, story: Story) -> tuple[Listeners, bool]:
    """Make those who hear of the rollout, as the command says, else as the project does.

    Tells whether stdout is theirs.

    Raises
    ------
    InputError
        If one cannot be told anything, or two things are to be on stdout.
    """
    from edgecal.cli.wiring import rollouts
    from edgecal.core.rollout.wording import parse_hook
    from edgecal.errors import InputError

    defaults = project.rollout
    events = words.events or defaults.events
    if events == "-" and story.as_json:
        raise InputError(
            "stdout is for the one document of --json",
            where="--events -",
            remedy="leave one of them out, or name a file for the events",
        )
    made = rollouts.listeners(
        events=events,
        hook=parse_hook(words.hook, source="--hook") if words.hook else defaults.hook,
        metrics=words.metrics or defaults.metrics,
        warn=lambda text: story.tell(f"[yellow]warning[/] {plain(text)}"),
    )
    return made, events == "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gear:
    """What a rollout is driven with."""

    bundles: Sequence[Bundle]
    targets: Mapping[str, Target]
    world: World
    listeners: Listeners
    takes_stdout: bool
    over: ClusterRequest | None = None
    """The cluster whose workers do the work; else it is done here."""


def drive_to_end(name: str, journal: Journal, gear: Gear, story: Story) -> int:
    """Drive a rollout as far as it goes, showing it; gives the exit code.

    An interrupt ends only the driving: devices are left whole, and `resume` goes on.
    """
    from edgecal.cli.wiring import machine, rollouts
    from edgecal.workflows.rollout.drive import drive
    from edgecal.workflows.rollout.tasks import Progress
    from edgecal.workflows.rollout.work import Crew

    inbox: queue.SimpleQueue[Progress | Ended] = queue.SimpleQueue()
    standing = stand(journal, name).rollout
    crew = Crew(
        job=standing.plan.job,
        bundles=gear.bundles,
        targets=gear.targets,
        world=gear.world,
        tell=lambda target, news: inbox.put(Progress(target, news)),
    )
    watch = Watch(standing, story, now_ms=machine.now_ms, driving=True)
    code = 0
    try:
        with (
            rollouts.hands(crew, gear.over, lambda text: story.tell(plain(text))) as hands,
            watch.showing(),
            contextlib.closing(
                drive(name, journal, hands, inbox=inbox, now_ms=machine.now_ms)
            ) as driving,
        ):
            for happening in driving:
                gear.listeners.hear(happening)
                watch.hear(happening)
    except KeyboardInterrupt as error:
        code = exit_code_of(error) or INTERRUPTED
    found = stand(journal, name)

    def show(console: Console) -> None:
        show_rollout(console, found, now_ms=machine.now_ms(), verbose=story.verbose)

    if gear.takes_stdout:
        show(story.err)
    else:
        story.result(found.document(), show)
    if code:
        story.err.print("interrupted; nothing half-done is left active")
    return code or end_code(found.rollout)
