from __future__ import annotations

import numpy as np
import pytest

from edgecal.core.amax import amax_of
from edgecal.core.clipping import judge_clipping
from edgecal.core.histogram import Histogram, collect, start_histogram
from edgecal.core.quant import scale_of


def histogram_of(values: object) -> Histogram:
    batch = np.asarray(values, np.float32)
    return collect(start_histogram(batch), batch)


@pytest.mark.parametrize(("share", "hard"), [(0.45, True), (0.1, True), (0.55, False), (2, False)])
def test_a_threshold_far_below_nearly_all_values_is_named(share: float, *, hard: bool) -> None:
    histogram = histogram_of(np.linspace(0, 1, 10**5))
    scales = {"a": scale_of(np.float32(share)), "b": scale_of(np.float32(1))}
    findings = judge_clipping({"a": histogram, "b": histogram}, scales, algorithm="entropy")
    assert [one.rule for one in findings] == (["clips-hard"] if hard else [])
    for finding in findings:
        assert finding.severity.value == "warning"
        assert finding.subject == "entropy"
        assert finding.message.startswith("1 of 2 tensors")
        assert f"a at {share:.2f} of it" in finding.message


def test_the_worst_come_first_and_not_all_are_named() -> None:
    histogram = histogram_of(np.linspace(0, 1, 10**5))
    histograms = dict.fromkeys("abcde", histogram)
    shares = {"a": 0.4, "b": 0.1, "c": 0.3, "d": 0.2, "e": 0.9}
    scales = {name: scale_of(np.float32(share)) for name, share in shares.items()}
    (finding,) = judge_clipping(histograms, scales, algorithm="entropy2")
    assert "4 of 5" in finding.message
    assert finding.message.endswith("worst: b at 0.10 of it, d at 0.20 of it, c at 0.30 of it")


def test_a_spike_that_the_search_falls_for_is_found() -> None:
    # a crowd of small values, and few large ones that the network may live on
    random = np.random.default_rng(3)
    crowd = np.abs(random.normal(0, 0.02, 200_000))
    histogram = histogram_of([*crowd, *random.uniform(0.1, 3, 200)])
    scale = scale_of(amax_of(histogram, "entropy2"))
    (finding,) = judge_clipping({"relu": histogram}, {"relu": scale}, algorithm="entropy2")
    assert "relu at 0." in finding.message


def test_tensors_of_zeros_or_without_statistics_are_passed_over() -> None:
    one = np.float32(1)
    zeros = {"zero": histogram_of([0.0])}
    assert judge_clipping(zeros, {"zero": one, "other": one}, algorithm="entropy2") == ()
