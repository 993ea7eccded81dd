"""How far a cache's ranges agree with what a few samples of the data reach."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final

import numpy as np

from edgecal.core.tensors import perhaps_overwritten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgecal.core.graph import Graph
    from edgecal.core.versions import TensorRTVersion

FAR_ABOVE: Final = 4.0
_FAR_BELOW: Final = 1 / 16
"""What was seen against the cache's range: entropy2 clips a tail, seldom to a quarter; a few
samples reach less far than all, seldom less than a 16th."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How a cache's ranges compare with what a few samples reached."""

    compared: int
    far_off: tuple[str, ...]
    """Tensors that reached more than 4 times their range, or less than a 16th of it."""
    median: float
    """Reached over range, of the median tensor."""
    typical: float
    """The same factor taken either way, at least 1."""
    correlation: float
    """Of ranks, 1 where tensors that reach further also have the wider ranges."""


def compare_observed(
    ranges: Mapping[str, float],
    graph: Graph,
    tensorrt: TensorRTVersion | None,
    observed: Mapping[str, float],
) -> Agreement:
    """Hold the cache's ranges (127 times the scale) against the largest magnitudes of a pass."""
    overwritten = perhaps_overwritten(graph, tensorrt)
    factors = {
        name: reached / ranges[name]
        for name, reached in observed.items()
        if name in ranges and name not in overwritten and math.isfinite(reached) and reached > 0
    }
    return Agreement(
        compared=len(factors),
        far_off=tuple(
            name for name, factor in factors.items() if not _FAR_BELOW <= factor <= FAR_ABOVE
        ),
        median=median(factors.values()) if factors else 1.0,
        typical=median(max(one, 1 / one) for one in factors.values()) if factors else 1.0,
        correlation=_correlation(
            [observed[name] for name in factors], [ranges[name] for name in factors]
        ),
    )


def _correlation(left: Sequence[float], right: Sequence[float]) -> float:
    """Give Spearman's coefficient; 1 where all of one side are equal, and nothing speaks."""
    ranks = []
    for side in (left, right):
        _, place, count = np.unique(np.asarray(side), return_inverse=True, return_counts=True)
        if len(count) < 2:
            return 1.0
        ranks.append((np.cumsum(count) - (count - 1) / 2)[place])
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
