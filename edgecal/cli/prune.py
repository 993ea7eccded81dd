"""`edgecal prune`: free space on targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecal.cli.ask import confirm
from edgecal.cli.options import (
    BreakLockOption,
    InventoryOption,
    JsonOption,
    OnOption,
    ProbeOption,
    QuietOption,
    TargetsOption,
    YesOption,
)
from edgecal.cli.story import Story, size_text

if TYPE_CHECKING:
    from edgecal.workflows.answers import Pruned


def prune(
    name: Annotated[
        str | None,
        typer.Argument(help="The model.", show_default="all of them"),
    ] = None,
    *,
    targets: TargetsOption = None,
    on: OnOption = None,
    inventory: InventoryOption = None,
    probe: ProbeOption = False,
    keep: Annotated[
        int, typer.Option(min=0, metavar="N", help="How many of the newest releases stay.")
    ] = 2,
    break_lock: BreakLockOption = False,
    yes: YesOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be done.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Remove old releases, ended builds, and stored files that nothing needs any more.

    Never what is active, what 'edgecal rollback' would go to, or what a running build or a push of
    the last day is using; --break-lock counts such pushes as gone.

    [bold]Example[/]

    edgecal prune --target nvidia@xavier.local --keep 1
    """
    from edgecal.cli.push import max_exit_code
    from edgecal.cli.selecting import chosen_targets
    from edgecal.cli.several import ask_each, tell_failures
    from edgecal.cli.wiring import remote
    from edgecal.workflows.prune import plan_prune
    from edgecal.workflows.prune import prune as remove

    story = Story(as_json=as_json, quiet=quiet)
    wanted = chosen_targets(targets, on=on, inventory=inventory, probe=probe, story=story)
    world = remote.world()
    plans, errors = ask_each(
        wanted,
        lambda text: plan_prune(wanted[text], world, name=name, keep=keep, break_lock=break_lock),
    )
    tell_failures(wanted, errors, story)
    done = {text: plan for text, (_, plan) in plans.items()}
    if not dry_run and done:
        if any(one.freed_bytes or one.releases or one.jobs for one in done.values()):
            lines = [f"remove on {text}: {_sentence(plan)}" for text, plan in done.items()]
            confirm("\n".join(lines), yes=yes, story=story)
        done, failed = ask_each(
            plans, lambda text: remove(wanted[text], world, plans[text][0], break_lock=break_lock)
        )
        tell_failures(wanted, failed, story)
        errors = {**errors, **failed}
    documents = [
        _document(text, done[text])
        if text in done
        else {"target": text, "error": errors[text].to_json()}
        for text in wanted
    ]
    verb = "would remove on" if dry_run else "removed on"
    said = [f"{verb} {text}: {_sentence(one)}" for text, one in done.items()]
    story.result(
        {
            "schema": "edgecal.prune/1",
            "changed": bool(done) and not dry_run,
            "targets": documents,
        },
        lambda console: console.print("\n".join(said), markup=False),
    )
    raise typer.Exit(max_exit_code([error.exit_code for error in errors.values()]))


def _sentence(pruned: Pruned) -> str:
    parts = [
        *(f"release {release} of {name}" for name, release, _ in pruned.releases),
        *(f"build {release} of {name}" for name, release, _ in pruned.jobs),
    ]
    if pruned.blobs:
        parts.append(f"{pruned.blobs} stored file{'s' if pruned.blobs > 1 else ''}")
    kept = "".join(f"; {release} of {name} is in use and stays" for name, release in pruned.kept)
    return f"{', '.join(parts) or 'nothing'} ({size_text(pruned.freed_bytes)}){kept}"


def _document(target: str, pruned: Pruned) -> dict[str, Any]:
    return {
        "target": target,
        "releases": [
            {"name": name, "release": release, "bytes": size}
            for name, release, size in pruned.releases
        ],
        "jobs": [
            {"name": name, "release": release, "bytes": size} for name, release, size in pruned.jobs
        ],
        "kept": [{"name": name, "release": release} for name, release in pruned.kept],
        "files": pruned.blobs,
        "freed_bytes": pruned.freed_bytes,
        "error": None,
    }
