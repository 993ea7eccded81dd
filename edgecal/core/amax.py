"""Histogram to amax: the clip point of a tensor, by one of three algorithms.

Every function returns float32, computed in float32 where TensorRT computes in float32, because the
cache is to hold the very bits that TensorRT would have written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from edgecal.core.histogram import BINS
from edgecal.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgecal.core.histogram import Counts, Histogram

LEVELS: Final = 128
"""INT8 magnitudes 0 to 127, as the KL search of TensorRT counts them."""

DEFAULT_PERCENTILE: Final = 99.99

_EQUAL: Final = 1e-12
"""Divergences, in nats, closer than this are the same."""

ALGORITHMS: Final = ("entropy2", "minmax", "percentile")


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
    if algorithm == "entropy2":
        return amax_entropy2(histogram)
    if algorithm == "percentile":
        return amax_percentile(histogram, percentile=percentile)
    raise InputError(
        f"unknown algorithm {algorithm!r}", remedy=f"use one of {', '.join(ALGORITHMS)}"
    )


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
    cut = kl_cut(histogram.magnitudes())
    amax: np.float32 = (np.float32(cut) + np.float32(0.5)) * _bin_width(histogram)
    return amax


def kl_cut(counts: Counts) -> int:
    """Find the cut of least Kullback-Leibler divergence, from 128 to 2048.

    Parameters
    ----------
    counts : ndarray of int64, shape (2048,)
        Magnitudes by bin.

    Returns
    -------
    int
        The first of the best cuts. 2048 when nothing is to be cut.

    Notes
    -----
    With p the clipped distribution and q the squeezed one, the divergence is
    sum p ln p - sum p ln q, and q is constant on the nonzero bins of a level. Both sums come
    from running totals, all cuts at once, in place of a loop over 1921 cuts.
    """
    c = counts.astype(np.float64)
    c[0] = c[1]
    total = c.sum()
    if total == 0:
        return BINS
    cuts = np.arange(LEVELS, BINS + 1)
    below = np.concatenate(([0.0], np.cumsum(c)))
    plogp = np.concatenate(([0.0], np.cumsum(_xlogx(c))))
    filled = np.concatenate(([0], np.cumsum(c > 0)))

    last = c[cuts - 1]
    tail = total - below[cuts]
    # sum of c ln c over the cut distribution, whose last bin also carries what was cut off
    own = plogp[cuts - 1] + _xlogx(last + tail)

    # bin j of i goes to level floor(j * 128 / i): level k starts at ceil(k * i / 128)
    starts = -(-np.arange(LEVELS + 1) * cuts[:, np.newaxis] // LEVELS)
    mass = np.diff(below[starts], axis=1)
    bins = np.diff(filled[starts], axis=1)
    level = np.log(np.divide(mass, bins, out=np.ones_like(mass), where=bins > 0))
    cross = (mass * level).sum(axis=1)
    # the cut-off mass meets the last level's value, or nothing at all if the last bin is empty
    nothing = np.log(np.finfo(np.float64).tiny * total)
    cross += tail * np.where(last > 0, level[:, -1], nothing)
    divergence = (own - cross) / total
    # not argmin: which of several equal ones rounding favours differs between processors
    return int(cuts[np.argmax(divergence <= divergence.min() + _EQUAL)])


def _xlogx(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return values * np.log(np.where(values > 0, values, 1.0))


def _bin_width(histogram: Histogram) -> np.float32:
    # a power of two divides exactly, and in float64 a range beyond float32's end is no infinity
    width: np.float32 = np.float32(histogram.range_end / BINS)
    return width
