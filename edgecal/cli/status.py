"""`edgecal status`: what is active on targets, and since when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from edgecal.cli.options import JsonOption, QuietOption, TargetsOption
from edgecal.cli.story import Story

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from edgecal.workflows.device import ModelState


def status(
    *, targets: TargetsOption, as_json: JsonOption = False, quiet: QuietOption = False
) -> None:
    """Show which release of each model is active on a target, since when, and what else it keeps.

    [bold]Example[/]

    edgecal status --target nvidia@xavier.local
    """
    from edgecal.cli import wiring
    from edgecal.errors import EdgecalError
    from edgecal.workflows.targets import list_models

    story = Story(as_json=as_json, quiet=quiet)
    world = wiring.world()
    documents: list[dict[str, Any]] = []
    found: list[tuple[str, Sequence[ModelState]]] = []
    codes = {0}
    for text in targets:
        try:
            models = list_models(wiring.target(text), world)
        except EdgecalError as error:
            if len(targets) == 1:
                raise
            story.tell(f"[bold red]error[/] {error}")
            documents.append({"target": text, "models": [], "error": error.what})
            codes.add(error.exit_code)
            continue
        found.append((text, models))
        documents.append({"target": text, "models": [_document(model) for model in models]})
    story.result(
        {"schema": "edgecal.status/1", "targets": documents},
        lambda console: _show(console, found),
    )
    raise typer.Exit(max(codes))


def _document(model: ModelState) -> dict[str, object]:
    return {
        "name": model.name,
        "current": model.current,
        "since": _since(model),
        "releases": list(model.releases),
    }


def _since(model: ModelState) -> str | None:
    times = [one.time for one in model.activations if one.release == model.current]
    return times[-1] if times else None


def _show(console: Console, found: Sequence[tuple[str, Sequence[ModelState]]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("target", "model", "active", "since", "also kept"):
        table.add_column(column)
    for target, models in found:
        for model in models:
            others = [release for release in model.releases if release != model.current]
            table.add_row(
                escape(target),
                model.name,
                model.current or "-",
                _since(model) or "-",
                " ".join(others) or "-",
            )
        if not models:
            table.add_row(escape(target), "-", "-", "-", "-")
    console.print(table)
