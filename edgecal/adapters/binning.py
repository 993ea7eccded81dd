"""Counts values by their bins without keeping other threads waiting, as NumPy's counting does.

Compiled by numba where it is installed, which takes half the time; by OpenCV elsewhere. Both give
the bits of `edgecal.core.histogram.add_sums`.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from edgecal.core.histogram import sums_of_bins

if TYPE_CHECKING:
    from edgecal.core.histogram import Adder, Counts, Grids, Values

_CHUNK = 2048
"""Values whose sums stay in the processor's nearest cache until they are counted."""


@cache
def fastest_adder() -> Adder:
    """Choose the way this host can count fastest; compiles it, once a process."""
    try:
        numba = importlib.import_module("numba")
    except ImportError:
        return add_with_opencv
    return _compiled(numba)


def add_with_opencv(values: Values, grids: Grids, offset: int, counts: Counts) -> None:
    """Count with a histogram of two channels of 8 bits, since the one of 16 bits is slow."""
    sums = sums_of_bins(values, grids, offset).astype("<u2", copy=False)
    columns = -(-len(counts) // 256)
    table = cv2.calcHist(
        [sums.view(np.uint8).reshape(-1, 1, 2)], [0, 1], None, [256, columns], [0, 256, 0, columns]
    )
    counts += table.T.reshape(-1)[: len(counts)].astype(np.int64)


def add_in_a_loop(values: Values, grids: Grids, offset: int, counts: Counts) -> None:
    """Count value by value: quick only when compiled.

    Two tables take turns, because equal neighbours would wait for each other in one.
    """
    evens, odds = np.zeros(counts.size, np.uint32), np.zeros(counts.size, np.uint32)
    one = np.uint32(1)
    sums = np.empty(_CHUNK, np.int32)
    for start in range(0, values.size, _CHUNK):
        chunk = values[start : start + _CHUNK]
        size = chunk.size
        sums[:] = offset
        for row in range(grids.shape[0]):
            low, high, scale, width = grids[row, 0], grids[row, 1], grids[row, 2], grids[row, 3]
            for place in range(size):
                value = max(low, min(high, chunk[place]))
                sums[place] += np.int32(value * scale / width)
        for place in range(0, size - 1, 2):
            evens[sums[place]] += one
            odds[sums[place + 1]] += one
        if size % 2:
            evens[sums[size - 1]] += one
    for place in range(counts.size):
        counts[place] += np.int64(evens[place]) + np.int64(odds[place])


def _compiled(numba: Any) -> Adder:
    types = numba.types
    signature = types.void(
        types.Array(types.float32, 1, "C", readonly=True),
        types.Array(types.float32, 2, "C", readonly=True),
        types.int64,
        types.int64[::1],
    )
    # as NumPy divides: a test for zero in the loop would keep it from running in vectors
    options = {"nogil": True, "error_model": "numpy"}
    try:
        adder: Adder = numba.njit(signature, cache=True, **options)(add_in_a_loop)
    except RuntimeError:  # there is no folder that it may keep the compiled code in
        adder = numba.njit(signature, **options)(add_in_a_loop)
    return adder
