"""Find which targets an expression means, asking those of whom too little is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from edgecal.core.selection import select
from edgecal.workflows.audit import examine_facts, recall
from edgecal.workflows.waiting import side_by_side

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgecal.core.expressions import Selection
    from edgecal.core.inventory import Inventory
    from edgecal.core.selection import Choice
    from edgecal.core.target import Target, TargetFacts
    from edgecal.errors import EdgecalError
    from edgecal.workflows.audit import Memory
    from edgecal.workflows.world import World

_AT_ONCE: Final = 16

Asking = Literal["nobody", "strangers", "everyone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What an expression hits, and whom it took a question to know."""

    inventory: Inventory
    """With the names that only a pattern of it knew."""
    choice: Choice
    asked: tuple[str, ...] = ()
    errors: Mapping[str, EdgecalError] = field(default_factory=dict)
    """Of those that could not be asked."""


def choose(
    selection: Selection, inventory: Inventory, world: World, memory: Memory, *, asking: Asking
) -> Chosen:
    """Find what an expression means, by what targets last said and, where needed, say now.

    Only a target whose facts decide whether it is hit is ever asked.

    Parameters
    ----------
    asking
        Who is asked of them: nobody, those that never answered before, or each of them anew.

    Raises
    ------
    InventoryError
        If the expression names what is not there.
    """
    inventory = inventory.admitting(selection.names())
    choice = select(selection, inventory, {})
    if not choice.undecided:
        return Chosen(inventory=inventory, choice=choice)
    facts: dict[str, TargetFacts] = {}
    for name in choice.undecided:
        last = recall(inventory.targets[name], memory, world)
        if last.facts is not None:
            facts[name] = last.facts
    wanted = [
        inventory.targets[name]
        for name in choice.undecided
        if asking == "everyone" or (asking == "strangers" and name not in facts)
    ]
    errors: dict[str, EdgecalError] = {}

    def ask(target: Target) -> tuple[str, TargetFacts | None, EdgecalError | None]:
        answer, error = examine_facts(target, world, memory)
        return target.name, answer.facts, error

    for name, known, error in side_by_side(wanted, ask, at_once=_AT_ONCE):
        if known is not None:
            facts[name] = known
        if error is not None:
            errors[name] = error
    return Chosen(
        inventory=inventory,
        choice=select(selection, inventory, facts),
        asked=tuple(one.name for one in wanted),
        errors={one.name: errors[one.name] for one in wanted if one.name in errors},
    )
