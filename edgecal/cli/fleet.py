"""`edgecal fleet`: who is in the inventory, and whom an expression hits."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecal.cli.options import (
    InventoryOption,
    JsonOption,
    OnOption,
    ProbeOption,
    QuietOption,
    VerboseOption,
)
from edgecal.cli.printable import printable
from edgecal.cli.story import Story

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from rich.console import Console

    from edgecal.core.inventory import Inventory
    from edgecal.core.target import Target
    from edgecal.workflows.selecting import Asking, Chosen

group = typer.Typer(
    name="fleet",
    help="Look at the inventory, and try expressions for --on.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@group.command(name="list")
def list_fleet(
    *,
    inventory: InventoryOption = None,
    on: OnOption = None,
    probe: ProbeOption = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask nobody: take what each target last said.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """List targets and groups, or those that an expression hits.

    An expression holds names, globs, groups, fact=value and variable=value, joined by & | ! ( ).

    Facts are arch, builder, compute_capability, cuda, dla_cores, gpu, hostname, jetpack, jetson,
    l4t, model, module, power_mode, soc, tensorrt and user, as the target last said; one that never
    answered is asked. Versions count as far as they are given: 8.5 means every 8.5.x. Of whom a
    fact is unknown that decides is not hit, and listed apart.

    [bold]Examples[/]

    edgecal fleet list

    edgecal fleet list --on 'site-a & !canary & tensorrt=8.5 & module=orin-*'
    """
    from edgecal.cli.selecting import choose_on, tell_undecided
    from edgecal.cli.wiring import lookup
    from edgecal.errors import InventoryError

    story = Story(as_json=as_json, quiet=quiet, verbose=verbose)
    read = lookup.inventory(inventory)
    known, found = read.inventory, None
    if on is not None:
        asking: Asking = "nobody" if offline else "everyone" if probe else "strangers"
        found = choose_on(on, known, story, asking=asking)
        tell_undecided(found, story)
        known = found.inventory
    elif not known.targets:
        raise InventoryError(
            "no target is named",
            where=read.source or "inventory",
            remedy="write fleet.toml with a table [targets.NAME] for each, or pass --inventory",
        )
    shown = found.choice.hits if found else tuple(known.targets)
    story.result(
        _document(known, shown, found, read.source, on),
        lambda console: _show(console, known, shown),
    )


@group.command()
def show(
    name: Annotated[str, typer.Argument(metavar="TARGET", help="A name in the inventory.")],
    *,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show the settings of a target with all it inherits from its groups.

    [bold]Example[/]

    edgecal fleet show xavier-1
    """
    from edgecal.cli.wiring import lookup
    from edgecal.errors import InventoryError

    story = Story(as_json=as_json, quiet=quiet)
    read = lookup.inventory(inventory)
    known = read.inventory.admitting([name])
    if name not in known.targets:
        raise InventoryError(
            f"no target is called {name!r}",
            where=read.source or "inventory",
            remedy="see who is there: 'edgecal fleet list'",
        )
    member = known.memberships()[name]
    target = known.targets[name]
    settings = {key: value for key, value in asdict(target).items() if key != "name"}
    document = {
        "schema": "edgecal.fleet/1",
        "source": read.source,
        "target": name,
        "groups": list(member),
        "settings": settings,
        "variables": sorted(known.variables.get(name, {})),
    }
    story.result(document, lambda console: _show_settings(console, document))


def _document(
    known: Inventory,
    shown: Sequence[str],
    found: Chosen | None,
    source: str | None,
    on: str | None,
) -> dict[str, Any]:
    member = known.memberships()
    undecided = found.choice.undecided if found else {}
    errors = found.errors if found else {}
    return {
        "schema": "edgecal.fleet/1",
        "source": source,
        "on": on,
        "targets": [_target_document(known.targets[name], member[name]) for name in shown],
        "groups": [
            {"name": name, "targets": list(members)} for name, members in known.groups.items()
        ],
        "total": len(known.targets),
        "undecided": [
            {
                "target": name,
                "facts": list(facts),
                "error": errors[name].to_json() if name in errors else None,
            }
            for name, facts in undecided.items()
        ],
    }


def _target_document(target: Target, groups: Collection[str]) -> dict[str, Any]:
    return {
        "target": target.name,
        "host": target.host,
        "user": target.user,
        "port": target.port,
        "groups": list(groups),
    }


def _show(console: Console, known: Inventory, shown: Sequence[str]) -> None:
    from rich.table import Table
    from rich.text import Text

    from edgecal.cli.targets import print_grid

    member = known.memberships()
    table = Table(box=None, pad_edge=False)
    table.add_column("target", no_wrap=True)
    table.add_column("address", overflow="fold")
    table.add_column("groups", overflow="fold")
    for name in shown:
        cells = (name, known.targets[name].address, ", ".join(member[name]) or "-")
        table.add_row(*(Text(printable(cell)) for cell in cells))
    if shown:
        print_grid(console, table)
    every = "" if len(shown) == len(known.targets) else f" of {len(known.targets)}"
    console.print(f"{len(shown)}{every} target{'' if len(known.targets) == 1 else 's'}")


def _show_settings(console: Console, document: Mapping[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from edgecal.cli.targets import print_grid

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    rows: dict[str, object] = {
        "groups": ", ".join(document["groups"]),
        **document["settings"],
        "variables": ", ".join(document["variables"]),
    }
    for key, value in rows.items():
        if value in {None, (), ""}:
            continue
        words = " ".join(value) if isinstance(value, tuple) else str(value)
        table.add_row(Text(key), Text(printable(words)))
    print_grid(console, table)
