"""`edgecal rollback`: back to the release before."""

from __future__ import annotations

from typing import Annotated

import typer

from edgecal.cli.ask import confirm
from edgecal.cli.options import BreakLockOption, JsonOption, QuietOption, TargetOption, YesOption
from edgecal.cli.story import Story


def rollback(
    name: Annotated[
        str | None,
        typer.Argument(help="The model; may be left out where there is one.", show_default=False),
    ] = None,
    *,
    target: TargetOption,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="RELEASE", help="A release that is kept.", show_default="the one before"
        ),
    ] = None,
    break_lock: BreakLockOption = False,
    yes: YesOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be done.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make the release before the active one active again; it never toggles.

    The earlier engine is checked first: whole, and built with the TensorRT that is installed now.
    A build that runs is no obstacle. --break-lock does not wait for an application that holds
    'not-now' either.

    [bold]Example[/]

    edgecal rollback --target nvidia@xavier.local
    """
    from edgecal.cli.wiring import lookup, remote
    from edgecal.workflows.targets import plan_rollback, roll_back

    story = Story(as_json=as_json, quiet=quiet)
    world, wanted = remote.world(), lookup.target(target)
    plan = plan_rollback(wanted, world, name=name, to=to)
    what = f"{plan.model} on {target}: from release {plan.current} back to {plan.to}"
    if not dry_run:
        confirm(what, yes=yes, story=story)
        roll_back(wanted, world, plan, break_lock=break_lock)
    document = {
        "schema": "edgecal.rollback/1",
        "target": target,
        "name": plan.model,
        "from": plan.current,
        "to": plan.to,
        "changed": not dry_run,
    }
    story.result(
        document, lambda console: console.print(f"{'would roll' if dry_run else 'rolled'} {what}")
    )
