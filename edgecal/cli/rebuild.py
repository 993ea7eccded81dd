"""`edgecal rebuild`: build again from what a target stores."""

from __future__ import annotations

from typing import Annotated

import typer

from edgecal.cli.options import (
    AcceptUnprovenOption,
    BreakLockOption,
    JsonOption,
    QuietOption,
    TargetOption,
    VerboseOption,
)
from edgecal.cli.story import Story


def rebuild(
    name: Annotated[
        str | None,
        typer.Argument(help="The model; may be left out where there is one.", show_default=False),
    ] = None,
    *,
    target: TargetOption,
    release: Annotated[
        str | None,
        typer.Option(
            metavar="RELEASE", help="Build what this one was built from.", show_default="the active"
        ),
    ] = None,
    accept_unproven: AcceptUnprovenOption = False,
    break_lock: BreakLockOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Probe and check only; change nothing.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Build an engine again from what the target stores, as after an upgrade of its system.

    No bundle is needed here: network, cache and golden runs lie there since the push. The new
    engine is verified before it is active, and the same rules hold as for a push.

    [bold]Example[/]

    edgecal rebuild --target nvidia@xavier.local
    """
    from dataclasses import replace

    from edgecal.cli.watch import watch_pushes
    from edgecal.cli.wiring import lookup, remote
    from edgecal.workflows.rebuild import plan_rebuild
    from edgecal.workflows.report import PushOptions

    story = Story(as_json=as_json, quiet=quiet, verbose=verbose)
    world, wanted = remote.world(), lookup.target(target)
    plan = plan_rebuild(wanted, world, name=name, release=release)
    story.tell(f"building {plan.name} again, from what release {plan.release} was built from")
    options = PushOptions(
        name=plan.name,
        build=plan.build,
        rebuild=True,
        accept_unproven=accept_unproven,
        accept_restamped=True,  # it was accepted when it was pushed
        break_lock=break_lock,
        dry_run=dry_run,
        thresholds=lookup.project().thresholds,
    )
    wanted = replace(wanted, builder=wanted.builder or plan.builder)
    (report,) = watch_pushes(
        [plan.bundle], [wanted], options, world, story, schema="edgecal.rebuild/1"
    )
    raise typer.Exit(report.exit_code)
