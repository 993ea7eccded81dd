"""Histograms to scales to a bundle's content, for each TensorRT and by the best algorithm."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from edgecal.core.amax import ALGORITHMS, AUTO_CANDIDATES, DEFAULT_PERCENTILE, KL_ALGORITHMS
from edgecal.core.cache import make_cache, serialize_cache
from edgecal.core.clipping import judge_clipping
from edgecal.core.golden import GoldenRun, cosines_by_sample, parse_golden, serialize_golden
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
from edgecal.core.overrides import Override, apply_overrides, kept_overrides, settle_overrides
from edgecal.core.quant import Sqnr, sqnr
from edgecal.core.statistics import (
    Scales,
    judge_statistics,
    parse_histograms,
    scales_from,
    serialize_histograms,
)
from edgecal.core.tensors import activations, constant_entries, copies
from edgecal.errors import BundleError, InputError
from edgecal.workflows.collect import (
    AUTO,
    Arrays,
    CalibrateOptions,
    JudgingRun,
    Statistics,
    collect_statistics,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    import numpy.typing as npt

    from edgecal.core.findings import Finding
    from edgecal.core.graph import Graph
    from edgecal.core.histogram import Histogram
    from edgecal.core.manifest import Digest, ModelRecord, OverrideRecord
    from edgecal.core.overrides import Overrides
    from edgecal.core.preprocess import Preprocess
    from edgecal.core.versions import TensorRTVersion
    from edgecal.ports import Backend, BundleFiles, Dataset, Network, Sample

GOLDEN_RUNS: Final = 8


class Measured(Protocol):
    """What a calibration follows from: `Statistics`, of a pass or of a bundle."""

    @property
    def histograms(self) -> Mapping[str, Histogram]:
        """Give every tensor's values."""
        ...

    @property
    def runs(self) -> tuple[JudgingRun, ...]:
        """Give the runs that INT8 is judged by."""
        ...

    @property
    def held_out(self) -> bool:
        """Tell whether these runs are of samples that were not measured."""
        ...

    @property
    def samples(self) -> int:
        """Count the samples."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedData:
    """The data of a bundle as its manifest tells of it; the samples themselves are gone."""

    kind: str
    skipped: Sequence[str] = ()
    preprocess: Preprocess | None = None
    samples: int = 0
    excluded: Sequence[str] = ()
    groups: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """Count the samples that there were."""
        return self.samples

    def __iter__(self) -> Iterator[Sample]:
        """Read nothing."""
        return iter(())


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """A bundle that a calibration was derived from."""

    manifest: Manifest
    digest: Digest


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
    parent: Parent | None = None


def calibrate(
    backend: Backend,
    dataset: Dataset,
    versions: Sequence[TensorRTVersion],
    options: CalibrateOptions,
    progress: Callable[[str, int, int], None],
    *,
    overrides: Sequence[Overrides] = (),
) -> tuple[Statistics, tuple[Calibration, ...]]:
    """Go through the data once and make a calibration for every TensorRT.

    Parameters
    ----------
    overrides
        What each source of given ranges says, the one that outweighs the others last.

    Raises
    ------
    InputError
        If the data cannot be read, contradicts the network, or gives no tensor a range; or if a
        range is given for a tensor that the network does not have.
    """
    _check_options(options)
    given = settle_overrides(overrides, _names(backend.graph, versions))
    statistics = collect_statistics(backend, dataset, options, progress)
    return statistics, tuple(
        derive_calibration(backend, statistics, options, version, progress, given=given)
        for version in versions
    )


def recalibrate(
    backend: Backend,
    bundle: BundleFiles,
    versions: Sequence[TensorRTVersion],
    options: CalibrateOptions,
    progress: Callable[[str, int, int], None],
    *,
    overrides: Sequence[Overrides] = (),
    source: str,
) -> tuple[Statistics, tuple[Calibration, ...]]:
    """Make calibrations for other TensorRTs or by another algorithm out of a bundle, without data.

    The scales are those that a pass over the same data would give. What judges INT8 are the golden
    runs, eight at most, where a pass may have up to 32. Ranges that were given for the bundle stay
    in force until others are given.

    Parameters
    ----------
    overrides
        As for `calibrate`.
    source
        What the user calls the bundle.

    Raises
    ------
    BundleError
        If the bundle has no statistics.
    InputError
        If a range is given for a tensor that the network does not have.
    """
    _check_options(options)
    statistics = _statistics_of(bundle, source)
    names = _names(backend.graph, versions)
    kept = kept_overrides(bundle.manifest.calibration.overrides, names)
    given = settle_overrides((kept, *overrides), names)
    made = (
        derive_calibration(backend, statistics, options, version, progress, given=given)
        for version in versions
    )
    parent = Parent(manifest=bundle.manifest, digest=bundle.manifest_digest)
    before = bundle.manifest.calibration
    return statistics, tuple(
        replace(
            one,
            parent=parent,
            # the numbers are still those of whoever ran the network over the data
            record=replace(
                one.record, backend=before.backend, backend_version=before.backend_version
            ),
        )
        for one in made
    )


def _names(graph: Graph, versions: Iterable[TensorRTVersion]) -> tuple[str, ...]:
    """Name every tensor that has an entry for one of these TensorRTs at least."""
    constants = itertools.chain.from_iterable(constant_entries(graph, one) for one in versions)
    return tuple(dict.fromkeys((*activations(graph), *constants)))


def _statistics_of(bundle: BundleFiles, source: str) -> Statistics:
    manifest = bundle.manifest
    for name in (HISTOGRAMS_FILE, GOLDEN_FILE):
        if name not in manifest.files:
            raise BundleError(
                f"the bundle has no {name}, so nothing can be derived from it",
                where=source,
                remedy="calibrate again with the model and the data; only bundles that edgecal "
                "calibrated itself hold their statistics",
            )
    with bundle.open(HISTOGRAMS_FILE) as stream:
        histograms = parse_histograms(stream.read(), source=f"{source}/{HISTOGRAMS_FILE}")
    with bundle.open(GOLDEN_FILE) as stream:
        golden = parse_golden(stream.read(), source=f"{source}/{GOLDEN_FILE}")
    data = manifest.data
    return Statistics(
        histograms=histograms,
        runs=tuple(JudgingRun(inputs=dict(run.inputs), fp32=dict(run.fp32)) for run in golden),
        held_out=manifest.golden.held_out,
        samples=data.samples,
        held_out_samples=data.held_out,
        dropped=data.dropped,
        batch_size=data.batch_size,
        data_digest=data.digest,
        first=data.first,
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

    A derived bundle keeps its parent's records of model and data.

    Parameters
    ----------
    data
        As the user named it.
    version
        Of edgecal.
    """
    created = now.replace(microsecond=0)
    parent = calibration.parent
    return Manifest(
        name=name,
        form="cache",
        created=created,
        edgecal=version,
        # seconds since 1970: grows with every bundle made, on whichever host
        counter=int(created.timestamp()),
        tensorrt=calibration.tensorrt,
        written_by_tensorrt=False,
        model=parent.manifest.model if parent else model,
        data=parent.manifest.data
        if parent
        else DataRecord(
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
            excluded=tuple(dataset.excluded),
            groups=dict(dataset.groups),
        ),
        calibration=calibration.record,
        coverage=calibration.coverage,
        quality=calibration.quality,
        golden=calibration.golden,
        files={},
        derived_from=parent.digest if parent else None,
    )


def derive_calibration(
    backend: Backend,
    statistics: Measured,
    options: CalibrateOptions,
    tensorrt: TensorRTVersion,
    progress: Callable[[str, int, int], None],
    *,
    given: Mapping[str, Override] | None = None,
) -> Calibration:
    """Choose an algorithm, make the cache for one TensorRT, and predict its INT8 quality.

    Parameters
    ----------
    given
        Scales that outweigh measured ones, by tensor.

    Raises
    ------
    InputError
        If no tensor at all has a usable range.
    """
    given = given or {}
    candidates = AUTO_CANDIDATES if options.algorithm == AUTO else (options.algorithm,)
    best: _Trial | None = None
    trials: dict[str, _Tried] = {}
    for number, algorithm in enumerate(candidates):
        progress("simulating INT8", number, len(candidates))
        scales, overridden = _scales(
            backend.graph,
            statistics,
            algorithm,
            percentile=options.percentile,
            tensorrt=tensorrt,
            given=given,
        )
        same = (one for one in trials.values() if one.scales.activations == scales.activations)
        if (before := next(same, None)) is not None:
            trials[algorithm] = before
            continue
        trial = _simulate(backend, scales, statistics.runs, options.workers)
        trials[algorithm] = _Tried(scales=scales, overrides=overridden, error=trial.error)
        if best is None or trial.error < best.error:
            best = trial  # the outputs of others are not kept: they may be as large as pictures
    progress("simulating INT8", len(candidates), len(candidates))
    chosen = min(trials, key=lambda name: trials[name].error)
    if best is None:
        raise AssertionError("no algorithm was tried")
    scales, overridden = trials[chosen].scales, trials[chosen].overrides
    runs = tuple(
        GoldenRun(inputs=run.inputs, fp32=run.fp32, int8=int8)
        for run, int8 in zip(statistics.runs[:GOLDEN_RUNS], best.outputs, strict=True)
    )
    batch = _batch(statistics.runs[0])
    cache = make_cache(scales.entries().items(), tensorrt=tensorrt)
    return Calibration(
        tensorrt=tensorrt,
        record=CalibrationRecord(
            algorithm=chosen,
            parameters={"percentile": options.percentile} if chosen == "percentile" else {},
            chosen_by=_reason(trials, statistics) if len(trials) > 1 else "given",
            candidates={name: one.error for name, one in trials.items()},
            backend=backend.name,
            backend_version=backend.version,
            overrides=overridden,
        ),
        coverage=CoverageRecord(
            activations=len(statistics.histograms),
            covered=len(scales.activations),
            constants=len(scales.constants),
            missing=scales.unusable,
        ),
        quality=QualityRecord(
            samples=len(statistics.runs) * batch,
            held_out=statistics.held_out,
            outputs=best.quality,
        ),
        golden=GoldenRecord(runs=len(runs), held_out=statistics.held_out, batch=batch),
        files={
            CACHE_FILE: serialize_cache(cache),
            GOLDEN_FILE: serialize_golden(runs),
            HISTOGRAMS_FILE: serialize_histograms(statistics.histograms),
        },
        findings=_judge(statistics, chosen, scales, overridden),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    """The scales of an algorithm, and how they did."""

    scales: Scales
    overrides: tuple[OverrideRecord, ...]
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """How one set of scales does on the judging runs, and the INT8 outputs of the first ones."""

    outputs: tuple[Arrays, ...]
    error: float
    quality: Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """One output of one run, INT8 against float32."""

    wrong: float | None
    """The share of values that differ, where the output is of whole numbers."""
    power: Sqnr
    cosines: tuple[float, ...]


def _scales(
    graph: Graph,
    statistics: Measured,
    algorithm: str,
    *,
    percentile: float,
    tensorrt: TensorRTVersion,
    given: Mapping[str, Override],
) -> tuple[Scales, tuple[OverrideRecord, ...]]:
    scales, overridden = apply_overrides(
        scales_from(
            statistics.histograms,
            graph,
            algorithm=algorithm,
            percentile=percentile,
            tensorrt=tensorrt,
        ),
        given,
        wanted=tuple(statistics.histograms),
        copies=copies(graph, tensorrt),
    )
    if not scales.activations:
        raise InputError(
            "no tensor has a usable range: everything was zero or not finite",
            remedy="check the data and its preprocessing",
        )
    return scales, overridden


def _judge(
    statistics: Measured, algorithm: str, scales: Scales, overridden: Iterable[OverrideRecord]
) -> tuple[Finding, ...]:
    given = {one.name for one in overridden}
    findings = tuple(
        finding
        for finding in judge_statistics(statistics.histograms, samples=statistics.samples)
        if finding.rule != "no-range" or finding.subject not in given
    )
    if algorithm not in KL_ALGORITHMS:
        return findings
    found = {name: one for name, one in scales.activations.items() if name not in given}
    return (*findings, *judge_clipping(statistics.histograms, found, algorithm=algorithm))


def _simulate(backend: Backend, scales: Scales, runs: Sequence[JudgingRun], workers: int) -> _Trial:
    network = backend.simulate({name: float(one) for name, one in scales.activations.items()})

    def judge(number: int) -> tuple[dict[str, _Compared], Arrays | None]:
        return _run(network, runs[number], keep=number < GOLDEN_RUNS)

    with ThreadPoolExecutor(max(1, workers)) as pool:
        done = list(pool.map(judge, range(len(runs))))
    quality: dict[str, dict[str, float | None]] = {}
    errors = []
    for name in runs[0].fp32:
        compared = [found[name] for found, _ in done]
        wrong = [one.wrong for one in compared if one.wrong is not None]
        if wrong:
            errors.append(float(np.mean(wrong)))
            continue
        power = sum((one.power for one in compared), Sqnr())
        cosines = [cosine for one in compared for cosine in one.cosines]
        errors.append(float(np.sqrt(power.noise / power.signal)) if power.signal else power.noise)
        quality[name] = {
            "cosine_min": min(cosines),
            "cosine_mean": float(np.mean(cosines)),
            "sqnr_db": power.decibel if np.isfinite(power.decibel) else None,
        }
    return _Trial(
        outputs=tuple(outputs for _, outputs in done if outputs is not None),
        error=float(np.mean(errors)),
        quality=quality,
    )


def _run(
    network: Network, run: JudgingRun, *, keep: bool
) -> tuple[dict[str, _Compared], Arrays | None]:
    outputs = _only(run.fp32, network.run(run.inputs))
    compared = {}
    for name, value in run.fp32.items():
        want, have = _comparable(value, outputs[name])
        if want.dtype.kind != "f":
            wrong = float(np.mean(want != have)) if want.size else 0.0
            compared[name] = _Compared(wrong=wrong, power=Sqnr(), cosines=())
        else:
            compared[name] = _Compared(
                wrong=None,
                power=sqnr(want, have),
                cosines=cosines_by_sample(want, have, batch=_batch(run)),
            )
    return compared, outputs if keep else None


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


def _reason(trials: Mapping[str, _Tried], statistics: Measured) -> str:
    errors = ", ".join(f"{name} {one.error:.4f}" for name, one in trials.items())
    which = "held-out" if statistics.held_out else "calibrated (too few to hold any out)"
    return (
        f"auto: relative error of simulated outputs on {len(statistics.runs)} {which} runs "
        f"is {errors}"
    )
