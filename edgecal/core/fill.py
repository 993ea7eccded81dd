"""Holes of a cache filled from what the network says about their neighbours, one rule a hole.

Rules that make no difference go first, then upper bounds, then what is better than a hole; each
tensor gets one value, by the first rule whose sources are all known. No TensorRT and no DLA has
run a cache filled by this module yet.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from edgecal.core.cache import Entry, entry_of_scale
from edgecal.core.edit_record import Change, Left
from edgecal.core.fill_rules import DOMAINS, FOLLOWED, derivations
from edgecal.core.tensors import activations, constant_entries
from edgecal.core.usable import LEVELS, amax_of, is_usable
from edgecal.errors import CacheFormatError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edgecal.core.cache import CalibrationCache
    from edgecal.core.fill_rules import Derivation
    from edgecal.core.graph import Graph
    from edgecal.core.versions import TensorRTVersion

_INT8_ON_GPU: Final = FOLLOWED | {
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Conv",
    "ConvTranspose",
    "Gemm",
    "MatMul",
    "Max",
    "MaxPool",
    "Min",
    "Mul",
    "PRelu",
    "Sub",
}
"""Operators around which the GPU may compute in INT8, and those that pass on what it computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """A cache with fewer holes."""

    cache: CalibrationCache
    changes: tuple[Change, ...]
    remaining: tuple[Left, ...]


def fill_cache(
    cache: CalibrationCache,
    graph: Graph,
    tensorrt: TensorRTVersion,
    *,
    dla: bool,
    replace_unusable: bool,
    source: str = "<cache>",
) -> Filled:
    """Fill holes until no rule finds another; entries that are there stay as they are.

    Parameters
    ----------
    tensorrt
        Whose names of constants and whose copies count.
    dla
        Fill every float tensor, constants too where their names are known (TensorRT 10), since a
        DLA layer with a hole runs in FP16. Otherwise only what operators touch that the GPU may
        run in INT8.
    replace_unusable
        Take zero, denormal, infinite and NaN scales for holes.

    Raises
    ------
    InputError
        If the cache names no tensor of the network: it is another network's.
    """
    wanted = _wanted(graph, tensorrt, dla=dla)
    known = {one.tensor: amax_of(one) for one in cache.entries if is_usable(one)}
    present = {one.tensor: one for one in cache.entries}
    everything = set(activations(graph)) | set(constant_entries(graph, tensorrt))
    if cache.entries and everything.isdisjoint(present):
        raise InputError(
            f"none of its {len(cache.entries)} entries names a tensor of the network",
            where=source,
            remedy="give the model this cache was made from with --model",
        )
    holes = {
        name
        for name in wanted
        if name not in present or (replace_unusable and not is_usable(present[name]))
    }
    found = _derive(derivations(graph, tensorrt), known, holes, graph)
    entries = {
        one.tensor: found[one.tensor][0] if one.tensor in found else one for one in cache.entries
    }
    added = [found[name][0] for name in wanted if name in found and name not in present]
    changes = [
        Change(
            name=name,
            before=present[name].bits if name in present else None,
            after=found[name][0].bits,
            rule=found[name][1].rule,
            source=_source_text(found[name][1]),
        )
        for name in wanted
        if name in found
    ]
    remaining = [
        Left(name=name, reason=_reason(graph, name, present.get(name)))
        for name in wanted
        if name not in known and name not in found
    ]
    return Filled(
        cache=replace(cache, entries=(*entries.values(), *added)),
        changes=tuple(changes),
        remaining=tuple(remaining),
    )


def _wanted(graph: Graph, tensorrt: TensorRTVersion, *, dla: bool) -> tuple[str, ...]:
    names = activations(graph)
    if dla:
        return tuple(dict.fromkeys((*names, *constant_entries(graph, tensorrt))))
    touched = {
        name
        for node in graph.nodes
        if node.op_type in _INT8_ON_GPU and node.domain in DOMAINS
        for name in (*node.inputs, *node.outputs)
    }
    return tuple(name for name in names if name in touched)


def _derive(
    given: Iterable[Derivation], known: Mapping[str, float], holes: set[str], graph: Graph
) -> dict[str, tuple[Entry, Derivation]]:
    """Chain forward: each derivation waits until its last source is known, and is tried once."""
    amaxes = dict(known)
    ways = [way for way in given if way.tensor in holes]
    waiting: dict[str, list[int]] = {}
    missing = []
    due: list[tuple[int, int]] = []
    for index, way in enumerate(ways):
        unknown = {name for name in way.sources if name not in amaxes}
        missing.append(len(unknown))
        for name in unknown:
            waiting.setdefault(name, []).append(index)
        if not unknown:
            due.append((way.rank, index))
    heapq.heapify(due)
    found: dict[str, tuple[Entry, Derivation]] = {}
    constants = _Magnitudes(graph)
    while due:
        way = ways[heapq.heappop(due)[1]]
        if way.tensor in found:
            continue
        entry = _entry(way, amaxes, constants)
        if entry is None:
            continue
        found[way.tensor] = (entry, way)
        amaxes[way.tensor] = amax_of(entry)
        for index in waiting.pop(way.tensor, ()):
            missing[index] -= 1
            if not missing[index]:
                heapq.heappush(due, (ways[index].rank, index))
    return found


def _entry(way: Derivation, amaxes: Mapping[str, float], constants: _Magnitudes) -> Entry | None:
    values = [amaxes[name] for name in way.sources]
    values += [constants.amax(name) for name in way.constants]
    try:
        entry = entry_of_scale(way.tensor, way.amax(values) / LEVELS)
    except (CacheFormatError, OverflowError):
        return None
    return entry if is_usable(entry) else None


class _Magnitudes:
    """The largest absolute value of each constant, looked for once."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._found: dict[str, float] = {}

    def amax(self, name: str) -> float:
        if name not in self._found:
            values = np.asarray(self._graph.constants[name])
            is_number = values.size > 0 and np.issubdtype(values.dtype, np.floating)
            largest = float(np.max(np.abs(values))) if is_number else math.nan
            self._found[name] = largest
        return self._found[name]


def _source_text(way: Derivation) -> str:
    return ", ".join((*way.sources, *way.constants)) or "the operator"


def _reason(graph: Graph, name: str, entry: Entry | None) -> str:
    if entry is not None:
        return f"its scale is {entry.scale:g}; --replace-unusable takes that for a hole"
    node = graph.producers.get(name)
    made = f"given by {node.op_type}" if node is not None else "an input or constant"
    return f"{made}: nothing known determines its range"
