"""Ranges that somebody gives, which outweigh what was measured."""

from __future__ import annotations

import fnmatch
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgecal.core.cache import entry_of_scale
from edgecal.core.edits import near_misses
from edgecal.core.manifest import OverrideRecord
from edgecal.core.usable import LEVELS, usable_entry
from edgecal.errors import InputError, InventoryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from edgecal.core.cache import Entry
    from edgecal.core.statistics import Scales
    from edgecal.core.tensors import Copy


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """A scale for the tensor of a name, or for all that a glob fits.

    A name that the network has means that tensor, whatever characters it has; any other may be a
    glob.
    """

    pattern: str
    scale: float
    """Real units per INT8 step, a float32 number."""
    source: str
    """Where it stands, for people."""


Overrides = tuple[Override, ...]
"""What one source says; in it an exact name outweighs a glob."""


def parse_range_table(table: Mapping[str, object], *, source: str) -> Overrides:
    """Read `name or glob = amax` lines of a TOML table, amax in real units.

    Raises
    ------
    InventoryError
        If a value is no number of which TensorRT could use the scale; the message names its key.
    """
    found = []
    for pattern, value in table.items():
        number = _number(value)
        if not (math.isfinite(number) and number > 0):
            raise InventoryError(
                f"{pattern!r} wants the largest magnitude to let through, a positive number; "
                f"found {value!r}",
                where=source,
                remedy='write it like "backbone/*" = 6.0; a name with dots wants quotes',
            )
        entry = usable_entry(pattern, number / LEVELS, where=source)
        found.append(Override(pattern=pattern, scale=entry.scale, source=source))
    return tuple(found)


def _number(value: object) -> float:
    """Give a number as float; NaN for what is none or fits none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:  # TOML's whole numbers have no end
        return math.nan


def overrides_from(entries: Iterable[Entry], *, source: str) -> Overrides:
    """Take the scales of a file as overrides.

    Raises
    ------
    InputError
        If one of them is not a scale TensorRT can use, such as the zeros that it writes itself.
    """
    return tuple(
        Override(
            pattern=entry.tensor,
            scale=usable_entry(entry.tensor, entry.scale, where=source).scale,
            source=source,
        )
        for entry in entries
    )


def kept_overrides(records: Iterable[OverrideRecord], names: Iterable[str]) -> Overrides:
    """Take over what was given for an earlier bundle, as far as its tensors are there."""
    known = set(names)
    return tuple(
        Override(
            pattern=record.name,
            scale=float(np.uint32(int(record.given, 16)).view(np.float32)),
            source=record.source,
        )
        for record in records
        if record.follows is None and record.name in known
    )


def settle_overrides(layers: Iterable[Overrides], names: Iterable[str]) -> dict[str, Override]:
    """Find the one override of each tensor that is meant.

    Parameters
    ----------
    layers
        What each source says; a later one outweighs those before it.
    names
        Tensors that may have a scale.

    Raises
    ------
    InputError
        If a name or glob fits nothing, or a source contradicts itself.
    """
    known = dict.fromkeys(names)
    settled: dict[str, Override] = {}
    for layer in layers:
        exact: dict[str, Override] = {}
        fitting: dict[str, Override] = {}
        for override in layer:
            if override.pattern in known:
                _add(exact, override.pattern, override)
        for override in layer:
            if override.pattern not in known:
                for name in _hits(override, known):
                    if name not in exact:
                        _add(fitting, name, override)
        settled |= fitting
        settled |= exact
    return settled


def apply_overrides(
    scales: Scales,
    given: Mapping[str, Override],
    *,
    wanted: Sequence[str],
    copies: Iterable[Copy],
) -> tuple[Scales, tuple[OverrideRecord, ...]]:
    """Put given scales in the place of measured ones.

    What TensorRT would copy from such a tensor follows it, unless that one was given a scale too:
    nothing overwrites a scale that was given.

    Parameters
    ----------
    wanted
        All activations in the order of the cache, those without a measured scale among them.
    copies
        What this TensorRT overwrites, in its order.

    Returns
    -------
    Scales
    tuple of OverrideRecord
        What was measured and what stands now, in the order of the cache.
    """
    leaders = _leaders(scales, given, wanted, copies)
    activations: dict[str, np.float32] = {}
    constants = dict(scales.constants)
    records = []
    for name in (*wanted, *constants):
        ours = constants if name in constants else activations
        measured = scales.constants.get(name, scales.activations.get(name))
        leader = leaders.get(name, name)
        if leader not in given:
            if measured is not None:
                ours[name] = measured
            continue
        ours[name] = np.float32(given[leader].scale)
        records.append(
            OverrideRecord(
                name=name,
                measured=None if measured is None else _bits(name, measured),
                given=_bits(name, ours[name]),
                source=given[leader].source,
                follows=leader if leader != name else None,
            )
        )
    unusable = tuple(name for name in scales.unusable if name not in activations)
    changed = replace(scales, activations=activations, constants=constants, unusable=unusable)
    return changed, tuple(records)


def _leaders(
    scales: Scales, given: Mapping[str, Override], wanted: Sequence[str], copies: Iterable[Copy]
) -> dict[str, str]:
    """Say for each activation whose scale it ends with."""
    leaders = {name: name for name in wanted}
    for copy in copies:
        if copy.tensor in given or not {copy.tensor, copy.source} <= leaders.keys():
            continue
        leader = leaders[copy.source]
        # a copy needs both: a tensor that was always zero gets a scale only if one is given
        if leader in given or {copy.tensor, copy.source} <= scales.activations.keys():
            leaders[copy.tensor] = leader
    return leaders


def _hits(override: Override, names: Iterable[str]) -> list[str]:
    """Find what a glob fits."""
    pattern = override.pattern
    hits: list[str] = []
    if any(sign in pattern for sign in "*?["):
        try:
            fits = re.compile(fnmatch.translate(pattern)).match
        except re.error as error:
            raise InputError(
                f"{pattern!r} is no glob: {error}",
                where=override.source,
                remedy="globs know * and ? and [abc]",
            ) from error
        hits = [name for name in names if fits(name)]
    if not hits:
        raise InputError(
            f"a range is given for {pattern!r}, but no tensor of the network that gets a scale is "
            f"called so{near_misses(pattern, names)}",
            where=override.source,
            remedy="'edgecal cache show BUNDLE' lists the names; take the others out of the ranges",
        )
    return hits


def _add(settled: dict[str, Override], name: str, override: Override) -> None:
    there = settled.setdefault(name, override)
    if there.scale != override.scale:
        raise InputError(
            f"two ranges for tensor {name!r}: {there.scale * LEVELS:g} for {there.pattern!r} and "
            f"{override.scale * LEVELS:g} for {override.pattern!r}",
            where=override.source,
            remedy="give one; an exact name outweighs a glob",
        )


def _bits(name: str, scale: np.float32) -> str:
    return entry_of_scale(name, float(scale)).bits
