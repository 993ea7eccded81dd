"""All histograms of a calibration pass, and the scales that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgecal.core.amax import amax_of
from edgecal.core.findings import Finding, Severity
from edgecal.core.histogram import BINS, Histogram, collect, start_histogram
from edgecal.core.npz import read_arrays, write_arrays
from edgecal.core.peaks import Peaks
from edgecal.core.quant import scale_of
from edgecal.core.tensors import apply_copies, constant_entries, copies
from edgecal.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from edgecal.core.graph import Graph
    from edgecal.core.versions import TensorRTVersion

    Over = Callable[
        [Callable[[Histogram], np.float32 | None], Iterable[Histogram]],
        Iterable[np.float32 | None],
    ]

SCHEMA: Final = 1
"""Of `histograms.npz`, apart from the bundle's."""

_SMALLEST: Final = float(np.finfo(np.float32).tiny)
_LARGEST: Final = float(np.finfo(np.float32).max)
_COLUMNS: Final = ("names", "range_end", "counts", "minimum", "maximum", "non_finite")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scales:
    """One scale per tensor of a cache, in its order, for one algorithm and TensorRT."""

    activations: Mapping[str, np.float32]
    constants: Mapping[str, np.float32]
    """Entries of layers the parser makes of constants, named as that TensorRT names them."""
    unusable: tuple[str, ...]
    """Activations that INT8 cannot hold, as `judge_statistics` says of each: they have no scale."""

    def entries(self) -> dict[str, np.float32]:
        """Give all of them, as they stand in the cache."""
        return {**self.activations, **self.constants}


def scales_from(
    histograms: Mapping[str, Histogram],
    graph: Graph,
    *,
    algorithm: str,
    percentile: float,
    tensorrt: TensorRTVersion,
    over: Over = map,
) -> Scales:
    """Turn statistics into the scales that this TensorRT would have written.

    Parameters
    ----------
    over
        Maps a function over values; several threads may do so at once.

    Raises
    ------
    InputError
        If the algorithm is unknown.
    """

    def scales(several: Mapping[str, Histogram]) -> dict[str, np.float32]:
        found = over(lambda one: _scale(one, algorithm, percentile), several.values())
        both = zip(several, found, strict=True)
        return {name: scale for name, scale in both if scale is not None}

    measured = scales(histograms)
    values = {
        entry: np.asarray(graph.constants[name], np.float32)
        for entry, name in constant_entries(graph, tensorrt).items()
    }
    constants = scales(
        {entry: collect(start_histogram(value), value) for entry, value in values.items()}
    )
    return Scales(
        activations=apply_copies(measured, copies(graph, tensorrt)),
        constants=constants,
        unusable=tuple(name for name in histograms if name not in measured),
    )


def _scale(histogram: Histogram, algorithm: str, percentile: float) -> np.float32 | None:
    if _why_no_scale(histogram):
        return None
    scale = scale_of(amax_of(histogram, algorithm, percentile=percentile))
    return scale if scale >= _SMALLEST else None


def _why_no_scale(histogram: Histogram) -> str:
    if histogram.samples == 0:
        return "held no finite value on any data"
    if histogram.largest == 0:
        return "was zero on all data"
    if scale_of(histogram.largest) < _SMALLEST:
        return f"stayed within {histogram.largest:g} of zero"
    if histogram.range_end * (BINS + 0.5) / BINS > _LARGEST:  # entropy2's amax, uncut
        return f"reached {histogram.largest:g}, the end of what float32 holds"
    return ""


def judge_statistics(
    histograms: Mapping[str, Histogram],
    *,
    samples: int,
    judging: Mapping[str, int] | None = None,
) -> tuple[Finding, ...]:
    """Say what is odd about the data that was seen.

    Parameters
    ----------
    judging
        By tensor: how many values were NaN or infinite in samples that INT8 is judged by.
    """
    findings = []
    if samples < _FEW_SAMPLES:
        findings.append(
            Finding(
                rule="few-samples",
                severity=Severity.WARNING if samples < _TOO_FEW_SAMPLES else Severity.NOTE,
                subject="data",
                message=f"calibrated on {samples} sample{'s' if samples != 1 else ''}; "
                "NVIDIA's samples use about 500 for ImageNet-class networks",
                remedy="give more representative data if you can",
            )
        )
    for name, histogram in histograms.items():
        if histogram.non_finite:
            findings.append(
                Finding(
                    rule="non-finite-activation",
                    severity=Severity.WARNING,
                    subject=name,
                    message=f"{histogram.non_finite} "
                    f"value{' was' if histogram.non_finite == 1 else 's were'} NaN or infinite, "
                    "and left out",
                    remedy="look at the data and at this tensor; masks should use a finite minimum",
                )
            )
        if why := _why_no_scale(histogram):
            findings.append(
                Finding(
                    rule="no-range",
                    severity=Severity.NOTE,
                    subject=name,
                    message=f"{why}, so it has no scale and stays out of INT8",
                    remedy="give more varied data; a branch that is always so is better removed",
                )
            )
    told = {name for name, histogram in histograms.items() if histogram.non_finite}
    findings += [
        Finding(
            rule="non-finite-activation",
            severity=Severity.WARNING,
            subject=name,
            message=f"{count} value{' was' if count == 1 else 's were'} NaN or infinite in samples "
            "that INT8 is judged by",
            remedy="look at the data and at this tensor; masks should use a finite minimum",
        )
        for name, count in (judging or {}).items()
        if name not in told
    ]
    return tuple(findings)


_FEW_SAMPLES: Final = 100
_TOO_FEW_SAMPLES: Final = 16


def serialize_histograms(histograms: Mapping[str, Histogram]) -> bytes:
    """Write histograms as .npz."""
    values = list(histograms.values())
    arrays: dict[str, Any] = {
        "schema": np.asarray(SCHEMA, np.int64),
        "names": np.asarray(list(histograms), dtype=np.str_),
        "range_end": np.asarray([one.range_end for one in values], np.float64),
        "minimum": np.asarray([one.minimum for one in values], np.float64),
        "maximum": np.asarray([one.maximum for one in values], np.float64),
        "non_finite": np.asarray([one.non_finite for one in values], np.int64),
        "counts": np.stack([one.counts for one in values]),
        # in text: their sums have more than 64 bits
        "peaks": np.asarray([f"{one.peaks.total:x} {one.peaks.count}" for one in values], np.str_),
    }
    return write_arrays(arrays)


def parse_histograms(data: bytes, *, source: str) -> dict[str, Histogram]:
    """Read what `serialize_histograms` wrote.

    Raises
    ------
    BundleError
        If it is no such file, or of another schema.
    """
    arrays = read_arrays(data, source=source)
    try:
        schema = int(arrays["schema"])
        columns = [arrays[key] for key in _COLUMNS]
    except (KeyError, TypeError) as error:
        raise BundleError(
            f"the histograms lack {error}",
            where=source,
            remedy="the bundle is damaged; copy it again or calibrate again",
        ) from error
    if schema != SCHEMA or len({len(column) for column in columns}) != 1:
        raise BundleError(
            f"expected histograms of schema {SCHEMA}, found {schema}",
            where=source,
            remedy="calibrate again with this version of edgecal",
        )
    peaks = arrays.get("peaks", [""] * len(columns[0]))  # earlier versions kept none
    return {
        str(name): Histogram(
            range_end=float(range_end),
            counts=counts,
            minimum=float(minimum),
            maximum=float(maximum),
            non_finite=int(non_finite),
            peaks=_peaks(str(of_samples), source=source),
        )
        for name, range_end, counts, minimum, maximum, non_finite, of_samples in zip(
            *columns, peaks, strict=True
        )
    }


def _peaks(text: str, *, source: str) -> Peaks:
    if not text:
        return Peaks()
    try:
        total, count = text.split(" ")
        return Peaks(int(total, 16), int(count))
    except ValueError as error:
        raise BundleError(
            f"expected the sum of the samples' peaks and their count, found {text[:40]!r}",
            where=source,
            remedy="the bundle is damaged; copy it again or calibrate again",
        ) from error
