from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgecal.core.placement import Edge, Left, Placement, Target, place_pairs
from tests.graphs import graph, node, small_classifier, weight

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

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
        [
            node("Concat", "a b", "one", axis=1),
            node("Concat", "b c", "two", axis=1),
            node("Conv", "one w", "y"),
            node("MaxPool", "two", "z"),
        ],
        inputs=["a", "b", "c"],
        constants={"w": weight(1, 2, 1, 1)},
    )
    scales = {"a": 1.0, "b": 2.0, "c": 3.0, "one": 0.5, "two": 0.25}
    placement = place_pairs(network, scales)
    assert {pair.tensor: pair.scale for pair in placement.activations} == {
        "a": 3.0, "b": 3.0, "c": 3.0, "one": 0.5, "two": 0.25,
    }  # fmt: skip


def test_a_concat_that_nothing_reads_as_int8_is_left_alone() -> None:
    # boxes up to 640 and scores up to 1: at one scale every score would be zero
    network = graph([node("Concat", "boxes scores", "all", axis=1)], inputs=["boxes", "scores"])
    placement = place_pairs(network, {"boxes": 5.0, "scores": 0.01, "all": 5.0})
    assert placement.activations == ()
    assert placement.left_float == ()


def test_a_concat_of_a_concat_is_quantized_for_the_last_reader() -> None:
    network = graph(
        [
            node("Concat", "a b", "one", axis=1),
            node("Concat", "one c", "two", axis=1),
            node("MaxPool", "two", "y"),
        ],
        inputs=["a", "b", "c"],
    )
    placement = place_pairs(network, {"a": 1.0, "b": 2.0, "c": 3.0, "one": 0.1, "two": 4.0})
    assert edges(placement)["a"] == (Edge(0, 0),)
    scales = {pair.tensor: pair.scale for pair in placement.activations}
    assert scales == {"a": 2.0, "b": 2.0, "c": 3.0, "one": 3.0, "two": 4.0}


def test_the_residual_stream_of_a_transformer_stays_float() -> None:
    network = graph(
        [
            node("LayerNormalization", "x s b", "norm"),
            node("MatMul", "norm w", "mm"),
            node("Add", "mm bias", "linear"),
            node("Add", "x linear", "sum"),
        ],
        constants={"w": weight(4, 4), **{name: weight(4) for name in ("s", "b", "bias")}},
    )
    assert edges(place_pairs(network, all_scales(network))) == {"norm": (Edge(1, 0),)}


def test_a_gated_convolution_counts_as_fused_into_the_add() -> None:
    network = graph(
        [
            node("Relu", "x", "entry"),
            node("Conv", "entry w", "conv"),
            node("Sigmoid", "conv", "gate"),
            node("Mul", "conv gate", "silu"),
            node("Add", "entry silu", "sum"),
        ],
        constants={"w": weight(4, 4, 1, 1)},
    )
    placed = edges(place_pairs(network, all_scales(network)))
    assert placed == {"entry": (Edge(1, 0), Edge(4, 0))}


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


@pytest.mark.parametrize(
    "scale", [0.0, -0.5, float("nan"), float("inf"), float("-inf"), 1e-41, 3e36]
)
@pytest.mark.parametrize("placement", ["gpu", "dla"])
def test_a_scale_that_int8_cannot_have_counts_as_none(scale: float, placement: Target) -> None:
    network = graph([node("Conv", "x w", "y")], constants={"w": weight(1, 1, 1, 1)})
    placed = place_pairs(network, {"x": scale, "y": 1.0}, placement=placement)
    assert placed.unusable == ("x",)
    assert placed.without_scale == ("x",)
    assert placed.weights == ()
    assert placed.left_float == (Left("Conv_y", "Conv", "'x' has no usable scale"),)


@pytest.mark.parametrize(
    ("op_type", "attributes", "axis"),
    [
        ("MatMul", {}, 0),
        ("Gemm", {}, 0),
        ("Gemm", {"transA": 1}, 1),
    ],
)
def test_a_constant_may_be_the_first_operand(
    op_type: str, attributes: dict[str, Attribute], axis: int
) -> None:
    network = graph([node(op_type, "w x", "y", **attributes)], constants={"w": weight(4, 8)})
    placement = place_pairs(network, {"x": 0.5})
    assert edges(placement) == {"x": (Edge(0, 1),)}
    assert [(pair.axis, pair.edges) for pair in placement.weights] == [(axis, (Edge(0, 0),))]


def test_a_weight_behind_identity_and_transpose_is_taken_as_its_readers_see_it() -> None:
    network = graph(
        [
            node("Identity", "w", "same"),
            node("Transpose", "same", "turned", perm=(2, 0, 1)),
            node("Transpose", "turned", "back"),
            node("MatMul", "x turned", "a"),
            node("MatMul", "x back", "b"),
        ],
        constants={"w": weight(2, 3, 4)},
    )
    placement = place_pairs(network, {"x": 0.5, "turned": 0.5})
    assert [(one.constant, one.order, one.axis) for one in placement.weights] == [
        ("w", (2, 0, 1), 2),
        ("w", (1, 0, 2), 2),
    ]
    assert placement.unplaced == ("turned",)


def test_one_weight_may_be_quantized_along_two_axes() -> None:
    network = graph(
        [node("MatMul", "x w", "a"), node("MatMul", "w a", "b")], constants={"w": weight(4, 4)}
    )
    placement = place_pairs(network, all_scales(network))
    assert [(one.axis, one.edges) for one in placement.weights] == [
        (1, (Edge(0, 1),)),
        (0, (Edge(1, 0),)),
    ]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.full((1, 1, 1, 1), np.nan, np.float32), "its weight 'w' holds NaN or infinity"),
        (np.full((1, 1, 1, 1), -np.inf, np.float32), "its weight 'w' holds NaN or infinity"),
        (np.zeros((0, 1, 1, 1), np.float32), "its weight 'w' is empty"),
        (np.ones((1, 1, 1, 1), np.float64), "its weight 'w' is float64, not float32"),
        (None, "its weights are computed while it runs"),
    ],
)
def test_a_weight_that_cannot_be_quantized_leaves_its_operator_float(
    value: npt.NDArray[np.generic] | None, reason: str
) -> None:
    network = graph(
        [node("Conv", "x w", "y")],
        inputs=["x", "w"] if value is None else ["x"],
        constants={} if value is None else {"w": value},
    )
    placement = place_pairs(network, {"x": 1.0, "y": 1.0})
    assert (placement.activations, placement.weights) == ((), ())
    assert placement.without_scale == ()  # a scale would not help
    assert [left.reason for left in placement.left_float] == [reason]


def test_operators_of_others_are_left_alone_whatever_they_are_called() -> None:
    stranger = replace(node("Conv", "x w", "y"), domain="com.example")
    network = graph([stranger], constants={"w": weight(1, 1, 1, 1)})
    assert place_pairs(network, {"x": 1.0}).activations == ()


def test_names_without_a_place_are_told_apart() -> None:
    network = graph([node("MaxPool", "x", "y")])
    placement = place_pairs(network, {"x": 1.0, "y": 1.0, "(Unnamed Layer* 3)": 1.0})
    assert placement.unplaced == ("y",)
    assert placement.unknown == ("(Unnamed Layer* 3)",)


def test_constants_alone_are_not_quantized() -> None:
    network = graph(
        [node("MatMul", "a b", "c"), node("MaxPool", "a", "p"), node("Relu", "x", "y")],
        constants={"a": weight(4, 4), "b": weight(4, 4)},
    )
    for placement in ("gpu", "dla"):
        placed = place_pairs(network, all_scales(network), placement=placement)
        assert placed.weights == ()
        assert {"a", "b", "c", "p"}.isdisjoint(edges(placed))


def test_dla_has_a_pair_on_every_tensor_and_all_readers_behind_it() -> None:
    network = small_classifier()
    placement = place_pairs(network, all_scales(network), placement="dla")
    placed = edges(placement)
    inner = ["images", "conv", "bn", "relu", "pool", "left", "sum", "cat", "scaled", "kept"]
    assert list(placed) == [*inner, "mean_out", "flat", "scores"]
    assert placed["pool"] == (Edge(4, 0), Edge(5, 1), Edge(6, 1))
    assert [pair.tensor for pair in placement.activations if pair.is_output] == ["scores"]
    assert [pair.constant for pair in placement.weights] == ["w1", "w2", "w3"]


def test_dla_ties_elementwise_inputs_and_both_ends_of_a_pool() -> None:
    network = graph(
        [node("Mul", "a b", "c"), node("MaxPool", "c", "d"), node("Relu", "d", "e")],
        inputs=["a", "b"],
    )
    given = {"a": 1.0, "b": 2.0, "c": 5.0, "d": 4.0, "e": 3.0}
    placement = place_pairs(network, given, placement="dla")
    assert {pair.tensor: pair.scale for pair in placement.activations} == {
        "a": 2.0, "b": 2.0, "c": 5.0, "d": 5.0, "e": 3.0,
    }  # fmt: skip


def test_dla_leaves_sizes_alone_that_are_computed_as_floats() -> None:
    network = graph(
        [
            node("Shape", "x", "size"),
            node("Cast", "size", "real"),
            node("Mul", "real half", "less"),
            node("Resize", "x - less", "y"),
        ],
        constants={"half": np.asarray(0.5, np.float32)},
        types={"size": "int64"},
    )
    placement = place_pairs(network, all_scales(network), placement="dla")
    assert list(edges(placement)) == ["x", "y"]


def test_many_nodes_are_placed_in_no_time() -> None:
    nodes = [node("Conv", "x w", "t0")]
    nodes += [node("Relu", f"t{index}", f"t{index + 1}") for index in range(4000)]
    nodes += [node("Add", f"t{index} t{index + 1}", f"sum{index}") for index in range(4000)]
    nodes += [node("Concat", f"t{i} t{i + 1}", f"cat{i}", axis=1) for i in range(4000)]
    nodes += [node("MaxPool", f"cat{index}", f"pool{index}") for index in range(4000)]
    network = graph(nodes, constants={"w": weight(1, 1, 1, 1)})
    began = time.monotonic()
    placement = place_pairs(network, all_scales(network))
    assert len(placement.activations) > 8000
    assert time.monotonic() - began < 5  # quadratic would take minutes
