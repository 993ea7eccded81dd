from __future__ import annotations

import numpy as np
import pytest

from edgecal.core.graph import Graph
from edgecal.core.tensors import (
    Copy,
    activations,
    apply_copies,
    constant_entries,
    copies,
    lasting_copies,
)
from edgecal.core.versions import TensorRTVersion, parse_tensorrt
from tests.graphs import graph, node, small_classifier, weight

OLD, FIRST_8, LATE_8, TEN = map(parse_tensorrt, ("7.1.3", "8.0.1", "8.5.2", "10.3.0"))


def scales(**numbers: float) -> dict[str, np.float32]:
    return {name: np.float32(number) for name, number in numbers.items()}


def copied(network: Graph, tensorrt: TensorRTVersion, **measured: float) -> dict[str, float]:
    result = apply_copies(scales(**measured), copies(network, tensorrt))
    return {name: float(scale) for name, scale in result.items()}


def test_every_float_activation_has_an_entry_in_the_order_of_the_network() -> None:
    assert activations(small_classifier()) == (
        "images", "conv", "bn", "relu", "pool", "left", "sum", "cat", "scaled", "kept",
        "mean_out", "flat", "scores",
    )  # fmt: skip


def test_integers_masks_shapes_and_weights_have_no_entry() -> None:
    missing = {"size", "class", "mask", "w1", "gamma", "b2", "half", "w3", ""}
    assert missing.isdisjoint(activations(small_classifier()))


def test_a_tensor_of_unknown_type_counts_as_float_and_half_is_float() -> None:
    network = graph([node("Plugin", "x", "y z")], types={"x": "float16", "z": "float64"})
    unknown = {name: info for name, info in network.tensors.items() if name != "y"}
    network = Graph(
        inputs=network.inputs,
        outputs=network.outputs,
        nodes=network.nodes,
        tensors=unknown,
        constants={},
        opset=17,
    )
    assert activations(network) == ("x", "y")


@pytest.mark.parametrize("tensorrt", [OLD, FIRST_8, LATE_8])
def test_before_tensorrt_10_no_name_is_promised_for_constants(tensorrt: TensorRTVersion) -> None:
    assert constant_entries(small_classifier(), tensorrt) == {}


def test_tensorrt_10_names_constants_that_become_layers_after_themselves() -> None:
    assert constant_entries(small_classifier(), TEN) == {
        "half_output": "half",
        "w3_output": "w3",
        "b3_output": "b3",
    }


def test_integer_constants_and_names_already_taken_get_no_constant_entry() -> None:
    network = graph(
        [node("Add", "x c", "c_output"), node("Mul", "c_output n", "y")],
        constants={"c": weight(1), "n": np.ones(1, np.int64)},
    )
    assert constant_entries(network, TEN) == {}


@pytest.mark.parametrize(
    ("tensorrt", "expected"),
    [
        (OLD, {("pool", "relu"), ("mean_out", "kept"), ("sum", "cat"), ("pool", "cat")}),
        (FIRST_8, {("pool", "relu"), ("sum", "cat"), ("pool", "cat")}),
        (LATE_8, {("pool", "relu")}),
        (TEN, {("pool", "relu")}),
    ],
)
def test_pools_copy_always_and_concats_up_to_8_0(
    tensorrt: TensorRTVersion, expected: set[tuple[str, str]]
) -> None:
    found = copies(small_classifier(), tensorrt)
    assert {(one.tensor, one.source) for one in found} == expected


def test_a_tensor_of_a_pool_and_a_concat_ends_with_the_concats_scale() -> None:
    network = graph(
        [node("Relu", "x", "r"), node("MaxPool", "r", "p"), node("Concat", "r x", "c", axis=1)]
    )
    measured = {"x": 1.0, "r": 2.0, "p": 1.5, "c": 3.0}
    assert copied(network, FIRST_8, **measured) == {"x": 3.0, "r": 3.0, "p": 2.0, "c": 3.0}
    assert copied(network, TEN, **measured) == {"x": 1.0, "r": 2.0, "p": 2.0, "c": 3.0}


def test_of_concats_that_share_an_input_the_later_one_wins() -> None:
    network = graph([node("Concat", "a b", "c", axis=1), node("Concat", "c b", "d", axis=1)])
    assert copied(network, OLD, a=1.0, b=2.0, c=3.0, d=4.0) == {
        "a": 3.0, "b": 4.0, "c": 4.0, "d": 4.0,
    }  # fmt: skip


def test_copies_that_last_are_equal_in_the_finished_table_and_the_others_are_left_out() -> None:
    network = graph(
        [
            node("Relu", "x", "r"),
            node("MaxPool", "r", "p"),
            node("Concat", "r x", "c", axis=1),
            node("Concat", "c x", "d", axis=1),
        ]
    )
    measured = {"x": 1.0, "r": 2.0, "p": 1.5, "c": 3.0, "d": 4.0}
    for version in (FIRST_8, TEN):
        table = copied(network, version, **measured)
        lasting = lasting_copies(network, version)
        assert all(table[one.tensor] == table[one.source] for one in lasting)
    assert lasting_copies(network, TEN) == (Copy("p", "r"),)
    assert lasting_copies(network, FIRST_8) == (Copy("c", "d"), Copy("x", "d"))


def test_a_copy_to_or_from_nothing_is_skipped() -> None:
    overwritten = [Copy("a", "gone"), Copy("gone", "a"), Copy("b", "a")]
    assert apply_copies(scales(a=1, b=2), overwritten) == scales(a=1, b=1)


def test_relu_add_and_conv_are_measured_not_copied() -> None:
    network = graph(
        [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Add", "r x", "s")],
        constants={"w": weight(1, 1, 1, 1)},
    )
    assert all(copies(network, version) == () for version in (OLD, FIRST_8, LATE_8, TEN))
