"""Which targets a command is for: those named, and those that `--on` hits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import typer
from rich.markup import escape

from edgecal.cli.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgecal.cli.story import Story
    from edgecal.core.inventory import Inventory
    from edgecal.core.target import Target
    from edgecal.workflows.selecting import Asking, Chosen

_NAMED: Final = 8
"""So many names stand in a line before the rest is counted; -v names all."""


def chosen_targets(
    names: Sequence[str] | None,
    *,
    on: str | None,
    inventory: Path | None,
    probe: bool = False,
    offline: bool = False,
    story: Story,
    builder: str | None = None,
) -> dict[str, Target]:
    """Give the targets that a command is for, by what the user calls them; says what `--on` hits.

    Raises
    ------
    BadParameter
        If none was named.
    InventoryError
        If `--on` hits none.
    """
    from edgecal.cli.wiring import lookup

    if not names and on is None:
        raise typer.BadParameter("pass --target T or --on EXPR", param_hint="who is meant")
    known = None if inventory is None and on is None else lookup.inventory(inventory).inventory
    found = {
        text: lookup.target(text, known=known.targets if known and inventory else None)
        for text in names or ()
    }
    if on is not None and known is not None:
        asking: Asking = "nobody" if offline else "everyone" if probe else "strangers"
        hit = hit_targets(on, known, story, asking=asking)
        here = {one.name for one in found.values()}
        found.update({name: one for name, one in hit.items() if name not in here})
    if builder:
        found = {text: replace(one, builder=builder) for text, one in found.items()}
    return found


def hit_targets(
    on: str, inventory: Inventory, story: Story, *, asking: Asking
) -> dict[str, Target]:
    """Give the targets that an expression hits, and tell who they are.

    Raises
    ------
    InventoryError
        If it hits none.
    """
    from edgecal.errors import InventoryError

    found = choose_on(on, inventory, story, asking=asking)
    hits = found.choice.hits
    tell_undecided(found, story)
    if not hits:
        raise InventoryError(
            f"{on!r:.100} hits none of {len(found.inventory.targets)} targets",
            where="--on",
            remedy="see who is there: 'edgecal fleet list'",
        )
    story.tell(
        f"--on hits {len(hits)} of {len(found.inventory.targets)}: "
        f"{escape(some_names(hits, verbose=story.verbose))}"
    )
    return {name: found.inventory.targets[name] for name in hits}


def choose_on(on: str, inventory: Inventory, story: Story, *, asking: Asking) -> Chosen:
    """Evaluate an expression over an inventory."""
    from edgecal.cli.wiring import remote
    from edgecal.core.expressions import parse_selection
    from edgecal.workflows.selecting import choose

    return choose(
        parse_selection(on),
        inventory,
        remote.world(),
        remote.facts_cache(lambda text: story.detail(escape(text))),
        asking=asking,
    )


def tell_undecided(found: Chosen, story: Story) -> None:
    """Say who is not hit only because too little is known, and who could not be asked."""
    for name, error in found.errors.items():
        story.tell(
            f"[yellow]warning[/] {escape(printable(name))} could not be asked: {escape(error.what)}"
        )
    undecided = found.choice.undecided
    if undecided:
        facts = sorted({fact for unknown in undecided.values() for fact in unknown})
        story.tell(
            f"[yellow]warning[/] left out, for {' and '.join(facts)} "
            f"{'is' if len(facts) == 1 else 'are'} not known of them: "
            f"{escape(some_names(tuple(undecided), verbose=story.verbose))}"
        )


def some_names(names: Sequence[str], *, verbose: bool) -> str:
    """List names; the rest of many is counted."""
    shown = names if verbose else names[:_NAMED]
    more = f" and {len(names) - len(shown)} more" if len(shown) < len(names) else ""
    return ", ".join(printable(name) for name in shown) + more
