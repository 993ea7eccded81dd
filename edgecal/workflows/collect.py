"""One pass over the data: batches through the network, histograms and judging runs out of it."""

from __future__ import annotations

import gc
import json
import queue
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from edgecal.core.amax import DEFAULT_PERCENTILE
from edgecal.core.batching import fixed_batch, runs_of, stack
from edgecal.core.checkpoint import ANEW, Checkpoint
from edgecal.core.derived import View, views
from edgecal.core.histogram import (
    UNCLAMPED,
    Clamp,
    Histogram,
    Tally,
    add_batch,
    merge_histograms,
    start_histogram,
)
from edgecal.core.peaks import NO_PEAKS
from edgecal.errors import DatasetError, InputError, ModelError
from edgecal.workflows.reading import Reader
from edgecal.workflows.resume import unkept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from edgecal.core.graph import Graph, TensorInfo
    from edgecal.core.manifest import Digest
    from edgecal.ports import Backend, Dataset, Network, Sample
    from edgecal.workflows.resume import Keeper

AUTO: Final = "auto"
_NUMBERS: Final = "fiub"
"""Kinds of NumPy types that outputs can be compared in."""
_MEASURED: Final = frozenset({np.dtype(np.float32), np.dtype(np.float16)})

Arrays = dict[str, "npt.NDArray[Any]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateOptions:
    """What a user may choose."""

    algorithm: str = AUTO
    percentile: float = DEFAULT_PERCENTILE
    batch_size: int | None = None
    workers: int = 1
    fp16: bool = True
    """Whether a network with Q/DQ pairs is typed float16 where it is not quantized."""
    chosen_by: str = "given"
    """Why it is this algorithm, for the manifest; `auto` has its own reasons."""


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
    not_finite: Mapping[str, int] = field(default_factory=dict)
    """By input and output: how many values of the samples to judge by were NaN or infinite."""


class Collector(Protocol):
    """Takes the batches of a pass and measures them, here or elsewhere."""

    def resume(self, before: Checkpoint, *, source: str) -> None:
        """Count on top of what was measured before."""
        ...

    def add(self, number: int, batch: Arrays, name: str) -> None:
        """Take one batch, called so in errors; waits while all workers are busy."""
        ...

    def wait(self) -> None:
        """Wait for every batch."""
        ...

    def measured(self) -> tuple[frozenset[int], dict[View, Histogram]] | None:
        """Say what was measured so far, and of which batches; nothing where that is not known."""
        ...


class LocalCollector(Collector, Protocol):
    """Measures on this machine."""

    @property
    def clamps(self) -> Mapping[str, Sequence[Clamp]]:
        """Say which clamps of each tensor are looked at."""
        ...


class Spread(Protocol):
    """Has other machines measure."""

    def collector(self, local: LocalCollector, network: Network) -> Collector:
        """Make what takes the batches; `local` is to have the first one."""
        ...


def batch_size_of(inputs: Sequence[TensorInfo], options: CalibrateOptions) -> int:
    """Settle how many samples make a batch.

    Raises
    ------
    DatasetError
        If the network fixes another number than the user asks for.
    """
    fixed = fixed_batch(inputs)
    if None not in {fixed, options.batch_size} and fixed != options.batch_size:
        raise DatasetError(
            f"the network's batch size is fixed to {fixed}, and --batch-size says "
            f"{options.batch_size}",
            remedy="leave --batch-size out, or export the network with a dynamic batch axis",
        )
    return fixed or options.batch_size or 1


def collect_statistics(
    backend: Backend,
    dataset: Dataset,
    options: CalibrateOptions,
    progress: Callable[[str, int, int], None],
    keeper: Keeper | None = None,
    *,
    spread: Spread | None = None,
) -> Statistics:
    """Run the data through the network once and keep histograms of every tensor with an entry.

    Parameters
    ----------
    keeper
        Keeps what was measured so far, and may know of batches that were measured before.
    spread
        Has other machines measure; the bits are the same.

    Raises
    ------
    DatasetError
        If there is no sample, or the data contradicts the network, or is not what was measured
        before.
    InputError
        If what was measured before cannot be gone on with.
    """
    fixed = fixed_batch(backend.graph.inputs)
    batch_size = batch_size_of(backend.graph.inputs, options)
    shown = views(backend.graph)
    if not shown:
        raise ModelError(
            "the network has no float32 tensor, so there is nothing to calibrate",
            remedy="export it in float32",
        )
    sources = dict.fromkeys(view.source for view in shown.values())
    network = backend.expose(tuple(sources), any_order=True)
    keeper = keeper or unkept()
    before = keeper.begin(_bits_depend_on(backend, dataset, batch_size))
    reader = Reader(
        dataset, batch_size, exact=fixed is not None, before=before.reading if before else None
    )
    total = len(dataset)
    with _only_new_garbage(), ThreadPoolExecutor(max(1, options.workers)) as pool:
        local = _Collector(backend, network, shown, pool, max(1, options.workers))
        try:
            collector: Collector = spread.collector(local, network) if spread else local
            if before is not None:
                collector.resume(before, source=keeper.where)
            keeper.watch(lambda: _so_far(keeper.of, reader, collector))
            for number, samples in enumerate(reader):
                if before is not None and number in before.done:
                    progress("reading again", reader.samples, before.reading.samples)
                    continue
                batch = stack([one.arrays for one in samples], source=samples[0].name)
                collector.add(number, batch, _name(samples))
                progress("calibrating", reader.samples, total)
                keeper.tick()
            judged = reader.held if reader.holds_out else reader.early
            judging = pool.map(
                lambda one, first: _judge(backend.graph, network, one, first.name),
                runs_of([sample.arrays for sample in judged], batch=fixed or 1),
                judged[:: fixed or 1],
            )
            collector.wait()
            whole = _so_far(keeper.of, reader, collector)
            if whole is None:
                raise AssertionError("a batch that failed stops the pass")
            keeper.settle(whole)
            runs, not_finite = sound_runs(tuple(judging))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return Statistics(
        histograms={
            name: whole.histograms[view] for name, view in shown.items() if view in whole.histograms
        },
        runs=runs,
        held_out=reader.holds_out,
        samples=reader.samples,
        held_out_samples=len(reader.held) if reader.holds_out else 0,
        dropped=reader.dropped,
        batch_size=batch_size,
        data_digest=reader.digest,
        first=tuple(sample.name for sample in reader.early),
        not_finite=not_finite,
    )


@contextmanager
def _only_new_garbage() -> Iterator[None]:
    """Have Python look for cycles among new objects only: all threads wait while it looks."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _bits_depend_on(backend: Backend, dataset: Dataset, batch_size: int) -> dict[str, str]:
    settings = dataset.preprocess.to_json() if dataset.preprocess else {}
    return {
        "batch size": str(batch_size),
        "backend": f"{backend.name} {backend.version}",
        "input": ", ".join(f"{one.name} {one.dtype} {one.shape}" for one in backend.graph.inputs),
        # a preset is only a name for the rest
        **{name: json.dumps(value) for name, value in settings.items() if name != "preset"},
    }


def _so_far(of: Mapping[str, str], reader: Reader, collector: Collector) -> Checkpoint | None:
    """Put together what was measured; nothing while it is less than what is kept already."""
    reading = reader.reading
    measured = collector.measured() if reading is not None else None
    if reading is None or measured is None:
        return None
    done, histograms = measured
    return Checkpoint(of=of, reading=reading, done=done, histograms=histograms)


def _judge(graph: Graph, network: Network, inputs: Arrays, name: str) -> JudgingRun:
    with _naming(name):
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


def sound_runs(runs: tuple[JudgingRun, ...]) -> tuple[tuple[JudgingRun, ...], dict[str, int]]:
    """Leave out runs with a NaN or an infinity, and count these; all stay if none is sound.

    Why leave them out: INT8 makes numbers of them, so that one broken sample would outweigh all
    others, and as a golden run no engine would pass it.

    Returns
    -------
    tuple, dict
        The runs to judge by; by tensor the values that were no numbers, in all of them.
    """
    counts: dict[str, int] = {}
    sound = []
    for run in runs:
        found = {
            name: len(value.ravel()) - int(np.isfinite(value).sum())
            for name, value in (*run.inputs.items(), *run.fp32.items())
            if value.dtype.kind == "f"
        }
        for name, count in found.items():
            if count:
                counts[name] = counts.get(name, 0) + count
        if not any(found.values()):
            sound.append(run)
    return tuple(sound) or runs, counts


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
        self._shares: tuple[_Share, ...] = ()
        self._spare: queue.SimpleQueue[_Share] = queue.SimpleQueue()
        self._running: set[Future[None]] = set()

    @property
    def clamps(self) -> Mapping[str, Sequence[Clamp]]:
        """Say which clamps of each tensor are looked at."""
        return self._clamps

    def resume(self, before: Checkpoint, *, source: str) -> None:
        """Count on top of what was measured before.

        Raises
        ------
        InputError
            If that is of other tensors.
        """
        sources = {view.source for view in before.histograms}
        views_of = {View(name, clamp) for name in sources for clamp in self._clamps.get(name, ())}
        if views_of != set(before.histograms):
            raise InputError(
                "the unfinished pass looked at other tensors than this one would",
                where=source,
                remedy=f"use the version of edgecal that began it, or {ANEW}",
            )
        shares = self._shares_of(before.histograms)
        shares[0].done.update(before.done)
        self._open(shares)

    def add(self, number: int, batch: Arrays, name: str) -> None:
        """Take one batch, called so in errors; waits while all workers are busy."""
        if not self._shares:
            self._start(number, batch, name)
            return
        while len(self._running) >= 2 * self._workers:
            done, self._running = wait(self._running, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
        self._running.add(self._pool.submit(self._collect, number, batch, name))

    def wait(self) -> None:
        """Wait for every batch."""
        for future in self._running:
            future.result()

    def measured(self) -> tuple[frozenset[int], dict[View, Histogram]] | None:
        """Add the workers' histograms as they are now; nothing where one is broken or none begun.

        Nobody waits for it: each worker's share is whole between two of its batches, and it is
        known which batches are in it.
        """
        done: set[int] = set()
        merged: dict[View, Histogram] = {}
        for share in self._shares:
            with share.lock:
                if not share.whole:
                    return None
                done |= share.done
                for name, tally in share.tallies.items():
                    for clamp, part in zip(self._clamps[name], tally.histograms(), strict=True):
                        parts = [merged.get(View(name, clamp)), part]
                        merged[View(name, clamp)] = merge_histograms(filter(None, parts))
        return (frozenset(done), merged) if done else None

    def _start(self, number: int, batch: Arrays, name: str) -> None:
        values = self._values(batch, name)
        shares = self._shares_of(
            {
                View(name, clamp): start_histogram(value, clamp)
                for name, value in values.items()
                for clamp in self._clamps[name]
            }
        )
        shares[0].add(number, values, samples=_count(batch))
        self._open(shares)

    def _collect(self, number: int, batch: Arrays, name: str) -> None:
        values = self._values(batch, name)
        share = self._spare.get()
        try:
            share.add(number, values, samples=_count(batch))
        finally:  # whoever waits for it would wait for ever
            self._spare.put(share)

    def _values(self, batch: Arrays, name: str) -> Arrays:
        with _naming(name):
            return values_of(self._network, self._clamps, batch)

    def _shares_of(self, starts: Mapping[View, Histogram]) -> tuple[_Share, ...]:
        """Give one worker what there is, and the others the same ranges with nothing in them."""
        nothing = np.zeros_like(next(iter(starts.values())).counts)
        empty = {
            view: replace(
                one,
                counts=nothing,
                minimum=0.0,
                maximum=0.0,
                non_finite=0,
                peaks=NO_PEAKS,
            )
            for view, one in starts.items()
        }
        sweep = self._backend.sweep()
        sources = dict.fromkeys(view.source for view in starts)
        return tuple(
            _Share(
                {
                    name: Tally(
                        [given[View(name, clamp)] for clamp in self._clamps[name]],
                        self._clamps[name],
                        sweep,
                    )
                    for name in sources
                }
            )
            for given in (starts, *[empty] * (self._workers - 1))
        )

    def _open(self, shares: tuple[_Share, ...]) -> None:
        for one in shares:
            self._spare.put(one)
        self._shares = shares


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Say which sample it was that a network could not run on."""
    try:
        yield
    except ModelError as error:
        error.where = f"{error.where} on sample {name}"
        raise


def _name(samples: Sequence[Sample]) -> str:
    others = f" and {len(samples) - 1} more" if len(samples) > 1 else ""
    return samples[0].name + others


def _count(batch: Arrays) -> int:
    return len(next(iter(batch.values())))


def values_of(network: Network, names: Iterable[str], batch: Arrays) -> Arrays:
    """Run a batch and give the tensors that histograms are made of, as far as they are floats."""
    outputs = {**batch, **network.run(batch)}
    return {
        name: outputs[name].astype(np.float32, copy=False)
        for name in names
        if name in outputs and outputs[name].dtype in _MEASURED
    }


class _Share:
    """What one worker counts at a time, and which batches are in it."""

    def __init__(self, tallies: dict[str, Tally]) -> None:
        self.tallies = tallies
        self.done: set[int] = set()
        self.whole = True
        """False while a batch is half counted, and ever after if that failed."""
        self.lock = Lock()

    def add(self, number: int, values: Arrays, *, samples: int) -> None:
        with self.lock:
            whole, self.whole = self.whole, False
            # from the end: what the network gave last is still in the processor's cache
            names = list(values)[::-1]
            add_batch(
                [self.tallies[name] for name in names], [values[name] for name in names], samples
            )
            self.done.add(number)
            self.whole = whole
