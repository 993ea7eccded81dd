"""The loop that counts values by their bins, in the part of Python that numba compiles.

It gives the bits of `edgecal.core.histogram.add_sums`, and asks for no memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from edgecal.core.sweep import MOST_GRIDS

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgecal.core.sweep import Counts, Grids, Values

FEW: Final = 256
"""Of so many values only the ends are kept."""

PART: Final = 4 * FEW
"""Values whose sums stay in the processor's nearest cache until they are counted."""

COLUMNS: Final = 14
"""Of the table that `binning` fills and `counting_compiler` reads, a row for each sample.

First where to begin and where to put what is found; then the sample's address, size, columns of
ends, rank and room; then the least and the greatest key, the offset, the numbers of grids and bins,
and the addresses of grids and counts.
"""

STOP: Final = 0
"""The column that says where to begin, and afterwards where it stopped."""

FOUND: Final = 2 + MOST_GRIDS
"""Numbers that are found of a sample: its ends, and a peak for each grid."""

_MOST_PARTS = 0xFFFF // (PART // 2 + 1)
"""After which a 16-bit count could overflow."""

_GREATEST = 0x7FFF_FFFF
"""The greatest int32; all bits of a float32 but its sign."""


def count_in_a_loop(  # noqa: C901, PLR0912, PLR0915, PLR0917 - compiled: no keywords, no calls
    values: Values,
    start: int,
    least: np.int32,
    most: np.int32,
    grids: Grids,
    offset: int,
    counts: Counts,
    ends: npt.NDArray[np.int32],
    seen: Values,
    peaks: Values,
    left: npt.NDArray[np.uint16],
    right: npt.NDArray[np.uint16],
    sums: npt.NDArray[np.uint16],
    tops: Values,
    heap: Values,
) -> int:
    """Count value by value, and find the ends of all and of every few; gives where it stopped.

    Once all is counted, it finds the peaks: each is the least of a heap of so many magnitudes as
    its rank says. First the greatest of every few go through the heap, which leaves less than that
    many rows to go through whole.

    Why keys: comparing whole numbers runs in vectors. Why two tables: equal neighbours would wait
    for each other in one; and small ones, because both of two workers may have to share one cache.

    Parameters
    ----------
    values
        Of one sample, in one dimension.
    start
        Where to begin.
    least, most
        Keys as in `edgecal.core.float_keys`: it stops at the first part of `PART` values that does
        not lie within.
    grids, offset, counts
        As `add_sums` has them.
    ends
        Two rows, a column for every `FEW` values; kept from call to call.
    seen
        Takes the least and the greatest of what was counted, if anything was.
    peaks
        Takes a peak for each grid, if all was counted.
    left, right, sums, tops, heap
        Room to work in: twice the size of `counts`, full of zeros before and after; `PART` numbers,
        a number for each column of `ends`, and as many as a peak's rank is.
    """
    greatest = np.int32(_GREATEST)
    parts, one = 0, np.uint16(1)
    done = values.size
    all_low, all_high = greatest, ~greatest
    for first in range(start, values.size, PART):
        part = values[first : first + PART]
        size = part.size
        bits, before = part.view(np.int32), first // FEW
        part_low, part_high = greatest, ~greatest
        for row in range((size + FEW - 1) // FEW):
            few = bits[row * FEW : (row + 1) * FEW]
            low, high = greatest, ~greatest
            for place in range(few.size):
                key = few[place] ^ ((few[place] >> np.int32(31)) & greatest)
                low, high = min(low, key), max(high, key)
            ends[0, before + row], ends[1, before + row] = low, high
            part_low, part_high = min(part_low, low), max(part_high, high)
        if part_low < least or part_high > most:
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
            left[:] = 0
            right[:] = 0
    if done > start:
        found = seen.view(np.int32)
        found[0] = all_low ^ ((all_low >> np.int32(31)) & greatest)
        found[1] = all_high ^ ((all_high >> np.int32(31)) & greatest)
        sums[:2] = offset
        for row in range(grids.shape[0]):
            bottom, top, scale, width = grids[row, 0], grids[row, 1], grids[row, 2], grids[row, 3]
            for end in range(2):
                value = max(bottom, min(top, seen[end]))
                sums[end] += np.uint16(np.int32(value * scale / width))
        for place in range(np.int64(sums[0]), np.int64(sums[1]) + 1):
            counts[place] += np.int64(left[place]) + np.int64(right[place])
            left[place] = 0
            right[place] = 0
    if done < values.size:
        return done

    for side in range(2):
        for row in range(ends.shape[1]):
            ends[side, row] ^= (ends[side, row] >> np.int32(31)) & greatest
    lows, highs = ends[0].view(np.float32), ends[1].view(np.float32)
    rank = heap.size
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
                those = values[row * FEW : (row + 1) * FEW] if whole else tops[row : row + 1]
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
