from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.histogram import (
    BINS,
    Histogram,
    Values,
    collect,
    merge_histograms,
    start_histogram,
    widen,
)
from edgecal.errors import InputError
from tests.strategies import activation_batches

if TYPE_CHECKING:
    from collections.abc import Iterable


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
