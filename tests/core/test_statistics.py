from __future__ import annotations

import numpy as np
import pytest

from edgecal.core.findings import Severity
from edgecal.core.golden import GoldenRun, cosines_by_sample, parse_golden, serialize_golden
from edgecal.core.histogram import Histogram, collect, start_histogram
from edgecal.core.statistics import (
    judge_statistics,
    parse_histograms,
    scales_from,
    serialize_histograms,
)
from edgecal.core.versions import parse_tensorrt
from edgecal.errors import BundleError
from tests.graphs import graph, node


def seen(*values: float) -> Histogram:
    array = np.asarray(values, np.float32)
    return collect(start_histogram(array), array)


def test_histograms_survive_the_round_trip_whatever_their_tensors_are_called() -> None:
    histograms = {"a/b:0": seen(1, -2, 3), "(Unnamed) [x]": seen(0, 0), "ü": seen(np.nan, 5)}
    back = parse_histograms(serialize_histograms(histograms), source="h")
    assert list(back) == list(histograms)
    for name, histogram in histograms.items():
        assert np.array_equal(back[name].counts, histogram.counts)
        assert back[name].range_end == histogram.range_end
        assert (back[name].minimum, back[name].maximum) == (histogram.minimum, histogram.maximum)
        assert back[name].non_finite == histogram.non_finite


def test_the_same_histograms_are_the_same_bytes() -> None:
    histograms = {"a": seen(1, 2), "b": seen(3)}
    assert serialize_histograms(histograms) == serialize_histograms(histograms)


def test_golden_runs_survive_the_round_trip() -> None:
    values = np.arange(6, dtype=np.float32).reshape(1, 6)
    labels = np.asarray([3], np.int64)
    run = GoldenRun(
        inputs={"in:0": values}, fp32={"a/b": values + 1, "n": labels}, int8={"a/b": values}
    )
    (first, second) = parse_golden(serialize_golden([run, run]), source="g")
    for back in (first, second):
        assert list(back.inputs) == ["in:0"]
        assert list(back.fp32) == ["a/b", "n"]
        assert np.array_equal(back.fp32["a/b"], values + 1)
        assert back.fp32["n"].dtype == np.int64
        assert np.array_equal(back.int8["a/b"], values)


@pytest.mark.parametrize("data", [b"", b"PK", b"nonsense"])
def test_damaged_files_are_bundle_errors(data: bytes) -> None:
    with pytest.raises(BundleError):
        parse_golden(data, source="g")
    with pytest.raises(BundleError):
        parse_histograms(data, source="h")


def test_cosines_go_by_sample_where_axis_0_is_the_batch() -> None:
    want = np.asarray([[1.0, 0.0], [0.0, 2.0]])
    have = np.asarray([[2.0, 0.0], [1.0, 0.0]])
    assert cosines_by_sample(want, have, batch=2) == (1.0, 0.0)
    assert len(cosines_by_sample(want, have, batch=3)) == 1


@pytest.mark.parametrize(
    ("samples", "severity"), [(1, Severity.WARNING), (16, Severity.NOTE), (100, None)]
)
def test_few_samples_are_said(samples: int, severity: Severity | None) -> None:
    findings = judge_statistics({"a": seen(1)}, samples=samples)
    assert [one.severity for one in findings] == ([severity] if severity else [])


def test_dead_tensors_and_values_that_are_no_numbers_are_said_by_name() -> None:
    findings = judge_statistics({"dead": seen(0), "mask": seen(1, np.inf)}, samples=500)
    assert {(one.rule, one.subject) for one in findings} == {
        ("no-range", "dead"),
        ("non-finite-activation", "mask"),
    }


@pytest.mark.parametrize("algorithm", ["entropy2", "minmax", "percentile"])
def test_tensors_that_int8_cannot_hold_have_no_scale_and_each_is_said(algorithm: str) -> None:
    end = float(np.finfo(np.float32).min)
    histograms = {
        "zero": seen(0),
        "never finite": seen(np.nan, np.inf),
        "almost zero": seen(1e-38),
        "masked": seen(1, end),
        "masked later": collect(seen(1), np.asarray([end], np.float32)),
        "fine": seen(1, -2),
    }
    scales = scales_from(
        histograms,
        graph([node("Relu", "fine", "y")], inputs=["fine"]),
        algorithm=algorithm,
        percentile=99.99,
        tensorrt=parse_tensorrt("8.5.2"),
    )
    hopeless = tuple(histograms)[:-1]
    assert scales.unusable == hopeless
    assert list(scales.entries()) == ["fine"]
    findings = judge_statistics(histograms, samples=500)
    assert tuple(one.subject for one in findings if one.rule == "no-range") == hopeless


def test_scales_follow_the_algorithm_the_version_and_its_constants() -> None:
    network = graph(
        [node("MaxPool", "x", "p"), node("Mul", "p half", "y")],
        constants={"half": np.asarray(0.5, np.float32), "nothing": np.zeros(1, np.float32)},
    )
    histograms = {"x": seen(12.7), "p": seen(1.27), "y": seen(2.54)}
    for version, constants in (("8.5.2", {}), ("10.3.0", {"half_output": np.float32(0.5) / 127})):
        scales = scales_from(
            histograms,
            network,
            algorithm="minmax",
            percentile=99.99,
            tensorrt=parse_tensorrt(version),
        )
        assert dict(scales.constants) == constants
        assert scales.activations == {
            "x": np.float32(12.7) / np.float32(127),
            "p": np.float32(12.7) / np.float32(127),  # the pool's own range does not count
            "y": np.float32(2.54) / np.float32(127),
        }
