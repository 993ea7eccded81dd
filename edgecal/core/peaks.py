"""Each sample's peak in a tensor, and their mean: a clip point that one odd picture does not move.

A peak is the magnitude that 99.99 % of a sample's values do not exceed. NNCF calls the mean of them
`mean_percentile`; ppq's `percentile` is one as well, over batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import inf
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgecal.core.sweep import Sweep, Values

ONE_IN: Final = 10_000
"""Of how many values one may exceed the peak."""

_UNIT_BITS: Final = 149
"""Every float32 is a whole number of 2**-149."""
_TRIES: Final = (0.9, 0.7, 0.4, 0.1)
"""Of the last sample's peak: where that of the next one is looked for."""


@dataclass(frozen=True, slots=True)
class Peaks:
    """A sum of samples' peaks. Whole numbers, so it is the same in whatever order they come."""

    total: int = 0
    """In units of 2**-149."""
    count: int = 0

    def __add__(self, other: Peaks) -> Peaks:
        """Add those of other samples."""
        return Peaks(self.total + other.total, self.count + other.count)

    def and_one(self, peak: float) -> Peaks:
        """Add that of one sample, a float32 number."""
        numerator, denominator = peak.as_integer_ratio()
        return Peaks(self.total + (numerator << _UNIT_BITS) // denominator, self.count + 1)

    @property
    def mean(self) -> np.float32 | None:
        """Give their mean in the tensor's real units; nothing where none was collected."""
        if not self.count:
            return None
        mean: np.float32 = np.float32(float(Fraction(self.total, self.count << _UNIT_BITS)))
        return mean


NO_PEAKS: Final = Peaks()


def where_to_look(
    ends: Sequence[tuple[float, float]], near: Sequence[float], part: float = _TRIES[0]
) -> tuple[float, float]:
    """Say below and above what all values lie that are near a peak or greater, once clamped."""
    least = [float(np.float32(one * part)) for one in near]
    return (
        max((-one for one, (low, _) in zip(least, ends, strict=True) if low <= -one), default=-inf),
        min((one for one, (_, high) in zip(least, ends, strict=True) if high >= one), default=inf),
    )


def find_peaks(
    sweep: Sweep, ends: Sequence[tuple[float, float]], near: Sequence[float]
) -> list[float]:
    """Find the peaks of a sample once its values are clamped, for several clamps.

    Parameters
    ----------
    sweep
        Of finite values, all counted, that picked those beyond `where_to_look` on its way.
    ends
        Low and high end of each clamp.
    near
        Where each peak may lie: the better the guess, the quicker. It does not change the result.
    """
    rank = sweep.sample.size // ONE_IN + 1
    if rank == 1:
        return [max(abs(min(max(one, low), high)) for one in sweep.bounds) for low, high in ends]
    found = [-1.0] * len(ends)
    for part in _TRIES:
        chosen = sweep.far if part == _TRIES[0] else sweep.beyond(*where_to_look(ends, near, part))
        if chosen.size < rank:
            continue
        for place, (low, high) in enumerate(ends):
            if found[place] < 0:
                peak = _magnitude(chosen, low, high, rank)
                # greater ones than this were all chosen
                if peak >= float(np.float32(near[place] * part)) > 0:
                    found[place] = peak
        if min(found) >= 0:
            return found
    return [
        peak if peak >= 0 else _magnitude(sweep.sample, low, high, rank)
        for peak, (low, high) in zip(found, ends, strict=True)
    ]


def peak_of(values: Values) -> float:
    """Find the peak of finite values."""
    return _magnitude(values, -inf, inf, values.size // ONE_IN + 1)


def _magnitude(values: Values, low: float, high: float, rank: int) -> float:
    """Give the magnitude of this rank, the greatest being 1."""
    if low > -inf:
        values = np.maximum(values, np.float32(low))
    if high < inf:
        values = np.minimum(values, np.float32(high))
    magnitudes = np.abs(values)
    place = magnitudes.size - rank
    magnitudes.partition(place)
    return float(magnitudes[place])
