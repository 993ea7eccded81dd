"""Several caches made into one: the first one's order, then what the others have beyond it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from edgecal.core.edit_record import Change
from edgecal.core.findings import Finding, Severity
from edgecal.core.usable import amax_of, is_usable
from edgecal.core.versions import version_of_code
from edgecal.errors import IncompatibleError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgecal.core.cache import CalibrationCache, Entry

_SHOWN: Final = 5


class OnConflict(enum.Enum):
    """Which scale a tensor gets that has different ones."""

    ERROR = "error"
    FIRST = "first"
    LAST = "last"
    MAX = "max"
    MIN = "min"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A cache to merge, and what it is called."""

    source: str
    cache: CalibrationCache


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """One cache out of several."""

    cache: CalibrationCache
    changes: tuple[Change, ...]
    """Against the first one."""
    conflicts: tuple[str, ...]
    """Tensors that had different scales, in order."""


def merge_caches(parts: Sequence[Part], on_conflict: OnConflict) -> Merged:
    """Merge caches whose headers agree in major.minor and algorithm.

    Scales agree if their 32 bits do, however they are spelled. `max` and `min` take a usable scale
    before a zero, infinite or NaN one; of equal ones the first stays.

    Raises
    ------
    IncompatibleError
        If headers do not agree, or scales do not and `on_conflict` is `ERROR`.
    """
    for part in parts[1:]:
        _check_headers(parts[0], part)
    first = {entry.tensor: entry for entry in parts[0].cache.entries}
    merged = dict(first)
    origin = dict.fromkeys(merged, parts[0].source)
    conflicts: dict[str, list[tuple[str, Entry]]] = {}
    for part in parts[1:]:
        for entry in part.cache.entries:
            there = merged.get(entry.tensor)
            if there is not None and int(there.bits, 16) != int(entry.bits, 16):
                known = [(origin[entry.tensor], there)]
                conflicts.setdefault(entry.tensor, known).append((part.source, entry))
                if not _wins(entry, there, on_conflict):
                    continue
            elif there is not None:
                continue
            merged[entry.tensor], origin[entry.tensor] = entry, part.source
    if conflicts and on_conflict is OnConflict.ERROR:
        raise _refusal(conflicts)
    changes = []
    for tensor, entry in merged.items():
        there = first.get(tensor)
        if there is not None and int(there.bits, 16) == int(entry.bits, 16):
            merged[tensor] = there  # the same value: spelled as the first one spells it
            continue
        changes.append(
            Change(
                name=tensor,
                before=there.bits if there else None,
                after=entry.bits,
                rule=on_conflict.value if tensor in conflicts else "added",
                source=origin[tensor],
            )
        )
    return Merged(
        cache=replace(parts[0].cache, entries=tuple(merged.values())),
        changes=tuple(changes),
        conflicts=tuple(conflicts),
    )


def _wins(entry: Entry, there: Entry, on_conflict: OnConflict) -> bool:
    if on_conflict is OnConflict.LAST:
        return True
    if on_conflict not in {OnConflict.MAX, OnConflict.MIN} or not is_usable(entry):
        return False
    if not is_usable(there):
        return True
    larger = int(entry.bits, 16) > int(there.bits, 16)  # bits of positive floats are in order
    return larger is (on_conflict is OnConflict.MAX)


def _check_headers(first: Part, other: Part) -> None:
    ours, theirs = first.cache.header, other.cache.header
    versions = version_of_code(ours.code).major_minor, version_of_code(theirs.code).major_minor
    if versions[0] == versions[1] and ours.algorithm == theirs.algorithm:
        return
    raise IncompatibleError(
        f"its header says TensorRT {versions[1]} and {theirs.algorithm}, that of {first.source} "
        f"says {versions[0]} and {ours.algorithm}",
        where=other.source,
        remedy="merge caches of one TensorRT and one algorithm; 'edgecal cache restamp' gives one "
        "of them another header, and says what that risks",
    )


def _refusal(conflicts: dict[str, list[tuple[str, Entry]]]) -> IncompatibleError:
    findings = [
        Finding(
            rule="merge-conflict",
            severity=Severity.ERROR,
            subject=tensor,
            message=", ".join(f"amax {amax_of(entry):g} in {source}" for source, entry in values),
            remedy="say which one counts: --on-conflict first, last, max or min",
        )
        for tensor, values in conflicts.items()
    ]
    listed = "; ".join(f"{one.subject!r}: {one.message}" for one in findings[:_SHOWN])
    more = f"; and {len(findings) - _SHOWN} more" if len(findings) > _SHOWN else ""
    return IncompatibleError(
        f"{len(findings)} tensors have different scales: {listed}{more}"
        if len(findings) > 1
        else f"one tensor has different scales: {listed}",
        where="merge",
        remedy="say which one counts: --on-conflict first, last, max or min; 'edgecal cache diff' "
        "shows them all",
        findings=findings,
    )
