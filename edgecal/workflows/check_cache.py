"""A calibration cache held against a network, and against a few samples of its data."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgecal.core.agreement import Agreement, compare_observed
from edgecal.core.batching import fixed_batch, runs_of
from edgecal.core.coverage import Coverage, check_coverage
from edgecal.core.staleness import find_staleness
from edgecal.core.tensors import activations
from edgecal.core.usable import usable_ranges
from edgecal.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgecal.core.findings import Finding
    from edgecal.core.graph import Graph
    from edgecal.core.versions import TensorRTVersion
    from edgecal.ports import Backend, Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What the tensors of a network reached on a few samples."""

    largest: Mapping[str, float]
    """The largest finite magnitude of each float activation."""
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheCheck:
    """Whether a cache belongs to a network, and what TensorRT will miss."""

    coverage: Coverage
    stale: tuple[Finding, ...]
    agreement: Agreement | None
    """With the data, where samples were run."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All of them, what speaks against the cache as a whole first."""
        return (*self.stale, *self.coverage.findings)


def check_cache(
    scales: Mapping[str, float],
    graph: Graph,
    *,
    written_by: TensorRTVersion | None,
    algorithm: str,
    read_by: TensorRTVersion | None,
    dla: bool = False,
    gpu_fallback: bool = True,
    fp16: bool = True,
    observed: Observed | None = None,
) -> CacheCheck:
    """Judge a cache for a network by names, by what its scales must be, and by what was observed.

    Parameters
    ----------
    scales
        All entries, in file order.
    written_by, algorithm
        Of the header, `None` or empty where it does not say: what the scales must be like.
    read_by
        Which TensorRT will look names up.
    """
    return CacheCheck(
        coverage=check_coverage(
            scales, graph, tensorrt=read_by, dla=dla, gpu_fallback=gpu_fallback, fp16=fp16
        ),
        stale=find_staleness(
            scales,
            graph,
            tensorrt=written_by,
            algorithm=algorithm,
            observed=observed.largest if observed else None,
        ),
        agreement=compare_observed(usable_ranges(scales), graph, written_by, observed.largest)
        if observed
        else None,
    )


def observe(
    backend: Backend,
    dataset: Dataset,
    *,
    samples: int,
    progress: Callable[[str, int, int], None],
) -> Observed:
    """Run the first samples through the network.

    Raises
    ------
    DatasetError
        If there is no sample, or the data contradicts the network.
    """
    names = activations(backend.graph)
    network = backend.expose(names, any_order=True)
    given = [sample.arrays for sample in itertools.islice(dataset, samples)]
    if not given:
        raise DatasetError("the data holds no sample", remedy="give at least one sample")
    largest: dict[str, float] = {}
    batch = fixed_batch(backend.graph.inputs) or 1
    for number, inputs in enumerate(runs_of(given, batch=batch)):
        progress("running samples", number * batch, len(given))
        values = {**inputs, **network.run(inputs)}
        for name in names:
            if name in values and values[name].dtype == np.float32:
                value = np.abs(values[name])
                reached = float(value.max(initial=0.0, where=np.isfinite(value)))
                largest[name] = max(largest.get(name, 0.0), reached)
    return Observed(largest=largest, samples=len(given))
