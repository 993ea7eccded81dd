"""Signed histograms of activations: collected in a stream, widened by doubling, merged by adding.

Counts are whole numbers and every step is exact, so that any split of the data over workers gives
the same bits, as long as all of them start from the range of the first batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

BINS: Final = 2048
"""TensorRT's number of bins over absolute values (kernel names in libnvinfer 8.4.1)."""

Values = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]

_SMALLEST_RANGE: Final = float(np.finfo(np.float32).tiny)
_LARGEST_RANGE: Final = float(np.finfo(np.float32).max)
_BLOCK: Final = 1 << 18
"""Elements binned at once: the temporaries stay in the processor's cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """What was seen of one tensor.

    Attributes
    ----------
    range_end : float
        A float32 number R, a power of two times the largest magnitude of the first batch.
    counts : ndarray of int64, shape (4097,)
        Bin 2048 + j holds values from j * R / 2048 up to, not including, (j + 1) * R / 2048, and
        bin 2048 - j their negatives; the middle one holds both signs. The outermost bins hold R
        and -R themselves: keeping them apart makes doubling exact.
    minimum, maximum : float
        Of the finite values, in the tensor's real units; 0.0 when there were none.
    non_finite : int
        How many NaNs and infinities were met; they are in no bin.
    """

    range_end: float
    counts: Counts
    minimum: float = 0.0
    maximum: float = 0.0
    non_finite: int = 0

    @property
    def samples(self) -> int:
        """Count the values in the bins."""
        return int(self.counts.sum())

    @property
    def largest(self) -> np.float32:
        """Give the largest magnitude seen, in the tensor's real units."""
        largest: np.float32 = np.float32(max(abs(self.minimum), abs(self.maximum)))
        return largest

    def magnitudes(self) -> Counts:
        """Count absolute values in 2048 bins over [0, R], R itself in the last one.

        Returns
        -------
        ndarray of int64, shape (2048,)
        """
        both: Counts = self.counts[BINS:].copy()
        both[1:] += self.counts[BINS - 1 :: -1]
        both[BINS - 1] += both[BINS]
        folded: Counts = both[:BINS]
        return folded


def start_histogram(first_batch: Values) -> Histogram:
    """Make an empty histogram whose range is the first batch's largest magnitude.

    Why: TensorRT takes the range from the first batch, so order and batch size change its result.
    An all-zero first batch starts at the smallest normal float32, from where doubling reaches any
    range in whole powers of two, the same ones for every worker.
    """
    magnitudes = np.abs(first_batch[np.isfinite(first_batch)])
    largest = float(magnitudes.max()) if magnitudes.size else 0.0
    return Histogram(
        range_end=max(largest, _SMALLEST_RANGE), counts=np.zeros(2 * BINS + 1, np.int64)
    )


def collect(histogram: Histogram, values: Values) -> Histogram:
    """Add a batch of one tensor's values, widening the range by doubling where it must.

    Parameters
    ----------
    values : ndarray of float32, any shape
    """
    flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
    if flat.size == 0:
        return histogram
    low, high = float(flat.min()), float(flat.max())
    non_finite = histogram.non_finite
    if not (np.isfinite(low) and np.isfinite(high)):
        finite = flat[np.isfinite(flat)]
        non_finite += flat.size - finite.size
        if finite.size == 0:
            return replace(histogram, non_finite=non_finite)
        flat = finite
        low, high = float(flat.min()), float(flat.max())
    wide = widen(histogram, to=max(abs(low), abs(high)))
    counts = wide.counts.copy()
    for start in range(0, flat.size, _BLOCK):
        counts += _bin(flat[start : start + _BLOCK], wide.range_end)
    first = histogram.samples == 0
    return Histogram(
        range_end=wide.range_end,
        counts=counts,
        minimum=low if first else min(low, histogram.minimum),
        maximum=high if first else max(high, histogram.maximum),
        non_finite=non_finite,
    )


def widen(histogram: Histogram, *, to: float) -> Histogram:
    """Double the range, merging bins in pairs, until it holds magnitude `to`."""
    range_end, counts = histogram.range_end, histogram.counts
    while range_end < to:
        merged = np.zeros_like(counts)
        for side, target in ((counts[BINS:], merged[BINS:]), (counts[BINS::-1], merged[BINS::-1])):
            target[1 : BINS // 2] = side[2:BINS].reshape(-1, 2).sum(axis=1)
            target[BINS // 2] = side[BINS]  # R itself begins the first bin of the new half
        merged[BINS] = counts[BINS - 1 : BINS + 2].sum()
        range_end, counts = range_end * 2.0, merged
    return replace(histogram, range_end=range_end, counts=counts)


def merge_histograms(parts: Iterable[Histogram]) -> Histogram:
    """Add histograms of one tensor that started from the same first batch.

    Raises
    ------
    InputError
        If their ranges are not powers of two apart: they did not start from the same batch.
    """
    merged: Histogram | None = None
    for part in parts:
        if merged is None:
            merged = part
            continue
        to = max(merged.range_end, part.range_end)
        left, right = widen(merged, to=to), widen(part, to=to)
        if left.range_end != right.range_end:
            raise InputError(
                f"histograms over {left.range_end!r} and {right.range_end!r} cannot be added",
                remedy="collect all parts from the range of the same first batch",
            )
        seen = [one for one in (merged, part) if one.samples]
        merged = Histogram(
            range_end=left.range_end,
            counts=left.counts + right.counts,
            minimum=min((one.minimum for one in seen), default=0.0),
            maximum=max((one.maximum for one in seen), default=0.0),
            non_finite=left.non_finite + right.non_finite,
        )
    if merged is None:
        raise InputError("no histograms to merge", remedy="collect at least one batch")
    return merged


def _bin(values: Values, range_end: float) -> Counts:
    """Count a block of finite values; an exact float32 quotient of at most 1 picks the bin.

    Why divide: (x / R) * 2048 loses nothing when R doubles, so binning before or after a doubling
    agrees to the last value. Multiplying by a rounded 2048 / R does not. Truncation towards zero
    bins both signs alike, and a mask by sign would cost more than all the rest.
    """
    quotient = values.copy()
    if range_end > _LARGEST_RANGE:  # doubling went past float32, as it does for masks at its end
        quotient *= np.float32(0.5)
        range_end *= 0.5
    quotient /= np.float32(range_end)
    quotient *= np.float32(BINS)
    index = quotient.astype(np.int32)
    index += BINS
    return np.bincount(index, minlength=2 * BINS + 1)
