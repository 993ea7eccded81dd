"""TensorRT's own table to a bundle's content, with what ONNX Runtime knows of the same data.

TensorRT gives scales and nothing else. So the data goes through the network twice: through
TensorRT for the table, and through ONNX Runtime for float32 outputs to judge engines by and for
histograms. TensorRT comes first, since what it refuses it refuses at once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from edgecal.core.amax import KL_ALGORITHMS
from edgecal.core.backends import algorithm_without_tensorrt, choose_calibrator
from edgecal.core.batching import fixed_batch
from edgecal.core.clipping import judge_clipping
from edgecal.core.document import entries_of, read_document
from edgecal.core.findings import Finding, Severity
from edgecal.core.manifest import (
    CACHE_FILE,
    LOG_FILE,
    CalibrationRecord,
    CoverageRecord,
    GoldenRecord,
    QualityRecord,
)
from edgecal.core.overrides import apply_overrides, settle_overrides
from edgecal.core.statistics import judge_statistics, scales_from
from edgecal.core.tensors import activations, constant_entries
from edgecal.core.trt_job import CalibratorOptions
from edgecal.core.usable import LEVELS, is_usable
from edgecal.errors import BackendError, DatasetError
from edgecal.workflows.calibrate import Calibration
from edgecal.workflows.collect import batch_size_of, collect_statistics
from edgecal.workflows.judging import batch_of, judge_scales
from edgecal.workflows.packing import Packing
from edgecal.workflows.reading import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from edgecal.core.backends import CalibratorChoice
    from edgecal.core.cache import Entry
    from edgecal.core.graph import Graph
    from edgecal.core.manifest import OverrideRecord
    from edgecal.core.overrides import Override, Overrides
    from edgecal.core.versions import TensorRTVersion
    from edgecal.ports import Backend, Dataset, TensorRTCalibration, TensorRTCalibrator
    from edgecal.workflows.collect import CalibrateOptions, Statistics

_SHOWN: Final = 10


def calibrate_natively(
    backend: Backend,
    tensorrt: TensorRTCalibrator,
    dataset: Dataset,
    version: TensorRTVersion,
    options: CalibrateOptions,
    *,
    progress: Callable[[str, int, int], None],
    overrides: Sequence[Overrides] = (),
) -> tuple[Statistics, Calibration]:
    """Let TensorRT calibrate, then go through the same data with ONNX Runtime.

    Samples that are held out to judge by are held back from both.

    Parameters
    ----------
    version
        What is asked for; the bundle is for the patch that was found.
    overrides
        What each source of given ranges says, the one that outweighs the others last.

    Raises
    ------
    InputError
        If network, data, ranges or algorithm do not fit, or TensorRT fails.
    IncompatibleError
        If this host, or what it has, cannot calibrate for that TensorRT.
    """
    chosen = choose_calibrator(options.algorithm)
    graph = backend.graph
    names = dict.fromkeys((*activations(graph), *constant_entries(graph, version)))
    given = settle_overrides(overrides, names)
    backend.expose(())  # what ONNX Runtime cannot run is told before the GPU works for minutes
    reader = Reader(
        dataset,
        batch_size_of(graph.inputs, options),
        exact=fixed_batch(graph.inputs) is not None,
    )
    table = tensorrt.calibrate(
        _samples(reader),
        batch_size=batch_size_of(graph.inputs, options),
        options=CalibratorOptions(
            algorithm=chosen.algorithm,
            ranges={name: one.scale * LEVELS for name, one in given.items()},
        ),
        shapes=_settled_shapes(graph),
        progress=progress,
        total=len(dataset),
    )
    statistics = collect_statistics(backend, dataset, options, progress)
    if statistics.data_digest != reader.digest:
        raise DatasetError(
            f"the data was another one when it was read a second time: {reader.samples} samples "
            f"then {statistics.samples}, of digests {reader.digest} and {statistics.data_digest}",
            remedy="let the generator give the same samples each time, with a fixed seed; or save "
            "them to .npz first",
        )
    # of a network with a dynamic batch axis ONNX Runtime takes the incomplete batch, TensorRT none
    statistics = replace(statistics, dropped=table.dropped)
    return statistics, derive_from_table(
        backend, statistics, table, options, chosen=chosen, progress=progress, given=given
    )


def derive_from_table(
    backend: Backend,
    statistics: Statistics,
    table: TensorRTCalibration,
    options: CalibrateOptions,
    *,
    chosen: CalibratorChoice,
    progress: Callable[[str, int, int], None],
    given: Mapping[str, Override] | None = None,
) -> Calibration:
    """Put TensorRT's table, to the byte, beside what the host knows of the same network and data.

    Entries without a usable scale, such as the zeros that TensorRT writes, stay in the table and
    out of the simulation: so does INT8 on the target.

    Parameters
    ----------
    statistics
        Of the samples that TensorRT was given.
    given
        Scales that TensorRT was told, by tensor.

    Raises
    ------
    BackendError
        If the table has a usable scale for no tensor of the network.
    """
    given = given or {}
    entries = entries_of(read_document(table.cache, source=CACHE_FILE), source=CACHE_FILE)
    usable = {entry.tensor: np.float32(entry.scale) for entry in entries if is_usable(entry)}
    scales = {name: usable[name] for name in statistics.histograms if name in usable}
    if not scales:
        raise BackendError(
            f"TensorRT's table holds {len(entries)} entries, and no usable scale for any of the "
            f"{len(statistics.histograms)} tensors of the network",
            remedy="check the data and its preprocessing",
        )
    missing = tuple(name for name in statistics.histograms if name not in usable)
    progress("simulating INT8", 0, 1)
    with Packing(statistics) as packing:
        trial = judge_scales(backend, scales, statistics.runs, options.workers)
        progress("simulating INT8", 1, 1)
        packed = packing.files(trial)
    batch = batch_of(statistics.runs[0])
    constants = constant_entries(backend.graph, table.tensorrt)
    files = {CACHE_FILE: table.cache, **packed}
    if table.log:
        files[LOG_FILE] = table.log
    return Calibration(
        tensorrt=table.tensorrt,
        record=CalibrationRecord(
            algorithm=chosen.algorithm,
            parameters={
                "gpu": table.gpu,
                "compute_capability": table.compute_capability,
                "batches": table.batches,
                backend.name: backend.version,
            },
            chosen_by=chosen.reason,
            candidates={chosen.algorithm: trial.error},
            backend="tensorrt",
            backend_version=str(table.tensorrt),
            overrides=_originals(backend.graph, statistics, chosen.algorithm, given, table),
        ),
        coverage=CoverageRecord(
            activations=len(statistics.histograms),
            covered=len(scales),
            constants=sum(name in usable for name in constants),
            missing=missing,
        ),
        quality=QualityRecord(
            samples=len(statistics.runs) * batch,
            held_out=statistics.held_out,
            outputs=trial.quality,
        ),
        golden=GoldenRecord(runs=len(trial.outputs), held_out=statistics.held_out, batch=batch),
        files=files,
        findings=(
            *table.findings,
            *_judge(statistics, chosen.algorithm, scales, missing, given),
            *_ranges_not_taken(entries, given),
        ),
        written_by_tensorrt=True,
    )


def _samples(reader: Reader) -> Iterator[Mapping[str, npt.NDArray[np.generic]]]:
    for batch in reader:
        for sample in batch:
            yield sample.arrays


def _settled_shapes(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Give the inputs that leave no dimension open."""
    found = {}
    for one in graph.inputs:
        sizes = tuple(size for size in one.shape or () if size is not None)
        if one.shape is not None and len(sizes) == len(one.shape):
            found[one.name] = sizes
    return found


def _originals(
    graph: Graph,
    statistics: Statistics,
    algorithm: str,
    given: Mapping[str, Override],
    table: TensorRTCalibration,
) -> tuple[OverrideRecord, ...]:
    """Write down what stood in the place of given ranges; TensorRT does not tell, histograms do."""
    if not given:
        return ()
    measured = scales_from(
        statistics.histograms,
        graph,
        algorithm=algorithm_without_tensorrt(algorithm),
        percentile=100.0,
        tensorrt=table.tensorrt,
    )
    return apply_overrides(measured, given, wanted=tuple(statistics.histograms), copies=())[1]


def _judge(
    statistics: Statistics,
    algorithm: str,
    scales: Mapping[str, np.float32],
    missing: Sequence[str],
    given: Mapping[str, Override],
) -> Iterator[Finding]:
    told = set()
    for finding in judge_statistics(
        statistics.histograms, samples=statistics.samples, judging=statistics.not_finite
    ):
        if finding.rule != "no-range":
            yield finding
        elif finding.subject in missing:
            told.add(finding.subject)
            yield finding
    untold = [name for name in missing if name not in told]
    if untold:
        yield Finding(
            rule="no-scale-in-table",
            severity=Severity.NOTE,
            subject="calibration",
            message=f"TensorRT's table has no usable scale for what was not zero on the data: "
            f"{_some(untold)}",
            remedy="none is needed where TensorRT fuses them; 'edgecal cache show' shows the rest",
        )
    if algorithm in KL_ALGORITHMS:
        measured = {name: scale for name, scale in scales.items() if name not in given}
        yield from judge_clipping(statistics.histograms, measured, algorithm=algorithm)


def _ranges_not_taken(entries: Iterable[Entry], given: Mapping[str, Override]) -> Iterator[Finding]:
    """Tell of ranges that TensorRT was told and that do not stand in its table.

    A target reads the table and nothing else; whether TensorRT writes given ranges into it is not
    documented, and nobody has tried it here.
    """
    found = {entry.tensor: entry.scale for entry in entries}
    lost = [name for name, one in given.items() if found.get(name) != one.scale]
    if lost:
        yield Finding(
            rule="range-not-in-table",
            severity=Severity.WARNING,
            subject="ranges",
            message=f"TensorRT's table does not hold the given range of {_some(lost)}: "
            "targets will not use it",
            remedy="put them into a copy: edgecal cache edit BUNDLE --set NAME=AMAX -o FILE",
        )


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
