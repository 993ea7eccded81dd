"""Histogram to amax: the clip point of a tensor, by one of six algorithms.

Every function returns float32, computed in float32 where TensorRT computes in float32, because the
cache is to hold the very bits that TensorRT would have written.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from edgecal.core.histogram import BINS
from edgecal.core.quant import STEPS
from edgecal.errors import InputError

if TYPE_CHECKING:
    from edgecal.core.histogram import Histogram
    from edgecal.core.sweep import Counts

LEVELS: Final = 128
"""INT8 magnitudes 0 to 127, as the KL search of TensorRT counts them."""

DEFAULT_PERCENTILE: Final = 99.99

_EQUAL: Final = 1e-12
"""Divergences, in nats, closer than this are the same; so are errors, relative to the least."""

_NEXT_TO_NOTHING: Final = 1e-9
"""In place of an empty level, whose logarithm is multiplied by zero."""

_BLOCK: Final = 256
"""Cuts searched at once: twice as fast as all, and memory goes back to no system in between."""

MEAN_PERCENTILE: Final = "mean-percentile"

AUTO_CANDIDATES: Final = ("entropy2", "minmax", "mse", "percentile", MEAN_PERCENTILE)
"""What `auto` chooses from; the first of those that it cannot tell apart.

TensorRT's own leads, then minmax: of scales that do equally well on samples like those measured,
the wider ones mostly do better on samples of another kind. entropy is not among them: it never
clips less than entropy2, which often clips too much.
"""

ALGORITHMS: Final = (*AUTO_CANDIDATES, "entropy")

KL_ALGORITHMS: Final = frozenset({"entropy2", "entropy"})

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]


def amax_of(
    histogram: Histogram, algorithm: str, *, percentile: float = DEFAULT_PERCENTILE
) -> np.float32:
    """Give a tensor's clip point in its real units.

    Raises
    ------
    InputError
        If the algorithm is unknown or the histogram holds no value but zero.
    """
    if histogram.largest == 0:
        raise InputError(
            "the histogram holds no value but zero", remedy="leave the tensor out of the cache"
        )
    if algorithm == "minmax":
        return histogram.largest
    if algorithm == "percentile":
        return amax_percentile(histogram, percentile=percentile)
    if algorithm == MEAN_PERCENTILE:
        return amax_mean_percentile(histogram)
    known = {"entropy2": amax_entropy2, "entropy": amax_entropy, "mse": amax_mse}
    if algorithm not in known:
        raise InputError(
            f"unknown algorithm {algorithm!r}", remedy=f"use one of {', '.join(ALGORITHMS)}"
        )
    return known[algorithm](histogram)


def amax_percentile(histogram: Histogram, *, percentile: float) -> np.float32:
    """Clip at a percentile of the magnitudes: the upper edge of the bin that holds it.

    Parameters
    ----------
    percentile : float
        In (0, 100].

    Returns
    -------
    float32
        Never above the largest magnitude that was seen.
    """
    if not 0 < percentile <= 100:
        raise InputError(
            f"a percentile lies above 0 and at most at 100, found {percentile}",
            remedy="99.99 is a safe choice",
        )
    reached = np.cumsum(histogram.magnitudes())
    position = int(np.searchsorted(reached, reached[-1] * (percentile / 100.0), side="left"))
    edge: np.float32 = np.float32(min(position, BINS - 1) + 1) * _bin_width(histogram)
    return min(edge, histogram.largest)


def amax_mean_percentile(histogram: Histogram) -> np.float32:
    """Clip at the mean of the samples' 99.99th percentiles, so that few odd ones weigh little.

    Returns
    -------
    float32
        The largest magnitude where no sample has more than a few values beside zero.

    Raises
    ------
    InputError
        If the statistics do not hold it.
    """
    mean = histogram.peaks.mean
    if mean is None:
        raise InputError(
            f"these statistics hold nothing for {MEAN_PERCENTILE}",
            remedy="calibrate again with the model and the data, or use another algorithm",
        )
    return mean if mean > 0 else histogram.largest


def amax_entropy2(histogram: Histogram) -> np.float32:
    """Clip where TensorRT's EntropyCalibration2 does.

    The magnitudes are cut at bin i, for i from 128 to 2048; the part below is squeezed into 128
    levels; the cut whose squeezed distribution tells most about the whole one wins, and amax is the
    middle of bin i: (i + 0.5) * R / 2048. Half a bin above the maximum when nothing is cut.

    Source: bins, half bin and float32 arithmetic agree with nine bit-exact values of real tables of
    TensorRT 6.0 to 10.14; doubling and the search are the hypothesis that fits published tables
    whose data are known, the search by a single vector. What TensorRT does with bin 0 is not
    known: here it takes bin 1's count, as a search that keeps a spike of zeros destroys networks.
    """
    return _middle_of_bin(histogram, kl_cut(histogram.magnitudes()))


def amax_entropy(histogram: Histogram) -> np.float32:
    """Clip as NVIDIA told of its first entropy calibrator.

    The search of `amax_entropy2`, but the squeezed distribution counts as a whole one: each is
    divided by its own sum, so that it regains what was cut off, and more is cut off.

    Source: S. Migacz, "8-bit inference with TensorRT", GTC 2017 (S7310). Whether TensorRT's
    EntropyCalibration still computes this, nothing public tells, and no table of it was compared.
    TensorRT runs that calibrator on fused layers and so measures fewer tensors than this.
    """
    return _middle_of_bin(histogram, kl_cut(histogram.magnitudes(), normalised=True))


def kl_cut(counts: Counts, *, normalised: bool = False) -> int:
    """Find the cut of least Kullback-Leibler divergence, from 128 to 2048.

    Parameters
    ----------
    counts : ndarray of int64, shape (2048,)
        Magnitudes by bin.
    normalised
        Divide the squeezed distribution by its own sum, not by the count of all values.

    Returns
    -------
    int
        The first of the best cuts. 2048 when nothing is to be cut.

    Notes
    -----
    With p the clipped distribution and q the squeezed one, the divergence is
    sum p ln p - sum p ln q, and q is constant on the nonzero bins of a level. Both sums come
    from running totals, all cuts at once, in place of a loop over 1921 cuts. To normalise q is to
    add the logarithm of the share that was kept.
    """
    c = counts.astype(np.float64)
    c[0] = c[1]
    total = c.sum()
    if total == 0:
        return BINS
    below, plogp = _running(c), _running(_xlogx(c))
    filled = _running((c > 0).astype(np.float64))
    cuts = np.arange(LEVELS, BINS + 1)
    kept, last = below[cuts], c[cuts - 1]
    tail = total - kept
    # sum of c ln c over the cut distribution, whose last bin also carries what was cut off
    own = plogp[cuts - 1] + _xlogx(last + tail)

    cross, top = np.empty_like(own), np.empty_like(own)
    for where, starts in _level_starts():
        mass, bins = np.diff(below[starts], axis=0), np.diff(filled[starts], axis=0)
        level = np.log(np.maximum(mass, _NEXT_TO_NOTHING) / np.maximum(bins, 1.0))
        top[where] = level[-1]
        cross[where] = (mass * level).sum(axis=0)
    # the cut-off mass meets the last level's value, or nothing at all if the last bin is empty
    nothing = np.log(np.finfo(np.float64).tiny * total)
    cross += tail * np.where(last > 0, top, nothing)
    divergence = (own - cross) / total
    if normalised:
        divergence += np.log(np.where(kept > 0, kept, total) / total)
    # not argmin: which of several equal ones rounding favours differs between processors
    return int(cuts[np.argmax(divergence <= divergence.min() + _EQUAL)])


def amax_mse(histogram: Histogram) -> np.float32:
    """Clip where rounding and clipping together lose the least in squares.

    Candidates lie one percent apart, from a 64th of the range to all of it: at the least of a
    smooth curve that is as good as a search of every bin.

    Returns
    -------
    float32
        Never above the largest magnitude that was seen.
    """
    thresholds, _, _ = _thresholds()
    errors = squared_errors(histogram.magnitudes())
    best = int(np.argmax(errors <= errors.min() * (1 + _EQUAL)))
    amax: np.float32 = np.float32(thresholds[best]) * _bin_width(histogram)
    return min(amax, histogram.largest)


def squared_errors(counts: Counts) -> Floats:
    """Sum the squared errors of fake quantization for each candidate threshold of `amax_mse`.

    Parameters
    ----------
    counts : ndarray of int64, shape (2048,)
        Magnitudes by bin, spread evenly over it. Bin 0 is left out: most of it is zeros, exact at
        any scale, and the rest rounds to zero at nearly every candidate.

    Returns
    -------
    ndarray of float64
        In squares of the bin's width.

    Notes
    -----
    With step s, x goes to level k once it passes (k - 1/2) s, and to the last one however large it
    is. So the error is sum x^2 - 2 s sum_k sum x + s^2 sum_k (2 k - 1) sum 1, where the inner sums
    run over the values beyond (k - 1/2) s: running totals of counts and of values give them all.
    """
    c = counts.astype(np.float64)
    c[0] = 0.0
    thresholds, edges, parts = _thresholds()
    places = np.arange(BINS, dtype=np.float64)
    number = _running(c)
    total = _running(c * (places + 0.5))
    squares = float((c * (places * places + places + 1.0 / 3.0)).sum())

    within = np.append(c, 0.0)[edges] * parts
    beyond = number[-1] - number[edges] - within
    values = total[-1] - total[edges] - within * (edges + 0.5 * parts)
    steps = thresholds / STEPS
    weights = 2.0 * np.arange(1, STEPS + 1) - 1.0
    moved = (beyond * weights[:, np.newaxis]).sum(axis=0)
    lost: Floats = squares - 2.0 * steps * values.sum(axis=0) + steps * steps * moved
    return lost.clip(min=0.0)  # rounding may leave less than nothing of nothing


@cache
def _level_starts() -> tuple[tuple[slice, Whole], ...]:
    """Give where the levels of each cut start, a few cuts at once so that the cache holds them.

    Bin j of i goes to level floor(j * 128 / i): level k starts at ceil(k * i / 128).
    """
    levels = np.arange(LEVELS + 1)[:, np.newaxis]
    count = BINS - LEVELS + 1
    return tuple(
        (slice(start, start + _BLOCK), -(-levels * cuts // LEVELS))
        for start in range(0, count, _BLOCK)
        for cuts in [np.arange(LEVELS + start, LEVELS + min(start + _BLOCK, count))]
    )


@cache
def _thresholds() -> tuple[Whole, Whole, Floats]:
    """Give the thresholds in bins, and the bin and the part of it where each level begins."""
    lowest = BINS // 64
    thresholds = np.unique(np.rint(np.geomspace(lowest, BINS, 420)).astype(np.int64))
    middles = (2 * np.arange(1, STEPS + 1) - 1)[:, np.newaxis] * thresholds
    edges, rest = np.divmod(middles, 2 * STEPS)
    return thresholds, edges, rest / (2.0 * STEPS)


def _running(values: Floats) -> Floats:
    return np.concatenate(([0.0], np.cumsum(values)))


def _xlogx(values: Floats) -> Floats:
    return values * np.log(np.where(values > 0, values, 1.0))


def _middle_of_bin(histogram: Histogram, cut: int) -> np.float32:
    amax: np.float32 = (np.float32(cut) + np.float32(0.5)) * _bin_width(histogram)
    return amax


def _bin_width(histogram: Histogram) -> np.float32:
    # a power of two divides exactly, and in float64 a range beyond float32's end is no infinity
    width: np.float32 = np.float32(histogram.range_end / BINS)
    return width
