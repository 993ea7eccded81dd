from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgecal.core.histogram import (
    BINS,
    UNCLAMPED,
    Clamp,
    Histogram,
    Tally,
    collect,
    merge_histograms,
    start_histogram,
    widen,
)
from edgecal.errors import InputError
from tests.strategies import activation_batches

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgecal.core.sweep import Values


def collected(*batches: Values) -> Histogram:
    return reduce(collect, batches, start_histogram(batches[0]))


def values(*numbers: float) -> Values:
    return np.asarray(numbers, np.float32)


def assert_same(left: Histogram, right: Histogram) -> None:
    assert left.range_end == right.range_end
    assert np.array_equal(left.counts, right.counts)
    assert (left.minimum, left.maximum) == (right.minimum, right.maximum)
    assert left.non_finite == right.non_finite


def finite(batches: Iterable[Values]) -> Values:
    everything = np.concatenate(list(batches))
    numbers: Values = everything[np.isfinite(everything)]
    return numbers


@given(activation_batches(), st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_any_split_over_workers_gives_the_same_histogram(
    batches: list[Values], workers: list[int]
) -> None:
    start = start_histogram(batches[0])
    parts = [start] * 4
    for worker, batch in zip(workers, batches, strict=False):
        parts[worker] = collect(parts[worker], batch)
    assert_same(merge_histograms(parts), collected(*batches))
    assert_same(merge_histograms(reversed(parts)), collected(*batches))


CLAMPS = [
    Clamp(low=0.0),
    Clamp(low=0.0, high=6.0),
    Clamp(low=-1.0, high=1.0),
    Clamp(high=0.0),
    Clamp(low=50.0, high=60.0),
    Clamp(low=0.0, high=0.0),
    Clamp(low=float(np.finfo(np.float32).min), high=float(np.finfo(np.float32).max)),
    Clamp(low=float(np.float32(1e-40)), high=float(np.float32(1e-37))),
]


@given(
    activation_batches(),
    st.lists(st.sampled_from(CLAMPS), max_size=len(CLAMPS) - 1, unique=True),
    st.lists(st.integers(0, 2), min_size=6, max_size=6),
)
@example([np.zeros(0, np.float32), np.zeros(1, np.float32)], [Clamp(low=50.0, high=60.0)], [0] * 6)
def test_histograms_of_clamped_tensors_are_those_of_looking_at_them(
    batches: list[Values], clamps: list[Clamp], workers: list[int]
) -> None:
    clamps = [UNCLAMPED, *clamps]
    starts = [start_histogram(batches[0], clamp) for clamp in clamps]
    tallies = [Tally(starts, clamps) for _ in range(3)]
    for worker, batch in zip(workers, batches, strict=False):
        tallies[worker].add(batch)
    for clamp, *parts in zip(clamps, *(tally.histograms() for tally in tallies), strict=True):
        bounds = (clamp.low, clamp.high)
        with np.errstate(all="ignore"):
            looked_at = [np.clip(one, *np.asarray(bounds, np.float32)) for one in batches]
        assert_same(merge_histograms(parts), collected(*looked_at))


@given(
    st.floats(2.0**-10, 1024, width=32),
    st.floats(2.0**-10, 1024, width=32),
    st.integers(0, 2**31),
)
def test_values_beside_the_edges_of_either_grid_fall_where_they_would_alone(
    reach: float, high: float, seed: int
) -> None:
    clamp = Clamp(low=0.0, high=high)
    first = values(-reach, reach)
    starts = [start_histogram(first), start_histogram(first, clamp)]
    edges = np.concatenate(
        [np.arange(-BINS, BINS + 1) * one.range_end / BINS for one in starts]
    ).astype(np.float32)
    beside = np.concatenate([edges, *(np.nextafter(edges, values(end)) for end in (-9e9, 9e9))])
    chosen = np.random.default_rng(seed).choice(beside, 4000)
    tally = Tally(starts, [UNCLAMPED, clamp])
    tally.add(chosen)
    whole, clamped = tally.histograms()
    assert_same(whole, collect(starts[0], chosen))
    assert_same(clamped, collect(starts[1], clamp.apply(chosen)))


def test_what_a_tally_gave_does_not_change_with_what_it_sees_later() -> None:
    first = values(-1.0, 0.5, 2.0)
    clamps = [UNCLAMPED, Clamp(low=0.0)]
    tally = Tally([start_histogram(first, clamp) for clamp in clamps], clamps)
    tally.add(first)
    before = tally.histograms()
    tally.add(values(100.0))
    assert [one.samples for one in before] == [3, 3]
    assert [one.range_end for one in before] == [2.0, 2.0]
    assert [one.samples for one in tally.histograms()] == [4, 4]
    assert [one.maximum for one in tally.histograms()] == [100.0, 100.0]


def test_infinities_are_counted_where_a_clamp_makes_numbers_of_them() -> None:
    first = values(-np.inf, np.nan, 1.0, np.inf)
    clamps = [UNCLAMPED, Clamp(low=0.0), Clamp(low=0.0, high=6.0)]
    tally = Tally([start_histogram(first, clamp) for clamp in clamps], clamps)
    tally.add(first)
    found = [(one.samples, one.non_finite, one.maximum) for one in tally.histograms()]
    assert found == [(1, 3, 1.0), (2, 2, 1.0), (3, 1, 6.0)]


def test_there_is_one_zero() -> None:
    histogram = collected(values(-0.0))
    assert np.signbit([histogram.minimum, histogram.maximum]).tolist() == [False, False]


@given(activation_batches())
def test_every_value_is_counted_once_and_only_finite_ones_are_in_bins(
    batches: list[Values],
) -> None:
    histogram = collected(*batches)
    seen = finite(batches)
    assert histogram.samples == seen.size
    assert histogram.non_finite == sum(batch.size for batch in batches) - seen.size
    assert histogram.minimum == min(seen, default=0.0)
    assert histogram.maximum == max(seen, default=0.0)
    assert histogram.magnitudes().sum() == seen.size
    assert histogram.range_end >= float(histogram.largest)


@given(activation_batches(odd=False), st.integers(1, 5))
def test_binning_before_or_after_doubling_gives_the_same_counts(
    batches: list[Values], doublings: int
) -> None:
    start = start_histogram(batches[0])
    to = start.range_end * 2.0**doublings
    first = reduce(collect, batches, widen(start, to=to))
    assert_same(widen(reduce(collect, batches, start), to=first.range_end), first)


@given(activation_batches(odd=False))
def test_magnitudes_are_those_that_numpy_counts(batches: list[Values]) -> None:
    histogram = collected(*batches)
    exact = np.abs(finite(batches)).astype(np.float64)
    # quotients in float64 may fall on the other side of an edge: compare only at powers of two
    for bins in (1, 2, 4):
        edges = histogram.range_end * np.arange(bins + 1) / bins
        wanted, _ = np.histogram(exact, edges)
        assert list(histogram.magnitudes().reshape(bins, -1).sum(axis=1)) == list(wanted)


@pytest.mark.parametrize("most", [1.0, 1.5, 2.0, 2.0000002, 3.0, 7.9])
@pytest.mark.parametrize("reach", [1.0, 3.3, 1e-38, 1e37])
def test_numbers_of_bins_are_quotients_cut_off_at_whatever_range(most: float, reach: float) -> None:
    first = values(-0.9, 1.0) * np.float32(reach)
    later = np.random.default_rng(5).uniform(-most, most, 9000) * reach
    later[:2] = np.asarray((-most, most)) * reach
    clamps = [UNCLAMPED, Clamp(low=0.0), Clamp(low=0.0, high=1.2 * reach), Clamp(high=reach)]
    tally = Tally([start_histogram(first, clamp) for clamp in clamps], clamps)
    tally.add(first)
    for batch in np.split(later.astype(np.float32), 3):
        tally.add(batch)
    everything = np.concatenate([first, later.astype(np.float32)])
    for clamp, found in zip(clamps, tally.histograms(), strict=True):
        clamped = clamp.apply(everything)
        assert found.range_end / 2 < np.abs(clamped).max() <= found.range_end
        # by a power of two, since float32 has fewer bits below its smallest normal number
        up = 1.0 if reach >= 1.0 else 2.0**64
        quotients = clamped * np.float32(up) / np.float32(found.range_end / BINS * up)
        wanted = np.bincount(np.trunc(quotients).astype(np.int64) + BINS, minlength=2 * BINS + 1)
        assert np.array_equal(found.counts, wanted)


def test_a_batch_beyond_the_range_doubles_it_and_merges_bins_in_pairs() -> None:
    before = collected(values(0.0, 0.25, 0.5, -0.5, 1.0))
    after = collect(before, values(3.0))
    assert before.range_end == 1.0
    assert after.range_end == 4.0
    held = {int(index) - BINS: int(after.counts[index]) for index in np.flatnonzero(after.counts)}
    assert held == {-256: 1, 0: 1, 128: 1, 256: 1, 512: 1, 1536: 1}


def test_the_end_of_the_range_is_in_the_last_bin() -> None:
    histogram = collected(values(2.0, -2.0, np.nextafter(np.float32(2), np.float32(0))))
    assert histogram.magnitudes()[-1] == 3
    assert (int(histogram.counts[0]), int(histogram.counts[2 * BINS])) == (1, 1)


def test_a_first_batch_of_zeros_gives_ranges_that_are_powers_of_two() -> None:
    zeros = values(0.0, -0.0)
    assert collected(zeros).largest == 0
    later = collected(zeros, values(1.0))
    assert later.range_end == 1.0
    assert later.samples == 3
    assert collected(zeros, values(5.0)).range_end == 8.0


def test_nothing_and_nothing_finite_change_no_bin_and_no_bound() -> None:
    seen = collected(values(3.0, 5.0))
    assert collect(seen, values()) is seen
    after = collect(seen, values(np.nan, np.inf, -np.inf))
    assert_same(
        Histogram(range_end=5.0, counts=seen.counts, minimum=3.0, maximum=5.0, non_finite=3), after
    )


def test_infinities_beside_values_do_not_widen_the_range() -> None:
    histogram = collected(values(1.0, np.inf), values(-0.5, np.nan))
    assert histogram.range_end == 1.0
    assert histogram.non_finite == 2
    assert histogram.minimum == -0.5


def test_masks_at_the_end_of_float32_are_counted_beyond_its_range() -> None:
    lowest = float(np.finfo(np.float32).min)
    histogram = collected(values(10.0), values(lowest, 10.0))
    assert histogram.range_end > abs(lowest)
    assert int(histogram.counts[: BINS // 2 + 1].sum()) == 1
    assert int(histogram.counts[BINS]) == 2


def test_batches_of_any_shape_count_alike() -> None:
    flat = np.arange(24, dtype=np.float32)
    assert_same(collected(flat), collected(flat.reshape(2, 3, 4).transpose(2, 0, 1)))


def test_more_values_than_a_block_are_all_counted() -> None:
    many = np.linspace(-1, 1, (1 << 18) * 2 + 5, dtype=np.float32)
    assert collected(many).samples == many.size


def test_histograms_of_different_first_batches_cannot_be_merged() -> None:
    with pytest.raises(InputError, match="cannot be added"):
        merge_histograms([collected(values(1.0)), collected(values(1.5))])
    with pytest.raises(InputError, match="no histograms"):
        merge_histograms([])
