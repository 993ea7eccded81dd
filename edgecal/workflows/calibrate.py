"""Batches to histograms to scales to a bundle's content: one pass over the data."""

from __future__ import annotations

import hashlib
import itertools
import queue
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgecal.core.amax import ALGORITHMS, DEFAULT_PERCENTILE
from edgecal.core.batching import (
    FEWEST_HELD_OUT,
    SMALL_DATA,
    fixed_batch,
    is_held_out,
    runs_of,
    stack,
)
from edgecal.core.cache import make_cache, serialize_cache
from edgecal.core.golden import GoldenRun, cosines_by_sample, serialize_golden
from edgecal.core.histogram import Histogram, collect, merge_histograms, start_histogram
from edgecal.core.manifest import (
    CACHE_FILE,
    GOLDEN_FILE,
    HISTOGRAMS_FILE,
    CalibrationRecord,
    CoverageRecord,
    DataRecord,
    Digest,
    GoldenRecord,
    Manifest,
    QualityRecord,
)
from edgecal.core.quant import Sqnr, sqnr
from edgecal.core.statistics import Scales, judge_statistics, scales_from, serialize_histograms
from edgecal.core.tensors import activations
from edgecal.errors import DatasetError, InputError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    import numpy.typing as npt

    from edgecal.core.findings import Finding
    from edgecal.core.manifest import ModelRecord
    from edgecal.core.versions import TensorRTVersion
    from edgecal.ports import Backend, Dataset, Network, Sample

AUTO: Final = "auto"
GOLDEN_RUNS: Final = 8
_NUMBERS: Final = "fiub"
"""Kinds of NumPy types that outputs can be compared in."""

Arrays = dict[str, "npt.NDArray[Any]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateOptions:
    """What a user may choose."""

    algorithm: str = AUTO
    percentile: float = DEFAULT_PERCENTILE
    batch_size: int | None = None
    workers: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgingRun:
    """A run whose float32 outputs are known; INT8 is held against it."""

    inputs: Arrays
    fp32: Arrays


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What one pass over the data gave; everything else follows from it."""

    histograms: Mapping[str, Histogram]
    runs: tuple[JudgingRun, ...]
    held_out: bool
    """False where data was too little to hold any out."""
    samples: int
    held_out_samples: int
    dropped: int
    batch_size: int
    data_digest: Digest
    first: tuple[str, ...]


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


def collect_statistics(
    backend: Backend,
    dataset: Dataset,
    options: CalibrateOptions,
    progress: Callable[[str, int, int], None],
) -> Statistics:
    """Run the data through the network once and keep histograms of every tensor with an entry.

    Raises
    ------
    DatasetError
        If there is no sample, or the data contradicts the network.
    """
    fixed = fixed_batch(backend.graph.inputs)
    if None not in {fixed, options.batch_size} and fixed != options.batch_size:
        raise DatasetError(
            f"the network's batch size is fixed to {fixed}, and --batch-size says "
            f"{options.batch_size}",
            remedy="leave --batch-size out, or export the network with a dynamic batch axis",
        )
    batch_size = fixed or options.batch_size or 1
    names = activations(backend.graph)
    if not names:
        raise ModelError(
            "the network has no float32 tensor, so there is nothing to calibrate",
            remedy="export it in float32",
        )
    network = backend.expose(names)
    reader = _Reader(dataset, batch_size, exact=fixed is not None)
    total = len(dataset)
    with _Collector(network, names, options.workers) as collector:
        for batch in reader:
            collector.add(batch)
            progress("calibrating", reader.samples, total)
        histograms = collector.finish()
    judged = reader.held if reader.holds_out else reader.early
    golden_batch = fixed or 1
    runs = []
    for inputs in runs_of([sample.arrays for sample in judged], batch=golden_batch):
        values = network.run(inputs)
        fp32 = {
            output.name: values[output.name]
            for output in backend.graph.outputs
            if output.name in values and values[output.name].dtype.kind in _NUMBERS
        }
        if not fp32:
            raise ModelError(
                "the network has no output of numbers to judge INT8 by",
                remedy="export it with the tensors before its last operators as outputs",
            )
        runs.append(JudgingRun(inputs=inputs, fp32=fp32))
    return Statistics(
        histograms=histograms,
        runs=tuple(runs),
        held_out=reader.holds_out,
        samples=reader.samples,
        held_out_samples=len(reader.held) if reader.holds_out else 0,
        dropped=reader.dropped,
        batch_size=batch_size,
        data_digest=reader.digest,
        first=tuple(sample.name for sample in reader.early),
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


class _Reader:
    """Goes through the data once: hands out batches, keeps held-out samples back, counts."""

    def __init__(self, dataset: Dataset, batch_size: int, *, exact: bool) -> None:
        self._dataset = dataset
        self._batch_size = batch_size
        self._exact = exact
        self._digest = hashlib.sha256()
        self.held: list[Sample] = []
        self.early: list[Sample] = []
        """The first samples, which judge as well where data is too little to hold any out."""
        self.samples = 0
        self.dropped = 0

    @property
    def holds_out(self) -> bool:
        """Tell whether enough samples were kept back to judge by."""
        return len(self.held) >= FEWEST_HELD_OUT

    @property
    def digest(self) -> Digest:
        """Digest names and contents in their order."""
        return Digest(f"sha256:{self._digest.hexdigest()}")

    def __iter__(self) -> Iterator[Arrays]:
        pending: list[Sample] = []
        full_batches = 0
        for sample in self._measured():
            pending.append(sample)
            if len(pending) == self._batch_size:
                full_batches += 1
                yield self._stack(pending)
                pending = []
        if self.samples == 0:
            raise DatasetError("the data holds no sample", remedy="give at least one sample")
        if pending and self._exact and full_batches:
            self.dropped = len(pending)
        elif pending:
            missing = self._batch_size - len(pending) if self._exact else 0
            yield self._stack(pending + [pending[-1]] * missing)

    def _measured(self) -> Iterator[Sample]:
        """Yield the samples that make histograms: all but the held-out ones, if they suffice."""
        for index, sample in enumerate(self._dataset):
            self.samples += 1
            self._digest.update(f"{sample.name}\0{sample.digest}\n".encode())
            if index < SMALL_DATA - 1:
                self.early.append(sample)
            if is_held_out(index, batch_size=self._batch_size, already=len(self.held)):
                self.held.append(sample)
            else:
                yield sample
        if not self.holds_out:
            yield from self.held

    def _stack(self, samples: Sequence[Sample]) -> Arrays:
        return stack([sample.arrays for sample in samples], source=samples[0].name)


class _Collector:
    """Feeds batches to worker threads; any number of them gives the same histograms.

    The first batch runs alone, since its ranges are where every worker's histograms begin.
    """

    def __init__(self, network: Network, names: Sequence[str], workers: int) -> None:
        self._network = network
        self._names = names
        self._workers = max(1, workers)
        self._pool = ThreadPoolExecutor(self._workers)
        self._first: dict[str, Histogram] | None = None
        self._spare: queue.SimpleQueue[dict[str, Histogram]] = queue.SimpleQueue()
        self._running: set[Future[None]] = set()

    def __enter__(self) -> _Collector:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def add(self, batch: Arrays) -> None:
        """Take one batch; waits while all workers are busy."""
        if self._first is None:
            self._start(batch)
            return
        while len(self._running) >= 2 * self._workers:
            done, self._running = wait(self._running, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
        self._running.add(self._pool.submit(self._collect, batch))

    def finish(self) -> dict[str, Histogram]:
        """Wait for every batch and add the workers' histograms."""
        for future in self._running:
            future.result()
        if self._first is None:
            return {}
        parts = [self._first]
        while not self._spare.empty():
            parts.append(self._spare.get())
        return {
            name: merge_histograms(part[name] for part in parts if name in part)
            for name in self._first
        }

    def _start(self, batch: Arrays) -> None:
        values = self._values(batch)
        ranges = {name: start_histogram(value) for name, value in values.items()}
        self._first = {name: collect(ranges[name], value) for name, value in values.items()}
        for _ in range(self._workers):
            self._spare.put(dict(ranges))

    def _collect(self, batch: Arrays) -> None:
        values = self._values(batch)
        histograms = self._spare.get()
        try:
            for name, value in values.items():
                histograms[name] = collect(histograms[name], value)
        finally:  # whoever waits for them would wait for ever
            self._spare.put(histograms)

    def _values(self, batch: Arrays) -> Arrays:
        outputs = {**batch, **self._network.run(batch)}
        return {
            name: outputs[name]
            for name in self._names
            if name in outputs and outputs[name].dtype == np.float32
        }


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
