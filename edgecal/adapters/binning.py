"""Counts values by their bins without keeping other threads waiting, as NumPy's counting does.

Compiled where numba is installed, which takes half the time; by OpenCV elsewhere. Both give the
bits of `edgecal.core.histogram.add_sums`.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from edgecal.adapters.counting import FEW, FOUND, PART, STOP
from edgecal.adapters.machine_code import load_counting
from edgecal.core.float_keys import keys_of
from edgecal.core.peaks import rank_of
from edgecal.core.sweep import Bins, Bounds, Sweep, sums_of_bins

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from edgecal.core.sweep import Counts, Grids, Values

_MOST = float(np.finfo(np.float32).max)


@cache
def fastest_sweep(warn: Callable[[str], object] = lambda _text: None) -> type[Sweep]:
    """Choose the way this host can count fastest; has it compiled, once a host.

    Parameters
    ----------
    warn
        Hears why it is not the fastest of all, where that should be possible.
    """
    count = load_counting(warn)
    if count is None:
        return OpenCvSweep
    return type("CompiledSweep", (_CompiledSweep,), {"function": staticmethod(count)})


def add_with_opencv(values: Values, grids: Grids, offset: int, counts: Counts) -> None:
    """Count with a histogram of a picture of one row: one of one column takes twice the time."""
    import cv2  # noqa: PLC0415 - it takes memory, and is not needed where numba is

    row = sums_of_bins(values, grids, offset).reshape(1, -1)
    table = cv2.calcHist([row], [0], None, [len(counts)], [0, len(counts)])
    counts += table.reshape(-1).astype(np.int64)


class OpenCvSweep(Sweep):
    """Lets other threads work while it counts."""

    _adder = staticmethod(add_with_opencv)


class _CompiledBins(Bins):
    """With what does not change from sample to sample."""

    def __init__(self, within: Bounds, grids: Grids, offset: int, counts: Counts) -> None:
        super().__init__(within, grids, offset, counts)
        # infinities are not within anything
        held = (max(within.low, -_MOST), min(within.high, _MOST))
        least, most = keys_of(np.asarray(held, np.float32)).tolist()
        places = _address(grids), _address(counts)
        self.row = (least, most, offset, len(grids), counts.size, *places)


class _CompiledSweep(Sweep):
    """Finds the peaks while it counts, and has many samples counted by one call."""

    bins = _CompiledBins
    function: Callable[[int, int, int], None]
    """As `load_counting` gives it."""

    def __init__(self, sample: Values) -> None:
        super().__init__(sample)
        size = sample.size
        few, rank = -(-size // FEW), rank_of(size)
        self._room = np.empty(3 * few + rank, np.float32)
        """What is in it is kept from call to call."""
        self.row = (_address(sample), size, few, rank, _address(self._room))
        self._peaks: list[float] = []

    @classmethod
    def count_each(cls, samples: Sequence[Values], bins: Sequence[Bins]) -> list[tuple[Sweep, int]]:
        sweeps = [cls(sample) for sample in samples]
        return list(zip(sweeps, _count(cls.function, sweeps, bins, 0), strict=True))

    def count(self, start: int, bins: Bins) -> int:
        return _count(self.function, [self], [bins], start)[0]

    def part(self, start: int) -> Values:
        return self.sample[start : start + PART]

    def peaks(self, bins: Bins) -> list[float]:
        return self._peaks[: len(bins.grids)]

    def hear(self, low: float, high: float, peaks: list[float], *, some: bool) -> None:
        """Take what was found; the bounds only if some values were counted."""
        self._peaks = peaks
        if some:
            self.bounds = self.bounds.and_those(Bounds(low + 0.0, high + 0.0))  # one zero


def _count(
    function: Callable[[int, int, int], None],
    sweeps: Sequence[_CompiledSweep],
    several: Sequence[Bins],
    start: int,
) -> list[int]:
    bins = cast("Sequence[_CompiledBins]", several)
    found = np.empty((len(sweeps), FOUND), np.float32)
    places = range(_address(found), _address(found) + found.nbytes, found.strides[0])
    table = np.asarray(
        [
            (start, place, *one.row, *into.row)
            for one, into, place in zip(sweeps, bins, places, strict=True)
        ],
        np.int64,
    )
    small = np.zeros(PART + 2 * max(one.counts.size for one in bins), np.uint16)
    function(_address(table), len(table), _address(small))
    stops: list[int] = table[:, STOP].tolist()
    for one, stop, (low, high, *peaks) in zip(sweeps, stops, found.tolist(), strict=True):
        one.hear(low, high, peaks, some=stop > start)
    return stops


def _address(array: npt.NDArray[Any]) -> int:
    """Say where an array lies."""
    try:  # takes a third of the time, but not for what can only be read, or is empty
        return ctypes.addressof(ctypes.c_char.from_buffer(array.data))
    except (TypeError, ValueError):
        place: int = array.__array_interface__["data"][0]
        return place
