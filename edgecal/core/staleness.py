"""Whether a cache was made for this very network, or for an earlier export whose names it shares.

PyTorch numbers its tensors anew with every export: of a cache for the one before, most names still
hit a tensor, only another one, and TensorRT takes them without a word. What gives such a cache away
are relations between scales that hold in every table TensorRT or edgecal made for a network, and
bounds that no data can pass.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from edgecal.core.agreement import FAR_ABOVE, compare_observed
from edgecal.core.bounds import find_bounds
from edgecal.core.coverage import is_whole, some
from edgecal.core.findings import Finding, Severity
from edgecal.core.tensors import (
    RESHAPING,
    activations,
    lasting_copies,
    perhaps_joined,
    perhaps_overwritten,
)
from edgecal.core.usable import usable_ranges

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edgecal.core.graph import Graph
    from edgecal.core.versions import TensorRTVersion

RULE: Final = "stale-cache"

_LEGACY: Final = "LegacyCalibration"
"""Its tables show no copying of scales."""

_SAME: Final = 1.01
"""Scales of one value are equal to the bit; tools that print decimals lose some digits."""

_ABOVE_BOUND: Final = 2.001
"""A histogram grows by doubling, so its range ends below twice the largest value, and entropy2 may
cut half a bin above it: 2048.5 / 2048. No algorithm gives more."""

_BELOW_CONSTANT: Final = 1 / 16.5
"""entropy2 cuts at bin 128 of 2048 at the lowest, that is a 16th of the largest value."""
_ABOVE_CONSTANT: Final = 1.01
"""A constant is one batch: nothing doubles."""

_FEWEST: Final = 2
_CONCLUSIVE_SHARE: Final = 0.2
"""One contradiction may be somebody's edit; two that make a fifth of what could be compared are
not."""
_CONCLUSIVE_TOGETHER: Final = 3
"""So many contradictions that have no tensor in common, of more than one kind."""

_OFF_SUSPICIOUS: Final = 0.15
_OFF_CONCLUSIVE: Final = 0.35
_FEWEST_OFF: Final = 3
_MEDIAN_CONCLUSIVE: Final = 3.0
"""Factor between what was seen and the cache's range, either way, of the median tensor."""
_FEWEST_SEEN: Final = 4

_ORDER_SUSPICIOUS: Final = 0.6
_ORDER_CONCLUSIVE: Final = 0.4
_FEWEST_ORDERED: Final = 10
_FEWEST_ORDERED_CONCLUSIVE: Final = 16
_CLOSE: Final = 1.2
"""Rank correlation of what was seen with the cache's ranges. On the network that ships with edgecal
right caches of any algorithm have 0.76 or more after a single picture, shuffled ones 0.55 or less.
Where ranges are hardly apart ranks mean nothing, but the cache's are then close to what was seen.
"""

_GENERATED: Final = re.compile(r"(?P<stem>|input\.|onnx::[A-Za-z]+_)(?P<number>[0-9]{1,9})")
"""Names that PyTorch counts, through all tensors of an export."""
_FEWEST_SHIFTED: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evidence:
    """One kind of contradiction between cache and network."""

    message: str
    contradictions: tuple[tuple[str, ...], ...]
    """The tensors of each."""
    compared: int
    certain: bool | None = None
    """Whether it proves the case alone; `None` where the numbers decide."""


def find_staleness(
    scales: Mapping[str, float],
    graph: Graph,
    *,
    tensorrt: TensorRTVersion | None,
    algorithm: str = "",
    observed: Mapping[str, float] | None = None,
) -> tuple[Finding, ...]:
    """List what speaks against the cache having been made for this network.

    Parameters
    ----------
    tensorrt, algorithm
        As the header says; which scales are copied depends on them.
    observed
        The largest magnitude of each activation over a few samples, where they were run.

    Returns
    -------
    tuple of Finding
        One for each kind of evidence. All are errors if the case is closed, else warnings.
    """
    ranges = usable_ranges(scales)
    found = [
        evidence
        for evidence in (
            _renumbered(scales, graph),
            _needless(scales, graph),
            *_copied(ranges, graph, tensorrt, algorithm),
            _same_values(ranges, graph, tensorrt),
            _bounded(ranges, graph, tensorrt),
            _constants(ranges, graph),
            _observed(ranges, graph, tensorrt, observed or {}),
        )
        if evidence is not None
    ]
    together = _independent([pair for one in found for pair in one.contradictions])
    closed = any(_conclusive(one) for one in found) or (
        len(found) > 1 and together >= _CONCLUSIVE_TOGETHER
    )
    return tuple(
        Finding(
            rule=RULE,
            severity=Severity.ERROR if closed else Severity.WARNING,
            subject="cache",
            message=one.message,
            remedy="recalibrate this network; names that an export counts mean other tensors in "
            "the next one",
        )
        for one in found
    )


def _conclusive(evidence: _Evidence) -> bool:
    if evidence.certain is not None:
        return evidence.certain
    independent = _independent(evidence.contradictions)
    return (
        independent >= _FEWEST
        and len(evidence.contradictions) >= _CONCLUSIVE_SHARE * evidence.compared
    )


def _independent(contradictions: Sequence[tuple[str, ...]]) -> int:
    """Count contradictions that share no tensor: one edited entry may cause several."""
    used: set[str] = set()
    count = 0
    for tensors in contradictions:
        if used.isdisjoint(tensors):
            count += 1
            used.update(tensors)
    return count


def _renumbered(scales: Mapping[str, float], graph: Graph) -> _Evidence | None:
    """Look for counted names of another export: some hit nothing, while tensors go without."""
    wanted = [name for name in activations(graph) if _GENERATED.fullmatch(name)]
    have = [name for name in scales if _GENERATED.fullmatch(name)]
    missing = [name for name in wanted if name not in scales]
    unknown = [name for name in have if not _is_tensor(graph, name)]
    if not missing or not unknown:
        return None
    step = _shift(have, wanted)
    if step is not None:
        return _Evidence(
            message=f"the cache fits this network if all numbers in names are moved by {step:+d}: "
            f"it was made for another export (here {some(missing)} have no entry, and "
            f"{some(unknown)} match nothing)",
            contradictions=tuple((name,) for name in unknown),
            compared=len(have),
            certain=True,
        )
    return _Evidence(
        message=f"names that an export counts do not agree: {some(unknown)} match nothing, while "
        f"{some(missing)} have no entry",
        contradictions=((unknown[0], missing[0]),),
        compared=len(have),
        certain=False,
    )


def _shift(have: Sequence[str], wanted: Sequence[str]) -> int | None:
    """Find the one number by which all names moved."""
    old, new = [_counted(name) for name in have], {_counted(name) for name in wanted}
    if len(old) != len(new) or len(old) < _FEWEST_SHIFTED:
        return None
    step = min(number for _, number in new) - min(number for _, number in old)
    moved = {(stem, number + step) for stem, number in old}
    return step if step and moved == new else None


def _counted(name: str) -> tuple[str, int]:
    match = _GENERATED.fullmatch(name)
    if match is None:
        raise AssertionError("only counted names come here")
    return match["stem"], int(match["number"])


def _is_tensor(graph: Graph, name: str) -> bool:
    return name in graph.tensors or name in graph.producers or name in graph.constants


def _needless(scales: Mapping[str, float], graph: Graph) -> _Evidence | None:
    """Look for entries of computed integers, and of constants by their own name.

    No table of TensorRT has them. Integer inputs do occur, bound as float data.
    """
    asked = set(activations(graph))
    inputs = {tensor.name for tensor in graph.inputs}
    hits = [
        name
        for name in scales
        if name not in asked
        and name not in inputs
        and (name in graph.constants or is_whole(graph.tensors.get(name)))
    ]
    if not hits:
        return None
    return _Evidence(
        message=f"{len(hits)} entries name integers, masks or constants, which TensorRT gives no "
        f"scale: {some(hits)}",
        contradictions=tuple((name,) for name in hits),
        compared=len(hits) + sum(name in asked for name in scales),
    )


def _copied(
    ranges: Mapping[str, float],
    graph: Graph,
    tensorrt: TensorRTVersion | None,
    algorithm: str,
) -> Iterator[_Evidence | None]:
    """Compare tensors whose scale is another's: MaxPool always, Concat up to TensorRT 8.0.

    Average pools are left out: some become other layers, whose output is measured.
    """
    if tensorrt is None or algorithm == _LEGACY:
        return
    pools, concats = [], []
    for copy in lasting_copies(graph, tensorrt):
        maker = graph.producers.get(copy.tensor)
        if maker is not None and copy.source in maker.inputs:
            if maker.op_type == "MaxPool":
                pools.append((copy.tensor, copy.source))
        elif (joined := graph.producers.get(copy.source)) and joined.op_type == "Concat":
            concats.append((copy.tensor, copy.source))
    yield _unequal(ranges, pools, "max pools differ from their input, whose scale they always take")
    yield _unequal(
        ranges, concats, "inputs of Concat differ from its output, whose scale they take up to 8.0"
    )


def _same_values(
    ranges: Mapping[str, float], graph: Graph, tensorrt: TensorRTVersion | None
) -> _Evidence | None:
    """Compare tensors that hold the same values in another shape, unless one was overwritten."""
    overwritten = perhaps_overwritten(graph, tensorrt)
    pairs = [
        (node.outputs[0], node.inputs[0])
        for node in graph.nodes
        if node.op_type in RESHAPING
        and node.inputs[0] not in graph.constants
        and overwritten.isdisjoint((node.inputs[0], node.outputs[0]))
    ]
    return _unequal(ranges, pairs, "tensors differ from the ones that they only reshape")


def _unequal(
    ranges: Mapping[str, float], pairs: Sequence[tuple[str, str]], what: str
) -> _Evidence | None:
    comparable = [
        (tensor, source) for tensor, source in pairs if tensor in ranges and source in ranges
    ]
    wrong = [
        (tensor, source)
        for tensor, source in comparable
        if not 1 / _SAME < ranges[tensor] / ranges[source] < _SAME
    ]
    if not wrong:
        return None
    tensor, source = wrong[0]
    return _Evidence(
        message=f"{len(wrong)} of {len(comparable)} {what}: {tensor[:80]!r} has "
        f"{ranges[tensor]:.4g}, {source[:80]!r} {ranges[source]:.4g}",
        contradictions=tuple(wrong),
        compared=len(comparable),
    )


def _bounded(
    ranges: Mapping[str, float], graph: Graph, tensorrt: TensorRTVersion | None
) -> _Evidence | None:
    """Look for ranges wider than an operator's output can be."""
    joined = perhaps_joined(graph, tensorrt)
    limits = {
        name: limit
        for name, limit in find_bounds(graph).items()
        if name in ranges and name not in joined
    }
    wrong = [name for name, limit in limits.items() if ranges[name] > _ABOVE_BOUND * limit]
    if not wrong:
        return None
    return _Evidence(
        message=f"{len(wrong)} of {len(limits)} tensors have a range that their operator cannot "
        f"reach: {wrong[0][:80]!r} has {ranges[wrong[0]]:.4g}, and is at most "
        f"{limits[wrong[0]]:.4g}",
        contradictions=tuple((name,) for name in wrong),
        compared=len(limits),
    )


def _constants(ranges: Mapping[str, float], graph: Graph) -> _Evidence | None:
    """Compare entries of constants with the values that the network's file holds."""
    own = set(activations(graph))
    compared = 0
    wrong: list[tuple[str, float]] = []
    for entry, amax in ranges.items():
        name = entry.removesuffix("_output")
        if name == entry or entry in own or name not in graph.constants:
            continue
        value = graph.constants[name]
        if value.dtype.kind != "f" or value.size == 0:
            continue
        largest = float(np.abs(value.astype(np.float64)).max())
        if not math.isfinite(largest):
            continue
        compared += 1
        if not _BELOW_CONSTANT * largest < amax <= _ABOVE_CONSTANT * largest:
            wrong.append((entry, largest))
    if not wrong:
        return None
    entry, largest = wrong[0]
    return _Evidence(
        message=f"{len(wrong)} of {compared} constants have a range that their values contradict: "
        f"{entry[:80]!r} has {ranges[entry]:.4g}, and the largest value is {largest:.4g}",
        contradictions=tuple((name,) for name, _ in wrong),
        compared=compared,
    )


def _observed(
    ranges: Mapping[str, float],
    graph: Graph,
    tensorrt: TensorRTVersion | None,
    observed: Mapping[str, float],
) -> _Evidence | None:
    found = compare_observed(ranges, graph, tensorrt, observed)
    off, compared = len(found.far_off), found.compared
    messages = []
    certain = False
    if compared >= _FEWEST_SEEN and (
        (off >= _FEWEST and off >= _OFF_SUSPICIOUS * compared)
        or found.typical >= _MEDIAN_CONCLUSIVE
    ):
        certain = (
            off >= _FEWEST_OFF and off >= _OFF_CONCLUSIVE * compared
        ) or found.typical >= _MEDIAN_CONCLUSIVE
        messages.append(
            f"{off} of {compared} tensors reach more than {FAR_ABOVE:g} times their range or less "
            f"than a 16th of it, and the median tensor is off by a factor of {found.typical:.3g}"
        )
    if (
        compared >= _FEWEST_ORDERED
        and found.correlation < _ORDER_SUSPICIOUS
        and found.typical > _CLOSE
    ):
        certain |= compared >= _FEWEST_ORDERED_CONCLUSIVE and found.correlation < _ORDER_CONCLUSIVE
        messages.append(
            "tensors that reach further do not have the wider ranges (rank correlation "
            f"{found.correlation:.2f} over {compared} tensors)"
        )
    if not messages:
        return None
    example = f": {_example(found.far_off[0], ranges, observed)}" if off else ""
    return _Evidence(
        message=f"the data contradict the cache, if they are the right ones: "
        f"{'; '.join(messages)}{example}",
        contradictions=tuple((name,) for name in found.far_off),
        compared=compared,
        certain=certain,
    )


def _example(name: str, ranges: Mapping[str, float], observed: Mapping[str, float]) -> str:
    return f"{name[:80]!r} has {ranges[name]:.4g} and reached {observed[name]:.4g}"
