"""`edgecal rollout resume`: drive a rollout on."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import typer

from edgecal.cli.cluster import ClusterWords
from edgecal.cli.options import InventoryOption
from edgecal.cli.rollout.options import (
    BundlesArgument,
    JournalWords,
    LimitWords,
    ListenerWords,
    OutputWords,
    RolloutArgument,
    takes,
)
from edgecal.cli.story import Story

if TYPE_CHECKING:
    from edgecal.cli.rollout.standing import Standing
    from edgecal.ports import Journal


@takes(
    journal_words=JournalWords,
    limits=LimitWords,
    cluster=ClusterWords,
    listeners=ListenerWords,
    output=OutputWords,
)
def resume(
    name: RolloutArgument,
    bundles: BundlesArgument = None,
    inventory: InventoryOption = None,
    *,
    journal_words: JournalWords,
    limits: LimitWords,
    cluster: ClusterWords,
    listeners: ListenerWords,
    output: OutputWords,
) -> None:
    """Drive a rollout on after its controller has ended, or after 'edgecal rollout pause'.

    Devices that were under way are asked what they run: none is pushed to twice, and none is left
    out. Bundles are found where they lay, or among those named here, by their digests. If somebody
    else drives the rollout, a paused one goes on there, and any other is left to them.

    Exit codes are those of 'edgecal rollout start'.

    [bold]Example[/]

    edgecal rollout resume net-8.5-20260301-101500
    """
    from edgecal.cli.rollout.drafting import find_bundles, find_targets
    from edgecal.cli.rollout.driving import Gear, drive_to_end, make_listeners, make_world
    from edgecal.cli.rollout.standing import PAUSED, journal_url, stand
    from edgecal.cli.wiring import lookup, machine, rollouts
    from edgecal.core.rollout.events import Kind
    from edgecal.errors import InputError
    from edgecal.workflows.rollout.wishes import wish

    story = Story(as_json=output.as_json, quiet=output.quiet, verbose=output.verbose)
    project = lookup.project()
    world = make_world(limits, project)
    over = cluster.request(project)
    journal = rollouts.journal(journal_url(journal_words.journal, project))
    standing = stand(journal, name)
    _check_open(standing)
    plan = standing.rollout.plan
    paused = standing.rollout.phase in PAUSED
    try:
        journal.release(name, journal.acquire(name))
    except InputError:
        if not paused:
            raise
        wish(journal, name, Kind.RESUMED, who=world.owner, now_ms=machine.now_ms())
        _tell_resumed(journal, name, story)
        return
    found = find_bundles(plan.bundles, plan.job.places, bundles, rollout=name)
    targets = find_targets(list(standing.rollout.devices), plan.job, inventory=inventory)
    if paused:
        wish(journal, name, Kind.RESUMED, who=world.owner, now_ms=machine.now_ms())
    heard, takes_stdout = make_listeners(listeners, project, story)
    with contextlib.closing(heard):
        gear = Gear(
            bundles=found,
            targets=targets,
            world=world,
            listeners=heard,
            takes_stdout=takes_stdout,
            over=over,
        )
        raise typer.Exit(drive_to_end(name, journal, gear, story))


def _check_open(standing: Standing) -> None:
    from edgecal.cli.rollout.faults import way_on
    from edgecal.cli.rollout.standing import OVER
    from edgecal.errors import InputError

    rollout = standing.rollout
    if rollout.phase not in OVER or rollout.busy():
        return
    again = way_on(rollout)
    raise InputError(
        f"it is {rollout.phase.value}, and there is nothing to go on with",
        where=f"rollout {rollout.plan.rollout}",
        remedy=f"have devices tried again: '{again}'" if again else "start another rollout",
    )


def _tell_resumed(journal: Journal, name: str, story: Story) -> None:
    from edgecal.cli.rollout.standing import stand
    from edgecal.cli.rollout.wishes import tell_wish

    tell_wish("resumed", stand(journal, name), story)
