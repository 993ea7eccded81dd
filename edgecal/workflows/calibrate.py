"""Histograms to scales to a bundle's content, for each TensorRT and by the best algorithm."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgecal.core.amax import ALGORITHMS, DEFAULT_PERCENTILE
from edgecal.core.cache import make_cache, serialize_cache
from edgecal.core.golden import GoldenRun, cosines_by_sample, serialize_golden
from edgecal.core.manifest import (
    CACHE_FILE,
    GOLDEN_FILE,
    HISTOGRAMS_FILE,
    CalibrationRecord,
    CoverageRecord,
    DataRecord,
    GoldenRecord,
    Manifest,
    QualityRecord,
)
from edgecal.core.quant import Sqnr, sqnr
from edgecal.core.statistics import Scales, judge_statistics, scales_from, serialize_histograms
from edgecal.errors import InputError
from edgecal.workflows.collect import (
    AUTO,
    Arrays,
    CalibrateOptions,
    JudgingRun,
    Statistics,
    collect_statistics,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    import numpy.typing as npt

    from edgecal.core.findings import Finding
    from edgecal.core.manifest import ModelRecord
    from edgecal.core.versions import TensorRTVersion
    from edgecal.ports import Backend, Dataset

GOLDEN_RUNS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The content of a bundle for one TensorRT, model and provenance apart."""

    tensorrt: TensorRTVersion
    record: CalibrationRecord
    coverage: CoverageRecord
    quality: QualityRecord
    golden: GoldenRecord
    files: Mapping[str, bytes]
    findings: tuple[Finding, ...]


def calibrate(
    backend: Backend,
    dataset: Dataset,
    versions: Sequence[TensorRTVersion],
    options: CalibrateOptions,
    progress: Callable[[str, int, int], None],
) -> tuple[Statistics, tuple[Calibration, ...]]:
    """Go through the data once and make a calibration for every TensorRT.

    Raises
    ------
    InputError
        If the data cannot be read, contradicts the network, or gives no tensor a range.
    """
    _check_options(options)
    statistics = collect_statistics(backend, dataset, options, progress)
    return statistics, tuple(
        derive_calibration(backend, statistics, options, version, progress) for version in versions
    )


def _check_options(options: CalibrateOptions) -> None:
    """Find out before the data is read what would stop us after it."""
    if options.algorithm not in {AUTO, *ALGORITHMS}:
        raise InputError(
            f"unknown algorithm {options.algorithm!r}",
            where="--algorithm",
            remedy=f"use one of {', '.join((AUTO, *ALGORITHMS))}",
        )
    if not 0 < options.percentile <= 100:
        raise InputError(
            f"a percentile lies above 0 and at most at 100, found {options.percentile:g}",
            where="--percentile",
            remedy=f"{DEFAULT_PERCENTILE} is a safe choice",
        )


def make_manifest(
    calibration: Calibration,
    statistics: Statistics,
    dataset: Dataset,
    *,
    name: str,
    model: ModelRecord,
    data: str,
    now: datetime,
    version: str,
) -> Manifest:
    """Write down where a bundle comes from; its files are listed when they are written.

    Parameters
    ----------
    data
        As the user named it.
    version
        Of edgecal.
    """
    created = now.replace(microsecond=0)
    return Manifest(
        name=name,
        form="cache",
        created=created,
        edgecal=version,
        # seconds since 1970: grows with every bundle made, on whichever host
        counter=int(created.timestamp()),
        tensorrt=calibration.tensorrt,
        written_by_tensorrt=False,
        model=model,
        data=DataRecord(
            digest=statistics.data_digest,
            source=data,
            kind=dataset.kind,
            samples=statistics.samples,
            held_out=statistics.held_out_samples,
            dropped=statistics.dropped,
            skipped=tuple(dataset.skipped),
            batch_size=statistics.batch_size,
            first=statistics.first,
            preprocess=dataset.preprocess.to_json() if dataset.preprocess else None,
        ),
        calibration=calibration.record,
        coverage=calibration.coverage,
        quality=calibration.quality,
        golden=calibration.golden,
        files={},
    )


def derive_calibration(
    backend: Backend,
    statistics: Statistics,
    options: CalibrateOptions,
    tensorrt: TensorRTVersion,
    progress: Callable[[str, int, int], None],
) -> Calibration:
    """Choose an algorithm, make the cache for one TensorRT, and predict its INT8 quality.

    Raises
    ------
    InputError
        If no tensor at all has a usable range.
    """
    candidates = ALGORITHMS if options.algorithm == AUTO else (options.algorithm,)
    trials: dict[str, _Trial] = {}
    for number, algorithm in enumerate(candidates):
        progress("simulating INT8", number, len(candidates))
        scales = scales_from(
            statistics.histograms,
            backend.graph,
            algorithm=algorithm,
            percentile=options.percentile,
            tensorrt=tensorrt,
        )
        if not scales.activations:
            raise InputError(
                "no tensor has a usable range: everything was zero or not finite",
                remedy="check the data and its preprocessing",
            )
        trials[algorithm] = _simulate(backend, scales, statistics.runs)
    progress("simulating INT8", len(candidates), len(candidates))
    chosen = min(trials, key=lambda name: trials[name].error)
    trial = trials[chosen]
    runs = tuple(
        GoldenRun(inputs=run.inputs, fp32=run.fp32, int8=int8)
        for run, int8 in zip(statistics.runs[:GOLDEN_RUNS], trial.outputs, strict=False)
    )
    batch = next(iter(runs[0].inputs.values())).shape[0]
    entries = trial.scales.entries()
    cache = make_cache(entries.items(), tensorrt=tensorrt)
    wanted = list(statistics.histograms)
    return Calibration(
        tensorrt=tensorrt,
        record=CalibrationRecord(
            algorithm=chosen,
            parameters={"percentile": options.percentile} if chosen == "percentile" else {},
            chosen_by=_reason(trials, statistics) if len(trials) > 1 else "given",
            candidates={name: one.error for name, one in trials.items()},
            backend=backend.name,
            backend_version=backend.version,
        ),
        coverage=CoverageRecord(
            activations=len(wanted),
            covered=len(trial.scales.activations),
            constants=len(trial.scales.constants),
            missing=trial.scales.unusable,
        ),
        quality=QualityRecord(
            samples=len(statistics.runs) * batch,
            held_out=statistics.held_out,
            outputs=trial.quality,
        ),
        golden=GoldenRecord(runs=len(runs), held_out=statistics.held_out, batch=batch),
        files={
            CACHE_FILE: serialize_cache(cache),
            GOLDEN_FILE: serialize_golden(runs),
            HISTOGRAMS_FILE: serialize_histograms(statistics.histograms),
        },
        findings=judge_statistics(statistics.histograms, samples=statistics.samples),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """How one set of scales does on the judging runs."""

    scales: Scales
    outputs: tuple[Arrays, ...]
    error: float
    quality: Mapping[str, Mapping[str, float | None]]


def _simulate(backend: Backend, scales: Scales, runs: Sequence[JudgingRun]) -> _Trial:
    network = backend.simulate({name: float(one) for name, one in scales.activations.items()})
    outputs = tuple(_only(run.fp32, network.run(run.inputs)) for run in runs)
    quality: dict[str, dict[str, float | None]] = {}
    errors = []
    for name in runs[0].fp32:
        pairs = [
            _comparable(run.fp32[name], values[name])
            for run, values in zip(runs, outputs, strict=True)
        ]
        if pairs[0][0].dtype.kind != "f":
            wrong = [np.mean(want != have) if want.size else 0.0 for want, have in pairs]
            errors.append(float(np.mean(wrong)))
            continue
        power = sum((sqnr(want, have) for want, have in pairs), Sqnr())
        cosines = list(
            itertools.chain.from_iterable(
                cosines_by_sample(want, have, batch=_batch(run))
                for run, (want, have) in zip(runs, pairs, strict=True)
            )
        )
        errors.append(float(np.sqrt(power.noise / power.signal)) if power.signal else power.noise)
        quality[name] = {
            "cosine_min": min(cosines),
            "cosine_mean": float(np.mean(cosines)),
            "sqnr_db": power.decibel if np.isfinite(power.decibel) else None,
        }
    return _Trial(scales=scales, outputs=outputs, error=float(np.mean(errors)), quality=quality)


def _only(names: Iterable[str], values: Arrays) -> Arrays:
    return {name: values[name] for name in names}


def _comparable(
    want: npt.NDArray[Any], have: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Put zeros where there is no number, and for all of an output of another shape.

    Masks are infinite, one NaN would hide all the rest, and detectors find one box more or less.
    """
    if have.shape != want.shape:
        have = np.zeros_like(want)
    return (
        np.nan_to_num(want, nan=0.0, posinf=0.0, neginf=0.0),
        np.nan_to_num(have, nan=0.0, posinf=0.0, neginf=0.0),
    )


def _batch(run: JudgingRun) -> int:
    return int(next(iter(run.inputs.values())).shape[0])


def _reason(trials: Mapping[str, _Trial], statistics: Statistics) -> str:
    errors = ", ".join(f"{name} {trial.error:.4f}" for name, trial in trials.items())
    which = "held-out" if statistics.held_out else "calibrated (too few to hold any out)"
    return (
        f"auto: relative error of simulated outputs on {len(statistics.runs)} {which} runs "
        f"is {errors}"
    )
