"""Ranges of a cache set, added, dropped, scaled or raised from zero, by name or by glob.

What is not named keeps its bits as the file spells them, and its place.
"""

from __future__ import annotations

import difflib
import fnmatch
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from edgecal.core.edit_record import Change
from edgecal.core.usable import LEVELS, is_usable, is_zero, usable_entry
from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edgecal.core.cache import CalibrationCache, Entry

_LONGEST_COMPARED: Final = 200
_MOST_COMPARED: Final = 5000
"""Beyond these near misses are not looked for: comparing takes the square of the length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """What to change; pairs of a name and a value, in the order given.

    A name that the cache holds means that tensor, whatever characters it has; any other may be a
    glob. An exact name outweighs a glob, and setting outweighs multiplying.
    """

    ranges: tuple[tuple[str, float], ...] = ()
    """amax, in real units."""
    scales: tuple[tuple[str, float], ...] = ()
    added: tuple[tuple[str, float], ...] = ()
    """amax of tensors that have no entry yet."""
    dropped: tuple[str, ...] = ()
    factors: tuple[tuple[str, float], ...] = ()
    floor_zero: bool = False
    """Raise zero and denormal scales; TensorRT writes zeros for tensors that hold nothing else.

    Any scale represents these exactly. The smallest usable one of the cache is taken, so that no
    ratio of scales becomes larger than the network has already, and the larger of two ranges (DLA
    gives both inputs of an elementwise layer the larger one) stays what it was.
    """
    floor_amax: float | None = None
    """The amax to raise them to instead."""


def parse_assignment(text: str, *, option: str) -> tuple[str, float]:
    """Split `NAME=VALUE` at the last `=`; names may hold more of them.

    Raises
    ------
    InputError
        If there is no `=`, no name, or the value is not a positive, finite number.
    """
    name, equals, value = text.rpartition("=")
    if not equals or not name:
        raise InputError(
            f"expected NAME=NUMBER, found {text!r}",
            where=option,
            remedy=f"write it like {option} 'conv1=4.2'",
        )
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise InputError(
            f"expected a positive, finite number for {name!r}, found {value!r}",
            where=option,
            remedy="give a decimal number, such as 4.2 or 1e-3; --drop removes an entry",
        )
    return name, number


def edit_cache(
    cache: CalibrationCache, edits: Edits, *, source: str
) -> tuple[CalibrationCache, tuple[Change, ...]]:
    """Change a cache; gives what changed, in the order of the file.

    Raises
    ------
    InputError
        If a name or glob fits nothing, two values contradict each other, or a scale would be one
        that TensorRT cannot use.
    """
    draft = _Draft(cache, source)
    for pattern in edits.dropped:
        draft.drop(pattern)
    settled = draft.settle(
        [
            *((name, amax / LEVELS, "set", f"{name}={amax!r}") for name, amax in edits.ranges),
            *((name, scale, "set-scale", f"{name}={scale!r}") for name, scale in edits.scales),
        ]
    )
    factors = draft.settle(
        [(name, factor, "multiply", f"{name}={factor!r}") for name, factor in edits.factors]
    )
    for tensor, (factor, rule, why) in factors.items():
        if tensor not in settled and is_usable(draft.entries[tensor]):
            draft.put(tensor, draft.entries[tensor].scale * factor, rule, why)
    for tensor, (scale, rule, why) in settled.items():
        draft.put(tensor, scale, rule, why)
    if edits.floor_zero or edits.floor_amax is not None:
        draft.raise_zeros(edits.floor_amax)
    for name, amax in edits.added:
        draft.add(name, amax)
    return replace(cache, entries=tuple(draft.entries.values())), draft.changes()


class _Draft:
    """A cache being edited: entries by tensor, in order, and what became of which."""

    def __init__(self, cache: CalibrationCache, source: str) -> None:
        self.entries = {entry.tensor: entry for entry in cache.entries}
        self._source = source
        self._original = dict(self.entries)
        self._changes: dict[str, Change] = {}

    def changes(self) -> tuple[Change, ...]:
        """List changes in the order of the file, new tensors last."""
        names = dict.fromkeys((*self._original, *self.entries))
        order = {tensor: place for place, tensor in enumerate(names)}
        return tuple(sorted(self._changes.values(), key=lambda one: order[one.name]))

    def drop(self, pattern: str) -> None:
        for tensor in _hits(pattern, self._original, "--drop", self._source):
            if self.entries.pop(tensor, None) is not None:
                self._note(tensor, None, "drop", f"--drop {pattern}")

    def put(self, tensor: str, scale: float, rule: str, why: str) -> None:
        entry = usable_entry(tensor, scale, where=self._source)
        if int(entry.bits, 16) != int(self.entries[tensor].bits, 16):
            self.entries[tensor] = entry  # the same value stays spelled as it was
            self._note(tensor, entry, rule, why)

    def add(self, tensor: str, amax: float) -> None:
        if tensor in self.entries:
            raise InputError(
                f"tensor {tensor!r} has an entry already",
                where=self._source,
                remedy="--add is for new tensors; --set changes one that is there",
            )
        if not tensor or "\n" in tensor:
            raise InputError(
                f"the name {tensor!r} cannot stand in a cache",
                where="--add",
                remedy="give the tensor's name as the model has it, on one line",
            )
        entry = usable_entry(tensor, amax / LEVELS, where=self._source)
        self.entries[tensor] = entry
        self._note(tensor, entry, "add", f"--add {tensor}={amax!r}")

    def raise_zeros(self, amax: float | None) -> None:
        if amax is None:
            smallest = min(
                (entry for entry in self.entries.values() if is_usable(entry)),
                key=lambda entry: int(entry.bits, 16),  # positive floats are in order of their bits
                default=None,
            )
            if smallest is None:
                raise InputError(
                    "no scale of the cache is usable, so none tells how small a range may be",
                    where=self._source,
                    remedy="say it: --floor-amax AMAX",
                )
            scale, why = smallest.scale, f"the smallest scale, of {smallest.tensor}"
        else:
            scale, why = amax / LEVELS, f"--floor-amax {amax!r}"
        for tensor, entry in self.entries.items():
            if is_zero(entry):
                self.put(tensor, scale, "floor-zero", why)

    def settle(
        self, wanted: Iterable[tuple[str, float, str, str]]
    ) -> dict[str, tuple[float, str, str]]:
        """Find one value for each tensor that is meant: value, rule, and the words that said so."""
        settled: dict[str, tuple[float, str, str]] = {}
        exact: set[str] = set()
        for pattern, value, rule, words in wanted:
            why = f"--{rule} {words}"
            is_exact = pattern in self.entries
            for tensor in _hits(pattern, self.entries, f"--{rule}", self._source):
                if tensor in exact and not is_exact:
                    continue
                there = settled.get(tensor)
                if there is not None and (tensor in exact) is is_exact and there[0] != value:
                    raise InputError(
                        f"two values for tensor {tensor!r}: '{there[2]}' and '{why}'",
                        where=self._source,
                        remedy="give one; an exact name outweighs a glob",
                    )
                settled[tensor] = (value, rule, why)
            if is_exact:
                exact.add(pattern)
                if rule == "multiply" and not is_usable(self.entries[pattern]):
                    raise InputError(
                        f"the scale of {pattern!r} is {self.entries[pattern].scale}, which cannot "
                        "be multiplied",
                        where=self._source,
                        remedy="give the tensor a range with --set",
                    )
        return settled

    def _note(self, tensor: str, entry: Entry | None, rule: str, why: str) -> None:
        before = self._original.get(tensor)
        self._changes[tensor] = Change(
            name=tensor,
            before=before.bits if before else None,
            after=entry.bits if entry else None,
            rule=rule,
            source=why,
        )


def near_misses(name: str, names: Iterable[str]) -> str:
    """Say which names look like one that is not there; empty if none does."""
    short = [one for one in names if len(one) <= _LONGEST_COMPARED][:_MOST_COMPARED]
    if len(name) > _LONGEST_COMPARED:
        return ""
    found = difflib.get_close_matches(name, short, n=3)
    return f"; near misses: {', '.join(map(repr, found))}" if found else ""


def _hits(pattern: str, names: Mapping[str, object], option: str, source: str) -> list[str]:
    if pattern in names:
        return [pattern]
    hits: list[str] = []
    if any(sign in pattern for sign in "*?["):
        try:
            fits = re.compile(fnmatch.translate(pattern)).match
        except re.error as error:
            raise InputError(
                f"{pattern!r} is no glob: {error}",
                where=option,
                remedy="globs know * and ? and [abc]; quote them for the shell",
            ) from error
        hits = [name for name in names if fits(name)]
    if not hits:
        raise InputError(
            f"no tensor of the cache fits {pattern!r}{near_misses(pattern, names)}",
            where=source,
            remedy="'edgecal cache show' lists the names; --add gives a tensor its first entry",
        )
    return hits
