"""`edgecal status`: what is active on targets, and since when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from edgecal.cli.options import (
    InventoryOption,
    JsonOption,
    OnOption,
    ProbeOption,
    QuietOption,
    TargetsOption,
)
from edgecal.cli.story import Story

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from edgecal.workflows.kept import ModelState


def status(
    *,
    targets: TargetsOption = None,
    on: OnOption = None,
    inventory: InventoryOption = None,
    probe: ProbeOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show which release of each model is active on a target, since when, and what else it keeps.

    [bold]Examples[/]

    edgecal status --target nvidia@xavier.local

    edgecal status --on 'site-a & !canary'
    """
    from edgecal.cli.push import max_exit_code
    from edgecal.cli.selecting import chosen_targets
    from edgecal.cli.several import ask_each, tell_failures
    from edgecal.cli.wiring import remote
    from edgecal.workflows.targets import list_models

    story = Story(as_json=as_json, quiet=quiet)
    wanted = chosen_targets(targets, on=on, inventory=inventory, probe=probe, story=story)
    world = remote.world()
    found, errors = ask_each(wanted, lambda text: list_models(wanted[text], world))
    tell_failures(wanted, errors, story)
    documents: list[dict[str, Any]] = [
        {"target": text, "models": [], "error": errors[text].to_json()}
        if text in errors
        else {"target": text, "models": [_document(one) for one in found[text]], "error": None}
        for text in wanted
    ]
    story.result(
        {"schema": "edgecal.status/1", "targets": documents},
        lambda console: _show(console, list(found.items())),
    )
    raise typer.Exit(max_exit_code([error.exit_code for error in errors.values()]))


def _document(model: ModelState) -> dict[str, object]:
    return {
        "name": model.name,
        "current": model.current,
        "since": _since(model),
        "releases": list(model.releases),
        "health": None if model.trial == "none" else model.trial,
        "builds": [
            {"release": job.release, "state": job.state, "status": job.status, "owner": job.owner}
            for job in model.jobs
        ],
    }


def _since(model: ModelState) -> str | None:
    times = [
        one.time
        for one in model.activations
        if one.release == model.current and one.action != "confirm"
    ]
    return times[-1] if times else None


def _show(console: Console, found: Sequence[tuple[str, Sequence[ModelState]]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    rows = [
        (
            escape(target),
            model.name,
            model.current or "-",
            _since(model) or "-",
            " ".join(one for one in model.releases if one != model.current) or "-",
            "-" if model.trial == "none" else model.trial,
            " ".join(job.release for job in model.jobs if job.state == "running") or "-",
        )
        for target, models in found
        for model in models
    ]
    rows += [(escape(target), *("-",) * 6) for target, models in found if not models]
    heads = ("target", "model", "active", "since", "also kept", "health", "building")
    # the last two only where there is something to say
    shown = [at for at in range(7) if at < 5 or any(row[at] != "-" for row in rows)]
    table = Table(box=None, pad_edge=False)
    for at in shown:
        table.add_column(heads[at])
    for row in rows:
        table.add_row(*(row[at] for at in shown))
    console.print(table)
