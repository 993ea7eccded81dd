"""One pass over the data: batches through the network, histograms and judging runs out of it."""

from __future__ import annotations

import hashlib
import queue
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgecal.core.amax import DEFAULT_PERCENTILE
from edgecal.core.batching import (
    FEWEST_HELD_OUT,
    SMALL_DATA,
    fixed_batch,
    is_held_out,
    runs_of,
    stack,
)
from edgecal.core.derived import View, views
from edgecal.core.histogram import (
    UNCLAMPED,
    Clamp,
    Histogram,
    Tally,
    merge_histograms,
    start_histogram,
)
from edgecal.core.manifest import Digest
from edgecal.errors import DatasetError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from edgecal.core.graph import Graph
    from edgecal.ports import Backend, Dataset, Network, Sample

AUTO: Final = "auto"
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
    shown = views(backend.graph)
    if not shown:
        raise ModelError(
            "the network has no float32 tensor, so there is nothing to calibrate",
            remedy="export it in float32",
        )
    network = backend.expose(tuple(dict.fromkeys(view.source for view in shown.values())))
    reader = _Reader(dataset, batch_size, exact=fixed is not None)
    total = len(dataset)
    with ThreadPoolExecutor(max(1, options.workers)) as pool:
        collector = _Collector(backend, network, shown, pool, max(1, options.workers))
        try:
            for batch in reader:
                collector.add(batch)
                progress("calibrating", reader.samples, total)
            histograms = collector.finish()
            judged = reader.held if reader.holds_out else reader.early
            inputs = runs_of([sample.arrays for sample in judged], batch=fixed or 1)
            runs = tuple(pool.map(lambda one: _judge(backend.graph, network, one), inputs))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return Statistics(
        histograms=histograms,
        runs=runs,
        held_out=reader.holds_out,
        samples=reader.samples,
        held_out_samples=len(reader.held) if reader.holds_out else 0,
        dropped=reader.dropped,
        batch_size=batch_size,
        data_digest=reader.digest,
        first=tuple(sample.name for sample in reader.early),
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


def _judge(graph: Graph, network: Network, inputs: Arrays) -> JudgingRun:
    values = network.run(inputs)
    # copies, since a small array of the runtime's may keep the memory of a whole run from reuse
    fp32 = {
        output.name: values[output.name].copy()
        for output in graph.outputs
        if output.name in values and values[output.name].dtype.kind in _NUMBERS
    }
    if not fp32:
        raise ModelError(
            "the network has no output of numbers to judge INT8 by",
            remedy="export it with the tensors before its last operators as outputs",
        )
    return JudgingRun(inputs=inputs, fp32=fp32)


class _Collector:
    """Feeds batches to worker threads; any number of them gives the same histograms.

    The first batch runs alone, since its ranges are where every worker's histograms begin.
    """

    def __init__(
        self,
        backend: Backend,
        network: Network,
        shown: Mapping[str, View],
        pool: ThreadPoolExecutor,
        workers: int,
    ) -> None:
        self._backend = backend
        self._network = network
        self._shown = shown
        self._clamps: dict[str, list[Clamp]] = {view.source: [UNCLAMPED] for view in shown.values()}
        for view in shown.values():
            if view.clamp not in self._clamps[view.source]:
                self._clamps[view.source].append(view.clamp)
        self._pool = pool
        self._workers = workers
        self._started = False
        self._spare: queue.SimpleQueue[dict[str, Tally]] = queue.SimpleQueue()
        self._running: set[Future[None]] = set()

    def add(self, batch: Arrays) -> None:
        """Take one batch; waits while all workers are busy."""
        if not self._started:
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
        parts: dict[View, list[Histogram]] = {}
        while not self._spare.empty():
            for name, tally in self._spare.get().items():
                for clamp, part in zip(self._clamps[name], tally.histograms(), strict=True):
                    parts.setdefault(View(name, clamp), []).append(part)
        merged = {view: merge_histograms(found) for view, found in parts.items()}
        return {name: merged[view] for name, view in self._shown.items() if view in merged}

    def _start(self, batch: Arrays) -> None:
        values = self._values(batch)
        starts = {
            name: [start_histogram(value, clamp) for clamp in self._clamps[name]]
            for name, value in values.items()
        }
        adder = self._backend.adder()
        tallies = [
            {name: Tally(start, self._clamps[name], adder) for name, start in starts.items()}
            for _ in range(self._workers)
        ]
        _add(tallies[0], values)
        for one in tallies:
            self._spare.put(one)
        self._started = True

    def _collect(self, batch: Arrays) -> None:
        values = self._values(batch)
        tallies = self._spare.get()
        try:
            _add(tallies, values)
        finally:  # whoever waits for them would wait for ever
            self._spare.put(tallies)

    def _values(self, batch: Arrays) -> Arrays:
        outputs = {**batch, **self._network.run(batch)}
        return {
            name: outputs[name]
            for name in self._clamps
            if name in outputs and outputs[name].dtype == np.float32
        }


def _add(tallies: Mapping[str, Tally], values: Arrays) -> None:
    for name in list(values):
        tallies[name].add(values.pop(name))  # its memory goes back at once
