"""One sample's values, gone through once: counted by their bins, their ends and peaks known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from edgecal.core.peaks import magnitude_of, rank_of

Values = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]
Grids = npt.NDArray[np.float32]
"""A row per histogram, which says how a value becomes the number of its bin: clamped between the
first two numbers, times the third, divided by the fourth, and cut off towards zero."""
Adder = Callable[[Values, Grids, int, Counts], None]
"""Does what `add_sums` does, to the last bit, for at most 2**18 values."""

MOST_GRIDS: Final = 7
"""At once: the sums of their numbers have 16 bits."""

_BLOCK: Final = 1 << 18
"""Values counted at once: with fewer, threads wait for their turn more than they count."""

_FEW: Final = 64
"""Of so many values only the ends are kept."""


class Bounds(NamedTuple):
    """The least and the greatest of some values."""

    low: float = np.inf
    high: float = -np.inf

    def holds(self, other: Bounds) -> bool:
        """Tell whether other values lie within."""
        return self.low <= other.low and other.high <= self.high

    def and_those(self, other: Bounds) -> Bounds:
        """Give the bounds of these values and others."""
        return Bounds(min(self.low, other.low), max(self.high, other.high))


_NOTHING: Final = Bounds()


class Bins:
    """Where values are counted.

    Parameters
    ----------
    within
        Bounds of what the grids can hold.
    grids, offset, counts
        As `add_sums` has them; they must lie in memory as they are shaped.
    """

    def __init__(self, within: Bounds, grids: Grids, offset: int, counts: Counts) -> None:
        self.within = within
        self.grids = grids
        self.offset = offset
        self.counts = counts


def add_sums(values: Values, grids: Grids, offset: int, counts: Counts) -> None:
    """Count finite values by their `sums_of_bins`, on top of what is counted already."""
    counts += np.bincount(sums_of_bins(values, grids, offset), minlength=len(counts))


def sums_of_bins(values: Values, grids: Grids, offset: int) -> npt.NDArray[np.uint16]:
    """Add up the numbers that a value's bins have in all grids, and the offset."""
    sums = np.full(values.shape, offset, np.uint16)
    room = np.empty_like(values)
    for grid in grids:
        # the offset outweighs what is negative: wrapping around comes to the same
        sums += bins_of(values, grid, room).view(np.uint16)
    return sums


def bins_of(
    values: Values, grid: npt.NDArray[np.float32], room: Values | None = None
) -> npt.NDArray[np.int16]:
    """Give the bins of finite values as numbers from -4096 to 4096.

    Why divide: x / (R / 2048) loses nothing when R doubles, so binning before or after a doubling
    agrees to the last value. Multiplying by a rounded 2048 / R does not. Cutting off towards zero
    numbers both signs alike.
    """
    room = np.empty_like(values) if room is None else room
    low, high, scale, width = grid
    if low > -np.inf or high < np.inf:
        values = np.clip(values, low, high, out=room)
    if scale != 1:
        values = np.multiply(values, scale, out=room)
    bins: npt.NDArray[np.int16] = np.divide(values, width, out=room).astype(np.int16)
    return bins


def bounds_of(values: Values) -> Bounds | None:
    """Give the least and the greatest value; nothing if there is none or not all are finite."""
    if values.size == 0:
        return None
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        return None
    return Bounds(low + 0.0, high + 0.0)  # there is one zero


class Sweep:
    """Goes through a sample's values, a part after the other."""

    bins = Bins
    """What it wants to have bins as."""
    _adder: Adder = staticmethod(add_sums)

    def __init__(self, sample: Values) -> None:
        self.sample = sample
        self.bounds = _NOTHING
        """Of what was counted so far."""
        self._counted: list[_Part] = []

    @classmethod
    def count_each(cls, samples: Sequence[Values], bins: Sequence[Bins]) -> list[tuple[Sweep, int]]:
        """Begin with several samples, each of a tensor of its own.

        Returns
        -------
        list of tuple
            For each a sweep, and where that stopped, as `count` says it.
        """
        sweeps = [cls(sample) for sample in samples]
        return [(one, one.count(0, into)) for one, into in zip(sweeps, bins, strict=True)]

    def count(self, start: int, bins: Bins) -> int:
        """Count parts as `add_sums` does, up to the first one that the bins cannot hold.

        Returns
        -------
        int
            Where that part starts, or the number of values.
        """
        for first in range(start, self.sample.size, _BLOCK):
            part = _Part(self.sample[first : first + _BLOCK])
            bounds = part.bounds()
            if bounds is None or not bins.within.holds(bounds):
                return first
            self.bounds = self.bounds.and_those(bounds)
            self._counted.append(part)
            self._adder(part.values, bins.grids, bins.offset, bins.counts)
        return self.sample.size

    def part(self, start: int) -> Values:
        """Give the part that starts there."""
        return self.sample[start : start + _BLOCK]

    def peaks(self, bins: Bins) -> list[float]:
        """Find the sample's peak as every histogram's clamp leaves it, once all was counted."""
        return [self._peak(*grid[:2]) for grid in bins.grids]

    def _peak(self, low: np.float32, high: np.float32) -> float:
        rank = rank_of(self.sample.size)
        if rank == 1:
            return float(_magnitudes(np.asarray(self.bounds, np.float32), low, high).max())
        tops = [part.tops(low, high) for part in self._counted]
        # the peak is this or greater, and what is greater lies in less than `rank` of the few
        least = magnitude_of(np.concatenate(tops), rank)
        found = [np.full(rank, least, np.float32)]
        found += [
            part.those(top > least, low, high)
            for part, top in zip(self._counted, tops, strict=True)
        ]
        return magnitude_of(np.concatenate(found), rank)


class _Part:
    """Values, and the ends of every few of them; what is left over stands for itself."""

    def __init__(self, values: Values) -> None:
        self.values = values
        columns = values.size // _FEW
        self._few = values[: columns * _FEW].reshape(_FEW, columns)
        self._rest = values[columns * _FEW :]
        few, rest = self._few, self._rest
        self._lows = np.concatenate([few.min(axis=0), rest])
        self._highs = np.concatenate([few.max(axis=0), rest])

    def bounds(self) -> Bounds | None:
        """Give the least and the greatest value, unless not all are finite."""
        return bounds_of(np.concatenate([self._lows, self._highs]))

    def tops(self, low: np.float32, high: np.float32) -> Values:
        """Give the greatest magnitude among every few, once they are clamped."""
        return np.maximum(_magnitudes(self._lows, low, high), _magnitudes(self._highs, low, high))

    def those(self, chosen: npt.NDArray[np.bool_], low: np.float32, high: np.float32) -> Values:
        """Give all magnitudes of the few that are chosen."""
        columns = self._few.shape[1]
        found = [self._few[:, chosen[:columns]].reshape(-1), self._rest[chosen[columns:]]]
        return _magnitudes(np.concatenate(found), low, high)


def _magnitudes(values: Values, low: np.float32, high: np.float32) -> Values:
    if low > -np.inf:  # one of these at a time is quicker than clip
        values = np.maximum(values, low)
    if high < np.inf:
        values = np.minimum(values, high)
    magnitudes: Values = np.abs(values)
    return magnitudes
