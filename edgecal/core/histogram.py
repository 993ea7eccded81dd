"""Signed histograms of activations: collected in a stream, widened by doubling, merged by adding.

Counts are whole numbers and every step is exact, so that any split of the data over workers gives
the same bits, as long as all of them start from the range of the first batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgecal.core.float_keys import keys_of, values_of_keys
from edgecal.core.peaks import NO_PEAKS, Peaks, peak_of, units_of
from edgecal.core.sweep import Bounds, Sweep, bins_of, bounds_of
from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from edgecal.core.sweep import Counts, Values

BINS: Final = 2048
"""TensorRT's number of bins over absolute values (kernel names in libnvinfer 8.4.1)."""

_NUMBERS: Final = 2 * BINS
"""The greatest number by which a value is counted: where the bin of twice the range would be."""

_STEPS: Final = np.arange(-1, 2, dtype=np.int32).reshape(-1, 1)

_SMALLEST_RANGE: Final = float(np.finfo(np.float32).tiny)
_EXACT_RANGE: Final = 2.0**-60
"""From here on a 2048th of a range has all its bits; below it, everything is scaled up first."""
_SCALE_UP: Final = 2.0**64


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
    peaks : Peaks
        Of every sample that had a finite value.
    """

    range_end: float
    counts: Counts
    minimum: float = 0.0
    maximum: float = 0.0
    non_finite: int = 0
    peaks: Peaks = NO_PEAKS

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


@dataclass(frozen=True, slots=True)
class Clamp:
    """What Relu and Clip do to a tensor: bounds in real units, float32 numbers or infinite.

    Without bounds it is the tensor itself.
    """

    low: float = -np.inf
    high: float = np.inf

    def then(self, after: Clamp) -> Clamp:
        """Give the one clamp that does what this and another after it do."""
        return Clamp(after.of(self.low), after.of(self.high))

    def of(self, value: float) -> float:
        """Clamp one number."""
        return min(max(value, self.low), self.high)

    def apply(self, values: Values) -> Values:
        """Clamp an array; NaN stays NaN."""
        clamped: Values = np.clip(values, np.float32(self.low), np.float32(self.high))
        return clamped


UNCLAMPED: Final = Clamp()


def start_histogram(first_batch: Values, clamp: Clamp = UNCLAMPED) -> Histogram:
    """Make an empty histogram whose range is the first batch's largest magnitude, once clamped.

    Why: TensorRT takes the range from the first batch, so order and batch size change its result.
    An all-zero first batch starts at the smallest normal float32, from where doubling reaches any
    range in whole powers of two, the same ones for every worker.
    """
    clamped = clamp.apply(first_batch)
    bounds = bounds_of(clamped) or bounds_of(clamped[np.isfinite(clamped)]) or (0.0, 0.0)
    return Histogram(
        range_end=max(abs(bounds[0]), abs(bounds[1]), _SMALLEST_RANGE),
        counts=np.zeros(2 * BINS + 1, np.int64),
    )


def collect(histogram: Histogram, values: Values) -> Histogram:
    """Add a batch of one tensor's values, widening the range by doubling where it must.

    Parameters
    ----------
    values : ndarray of float32, any shape
    """
    if values.size == 0:
        return histogram
    tally = Tally([histogram])
    tally.add(values)
    return tally.histograms()[0]


class Tally:
    """Adds batches of a tensor to its histogram, and to those of what clamps make of it.

    The clamped tensors are never made, and their histograms are what collecting them would give,
    to the last bit. Every value is counted once, under the *sum* of its bins' numbers in all of
    the histograms. Each number can only grow with the value, so two values have equal sums only if
    they share every bin: the sums can be taken apart again. That waits until the histograms are
    asked for or a range doubles twice: numbers beyond the last bin are counted as well, since most
    ranges double once within the first few samples.

    Parameters
    ----------
    starts
        One histogram per clamp, all of the same batches.
    clamps
        At most `MOST_GRIDS`. The first one is `UNCLAMPED`.
    """

    def __init__(
        self,
        starts: Sequence[Histogram],
        clamps: Sequence[Clamp] = (UNCLAMPED,),
        sweep: type[Sweep] = Sweep,
    ) -> None:
        self._views = [_View(*pair) for pair in zip(starts, clamps, strict=True)]
        self.sweep = sweep
        """How values are gone through."""
        self._offset = sum(_NUMBERS for clamp in clamps if clamp.low < 0)
        self._sums = np.zeros(self._offset + _NUMBERS * len(self._views) + 1, np.int64)
        self._settle()

    def add(self, values: Values, samples: int = 1) -> None:
        """Take a batch of the tensor's values, float32 of any shape.

        Parameters
        ----------
        samples
            How many it has. Each has a peak of its own where the first axis counts them; where it
            does not, the whole batch has one.
        """
        add_batch([self], [values], samples)

    def go_on(self, sweep: Sweep, done: int) -> None:
        """Count what is left of a sample from where a sweep stopped, in wider ranges if need be."""
        sample, odd = sweep.sample, False
        while True:
            if not self._views[0].has_seen(sweep.bounds):
                # at once, for what is counted is taken apart between the bounds
                self._reach([view.clamped(sweep.bounds) for view in self._views])
            if done == sample.size:
                break
            part = sweep.part(done)
            bounds = bounds_of(part)
            if bounds is None:
                self._add_odd(part)
                odd, done = True, done + part.size
            else:
                self._reach([view.clamped(bounds) for view in self._views])
            done = sweep.count(done, self.bins)
        self._add_odd_peaks(sample) if odd else self._add_peaks(sweep)

    def _add_peaks(self, sweep: Sweep) -> None:
        for view, peak in zip(self._views, sweep.peaks(self.bins), strict=True):
            view.add_peak(peak)

    def _add_odd_peaks(self, sample: Values) -> None:
        for view in self._views:
            clamped = view.clamp.apply(sample)
            finite = clamped[np.isfinite(clamped)]
            if finite.size:
                view.add_peak(peak_of(finite))

    def histograms(self) -> tuple[Histogram, ...]:
        """Give what was seen so far, a histogram per clamp."""
        self._take_apart()
        return tuple(view.histogram() for view in self._views)

    def _add_odd(self, block: Values) -> None:
        """Add a block with NaN or infinities, which clamps may turn into numbers."""
        clamped = [view.clamp.apply(block) for view in self._views]
        finite = [values[np.isfinite(values)] for values in clamped]
        self._reach([bounds_of(values) for values in finite])
        for view, values, grid in zip(self._views, finite, self.bins.grids, strict=True):
            view.count(bins_of(values, grid), 1)
            view.non_finite += block.size - values.size

    def _settle(self) -> None:
        """Count as the ranges are now."""
        grids = np.asarray([view.settle() for view in self._views], np.float32)
        held = [view.held() for view in self._views]
        within = Bounds(max(low for low, _ in held), min(high for _, high in held))
        self.bins = self.sweep.bins(within, grids, self._offset, self._sums)
        """Where they are counted until the ranges do not hold them."""

    def _reach(self, bounds: Sequence[Bounds | None]) -> None:
        """Widen the ranges to hold values of these bounds, which are all about to be counted."""
        found = [(view, *both) for view, both in zip(self._views, bounds, strict=True) if both]
        wider = any(max(-low, high) > view.reaches for view, low, high in found)
        if wider:
            self._take_apart()
        for view, low, high in found:
            view.reach(low, high)
        if wider:
            self._settle()

    def _take_apart(self) -> None:
        """Give every histogram its own from the common counts."""
        held = np.flatnonzero(self._sums)
        if held.size == 0:
            return
        root = self._views[0]
        numbers: list[npt.NDArray[Any]] = [held - self._offset]
        if len(self._views) > 1:
            places = _places(self._views, Bounds(root.low, root.high))
            bins = [bins_of(places, grid) for grid in self.bins.grids]
            sums = sum(bins, np.full(places.shape, self._offset, np.int16)).view(np.uint16)
            place_of = np.zeros(len(self._sums), np.int64)
            place_of[sums] = np.arange(len(places))
            found = place_of[held]
            numbers = [one[found] for one in bins]
        for view, own in zip(self._views, numbers, strict=True):
            view.count(own, self._sums[held])
        self._sums[:] = 0


def add_batch(tallies: Sequence[Tally], values: Sequence[Values], samples: int) -> None:
    """Take a batch of several tensors' values, each as `Tally.add` does."""
    apart = [_samples_of(one, samples) for one in values]
    for number in range(max(map(len, apart), default=0)):
        those = [index for index, one in enumerate(apart) if number < len(one)]
        begun = tallies[0].sweep.count_each(
            [apart[index][number] for index in those], [tallies[index].bins for index in those]
        )
        for index, (sweep, done) in zip(those, begun, strict=True):
            tallies[index].go_on(sweep, done)


def _samples_of(values: Values, samples: int) -> Sequence[Values]:
    """Take a batch apart, each sample in one dimension."""
    flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
    if flat.size == 0:
        return ()
    if samples == 1 or values.shape[:1] != (samples,):
        return (flat,)
    return tuple(flat.reshape(samples, -1))


class _View:
    """One of a tally's histograms, in the making."""

    def __init__(self, start: Histogram, clamp: Clamp) -> None:
        self.clamp = clamp
        self.range_end = self._settled = start.range_end
        self.counts = start.counts  # others have it too: whoever adds to it makes a new one
        self.non_finite = start.non_finite
        self._peaks, self._samples = start.peaks.total, start.peaks.count
        seen = start.samples > 0
        self.low = start.minimum if seen else np.inf
        self.high = start.maximum if seen else -np.inf

    def reach(self, low: float, high: float) -> None:
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.range_end, self.counts = _widened(self.range_end, self.counts, max(-low, high))

    def has_seen(self, bounds: Bounds) -> bool:
        return self.low <= bounds.low and bounds.high <= self.high

    def add_peak(self, peak: float) -> None:
        self._peaks += units_of(peak)
        self._samples += 1

    def clamped(self, bounds: Bounds) -> Bounds | None:
        if bounds.low > bounds.high:  # of nothing
            return None
        return Bounds(self.clamp.of(bounds.low), self.clamp.of(bounds.high))

    def count(self, numbers: npt.NDArray[Any], times: Counts | int) -> None:
        """Count values by the numbers that their bins had as it was last settled."""
        bins = (numbers / (self.range_end / self._settled)).astype(np.int64) + BINS
        self.counts = self.counts.copy()
        np.add.at(self.counts, bins, times)

    def settle(self) -> tuple[float, float, float, float]:
        """Count in bins of the range as it is now; gives their grid."""
        self._settled = self.range_end
        scale = 1.0 if self.range_end >= _EXACT_RANGE else _SCALE_UP
        return self.clamp.low, self.clamp.high, scale, self.range_end / BINS * scale

    @property
    def reaches(self) -> float:
        """Give the greatest magnitude that has a number."""
        return self._settled * (_NUMBERS // BINS)

    def held(self) -> Bounds:
        """Give bounds whose values have numbers once they are clamped."""
        if self.clamp.low > self.reaches or self.clamp.high < -self.reaches:
            return Bounds()  # none does
        return Bounds(
            -np.inf if self.clamp.low >= -self.reaches else -self.reaches,
            np.inf if self.clamp.high <= self.reaches else self.reaches,
        )

    def histogram(self) -> Histogram:
        seen = self.low <= self.high
        return Histogram(
            range_end=self.range_end,
            counts=self.counts,
            minimum=self.low if seen else 0.0,
            maximum=self.high if seen else 0.0,
            non_finite=self.non_finite,
            peaks=Peaks(self._peaks, self._samples),
        )


def widen(histogram: Histogram, *, to: float) -> Histogram:
    """Double the range, merging bins in pairs, until it holds magnitude `to`."""
    range_end, counts = _widened(histogram.range_end, histogram.counts, to)
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
            peaks=left.peaks + right.peaks,
        )
    if merged is None:
        raise InputError("no histograms to merge", remedy="collect at least one batch")
    return merged


def _widened(range_end: float, counts: Counts, to: float) -> tuple[float, Counts]:
    while range_end < to:
        merged = np.zeros_like(counts)
        for side, target in ((counts[BINS:], merged[BINS:]), (counts[BINS::-1], merged[BINS::-1])):
            np.add(side[2:BINS:2], side[3:BINS:2], out=target[1 : BINS // 2])
            target[BINS // 2] = side[BINS]  # R itself begins the first bin of the new half
        merged[BINS] = counts[BINS - 1 : BINS + 2].sum()
        range_end, counts = range_end * 2.0, merged
    return range_end, counts


def _places(views: Sequence[_View], seen: Bounds) -> Values:
    """Give values within bounds, one at least for every combination of bins there.

    From zero outwards, a combination begins at an edge of some bin: at the first float32 number
    whose quotient, rounded, is the bin's number. That lies within one step of the rounded edge.
    """
    edges = [np.asarray(seen)]
    for view in views:
        width = view.reaches / _NUMBERS
        ends = max(view.clamp.low, seen.low), min(view.clamp.high, seen.high)
        first, last = (round(min(max(end / width, -_NUMBERS), _NUMBERS)) for end in ends)
        edges.append(np.arange(first - 1, last + 2) * width)
    within = np.asarray(seen, np.float32)
    keys = keys_of(np.clip(np.concatenate(edges), *within).astype(np.float32))
    near = np.clip(keys + _STEPS, *keys_of(within))
    return values_of_keys(near.reshape(-1))
