"""Every way to count gives NumPy's bits, whichever of them a host has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.adapters import binning
from edgecal.core.histogram import UNCLAMPED, Clamp, Histogram, Tally, start_histogram
from edgecal.core.sweep import Bins, Bounds, Sweep
from tests.networks import floats

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgecal.core.sweep import Values

    Sweeps = type[Sweep]


WAYS = [binning.OpenCvSweep, binning.fastest_sweep()]
CLAMPS = [UNCLAMPED, Clamp(low=0.0), Clamp(low=0.0, high=0.5)]


def histograms(values: Values, clamps: list[Clamp], sweep: Sweeps) -> tuple[Histogram, ...]:
    first = values[: values.size // 3]
    tally = Tally([start_histogram(first, clamp) for clamp in clamps], clamps, sweep)
    tally.add(first)
    tally.add(values[first.size :])
    return tally.histograms()


@pytest.mark.parametrize("sweep", WAYS)
@pytest.mark.parametrize("clamps", [CLAMPS[:1], CLAMPS[:2], CLAMPS])
@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1.0, 1e36])
@pytest.mark.parametrize("size", [3, 4, 5001])
def test_counts_are_numpy_s(sweep: Sweeps, clamps: list[Clamp], scale: float, size: int) -> None:
    values = (floats(size).astype(np.float64) * scale).astype(np.float32)
    found = histograms(values, clamps, sweep)
    for have, want in zip(found, histograms(values, clamps, Sweep), strict=True):
        assert np.array_equal(have.counts, want.counts)
        assert have.samples == size


@pytest.mark.parametrize("sweep", WAYS)
@pytest.mark.parametrize("size", [126_975, 126_976, 131_072, 300_001])
def test_one_bin_may_hold_more_than_16_bits_count(sweep: Sweeps, size: int) -> None:
    found = histograms(np.full(size, 0.25, np.float32), CLAMPS, sweep)
    assert [int(one.counts.max()) for one in found] == [size] * len(CLAMPS)


@pytest.mark.parametrize("sweep", [Sweep, *WAYS])
def test_counts_come_on_top_of_what_was_counted(sweep: Sweeps) -> None:
    grids = np.asarray([[-np.inf, np.inf, 1.0, 1.0]], np.float32)
    counts = np.zeros(4097, np.int64)
    counts[2050] = 2**40
    values = np.asarray([2.5, -1.5, 0.9, -0.9, 2048.0], np.float32)
    values.flags.writeable = False  # as arrays of files are
    bins = sweep.bins(Bounds(-2048.0, 2048.0), grids, 2048, counts)
    assert sweep(values).count(0, bins) == 5
    held = {int(place): int(counts[place]) for place in np.flatnonzero(counts)}
    assert held == {2047: 1, 2048: 2, 2050: 2**40 + 1, 4096: 1}


def bins_for(sweep: Sweeps, within: Bounds, *grids: tuple[float, float, float, float]) -> Bins:
    return sweep.bins(within, np.asarray(grids, np.float32), 2048, np.zeros(4097, np.int64))


ODD = [0.0, -0.0, 1e-45, -1e-45, 3.4028235e38, -3.4028235e38, 1.0, -1.0]
EVERYTHING = Bounds(-np.inf, np.inf)
PLAIN = (-np.inf, np.inf, 1.0, 2e35)


@pytest.mark.parametrize("sweep", WAYS)
@pytest.mark.parametrize("odd", [None, np.nan, -np.nan, np.inf, -np.inf])
@given(st.lists(st.sampled_from(ODD) | st.floats(width=32, allow_nan=False), max_size=40))
def test_bounds_are_numpy_s(sweep: Sweeps, odd: float | None, numbers: list[float]) -> None:
    finite = [one for one in numbers if np.isfinite(one)]
    values = np.asarray(finite if odd is None else [*finite, odd, 1.0], np.float32)
    found, want = sweep(values), Sweep(values)
    bins = [bins_for(one, EVERYTHING, PLAIN) for one in (sweep, Sweep)]
    ends = [one.count(0, into) for one, into in zip((found, want), bins, strict=True)]
    assert ends == [0 if odd is not None else values.size] * 2
    assert [str(one) for one in found.bounds] == [str(one) for one in want.bounds]
    assert np.array_equal(bins[0].counts, bins[1].counts)


@pytest.mark.parametrize("sweep", [Sweep, *WAYS])
def test_counting_stops_before_what_is_out_of_bounds(sweep: Sweeps) -> None:
    values = floats(300_000, seed=3)
    values[250_000] = 99.0
    bins = bins_for(sweep, Bounds(-50.0, 50.0), (-np.inf, np.inf, 1.0, 100 / 2048))
    one = sweep(values)
    stopped = one.count(0, bins)
    assert stopped <= 250_000 < stopped + one.part(stopped).size
    assert bins.counts.sum() == stopped
    assert one.bounds.high < 50
    wider = sweep.bins(Bounds(-100.0, 100.0), bins.grids, 2048, bins.counts)
    assert one.count(stopped, wider) == values.size
    assert bins.counts.sum() == values.size
    assert one.bounds.high == 99.0


@pytest.mark.parametrize("sweep", [Sweep, *WAYS])
def test_several_samples_are_counted_as_each_alone(sweep: Sweeps) -> None:
    samples = [floats(size, seed=size) * np.float32(3) for size in (1, 5000, 70_001, 300, 5000)]
    samples[3][200] = np.inf
    ends = [(-np.inf, np.inf), (0.0, np.inf), (0.0, 0.5)]
    grids = [[(*one, 1.0, 20 / 2048) for one in ends[:count]] for count in (1, 3, 2, 1, 3)]
    together, alone = (
        [
            sweep.bins(Bounds(-9.0, 9.0), np.asarray(one, np.float32), 2048, counts)
            for one, counts in zip(grids, np.zeros((5, 2048 * 4 + 1), np.int64), strict=True)
        ]
        for _ in range(2)
    )
    begun = sweep.count_each(samples, together)
    for (found, stopped), sample, into, own in zip(begun, samples, together, alone, strict=True):
        want = sweep(sample)
        assert stopped == want.count(0, own)
        assert found.bounds == want.bounds
        assert np.array_equal(into.counts, own.counts)
        if stopped == sample.size:
            assert found.peaks(into) == want.peaks(own)


@pytest.mark.parametrize("sweep", [Sweep, *WAYS])
@pytest.mark.parametrize("odd", [False, True])
def test_ranges_may_double_in_the_middle_of_a_sample(sweep: Sweeps, *, odd: bool) -> None:
    values = floats(400_000, seed=8) * np.float32(2) ** np.arange(-9, 1).repeat(40_000)
    if odd:
        values[::70_000] = np.inf
    starts = [start_histogram(values[:1000], clamp) for clamp in CLAMPS]
    whole, pieces = Tally(starts, CLAMPS, sweep), Tally(starts, CLAMPS)
    whole.add(values.astype(np.float32))
    for piece in np.split(values.astype(np.float32), 400):
        pieces.add(piece)
    for have, want in zip(whole.histograms(), pieces.histograms(), strict=True):
        assert have.range_end == want.range_end
        assert np.array_equal(have.counts, want.counts)
        assert (have.minimum, have.maximum) == (want.minimum, want.maximum)
        assert have.non_finite == want.non_finite


@pytest.mark.parametrize("sweep", [Sweep, *WAYS])
@pytest.mark.parametrize("size", [1, 9_999, 10_000, 30_001, 300_123])
@pytest.mark.parametrize("shape", ["noise", "steps", "one side", "one end", "sorted", "alike"])
def test_peaks_are_those_of_sorting(sweep: Sweeps, size: int, shape: str) -> None:
    shapes: dict[str, npt.NDArray[Any]] = {
        "noise": floats(size, seed=size),
        "steps": np.round(floats(size, seed=size) * 4) / 4,  # many of a rank
        "one side": -np.abs(floats(size, seed=size)) - 1,
        "one end": floats(size, seed=size) * np.where(np.arange(size) < size // 500, 50, 1),
        "sorted": np.sort(floats(size, seed=size)),
        "alike": np.full(size, -0.0),
    }
    values = shapes[shape].astype(np.float32)
    ends = [(-np.inf, np.inf), (0.0, np.inf), (0.0, 0.5), (-1.5, 2.0), (0.25, 0.25), (-3.0, -2.0)]
    bins = bins_for(sweep, EVERYTHING, *((low, high, 1.0, 2e35) for low, high in ends))
    one = sweep(values)
    assert one.count(0, bins) == size
    clamped = [np.sort(np.abs(np.clip(values, *each))) for each in ends]
    assert one.peaks(bins) == [float(each[size - size // 10_000 - 1]) for each in clamped]


@pytest.mark.parametrize("sweep", [Sweep, *WAYS])
def test_peaks_are_of_all_that_was_counted_at_different_times(sweep: Sweeps) -> None:
    values = floats(300_000, seed=9)
    values[:20] = 7.0
    values[140_000:140_020] = -60.0
    one = sweep(values)
    stopped = one.count(0, bins_for(sweep, Bounds(-50.0, 50.0), PLAIN))
    wider = bins_for(sweep, EVERYTHING, PLAIN)
    assert one.count(stopped, wider) == values.size
    assert one.peaks(wider) == [7.0]
