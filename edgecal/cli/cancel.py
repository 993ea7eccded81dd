"""`edgecal cancel`: end a build."""

from __future__ import annotations

from typing import Annotated

import typer

from edgecal.cli.ask import confirm
from edgecal.cli.options import JsonOption, QuietOption, TargetOption, YesOption
from edgecal.cli.story import Story


def cancel(
    name: Annotated[
        str | None,
        typer.Argument(help="The model; may be left out where one build runs.", show_default=False),
    ] = None,
    *,
    target: TargetOption,
    yes: YesOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be done.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """End a running build and everything it started; what is active stays active.

    A 'post_build' command of the target still runs.

    [bold]Example[/]

    edgecal cancel --target nvidia@xavier.local
    """
    from edgecal.cli.wiring import lookup, remote
    from edgecal.workflows.attach import cancel as end
    from edgecal.workflows.attach import plan_cancel

    story = Story(as_json=as_json, quiet=quiet)
    world, wanted = remote.world(), lookup.target(target)
    build = plan_cancel(wanted, world, name=name)
    what = f"the build of {build.name} on {target}, release {build.release}, by {build.owner}"
    cancelled = False
    if not dry_run:
        confirm(f"end {what}", yes=yes, story=story)
        cancelled = end(wanted, world, build)
    document = {
        "schema": "edgecal.cancel/1",
        "target": target,
        "name": build.name,
        "release": build.release,
        "owner": build.owner,
        "cancelled": cancelled,
    }
    said = "would end" if dry_run else "ended" if cancelled else "it had ended by itself:"
    story.result(document, lambda console: console.print(f"{said} {what}", markup=False))
