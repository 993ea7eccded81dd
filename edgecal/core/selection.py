"""Which targets an expression means: names, globs, groups, facts, and `& | ! ( )`."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgecal.core.expressions import And, Fact, Not, Word, wrong_place
from edgecal.core.versions import parse_tensorrt
from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgecal.core.expressions import Expression, Selection
    from edgecal.core.inventory import Inventory
    from edgecal.core.target import TargetFacts

_NUMBERS: Final = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6})*")
_HEADER_CODE: Final = re.compile(r"[0-9]{4,6}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a selection hits, in the order of the inventory."""

    hits: tuple[str, ...]
    undecided: Mapping[str, tuple[str, ...]]
    """Targets that are not hit because facts are unknown that could decide it, and those facts."""


def _texts(value: object) -> tuple[str, ...] | None:
    """Spell a fact or variable; `None` if it is not known."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return ("true", "yes") if value else ("false", "no")
    return (str(value),)


def _equal(value: Word, known: tuple[str, ...]) -> bool:
    return any(value.matches(one, fold=True) for one in known)


def _equal_version(value: Word, known: tuple[str, ...]) -> bool:
    """Compare as many numbers as are given: 5.1 means every 5.1.x."""
    if value.is_glob or not _NUMBERS.fullmatch(value.text):
        return _equal(value, known)
    wanted = [int(one) for one in value.text.split(".")]
    return any(
        [int(part) for part in re.findall(r"[0-9]+", one)[: len(wanted)]] == wanted for one in known
    )


def _equal_tensorrt(value: Word, known: tuple[str, ...]) -> bool:
    """Compare in any spelling: 8.5 means every 8.5.x, 8502 is 8.5.2."""
    simple = _NUMBERS.fullmatch(value.text) and not _HEADER_CODE.fullmatch(value.text)
    if not value.is_glob and not simple:
        version = parse_tensorrt(value.text)
        value = Word(str(version), at=value.at)
    return _equal_version(value, known)


_FACTS: Final[
    Mapping[
        str,
        tuple[Callable[[TargetFacts], object], Callable[[Word, tuple[str, ...]], bool]],
    ]
] = {
    "arch": (lambda facts: facts.arch, _equal),
    "builder": (lambda facts: tuple(one.name for one in facts.builders), _equal),
    "compute_capability": (lambda facts: facts.compute_capability, _equal),
    "cuda": (lambda facts: facts.cuda, _equal_version),
    "dla_cores": (lambda facts: facts.dla_cores, _equal),
    "gpu": (lambda facts: facts.gpu, _equal),
    "hostname": (lambda facts: facts.hostname, _equal),
    "jetpack": (lambda facts: facts.jetpack, _equal_version),
    "jetson": (lambda facts: facts.is_jetson, _equal),
    "l4t": (lambda facts: facts.l4t, _equal_version),
    "model": (lambda facts: facts.model, _equal),
    "module": (lambda facts: facts.module, _equal),
    "power_mode": (lambda facts: facts.power_mode, _equal),
    "soc": (lambda facts: facts.soc, _equal),
    "tensorrt": (lambda facts: facts.tensorrt, _equal_tensorrt),
    "user": (lambda facts: facts.user, _equal),
}
FACT_NAMES: Final = tuple(_FACTS)
"""What can be asked of a target in an expression."""


def select(selection: Selection, inventory: Inventory, facts: Mapping[str, TargetFacts]) -> Choice:
    """Find what a selection means.

    A comparison with a fact that is not known is neither true nor false, nor is its opposite: a
    target is hit only if the whole expression is true whatever the unknown facts are, taken one by
    one.

    Parameters
    ----------
    facts
        By name of the target; those of whom nothing is known are left out.

    Raises
    ------
    InventoryError
        If a name, glob or group means nobody in the inventory, or a fact is not one.
    """
    hits, open_ = _Evaluation(selection, inventory, facts).of(selection.expression)
    asked = sorted(selection.facts() & _FACTS.keys())
    return Choice(
        hits=tuple(name for name in inventory.targets if name in hits),
        undecided={
            name: tuple(fact for fact in asked if _known(fact, facts.get(name)) is None)
            for name in inventory.targets
            if name in open_
        },
    )


def _known(fact: str, facts: TargetFacts | None) -> tuple[str, ...] | None:
    if facts is None:
        return None
    value = _FACTS[fact][0](facts)
    return value if isinstance(value, tuple) else _texts(value)


class _Evaluation:
    """An expression over all targets at once, as two sets: those it means, and those undecided."""

    def __init__(
        self, selection: Selection, inventory: Inventory, facts: Mapping[str, TargetFacts]
    ) -> None:
        self._selection = selection
        self._inventory = inventory
        self._facts = facts
        self._everyone = frozenset(inventory.targets)

    def of(self, expression: Expression) -> tuple[frozenset[str], frozenset[str]]:
        if isinstance(expression, Word):
            return self._word(expression), frozenset()
        if isinstance(expression, Fact):
            return self._fact(expression)
        if isinstance(expression, Not):
            hits, open_ = self.of(expression.part)
            return self._everyone - hits - open_, open_
        pairs = [self.of(one) for one in expression.parts]
        yes = [hits for hits, _ in pairs]
        maybe = [hits | open_ for hits, open_ in pairs]
        if isinstance(expression, And):
            hits = frozenset.intersection(*yes)
            return hits, frozenset.intersection(*maybe) - hits
        hits = frozenset.union(*yes)
        return hits, frozenset.union(*maybe) - hits

    def _word(self, word: Word) -> frozenset[str]:
        inventory = self._inventory
        found: set[str] = set()
        if word.is_glob:
            found.update(name for name in inventory.targets if word.matches(name))
            groups = [name for name in inventory.groups if word.matches(name)]
        else:
            found.update({word.text} & self._everyone)
            groups = [word.text] if word.text in inventory.groups else []
        found.update(name for group in groups for name in inventory.groups[group])
        if not found and not groups:
            what = "matches" if word.is_glob else "is"
            raise wrong_place(
                f"nothing in the inventory {what} {word.text!r}{self._near(word.text)}",
                self._selection.text,
                word.at,
                self._selection.source,
            )
        return frozenset(found)

    def _near(self, text: str) -> str:
        names = [*self._inventory.groups, *self._inventory.targets]
        near = difflib.get_close_matches(text, names[:2_000], n=1)
        return f"; did you mean {near[0]!r}?" if near else ""

    def _fact(self, fact: Fact) -> tuple[frozenset[str], frozenset[str]]:
        inventory = self._inventory
        if fact.name not in _FACTS and not any(
            fact.name in one for one in inventory.variables.values()
        ):
            variables = sorted({name for one in inventory.variables.values() for name in one})
            also = f"; variables are {', '.join(variables[:30])}" if variables else ""
            raise wrong_place(
                f"unknown fact {fact.name!r}; known are {', '.join(_FACTS)}{also}",
                self._selection.text,
                fact.at,
                self._selection.source,
            )
        if fact.name not in _FACTS:  # who has no such variable is known not to match
            values = (
                (name, _texts(one.get(fact.name))) for name, one in inventory.variables.items()
            )
            said = {name for name, known in values if known and _equal(fact.value, known)}
            return frozenset(said), frozenset()
        self._equals(
            fact, ("0",)
        )  # a value that cannot be compared is wrong even if nobody is asked
        hits, open_ = set(), set()
        for name in inventory.targets:
            known = _known(fact.name, self._facts.get(name))
            if known is None:
                open_.add(name)
            elif self._equals(fact, known):
                hits.add(name)
        return frozenset(hits), frozenset(open_)

    def _equals(self, fact: Fact, known: tuple[str, ...]) -> bool:
        try:
            return _FACTS[fact.name][1](fact.value, known)
        except InputError as error:
            raise wrong_place(
                error.what, self._selection.text, fact.value.at, self._selection.source
            ) from error
