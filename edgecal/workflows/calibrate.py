"""Histograms to scales to a bundle's content, for each TensorRT and by the best algorithm."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from edgecal.core.amax import (
    ALGORITHMS,
    AUTO_CANDIDATES,
    DEFAULT_PERCENTILE,
    KL_ALGORITHMS,
    MEAN_PERCENTILE,
)
from edgecal.core.cache import make_cache, serialize_cache
from edgecal.core.clipping import judge_clipping
from edgecal.core.findings import Finding, Severity
from edgecal.core.golden import parse_golden
from edgecal.core.hosts import takes_caches
from edgecal.core.manifest import (
    CACHE_FILE,
    CACHE_FORM,
    GOLDEN_FILE,
    HISTOGRAMS_FILE,
    QDQ_FILE,
    QDQ_FORM,
    CalibrationRecord,
    CoverageRecord,
    DataRecord,
    GoldenRecord,
    Manifest,
    QualityRecord,
)
from edgecal.core.overrides import Override, apply_overrides, kept_overrides, settle_overrides
from edgecal.core.statistics import (
    Scales,
    judge_statistics,
    parse_histograms,
    scales_from,
)
from edgecal.core.tensors import activations, constant_entries, copies
from edgecal.core.trt_job import ALGORITHMS as CALIBRATORS
from edgecal.errors import BundleError, InputError
from edgecal.workflows.choosing import EQUAL, choose
from edgecal.workflows.collect import (
    AUTO,
    CalibrateOptions,
    JudgingRun,
    Statistics,
    collect_statistics,
    sound_runs,
)
from edgecal.workflows.explicit import make_explicit
from edgecal.workflows.judging import batch_of
from edgecal.workflows.packing import Packing
from edgecal.workflows.resume import unkept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    import numpy as np

    from edgecal.core.graph import Graph
    from edgecal.core.histogram import Histogram
    from edgecal.core.manifest import Digest, ExplicitRecord, ModelRecord, OverrideRecord
    from edgecal.core.overrides import Overrides
    from edgecal.core.preprocess import Preprocess
    from edgecal.core.versions import TensorRTVersion
    from edgecal.ports import Backend, BundleFiles, Dataset, Sample
    from edgecal.workflows.choosing import Choice
    from edgecal.workflows.collect import Spread
    from edgecal.workflows.resume import Keeper

_KEPT: Final = "that of the bundle it was derived from"


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

    @property
    def not_finite(self) -> Mapping[str, int]:
        """Count NaNs and infinities in samples to judge by."""
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
    limit: int | None = None

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
    written_by_tensorrt: bool = False
    """Whether the cache is what a TensorRT wrote, to the byte."""
    explicit: ExplicitRecord | None = None
    """Where a network with Q/DQ pairs takes the place of a cache."""


def calibrate(
    backend: Backend,
    dataset: Dataset,
    versions: Sequence[TensorRTVersion],
    options: CalibrateOptions,
    progress: Callable[[str, int, int], None],
    *,
    overrides: Sequence[Overrides] = (),
    keeper: Keeper | None = None,
    spread: Spread | None = None,
) -> tuple[Statistics, tuple[Calibration, ...]]:
    """Go through the data once and make a calibration for every TensorRT.

    Parameters
    ----------
    overrides
        What each source of given ranges says, the one that outweighs the others last.
    keeper
        Keeps what was measured if this is stopped; the caller tells it when the work is done.
    spread
        Has other machines measure.

    Raises
    ------
    InputError
        If the data cannot be read, contradicts the network, or gives no tensor a range; or if a
        range is given for a tensor that the network does not have.
    """
    _check_options(options)
    given = settle_overrides(overrides, _names(backend.graph, versions))
    with keeper or unkept() as kept:
        statistics = collect_statistics(backend, dataset, options, progress, kept, spread=spread)
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
    return statistics, tuple(_derived(one, parent, source) for one in made)


def with_algorithm_of(before: CalibrationRecord, options: CalibrateOptions) -> CalibrateOptions:
    """Take the algorithm that a bundle has, unless only TensorRT has it."""
    if before.algorithm not in ALGORITHMS:
        return options
    why, percentile = before.chosen_by, before.parameters.get("percentile")
    return replace(
        options,
        algorithm=before.algorithm,
        percentile=percentile if isinstance(percentile, float) else options.percentile,
        chosen_by=why if why.startswith(_KEPT) else f"{_KEPT}, {why}",
    )


def _derived(one: Calibration, parent: Parent, source: str) -> Calibration:
    """Say whose numbers they are: still those of whoever ran the network over the data."""
    before = parent.manifest.calibration
    if not parent.manifest.written_by_tensorrt:
        record = replace(one.record, backend=before.backend, backend_version=before.backend_version)
        return replace(one, parent=parent, record=record)
    writer = f"TensorRT {before.backend_version}"
    record = replace(
        one.record,
        backend_version=str(before.parameters.get(one.record.backend, "unknown")),
        chosen_by=f"{one.record.chosen_by}; from the histograms that {one.record.backend} made "
        f"beside {writer}'s table",
    )
    note = Finding(
        rule="not-of-tensorrt",
        severity=Severity.NOTE,
        subject="calibration",
        message=f"{source} holds {writer}'s own table; this cache is computed from the histograms "
        f"that {one.record.backend} made of the same data",
        remedy="calibrate with --backend tensorrt for another table of TensorRT's own",
    )
    return replace(one, parent=parent, record=record, findings=(note, *one.findings))


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
    runs, not_finite = sound_runs(
        tuple(JudgingRun(inputs=dict(run.inputs), fp32=dict(run.fp32)) for run in golden)
    )
    return Statistics(
        histograms=histograms,
        runs=runs,
        held_out=manifest.golden.held_out,
        samples=data.samples,
        held_out_samples=data.held_out,
        dropped=data.dropped,
        batch_size=data.batch_size,
        data_digest=data.digest,
        first=data.first,
        not_finite=not_finite,
    )


def _check_options(options: CalibrateOptions) -> None:
    """Find out before the data is read what would stop us after it."""
    if options.algorithm in CALIBRATORS and options.algorithm not in ALGORITHMS:
        raise InputError(
            f"only TensorRT has a {options.algorithm} calibrator",
            where="--algorithm",
            remedy="use --backend tensorrt, or minmax, whose scales are close to it",
        )
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
        form=CACHE_FORM if calibration.explicit is None else QDQ_FORM,
        created=created,
        edgecal=version,
        # seconds since 1970: grows with every bundle made, on whichever host
        counter=int(created.timestamp()),
        tensorrt=calibration.tensorrt,
        written_by_tensorrt=calibration.written_by_tensorrt,
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
            limit=dataset.limit or 0,
        ),
        calibration=calibration.record,
        coverage=calibration.coverage,
        quality=calibration.quality,
        golden=calibration.golden,
        files={},
        derived_from=parent.digest if parent else None,
        explicit=calibration.explicit,
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

    A TensorRT that takes no cache gets a network with Q/DQ pairs of the same scales.

    Parameters
    ----------
    given
        Scales that outweigh measured ones, by tensor.

    Raises
    ------
    InputError
        If no tensor at all has a usable range.
    """
    made: dict[str, tuple[Scales, tuple[OverrideRecord, ...]]] = {}

    def scales_of(algorithm: str) -> Mapping[str, np.float32]:
        made[algorithm] = _scales(
            backend.graph,
            statistics,
            algorithm,
            percentile=options.percentile,
            tensorrt=tensorrt,
            given=given or {},
            workers=options.workers,
        )
        return made[algorithm][0].activations

    with Packing(statistics) as packing:
        choice = choose(
            {name: partial(scales_of, name) for name in _candidates(options, statistics)},
            backend,
            statistics.runs,
            options.workers,
            lambda done, total: progress("simulating INT8", done, total),
        )
        packed = packing.files(choice.trial)
    scales, overridden = made[choice.name]
    batch = batch_of(statistics.runs[0])
    explicit, findings = None, _judge(statistics, choice.name, scales, overridden)
    if takes_caches(tensorrt):
        cache = make_cache(scales.entries().items(), tensorrt=tensorrt)
        files = {CACHE_FILE: serialize_cache(cache)}
    else:
        values = {name: float(scale) for name, scale in scales.activations.items()}
        network = make_explicit(backend, values, fp16=options.fp16)
        files, explicit = {QDQ_FILE: network.data}, network.record
        findings += network.findings
    return Calibration(
        tensorrt=tensorrt,
        record=CalibrationRecord(
            algorithm=choice.name,
            parameters={"percentile": options.percentile} if choice.name == "percentile" else {},
            chosen_by=_reason(choice, statistics)
            if options.algorithm == AUTO
            else options.chosen_by,
            candidates=dict(choice.errors),
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
            outputs=choice.trial.quality,
        ),
        golden=GoldenRecord(
            runs=len(choice.trial.outputs), held_out=statistics.held_out, batch=batch
        ),
        files={**files, **packed},
        findings=findings,
        explicit=explicit,
    )


def _candidates(options: CalibrateOptions, statistics: Measured) -> tuple[str, ...]:
    if options.algorithm != AUTO:
        return (options.algorithm,)
    # bundles of earlier versions know no samples' peaks
    has_peaks = all(one.peaks.count or not one.samples for one in statistics.histograms.values())
    return tuple(name for name in AUTO_CANDIDATES if has_peaks or name != MEAN_PERCENTILE)


def _scales(
    graph: Graph,
    statistics: Measured,
    algorithm: str,
    *,
    percentile: float,
    tensorrt: TensorRTVersion,
    given: Mapping[str, Override],
    workers: int,
) -> tuple[Scales, tuple[OverrideRecord, ...]]:
    with ThreadPoolExecutor(max(1, workers)) as pool:
        measured = scales_from(
            statistics.histograms,
            graph,
            algorithm=algorithm,
            percentile=percentile,
            tensorrt=tensorrt,
            over=pool.map,
        )
    scales, overridden = apply_overrides(
        measured,
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
        for finding in judge_statistics(
            statistics.histograms, samples=statistics.samples, judging=statistics.not_finite
        )
        if finding.rule != "no-range" or finding.subject not in given
    )
    if algorithm not in KL_ALGORITHMS:
        return findings
    found = {name: one for name, one in scales.activations.items() if name not in given}
    return (*findings, *judge_clipping(statistics.histograms, found, algorithm=algorithm))


def _reason(choice: Choice, statistics: Measured) -> str:
    def told(errors: Mapping[str, float]) -> str:
        return ", ".join(f"{name} {error:.4f}" for name, error in errors.items())

    which = "held-out" if statistics.held_out else "calibrated (too few to hold any out)"
    reason = (
        f"auto: relative error of simulated outputs on {len(statistics.runs)} {which} runs "
        f"is {told(choice.errors)}"
    )
    if choice.dropped:
        reason += f"; on {choice.heats} of them {told(choice.dropped)}, so no more were run"
    if choice.errors[choice.name] > min(choice.errors.values()):
        reason += f"; within {EQUAL - 1:.0%} all count as equal, and {choice.name} comes first"
    return reason
