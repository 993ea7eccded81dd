"""Counts values by their bins without keeping other threads waiting, as NumPy's counting does.

Compiled where numba is installed, which takes half the time; by OpenCV elsewhere. Both give the
bits of `edgecal.core.histogram.add_sums`.
"""

from __future__ import annotations

import ctypes
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecal.adapters.counting import FEW, PART
from edgecal.adapters.machine_code import load_counting
from edgecal.core.float_keys import keys_of
from edgecal.core.peaks import rank_of
from edgecal.core.sweep import Bounds, Sweep, sums_of_bins

if TYPE_CHECKING:
    from collections.abc import Callable

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
    return _compiled(count) if count else OpenCvSweep


def add_with_opencv(values: Values, grids: Grids, offset: int, counts: Counts) -> None:
    """Count with a histogram of a picture of one row: one of one column takes twice the time."""
    import cv2  # noqa: PLC0415 - it takes memory, and is not needed where numba is

    row = sums_of_bins(values, grids, offset).reshape(1, -1)
    table = cv2.calcHist([row], [0], None, [len(counts)], [0, len(counts)])
    counts += table.reshape(-1).astype(np.int64)


class OpenCvSweep(Sweep):
    """Lets other threads work while it counts."""

    _adder = staticmethod(add_with_opencv)


def _address(array: npt.NDArray[Any]) -> int:
    """Say where an array that can be written to lies: in a fifth of the time that NumPy takes."""
    return ctypes.addressof(ctypes.c_char.from_buffer(array.data))


@lru_cache(maxsize=1 << 12)
def _keys_of(within: Bounds) -> list[int]:
    # infinities are not within anything
    held = (max(within.low, -_MOST), min(within.high, _MOST))
    keys: list[int] = keys_of(np.asarray(held, np.float32)).tolist()
    return keys


def _compiled(count: Callable[..., int]) -> type[Sweep]:
    class CompiledSweep(Sweep):
        """Finds the peaks while it counts."""

        def __init__(self, sample: Values) -> None:
            super().__init__(np.ascontiguousarray(sample, np.float32))
            self._room: npt.NDArray[np.int32] | None = None
            self._peaks: list[float] = []

        def count(
            self, start: int, within: Bounds, grids: Grids, offset: int, counts: Counts
        ) -> int:
            least, most = _keys_of(within)
            rows, bins = len(grids), counts.size
            few, rank = -(-self.sample.size // FEW), rank_of(self.sample.size)
            if self._room is None:  # what is in it is kept from call to call
                self._room = np.empty(2 * few + 2 + rows + few + rank, np.int32)
            sizes = (self.sample.size, start, least, most, rows, offset, bins, few, rank)
            tables = np.empty(2 * bins + PART, np.uint16)
            ours = (np.asarray(sizes, np.int64), grids, counts, tables, self._room)
            done = count(self.sample.ctypes.data, *[_address(one) for one in ours])
            found = self._room[2 * few : 2 * few + 2 + rows].view(np.float32)
            low, high, *self._peaks = found.tolist()
            if done > start:
                self.bounds = self.bounds.and_those(Bounds(low + 0.0, high + 0.0))  # one zero
            return done

        def part(self, start: int) -> Values:
            return self.sample[start : start + PART]

        def peaks(self, grids: Grids) -> list[float]:
            return self._peaks

    return CompiledSweep
