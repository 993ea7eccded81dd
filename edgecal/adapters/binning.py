"""Counts values by their bins without keeping other threads waiting, as NumPy's counting does.

Compiled by numba where it is installed, which takes half the time; by OpenCV elsewhere. Both give
the bits of `edgecal.core.histogram.add_sums`.
"""

from __future__ import annotations

import importlib
import struct
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from edgecal.core.sweep import Bounds, Sweep, sums_of_bins

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgecal.core.sweep import Counts, Grids, Values

_FEW = 256
"""Values that are passed over at once where none of them lies far out."""

_PART = 16 * _FEW
"""Values whose sums stay in the processor's nearest cache until they are counted."""

_MOST_PARTS = 0xFFFF // (_PART // 2 + 1)
"""After which a 16-bit count could overflow."""

_GREATEST = 0x7FFF_FFFF
"""The greatest int32; all bits of a float32 but its sign."""


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
    sums = sums_of_bins(values, grids, offset).astype("<u2", copy=False)
    columns = -(-len(counts) // 256)
    table = cv2.calcHist(
        [sums.view(np.uint8).reshape(-1, 1, 2)], [0, 1], None, [256, columns], [0, 256, 0, columns]
    )
    counts += table.T.reshape(-1)[: len(counts)].astype(np.int64)


class OpenCvSweep(Sweep):
    """Lets other threads work while it counts."""

    _adder = staticmethod(add_with_opencv)


def count_in_a_loop(  # noqa: C901, PLR0912, PLR0917 - compiled: no keywords, no calls
    values: Values,
    start: int,
    least: int,
    most: int,
    grids: Grids,
    offset: int,
    counts: Counts,
    below: int,
    above: int,
    room: Values,
    picked: int,
) -> tuple[int, int, int, int]:
    """Count value by value, and find the ends of every few, as keys: bits that sort as numbers.

    What lies at or beyond two keys goes into `room`, behind what was picked already, while there is
    room. Gives where it stopped, how many were picked, and the ends of what was counted.

    Why keys: comparing whole numbers runs in vectors, and NaN and infinities lie at both ends. Two
    tables, because equal neighbours would wait for each other in one; and small ones, because both
    of two workers may have to share one cache.
    """
    tables = np.zeros((2, counts.size), np.uint16)
    left, right = tables[0], tables[1]
    parts, one = 0, np.uint16(1)
    sums = np.empty(_PART, np.uint16)
    lows, highs = np.empty(_PART // _FEW, np.int32), np.empty(_PART // _FEW, np.int32)
    done = values.size
    all_low, all_high = np.int32(_GREATEST), np.int32(~_GREATEST)
    for first in range(start, values.size, _PART):
        part = values[first : first + _PART]
        size = part.size
        bits, rows = part.view(np.int32), (size + _FEW - 1) // _FEW
        part_low, part_high = np.int32(_GREATEST), np.int32(~_GREATEST)
        for row in range(rows):
            few = bits[row * _FEW : (row + 1) * _FEW]
            low, high = np.int32(_GREATEST), np.int32(~_GREATEST)
            for place in range(few.size):
                key = few[place] ^ ((few[place] >> np.int32(31)) & np.int32(_GREATEST))
                low, high = min(low, key), max(high, key)
            lows[row], highs[row] = low, high
            part_low, part_high = min(part_low, low), max(part_high, high)
        if part_low < least or part_high > most:
            done = first
            break
        all_low, all_high = min(all_low, part_low), max(all_high, part_high)
        for row in range(rows):
            if lows[row] <= below or highs[row] >= above:
                for place in range(row * _FEW, min((row + 1) * _FEW, size)):
                    key = bits[place] ^ ((bits[place] >> np.int32(31)) & np.int32(_GREATEST))
                    if key <= below or key >= above:
                        if picked < room.size:
                            room[picked] = part[place]
                        picked += 1
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
    return done, picked, all_low, all_high


def pick_in_a_loop(values: Values, below: int, above: int, room: Values) -> int:
    """Put the values at or beyond two keys into `room`; gives how many."""
    count = 0
    bits = values.view(np.int32)
    for first in range(0, values.size, _FEW):
        few = bits[first : first + _FEW]
        low, high = np.int32(_GREATEST), np.int32(~_GREATEST)
        for place in range(few.size):
            key = few[place] ^ ((few[place] >> np.int32(31)) & np.int32(_GREATEST))
            low, high = min(low, key), max(high, key)
        if low <= below or high >= above:
            for place in range(few.size):
                key = few[place] ^ ((few[place] >> np.int32(31)) & np.int32(_GREATEST))
                if key <= below or key >= above:
                    room[count] = values[first + place]
                    count += 1
    return count


@lru_cache(1 << 14)
def _key(value: float) -> int:
    bits = int(np.float32(value).view(np.int32))
    return bits ^ ((bits >> 31) & _GREATEST)


def _number(key: int) -> float:
    value: float = struct.unpack("=f", struct.pack("=i", key ^ ((key >> 31) & _GREATEST)))[0]
    return value + 0.0  # there is one zero


_LEAST, _MOST = (_key(end * float(np.finfo(np.float32).max)) for end in (-1, 1))


def _compiled(numba: Any) -> type[Sweep]:
    types = numba.types
    floats = types.Array(types.float32, 1, "C", readonly=True)
    grids = types.Array(types.float32, 2, "C", readonly=True)
    whole, key = types.int64, types.int32
    room = types.float32[::1]
    count = _compile(
        numba,
        count_in_a_loop,
        types.UniTuple(whole, 4)(
            *(floats, whole, key, key, grids, whole, types.int64[::1], key, key, room, whole)
        ),
    )
    pick = _compile(numba, pick_in_a_loop, whole(floats, key, key, room))

    class CompiledSweep(Sweep):
        """Picks what lies far out while it counts."""

        def __init__(self, sample: Values, below: float = -np.inf, above: float = np.inf) -> None:
            super().__init__(sample, below, above)
            self._below_key, self._above_key = _key(below), _key(above)
            self._room = np.empty(min(sample.size, _PART + sample.size // 32), np.float32)
            self._picked = 0

        @property
        def far(self) -> Values:
            if self._picked > self._room.size:
                return self.beyond(self._below, self._above)
            return self._room[: self._picked]

        def count(
            self, start: int, within: Bounds, grids: Grids, offset: int, counts: Counts
        ) -> int:
            done, self._picked, low, high = count(
                self.sample,
                start,
                max(_key(within.low), _LEAST),  # infinities are not within anything
                min(_key(within.high), _MOST),
                grids,
                offset,
                counts,
                self._below_key,
                self._above_key,
                self._room,
                self._picked,
            )
            if done > start:
                self.bounds = self.bounds.and_those(Bounds(_number(low), _number(high)))
            whole_done: int = done
            return whole_done

        def part(self, start: int) -> Values:
            return self.sample[start : start + _PART]

        def beyond(self, below: float, above: float) -> Values:
            room = np.empty_like(self.sample)
            found = pick(self.sample, _key(below), _key(above), room)
            return room[:found]

    return CompiledSweep


def _compile(numba: Any, function: Callable[..., Any], signature: Any) -> Callable[..., Any]:
    # as NumPy divides: a test for zero in the loop would keep it from running in vectors
    options = {"nogil": True, "error_model": "numpy"}
    try:
        compiled: Callable[..., Any] = numba.njit(signature, cache=True, **options)(function)
    except RuntimeError:  # there is no folder that it may keep the compiled code in
        compiled = numba.njit(signature, **options)(function)
    return compiled
