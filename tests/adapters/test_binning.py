"""Every way to count gives NumPy's bits, whichever of them a host has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgecal.adapters.binning import add_in_a_loop, add_with_opencv, fastest_adder
from edgecal.core.histogram import UNCLAMPED, Clamp, Histogram, Tally, add_sums, start_histogram
from tests.networks import floats

if TYPE_CHECKING:
    from edgecal.core.histogram import Adder, Values

CLAMPS = [UNCLAMPED, Clamp(low=0.0), Clamp(low=0.0, high=0.5)]


def histograms(values: Values, clamps: list[Clamp], adder: Adder) -> tuple[Histogram, ...]:
    first = values[: values.size // 3]
    tally = Tally([start_histogram(first, clamp) for clamp in clamps], clamps, adder)
    tally.add(first)
    tally.add(values[first.size :])
    return tally.histograms()


@pytest.mark.parametrize("adder", [add_with_opencv, add_in_a_loop, fastest_adder()])
@pytest.mark.parametrize("clamps", [CLAMPS[:1], CLAMPS[:2], CLAMPS])
@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1.0, 1e36])
@pytest.mark.parametrize("size", [3, 4, 5001])
def test_counts_are_numpy_s(adder: Adder, clamps: list[Clamp], scale: float, size: int) -> None:
    values = (floats(size).astype(np.float64) * scale).astype(np.float32)
    found = histograms(values, clamps, adder)
    for have, want in zip(found, histograms(values, clamps, add_sums), strict=True):
        assert np.array_equal(have.counts, want.counts)
        assert have.samples == size


def test_counts_come_on_top_of_what_was_counted() -> None:
    grids = np.asarray([[-np.inf, np.inf, 1.0, 1.0]], np.float32)
    for adder in (add_with_opencv, add_in_a_loop, fastest_adder(), add_sums):
        counts = np.zeros(4097, np.int64)
        counts[2050] = 2**40
        values = np.asarray([2.5, -1.5, 0.9, -0.9, 2048.0], np.float32)
        values.flags.writeable = False  # as arrays of files are
        adder(values, grids, 2048, counts)
        held = {int(place): int(counts[place]) for place in np.flatnonzero(counts)}
        assert held == {2047: 1, 2048: 2, 2050: 2**40 + 1, 4096: 1}
