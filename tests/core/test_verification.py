from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from edgecal.core.golden import GoldenRun
from edgecal.core.verification import Thresholds, Verification, verify_outputs

Scores = npt.NDArray[np.float32]
WANT = np.asarray([[1.0, 0.0], [0.0, 1.0]], np.float32)


def turned(degrees: float) -> Scores:
    """The wanted rows, each at this angle to where it should point."""
    angle = np.deg2rad(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.asarray(WANT @ np.asarray([[cos, sin], [-sin, cos]]), np.float32)


def verify(
    have: Scores, *, simulated: Scores = WANT, dla: bool = False, int8: bool = True
) -> Verification:
    run = GoldenRun(inputs={"x": WANT}, fp32={"y": WANT}, int8={"y": simulated})
    return verify_outputs(
        [run], [{"y": have}], batch=2, thresholds=Thresholds(), dla=dla, int8=int8
    )


@pytest.mark.parametrize(("degrees", "passed"), [(0, True), (13, True), (16, False), (90, False)])
def test_an_output_passes_down_to_a_cosine_of_0_97(degrees: float, *, passed: bool) -> None:
    assert verify(turned(degrees)).passed is passed


def test_what_the_simulation_loses_already_is_not_held_against_the_engine() -> None:
    assert not verify(turned(30)).passed
    assert verify(turned(30), simulated=turned(30)).passed
    assert not verify(turned(40), simulated=turned(30)).passed


def test_an_fp16_engine_has_no_simulation_to_excuse_it() -> None:
    assert not verify(turned(30), simulated=turned(30), int8=False).passed
    assert verify(turned(13), simulated=turned(30), int8=False).passed


def test_the_largest_error_is_told_in_the_outputs_own_units() -> None:
    assert verify(WANT + np.float32(0.25)).outputs[0].max_error == 0.25
    assert verify(WANT).to_json()["outputs"] == [
        {
            "name": "y",
            "cosine_min": 1.0,
            "threshold": pytest.approx(0.97),
            "max_error": 0.0,
            "top1_agreement": 1.0,
            "passed": True,
        }
    ]
    # JSON has no such numbers
    assert verify(np.full((2, 2), np.inf, np.float32)).outputs[0].max_error is None
    assert verify(np.zeros((2, 3), np.float32)).outputs[0].max_error is None


def test_a_dla_may_be_a_little_further_off() -> None:
    assert not verify(turned(18)).passed
    assert verify(turned(18), dla=True).passed


def test_one_bad_sample_of_a_batch_fails_and_is_the_one_shown() -> None:
    have = WANT.copy()
    have[1] = turned(60)[1]
    verdict = verify(have).outputs[0]
    assert not verdict.passed
    assert verdict.cosine_min == pytest.approx(0.5, abs=1e-6)
    assert verdict.threshold == pytest.approx(0.97)


@pytest.mark.parametrize(
    ("have", "words"),
    [
        (np.full((2, 2), np.nan, np.float32), "NaN"),
        (np.zeros((2, 3), np.float32), "shape"),
        (np.zeros((4, 1), np.float32), "shape"),
    ],
)
def test_shape_and_finiteness_come_first(have: Scores, words: str) -> None:
    verification = verify(have)
    assert not verification.passed
    assert words in verification.outputs[0].problem


def test_a_missing_output_or_run_fails() -> None:
    run = GoldenRun(inputs={"x": WANT}, fp32={"y": WANT}, int8={"y": WANT})
    given: list[list[dict[str, Scores]]] = [[{}], []]
    for outputs in given:
        verification = verify_outputs([run], outputs, batch=2, thresholds=Thresholds())
        assert not verification.passed


def test_integers_are_reported_and_not_judged() -> None:
    labels = np.asarray([3, 4])
    run = GoldenRun(inputs={"x": WANT}, fp32={"y": labels}, int8={"y": labels})
    verification = verify_outputs([run], [{"y": labels + 1}], batch=2, thresholds=Thresholds())
    assert verification.passed
    assert verification.cosine_min is None


def test_top1_is_the_share_of_samples_that_agree() -> None:
    have = WANT.copy()
    have[1] = [0.9, 0.8]
    assert verify(have).top1_agreement == 0.5
    assert verify(WANT).to_json()["top1_agreement"] == 1.0
