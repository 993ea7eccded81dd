from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgecal.core.amax import ALGORITHMS, amax_of, kl_cut, squared_errors
from edgecal.core.histogram import BINS, Histogram, collect, start_histogram
from edgecal.core.quant import STEPS, scale_of
from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgecal.core.sweep import Counts

RANDOM = np.random.default_rng(7)
SHAPES: dict[str, Callable[[], npt.NDArray[np.float64]]] = {
    "normal": lambda: RANDOM.normal(size=50_000),
    "laplace": lambda: RANDOM.laplace(size=50_000),
    "relu": lambda: np.maximum(RANDOM.normal(size=50_000), 0),
    "uniform": lambda: RANDOM.uniform(-1, 1, size=50_000),
    "heavy tail": lambda: RANDOM.standard_t(2, size=50_000),
    "few values": lambda: RANDOM.choice([0.0, 0.1, 0.7, 3.0], size=1_000),
    "few samples": lambda: RANDOM.exponential(size=200),
}


def histogram_of(values: npt.ArrayLike) -> Histogram:
    batch = np.asarray(values, np.float32)
    return collect(start_histogram(batch), batch)


def literal_divergences(counts: Counts, *, normalised: bool = False) -> npt.NDArray[np.float64]:
    """The search of EntropyCalibration2 cut by cut, as its procedure is told."""
    tiny = np.finfo(np.float64).tiny
    bins = counts.astype(np.float64)
    bins[0] = bins[1]
    total = bins.sum()
    divergences = []
    for i in range(128, BINS + 1):
        below = bins[:i]
        p = below.copy()
        p[i - 1] += bins[i:].sum()
        level = np.arange(i) * 128 // i
        mass = np.bincount(level, weights=below, minlength=128)
        nonzero = np.bincount(level, weights=below > 0, minlength=128)
        q = np.where(below > 0, mass[level] / np.maximum(nonzero[level], 1), 0)
        p, q = p / total, np.maximum(q / ((q.sum() or total) if normalised else total), tiny)
        there = p > 0
        divergences.append(float(np.sum(p[there] * np.log(p[there] / q[there]))))
    return np.asarray(divergences)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_closed_form_cuts_where_the_literal_search_does(
    shape: str, *, normalised: bool
) -> None:
    counts = histogram_of(SHAPES[shape]()).magnitudes()
    divergences = literal_divergences(counts, normalised=normalised)
    best = 128 + int(np.argmax(divergences <= divergences.min() + 1e-12))
    assert kl_cut(counts, normalised=normalised) == best


COUNTS = hnp.arrays(
    np.int64, BINS, elements=st.integers(0, 1000), fill=st.sampled_from([0, 1]), unique=False
)


@settings(max_examples=15, deadline=None)
@given(counts=COUNTS, normalised=st.booleans())
def test_no_cut_is_better_and_none_before_it_as_good(counts: Counts, *, normalised: bool) -> None:
    cut = kl_cut(counts, normalised=normalised)
    if counts[1:].sum() == 0:
        assert cut == BINS
        return
    divergences = literal_divergences(counts, normalised=normalised)
    best = float(divergences.min())
    assert divergences[cut - 128] <= best + 1e-10
    assert not (divergences[: cut - 128] < best + 1e-14).any()


@pytest.mark.parametrize(
    ("magnitude", "bits"),
    [
        (1.0, "3c010a14"),
        (255.0, "4000890a"),
        ((1 - 0.406) / 0.225, "3caa54fc"),
        (2.0, "3c810a14"),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_entropy2_gives_the_very_bits_of_real_caches(
    magnitude: float, bits: str, sign: int
) -> None:
    scale = scale_of(amax_of(histogram_of([sign * magnitude] * 100), "entropy2"))
    assert f"{int(scale.view(np.uint32)):x}" == bits


def test_after_a_doubling_entropy2_may_lie_above_the_maximum() -> None:
    first = np.asarray([1.0], np.float32)
    histogram = collect(collect(start_histogram(first), first), np.asarray([1.2] * 9, np.float32))
    amax = float(amax_of(histogram, "entropy2"))
    assert amax == np.float32((1228 + 1 + 0.5) * 2.0 / 2048)  # 1.2 lies in bin 1228 of [0, 2]


def test_a_spike_of_zeros_does_not_cut_everything_else() -> None:
    ramp = np.linspace(0, 1, 5_000)
    assert kl_cut(histogram_of([*ramp, *np.zeros(10**6)]).magnitudes()) == kl_cut(
        histogram_of(ramp).magnitudes()
    )


@settings(max_examples=50)
@given(COUNTS)
def test_entropy_never_clips_less_than_entropy2(counts: Counts) -> None:
    assert kl_cut(counts, normalised=True) <= kl_cut(counts)


def test_entropy_gives_the_middle_of_a_bin() -> None:
    histogram = histogram_of(SHAPES["heavy tail"]())
    amax = amax_of(histogram, "entropy")
    assert amax < amax_of(histogram, "entropy2")
    cut = kl_cut(histogram.magnitudes(), normalised=True)
    width = np.float32(histogram.range_end / BINS)
    assert amax == (np.float32(cut) + np.float32(0.5)) * width


def fake_quantized(values: npt.NDArray[np.float64], amax: float) -> npt.NDArray[np.float64]:
    scale = amax / STEPS
    return np.clip(np.rint(values / scale), -STEPS, STEPS) * scale


@pytest.mark.parametrize("shape", SHAPES)
def test_mse_loses_hardly_more_on_the_values_themselves_than_any_other_clip_point(
    shape: str,
) -> None:
    values = SHAPES[shape]()
    histogram = histogram_of(values)
    largest = float(histogram.largest)
    chosen = float(amax_of(histogram, "mse"))

    def loss(amax: float) -> float:
        return float(np.square(fake_quantized(values, amax) - values).sum())

    least = min(loss(largest * part) for part in np.linspace(0.05, 1, 400))
    spread = np.abs(values)[np.abs(values) > 0].size * (largest / 2048) ** 2 / 12
    assert loss(chosen) <= least * 1.02 + spread  # bins do not tell where in them a value lies


@settings(max_examples=15, deadline=None)
@given(COUNTS, st.integers(0, 200))
def test_errors_in_closed_form_are_those_of_values_spread_over_their_bins(
    counts: Counts, which: int
) -> None:
    points = 64
    within = (np.arange(points) + 0.5) / points
    places = (np.arange(1, BINS)[:, np.newaxis] + within).reshape(-1)
    weights = np.repeat(counts[1:], points) / points
    errors = squared_errors(counts)
    thresholds = np.unique(np.rint(np.geomspace(32, BINS, 420)).astype(np.int64))
    assert len(errors) == len(thresholds)
    literal = np.square(fake_quantized(places, float(thresholds[which])) - places) @ weights
    # a bin is spread over so many points only, on which the mean of squares is off by so much
    assert errors[which] == pytest.approx(literal, rel=1e-3, abs=counts.sum() / points**2)


@given(hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(-1e6, 1e6, width=32)))
def test_mse_clips_at_the_maximum_or_below_and_never_at_nothing(
    batch: npt.NDArray[np.float32],
) -> None:
    if np.abs(batch).max() > 0:
        histogram = histogram_of(batch)
        assert 0 < amax_of(histogram, "mse") <= histogram.largest


@pytest.mark.parametrize("value", [1.0, -6.0, 1e-30, 3e38])
def test_mse_keeps_a_constant(value: float) -> None:
    assert amax_of(histogram_of([value] * 10), "mse") == np.float32(abs(value))


def test_mse_clips_the_tail_of_many_values_but_not_a_few_far_ones() -> None:
    many = np.random.default_rng(0).laplace(size=10**6)
    assert amax_of(histogram_of(many), "mse") < np.abs(many).max() * 0.9
    far = histogram_of([*np.linspace(-1, 1, 1000), 500.0])
    assert amax_of(far, "mse") == 500.0  # its square outweighs all the others together


@pytest.mark.parametrize("algorithm", ["entropy2", "entropy", "mse", "percentile"])
@pytest.mark.parametrize("power", [-40, -3, 5, 60])
def test_amax_scales_with_the_values(algorithm: str, power: int) -> None:
    values = SHAPES["laplace"]().astype(np.float32)
    scaled = amax_of(histogram_of(np.ldexp(values, power)), algorithm)
    assert scaled == np.ldexp(amax_of(histogram_of(values), algorithm), power)


def test_the_search_by_all_algorithms_takes_no_time_to_speak_of() -> None:
    histograms = [histogram_of(make()) for make in SHAPES.values()]
    for algorithm in ALGORITHMS:
        amax_of(histograms[0], algorithm)  # tables are made once
    started = time.process_time()
    for histogram in histograms:
        for algorithm in ALGORITHMS:
            amax_of(histogram, algorithm)
    each_s = (time.process_time() - started) / len(histograms)
    assert each_s < 0.05  # 0.003 on an idle core: what a loop over cuts would take a second for


@given(hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(-1e6, 1e6, width=32)))
def test_minmax_is_the_exact_maximum(batch: npt.NDArray[np.float32]) -> None:
    largest = np.abs(batch).max()
    if largest > 0:
        assert amax_of(histogram_of(batch), "minmax") == largest


@given(
    hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(0.125, 1e6, width=32)),
    st.floats(0.001, 100),
    st.floats(0.001, 100),
)
def test_amax_grows_with_the_percentile_up_to_the_maximum(
    batch: npt.NDArray[np.float32], one: float, other: float
) -> None:
    histogram = histogram_of(batch)
    small = amax_of(histogram, "percentile", percentile=min(one, other))
    large = amax_of(histogram, "percentile", percentile=max(one, other))
    assert 0 < small <= large <= histogram.largest
    assert amax_of(histogram, "percentile", percentile=100) == histogram.largest


def test_a_percentile_clips_rare_outliers() -> None:
    histogram = histogram_of([1000.0, *np.linspace(0, 10, 9_999)])
    assert float(amax_of(histogram, "percentile", percentile=99.9)) == pytest.approx(10, abs=0.5)


@pytest.mark.parametrize("percentile", [0, -1, 100.1, float("nan")])
def test_a_percentile_is_above_0_and_at_most_100(percentile: float) -> None:
    with pytest.raises(InputError, match="percentile"):
        amax_of(histogram_of([1.0]), "percentile", percentile=percentile)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_zeros_and_nothing_have_no_amax(algorithm: str) -> None:
    for values in ([0.0, -0.0], [], [float("nan")]):
        with pytest.raises(InputError, match="no value but zero"):
            amax_of(histogram_of(values), algorithm)


def test_an_unknown_algorithm_is_named_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="'magic'") as caught:
        amax_of(histogram_of([1.0]), "magic")
    assert "entropy2, minmax, mse, percentile, mean-percentile, entropy" in caught.value.remedy
