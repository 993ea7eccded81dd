from __future__ import annotations

import numpy as np
import pytest

from edgecal.core.agreement import compare_observed
from edgecal.core.versions import parse_tensorrt
from tests.graphs import graph, node

LATE_8 = parse_tensorrt("8.5.2")
CHAIN = graph([node("Conv", "x w", "y"), node("MaxPool", "y", "p")], inputs=["x"])


def test_of_nothing_agrees() -> None:
    found = compare_observed({}, CHAIN, LATE_8, {"x": 1.0})
    assert (found.compared, found.median, found.correlation) == (0, 1.0, 1.0)


def test_zeros_and_infinities_are_left_out() -> None:
    found = compare_observed({"x": 1.0, "y": 1.5}, CHAIN, LATE_8, {"x": 0.0, "y": np.inf})
    assert found.compared == 0


def test_a_tensor_that_may_have_the_scale_of_another_is_left_out() -> None:
    found = compare_observed(
        {"x": 1.0, "y": 1.5, "p": 1.5}, CHAIN, LATE_8, {"x": 1.0, "y": 12.0, "p": 12.0}
    )
    assert (found.compared, found.far_off) == (2, ("y",))
    assert found.typical == pytest.approx(4.5)
