"""`edgecal attach`: the log of a build that somebody started, as it grows."""

from __future__ import annotations

from typing import Annotated

import typer

from edgecal.cli.options import JsonOption, QuietOption, TargetOption
from edgecal.cli.story import Story


def attach(
    name: Annotated[
        str | None,
        typer.Argument(help="The model; may be left out where one build runs.", show_default=False),
    ] = None,
    *,
    target: TargetOption,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Watch a build on a target to its end: a running one, or one that waits to be verified.

    Ctrl-C detaches; the build goes on. 'edgecal push' of the same bundle verifies and activates.

    [bold]Example[/]

    edgecal attach --target nvidia@xavier.local
    """
    from rich.markup import escape

    from edgecal.cli.printable import printable
    from edgecal.cli.wiring import lookup, remote
    from edgecal.workflows.attach import attach as follow

    story = Story(as_json=as_json, quiet=quiet)
    following = follow(lookup.target(target), remote.world(), name=name)
    rest = ""
    try:
        while True:
            try:
                text = rest + next(following).decode("utf-8", "replace")
            except StopIteration as end:
                build, job = end.value
                break
            *lines, rest = text.split("\n")
            for line in lines:
                story.tell(f"[dim]|[/] {escape(printable(line))}")
    except KeyboardInterrupt:
        story.tell("detached; the build goes on")
        raise
    if rest:
        story.tell(f"[dim]|[/] {escape(printable(rest))}")
    succeeded = job.job == "done" and job.status == 0
    ended = {
        "done": f"ended with status {job.status}",
        "lost": "vanished without a result",
        "none": "was taken up by a push",
    }[job.job]
    document = {
        "schema": "edgecal.attach/1",
        "target": target,
        "name": build.name,
        "release": build.release,
        "owner": build.owner,
        "state": job.job,
        "status": job.status,
    }
    story.result(
        document,
        lambda console: console.print(
            f"the build of {build.name}, release {build.release}, {ended}"
            + ("; push its bundle again to verify and activate it" if succeeded else "")
        ),
    )
    raise typer.Exit(0 if succeeded or job.job == "none" else 4)
