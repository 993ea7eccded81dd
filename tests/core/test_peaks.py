from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.amax import amax_of
from edgecal.core.histogram import UNCLAMPED, Clamp, Tally, merge_histograms, start_histogram
from edgecal.core.peaks import Peaks, units_of
from edgecal.errors import InputError
from tests.networks import floats

if TYPE_CHECKING:
    from edgecal.core.histogram import Histogram
    from edgecal.core.sweep import Values

CLAMPS = [UNCLAMPED, Clamp(low=0.0), Clamp(low=0.0, high=2.5), Clamp(low=-1.0, high=9.0)]


def literal(sample: Values, clamp: Clamp = UNCLAMPED) -> float:
    """Sort the magnitudes and take the greatest after one in ten thousand was left out."""
    ordered = np.sort(np.abs(clamp.apply(sample)).reshape(-1))
    return float(ordered[ordered.size - ordered.size // 10000 - 1])


def tally(*batches: Values, samples: int = 1) -> Tally:
    one = Tally([start_histogram(batches[0], clamp) for clamp in CLAMPS], CLAMPS)
    for batch in batches:
        one.add(batch, samples)
    return one


@pytest.mark.parametrize("size", [1, 9_999, 10_000, 10_001, 200_003])
@pytest.mark.parametrize("scale", [1e-30, 0.01, 1.0, 100.0])
def test_the_mean_is_that_of_sorting(size: int, scale: float) -> None:
    samples = [floats(size, seed=seed) * np.float32(scale) * (1 + seed) for seed in range(3)]
    for histogram, clamp in zip(tally(*samples).histograms(), CLAMPS, strict=True):
        peaks = [Fraction(literal(sample, clamp)) for sample in samples]
        assert histogram.peaks.count == 3
        assert histogram.peaks.mean == np.float32(float(sum(peaks) / 3))


def test_a_peak_is_found_wherever_the_one_before_lay() -> None:
    samples = [floats(40_000, seed=1) * np.float32(10.0**power) for power in (0, 5, -5, 0)]
    samples.append(np.zeros(40_000, np.float32))
    samples.append(-np.abs(samples[0]))
    one_by_one = [tally(sample).histograms() for sample in samples]
    together = tally(*samples).histograms()
    for place, histogram in enumerate(together):
        total = sum((each[place].peaks for each in one_by_one), Peaks())
        assert histogram.peaks == total


@pytest.mark.parametrize("samples", [1, 2, 3, 6])
def test_batches_of_any_size_give_the_same(samples: int) -> None:
    data = floats(6, 3, 70, 70, seed=5)
    batches = np.split(data, 6 // samples)
    one, other = tally(*batches, samples=samples), tally(*np.split(data, 6))
    assert [one.peaks for one in one.histograms()] == [one.peaks for one in other.histograms()]


def test_a_tensor_whose_first_axis_is_no_batch_has_one_peak_for_all() -> None:
    histogram = tally(floats(3, 8), samples=2).histograms()[0]
    assert histogram.peaks.count == 1


def test_values_that_are_no_numbers_are_passed_over() -> None:
    sample = floats(30_000, seed=2)
    odd = sample.copy()
    odd[::1000] = np.nan
    found = tally(sample, odd).histograms()[0].peaks
    assert found == tally(sample, odd[np.isfinite(odd)]).histograms()[0].peaks
    nothing = np.full(7, np.inf, np.float32)
    assert tally(sample, nothing).histograms()[0].peaks.count == 1


@given(
    st.lists(st.floats(0, width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=9),
    st.randoms(use_true_random=False),
)
def test_order_does_not_matter(peaks: list[float], random: object) -> None:
    shuffled = list(peaks)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    total = Peaks()
    for one in peaks:
        total += Peaks(units_of(one), 1)
    parts = [Peaks(units_of(one), 1) for one in shuffled]
    assert sum(parts[1:], parts[0]) == total
    assert total.mean == np.float32(float(sum(map(Fraction, peaks)) / len(peaks)))


def test_merging_histograms_adds_their_peaks() -> None:
    data = [floats(100, seed=seed) for seed in range(4)]
    start = start_histogram(data[0])
    halves: list[Histogram] = []
    for half in (data[:2], data[2:]):
        part = Tally([start])
        for batch in half:
            part.add(batch)
        halves += part.histograms()
    whole = Tally([start])
    for batch in data:
        whole.add(batch)
    assert merge_histograms(halves).peaks == whole.histograms()[0].peaks


def test_one_odd_sample_moves_the_clip_point_little() -> None:
    usual = [floats(50_000, seed=seed) for seed in range(15)]
    odd = floats(50_000, seed=99) * np.float32(40)
    histogram = tally(*usual, odd).histograms()[0]
    assert 5 < amax_of(histogram, "mean-percentile") < 15
    assert amax_of(histogram, "percentile") > 90


def test_a_tensor_that_is_nearly_always_zero_is_not_clipped_to_nothing() -> None:
    sample = np.zeros(50_000, np.float32)
    sample[:3] = 5
    assert amax_of(tally(sample).histograms()[0], "mean-percentile") == 5


def test_statistics_without_peaks_say_so() -> None:
    histogram = tally(floats(9)).histograms()[0]
    with pytest.raises(InputError, match="hold nothing for mean-percentile"):
        amax_of(replace(histogram, peaks=Peaks()), "mean-percentile")
