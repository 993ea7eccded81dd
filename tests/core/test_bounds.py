from __future__ import annotations

import pytest

from edgecal.core.bounds import find_bounds
from tests.graphs import graph, node


@pytest.mark.parametrize("maker", ["Conv", "Exp", "Clip"])
def test_what_data_decide_has_no_bound(maker: str) -> None:
    assert find_bounds(graph([node(maker, "x", "y"), node("Relu", "y", "z")])) == {}


def test_a_bound_goes_through_what_makes_no_value_larger() -> None:
    network = graph([node("Tanh", "x", "t"), node("MaxPool", "t", "p"), node("Reshape", "p", "r")])
    assert find_bounds(network) == {"t": 1.0, "p": 1.0, "r": 1.0}


def test_a_clip_is_as_wide_as_its_further_end() -> None:
    network = graph([node("Clip", "x", "c", min=-3.0, max=6.0), node("Clip", "x", "half", max=6.0)])
    assert find_bounds(network) == {"c": 6.0}


def test_a_concat_is_as_wide_as_its_widest_input_if_all_have_a_bound() -> None:
    makers = [node("Sigmoid", "x", "s"), node("Relu", "x", "r")]
    assert "c" not in find_bounds(graph([*makers, node("Concat", "s r", "c")]))
    assert find_bounds(graph([*makers, node("Concat", "s s", "c")]))["c"] == 1.0
