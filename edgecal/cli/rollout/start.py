"""`edgecal rollout start`: a rollout from its plan to its end."""

from __future__ import annotations

import contextlib

import typer

from edgecal.cli.ask import confirm
from edgecal.cli.cluster import ClusterWords
from edgecal.cli.rollout.options import (
    LimitWords,
    ListenerWords,
    OutputWords,
    PlanWords,
    StartWords,
    takes,
)
from edgecal.cli.story import Story


@takes(
    words=PlanWords,
    starting=StartWords,
    limits=LimitWords,
    cluster=ClusterWords,
    listeners=ListenerWords,
    output=OutputWords,
)
def start(
    words: PlanWords,
    starting: StartWords,
    limits: LimitWords,
    *,
    cluster: ClusterWords,
    listeners: ListenerWords,
    output: OutputWords,
) -> None:
    """Roll bundles out to a fleet in waves; the next wave goes when the one before has passed.

    Shows the plan first, and asks. Each device builds its own engine and verifies it; the old one
    stays active until then. What happens is written to the journal before it is acted on:
    'edgecal rollout resume' goes on from wherever this command ended, however it ended. Pause,
    halt, promote and retry work from any other shell.

    Exit codes: 0 every device of the waves runs the release; 5 a gate or a person stopped it; 4 it
    finished, and devices failed or were not reached, within the gates; 3 it finished, and rules
    refused devices at their turn; 130 or 143 interrupted.

    [bold]Examples[/]

    edgecal rollout start net.edgecal --on site-a

    edgecal rollout start net-8.5.edgecal net-10.3.edgecal --on 'site-a & !lab' --waves 2,10%,100%
    --soak 30m --pause-after 1 --on-failure rollback --yes

    edgecal rollout start net.edgecal --on all --failures 5%,3 --missing 20% --deadline 3d
    --journal postgresql://ops@db/edgecal
    """
    from edgecal.cli.rollout.drafting import check_new_name, prepare
    from edgecal.cli.rollout.driving import Gear, drive_to_end, make_listeners, make_world
    from edgecal.cli.rollout.lines import devices
    from edgecal.cli.rollout.shown import show_draft
    from edgecal.cli.rollout.standing import journal_url
    from edgecal.cli.wiring import lookup, machine, rollouts
    from edgecal.core.rollout.events import Event, Kind
    from edgecal.core.rollout.state import begin
    from edgecal.workflows.rollout.tasks import Journaled

    story = Story(as_json=output.as_json, quiet=output.quiet, verbose=output.verbose)
    project = lookup.project()
    world = make_world(limits, project)
    journal = rollouts.journal(journal_url(starting.journal, project))
    heard, takes_stdout = make_listeners(listeners, project, story)
    with contextlib.closing(heard):
        check_new_name(words.name, journal)
        over = cluster.request(project)
        prepared = prepare(words, project, world, story, over=over)
        plan = prepared.draft.plan
        if not output.quiet or not starting.yes:
            show_draft(story.err, prepared.draft, verbose=output.verbose)
        total = devices(sum(map(len, plan.waves)))
        confirm(f"roll out to {total} as {plan.rollout}", yes=starting.yes, story=story)
        event = Event(kind=Kind.PLANNED, at_ms=machine.now_ms(), why=world.owner, plan=plan)
        journal.create(plan.rollout, event)
        heard.hear(Journaled(event, begin(plan), 1))
        gear = Gear(
            bundles=prepared.bundles,
            targets=prepared.targets,
            world=world,
            listeners=heard,
            takes_stdout=takes_stdout,
            over=over,
        )
        raise typer.Exit(drive_to_end(plan.rollout, journal, gear, story))
