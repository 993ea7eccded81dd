"""Counts values by their bins without keeping other threads waiting, as NumPy's counting does.

Compiled by numba where it is installed, which takes half the time; by OpenCV elsewhere. Both give
the bits of `edgecal.core.histogram.add_sums`.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecal.core.peaks import ONE_IN
from edgecal.core.sweep import Bounds, Sweep, sums_of_bins

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from edgecal.core.sweep import Counts, Grids, Values

_FEW = 256
"""Of so many values only the ends are kept."""

_PART = 16 * _FEW
"""Values whose sums stay in the processor's nearest cache until they are counted."""

_MOST_PARTS = 0xFFFF // (_PART // 2 + 1)
"""After which a 16-bit count could overflow."""

_GREATEST = 0x7FFF_FFFF
"""The greatest int32; all bits of a float32 but its sign."""

_MOST = float(np.finfo(np.float32).max)


@cache
def fastest_sweep() -> type[Sweep]:
    """Choose the way this host can count fastest; compiles it, once a process."""
    try:
        numba = importlib.import_module("numba")
    except ImportError:
        return OpenCvSweep
    return _compiled(numba)


def add_with_opencv(values: Values, grids: Grids, offset: int, counts: Counts) -> None:
    """Count with a histogram of two channels of 8 bits, since the one of 16 bits is slow."""
    import cv2  # noqa: PLC0415 - it takes memory, and is not needed where numba is

    sums = sums_of_bins(values, grids, offset).astype("<u2", copy=False)
    columns = -(-len(counts) // 256)
    table = cv2.calcHist(
        [sums.view(np.uint8).reshape(-1, 1, 2)], [0, 1], None, [256, columns], [0, 256, 0, columns]
    )
    counts += table.T.reshape(-1)[: len(counts)].astype(np.int64)


class OpenCvSweep(Sweep):
    """Lets other threads work while it counts."""

    _adder = staticmethod(add_with_opencv)


def count_in_a_loop(  # noqa: C901, PLR0912, PLR0915, PLR0917 - compiled: no keywords, no calls
    values: Values,
    start: int,
    within: Values,
    grids: Grids,
    offset: int,
    counts: Counts,
    ends: npt.NDArray[np.int32],
    seen: Values,
    peaks: Values,
) -> int:
    """Count value by value, and find the ends of all and of every few; gives where it stopped.

    Once all is counted, it finds the peaks: each is the least of a heap of so many magnitudes as
    its rank says. First the greatest of every few go through the heap, which leaves less than that
    many rows to go through whole.

    Why keys, bits that sort as numbers: comparing whole numbers runs in vectors, and NaN and
    infinities lie at both ends. Why two tables: equal neighbours would wait for each other in one;
    and small ones, because both of two workers may have to share one cache.
    """
    greatest = np.int32(_GREATEST)
    keys = within.view(np.int32) ^ ((within.view(np.int32) >> np.int32(31)) & greatest)
    tables = np.zeros((2, counts.size), np.uint16)
    left, right = tables[0], tables[1]
    parts, one = 0, np.uint16(1)
    sums = np.empty(_PART, np.uint16)
    done = values.size
    all_low, all_high = greatest, ~greatest
    for first in range(start, values.size, _PART):
        part = values[first : first + _PART]
        size = part.size
        bits, before = part.view(np.int32), first // _FEW
        part_low, part_high = greatest, ~greatest
        for row in range((size + _FEW - 1) // _FEW):
            few = bits[row * _FEW : (row + 1) * _FEW]
            low, high = greatest, ~greatest
            for place in range(few.size):
                key = few[place] ^ ((few[place] >> np.int32(31)) & greatest)
                low, high = min(low, key), max(high, key)
            ends[0, before + row], ends[1, before + row] = low, high
            part_low, part_high = min(part_low, low), max(part_high, high)
        if part_low < keys[0] or part_high > keys[1]:
            done = first
            break
        all_low, all_high = min(all_low, part_low), max(all_high, part_high)
        sums[:] = offset
        for row in range(grids.shape[0]):
            bottom, top, scale, width = grids[row, 0], grids[row, 1], grids[row, 2], grids[row, 3]
            for place in range(size):
                value = max(bottom, min(top, part[place]))
                sums[place] += np.uint16(np.int32(value * scale / width))
        # an index with a sign would be looked at for being negative
        half = size // 2
        heads, tails = sums[:half], sums[half:size]
        for place in range(half):
            left[np.uint64(heads[place])] += one
            right[np.uint64(tails[place])] += one
        if size % 2:
            right[np.uint64(sums[size - 1])] += one
        parts += 1
        if parts == _MOST_PARTS:
            parts = 0
            for place in range(counts.size):
                counts[place] += np.int64(left[place]) + np.int64(right[place])
            tables[:] = 0
    for place in range(counts.size):
        counts[place] += np.int64(left[place]) + np.int64(right[place])
    if done > start:
        found = seen.view(np.int32)
        found[0] = all_low ^ ((all_low >> np.int32(31)) & greatest)
        found[1] = all_high ^ ((all_high >> np.int32(31)) & greatest)
    if done < values.size:
        return done

    for side in range(2):
        for row in range(ends.shape[1]):
            ends[side, row] ^= (ends[side, row] >> np.int32(31)) & greatest
    lows, highs = ends[0].view(np.float32), ends[1].view(np.float32)
    tops = np.empty(ends.shape[1], np.float32)
    rank = values.size // ONE_IN + 1
    heap = np.empty(rank, np.float32)
    for grid in range(grids.shape[0]):
        bottom, top = grids[grid, 0], grids[grid, 1]
        for row in range(tops.size):
            tops[row] = max(
                abs(max(bottom, min(top, lows[row]))), abs(max(bottom, min(top, highs[row])))
            )
        heap[:] = 0
        for whole in range(2):
            heap[:] = heap[0]
            for row in range(tops.size):
                if tops[row] <= heap[0]:
                    continue
                those = values[row * _FEW : (row + 1) * _FEW] if whole else tops[row : row + 1]
                for place in range(those.size):
                    value = abs(max(bottom, min(top, those[place]))) if whole else those[place]
                    if value <= heap[0]:
                        continue
                    node, child = 0, 1
                    while child < rank:
                        if child + 1 < rank and heap[child + 1] < heap[child]:
                            child += 1
                        if heap[child] >= value:
                            break
                        heap[node] = heap[child]
                        node, child = child, 2 * child + 1
                    heap[node] = value
        peaks[grid] = heap[0]
    return done


def _compiled(numba: Any) -> type[Sweep]:
    types = numba.types
    given = types.Array(types.float32, 1, "C", readonly=True)
    count = _compile(
        numba,
        count_in_a_loop,
        types.int64(
            given,
            types.int64,
            given,
            types.Array(types.float32, 2, "C", readonly=True),
            types.int64,
            types.int64[::1],
            types.int32[:, ::1],
            types.float32[::1],
            types.float32[::1],
        ),
    )

    class CompiledSweep(Sweep):
        """Finds the peaks while it counts."""

        def __init__(self, sample: Values) -> None:
            super().__init__(sample)
            self._ends = np.zeros((2, -(-sample.size // _FEW)), np.int32)
            self._peaks = np.empty(0, np.float32)

        def count(
            self, start: int, within: Bounds, grids: Grids, offset: int, counts: Counts
        ) -> int:
            seen = np.empty(2, np.float32)
            self._peaks = np.empty(len(grids), np.float32)
            # infinities are not within anything
            held = np.asarray((max(within.low, -_MOST), min(within.high, _MOST)), np.float32)
            done: int = count(
                self.sample, start, held, grids, offset, counts, self._ends, seen, self._peaks
            )
            if done > start:
                low, high = seen.tolist()
                self.bounds = self.bounds.and_those(Bounds(low + 0.0, high + 0.0))  # one zero
            return done

        def part(self, start: int) -> Values:
            return self.sample[start : start + _PART]

        def peaks(self, grids: Grids) -> list[float]:
            found: list[float] = self._peaks.tolist()
            return found

    return CompiledSweep


def _compile(numba: Any, function: Callable[..., Any], signature: Any) -> Callable[..., Any]:
    # as NumPy divides: a test for zero in the loop would keep it from running in vectors
    options = {"nogil": True, "error_model": "numpy"}
    try:
        compiled: Callable[..., Any] = numba.njit(signature, cache=True, **options)(function)
    except RuntimeError:  # there is no folder that it may keep the compiled code in
        compiled = numba.njit(signature, **options)(function)
    return compiled
