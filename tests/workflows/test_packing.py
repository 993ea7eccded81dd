"""Golden runs and histograms are packed in the background, to the bytes of doing so at the end."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgecal.core.golden import GoldenRun, parse_golden, serialize_golden
from edgecal.core.histogram import collect, start_histogram
from edgecal.core.manifest import GOLDEN_FILE, HISTOGRAMS_FILE
from edgecal.core.statistics import serialize_histograms
from edgecal.workflows.collect import JudgingRun
from edgecal.workflows.judging import GOLDEN_RUNS, Trial
from edgecal.workflows.packing import Packing
from tests.networks import floats

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgecal.core.histogram import Histogram


@dataclass(frozen=True)
class Measured:
    histograms: Mapping[str, Histogram]
    runs: tuple[JudgingRun, ...]


def measured(count: int) -> Measured:
    first = floats(100)
    runs = (
        JudgingRun(
            inputs={"image": floats(12, seed=seed).reshape(1, 3, 2, 2), "ids": np.arange(seed)},
            fp32={"y": floats(5, seed=seed), "z": np.asarray([seed])},
        )
        for seed in range(count)
    )
    return Measured({"x": collect(start_histogram(first), first)}, tuple(runs))


def trial(count: int) -> Trial:
    outputs = tuple({"y": floats(5, seed=seed + 50), "z": np.asarray([1])} for seed in range(count))
    return Trial(outputs=outputs, error=0.1, quality={})


@pytest.mark.parametrize("count", [1, 3, GOLDEN_RUNS, GOLDEN_RUNS + 5])
def test_files_are_those_of_packing_at_the_end(count: int) -> None:
    given, judged = measured(count), trial(min(count, GOLDEN_RUNS))
    with Packing(given) as packing:
        files = packing.files(judged)
    golden = [
        GoldenRun(inputs=run.inputs, fp32=run.fp32, int8=int8)
        for run, int8 in zip(given.runs, judged.outputs, strict=False)
    ]
    assert files == {
        GOLDEN_FILE: serialize_golden(golden),
        HISTOGRAMS_FILE: serialize_histograms(given.histograms),
    }
    assert len(parse_golden(files[GOLDEN_FILE], source="golden.npz")) == len(golden)


def test_what_cannot_be_packed_is_told_where_the_files_are_asked_for() -> None:
    given = measured(2)
    odd = replace(given.runs[0], inputs={"image": np.asarray([{}], object)})
    with (
        Packing(replace(given, runs=(odd,))) as packing,
        pytest.raises(ValueError, match="Object arrays"),
    ):
        packing.files(trial(1))


def test_nothing_goes_on_after_an_error() -> None:
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt), Packing(measured(3)):
        raise KeyboardInterrupt
    assert threading.active_count() == before
