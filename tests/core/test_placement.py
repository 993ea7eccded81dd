from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgecal.core.placement import Edge, Placement, place_pairs
from tests.graphs import graph, node, small_classifier, weight

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgecal.core.graph import Attribute, Graph


def residual_block() -> Graph:
    return graph(
        [
            node("Relu", "x", "entry"),
            node("Conv", "entry w1", "c1"),
            node("BatchNormalization", "c1 g b m v", "bn"),
            node("Add", "bn entry", "sum"),
        ],
        constants={"w1": weight(4, 4, 1, 1), **{name: weight(4) for name in "gbmv"}},
    )


def edges(placement: Placement) -> Mapping[str, tuple[Edge, ...]]:
    return {pair.tensor: pair.edges for pair in placement.activations}


def all_scales(network: Graph) -> dict[str, float]:
    return dict.fromkeys(network.tensors, 0.5)


def test_a_residual_add_quantizes_only_the_branch_that_is_not_fused() -> None:
    network = residual_block()
    placement = place_pairs(network, all_scales(network))
    assert edges(placement) == {"entry": (Edge(1, 0), Edge(3, 1))}  # one pair, both consumers
    assert [pair.constant for pair in placement.weights] == ["w1"]


def test_of_two_convolutions_into_an_add_one_is_fused() -> None:
    network = graph(
        [node("Conv", "x w", "a"), node("Conv", "x w", "b"), node("Add", "a b", "sum")],
        constants={"w": weight(1, 1, 1, 1)},
    )
    placement = place_pairs(network, all_scales(network))
    assert edges(placement) == {"x": (Edge(0, 0), Edge(1, 0)), "a": (Edge(2, 0),)}
    assert [(pair.constant, pair.edges) for pair in placement.weights] == [
        ("w", (Edge(0, 1), Edge(1, 1)))
    ]


def test_a_convolution_that_others_read_too_is_not_fused_into_the_add() -> None:
    network = graph(
        [node("Conv", "x w", "a"), node("Relu", "a", "r"), node("Add", "a r", "sum")],
        constants={"w": weight(1, 1, 1, 1)},
    )
    placed = edges(place_pairs(network, all_scales(network)))
    assert placed["a"] == (Edge(2, 0),)
    assert placed["r"] == (Edge(2, 1),)


def test_an_add_of_a_constant_is_left_alone() -> None:
    network = graph([node("Add", "x c", "y")], constants={"c": weight(1)})
    assert place_pairs(network, all_scales(network)).activations == ()


def test_concat_shares_the_largest_scale_also_through_shared_inputs() -> None:
    network = graph(
        [node("Concat", "a b", "one", axis=1), node("Concat", "b c", "two", axis=1)],
        inputs=["a", "b", "c"],
    )
    placement = place_pairs(network, {"a": 1.0, "b": 2.0, "c": 3.0})
    assert {pair.tensor: pair.scale for pair in placement.activations} == {
        "a": 3.0, "b": 3.0, "c": 3.0,
    }  # fmt: skip


def test_a_missing_scale_leaves_the_operator_float_and_is_listed() -> None:
    network = small_classifier()
    scales = all_scales(network)
    del scales["pool"]
    placement = place_pairs(network, scales)
    assert placement.without_scale == ("pool",)
    positions = {edge.node for pair in placement.activations for edge in pair.edges}
    left_float = {4, 5, 6}  # Conv, Add and Concat, all of which read it
    assert positions.isdisjoint(left_float)
    assert "w2" not in {pair.constant for pair in placement.weights}


def test_no_scales_at_all_quantize_nothing_and_list_everything() -> None:
    placement = place_pairs(residual_block(), {})
    assert (placement.activations, placement.weights) == ((), ())
    assert placement.without_scale == ("entry",)


@pytest.mark.parametrize(
    ("op_type", "shape", "attributes", "axis"),
    [
        ("Conv", (8, 4, 3, 3), {}, 0),
        ("ConvTranspose", (4, 8, 3, 3), {}, 1),
        ("ConvTranspose", (4, 8, 3, 3), {"group": 2}, None),
        ("Gemm", (4, 8), {}, 1),
        ("Gemm", (8, 4), {"transB": 1}, 0),
        ("MatMul", (4, 8), {}, 1),
        ("MatMul", (2, 4, 8), {}, 2),
        ("MatMul", (4,), {}, None),
    ],
)
def test_the_axis_of_output_channels_goes_by_operator(
    op_type: str, shape: tuple[int, ...], attributes: dict[str, Attribute], axis: int | None
) -> None:
    network = graph([node(op_type, "x w", "y", **attributes)], constants={"w": weight(*shape)})
    placement = place_pairs(network, {"x": 0.5})
    assert [(pair.constant, pair.axis) for pair in placement.weights] == [("w", axis)]


def test_a_matmul_of_two_activations_quantizes_both() -> None:
    network = graph([node("MatMul", "a b", "y")], inputs=["a", "b"])
    placement = place_pairs(network, {"a": 1.0, "b": 2.0})
    assert edges(placement) == {"a": (Edge(0, 0),), "b": (Edge(0, 1),)}
    assert placement.weights == ()


@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool", "GlobalAveragePool"])
def test_pools_read_quantized_values(op_type: str) -> None:
    network = graph([node(op_type, "x", "y")])
    assert edges(place_pairs(network, {"x": 1.0})) == {"x": (Edge(0, 0),)}


def test_float16_and_computed_weights_stay_as_they_are() -> None:
    half = graph([node("MaxPool", "x", "y")], types={"x": "float16"})
    computed = graph([node("Relu", "x", "w"), node("Conv", "x w", "y")])
    for network in (half, computed):
        placement = place_pairs(network, all_scales(network))
        assert (placement.activations, placement.weights) == ((), ())
        assert placement.without_scale == ()
