"""One sample's values, gone through once: counted by their bins, their ends and far ones known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]
Grids = npt.NDArray[np.float32]
"""A row per histogram, which says how a value becomes the number of its bin: clamped between the
first two numbers, times the third, divided by the fourth, and cut off towards zero."""
Adder = Callable[[Values, Grids, int, Counts], None]
"""Does what `add_sums` does, to the last bit, for at most 2**17 values."""

_BLOCK: Final = 1 << 17
"""Values counted at once: the temporaries stay in the processor's cache."""


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
    """Give the bins of finite values as numbers from -2048 to 2048.

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
    """Goes through a sample's values, a part after the other.

    Parameters
    ----------
    sample : ndarray of float32, shape (n,)
    below, above
        Values of at most the one and of at least the other are picked on the way.
    """

    _adder: Adder = staticmethod(add_sums)

    def __init__(self, sample: Values, below: float = -np.inf, above: float = np.inf) -> None:
        self.sample = sample
        self.bounds = Bounds()
        """Of what was counted so far."""
        self._below, self._above = below, above
        self._far: list[Values] = []

    @property
    def far(self) -> Values:
        """Give the values picked so far, in any order."""
        return np.concatenate(self._far) if self._far else self.sample[:0]

    def count(self, start: int, within: Bounds, grids: Grids, offset: int, counts: Counts) -> int:
        """Count parts as `add_sums` does, up to the first one that does not lie within bounds.

        Returns
        -------
        int
            Where that part starts, or the number of values.
        """
        for first in range(start, self.sample.size, _BLOCK):
            part = self.sample[first : first + _BLOCK]
            bounds = bounds_of(part)
            if bounds is None or not within.holds(bounds):
                return first
            self.bounds = self.bounds.and_those(bounds)
            self._far += _beyond(part, bounds, self._below, self._above)
            self._adder(part, grids, offset, counts)
        return self.sample.size

    def part(self, start: int) -> Values:
        """Give the part that starts there."""
        return self.sample[start : start + _BLOCK]

    def beyond(self, below: float, above: float) -> Values:
        """Pick the values of at most `below` and of at least `above`, once all were counted."""
        parts = (self.part(start) for start in range(0, self.sample.size, _BLOCK))
        found = [one for part in parts for one in _beyond(part, self.bounds, below, above)]
        return np.concatenate(found) if found else self.sample[:0]


def _beyond(part: Values, bounds: Bounds, below: float, above: float) -> list[Values]:
    found = [part[part >= above]] if above <= bounds.high else []
    return found + ([part[part <= below]] if below >= bounds.low else [])
