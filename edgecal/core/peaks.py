"""Each sample's peak in a tensor, and their mean: a clip point that one odd picture does not move.

A peak is the magnitude that 99.99 % of a sample's values do not exceed. NNCF calls the mean of them
`mean_percentile`; ppq's `percentile` is one as well, over batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from edgecal.core.sweep import Values

ONE_IN: Final = 10_000
"""Of how many values one may exceed the peak."""

_UNIT_BITS: Final = 149
"""Every float32 is a whole number of 2**-149."""
_UNITS: Final = 2.0**_UNIT_BITS


@dataclass(frozen=True, slots=True)
class Peaks:
    """A sum of samples' peaks. Whole numbers, so it is the same in whatever order they come."""

    total: int = 0
    """In units of 2**-149."""
    count: int = 0

    def __add__(self, other: Peaks) -> Peaks:
        """Add those of other samples."""
        return Peaks(self.total + other.total, self.count + other.count)

    @property
    def mean(self) -> np.float32 | None:
        """Give their mean in the tensor's real units; nothing where none was collected."""
        if not self.count:
            return None
        mean: np.float32 = np.float32(float(Fraction(self.total, self.count << _UNIT_BITS)))
        return mean


NO_PEAKS: Final = Peaks()


def units_of(peak: float) -> int:
    """Give one peak, a float32 number, in units of 2**-149: exactly, since it is only shifted."""
    return int(peak * _UNITS)


def rank_of(size: int) -> int:
    """Give the rank of a sample's peak among its magnitudes, the greatest being 1."""
    return size // ONE_IN + 1


def peak_of(values: Values) -> float:
    """Find the peak of finite values."""
    return magnitude_of(np.abs(values), rank_of(values.size))


def magnitude_of(magnitudes: Values, rank: int) -> float:
    """Give the magnitude of this rank; puts them in another order."""
    place = magnitudes.size - rank
    magnitudes.partition(place)
    return float(magnitudes[place])
