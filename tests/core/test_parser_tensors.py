from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.graph import Graph, TensorInfo
from edgecal.core.parser_tensors import find_helpers
from tests.graphs import graph, node, small_classifier, weight
from tests.strategies import tensor_names

if TYPE_CHECKING:
    from collections.abc import Sequence


def shaped(network: Graph, **shapes: tuple[int, ...]) -> Graph:
    """Give shapes to tensors, as shape inference does."""
    tensors = {
        **network.tensors,
        **{
            name: TensorInfo(name=name, dtype=network.tensors[name].dtype, shape=shape)
            for name, shape in shapes.items()
        },
    }
    return replace(network, tensors=tensors)


def owners(names: Sequence[str], network: Graph) -> dict[str, tuple[str | None, str]]:
    return {one.name: (one.node, one.role) for one in find_helpers(names, network)}


def unnamed(*made: str) -> list[str]:
    return [f"(Unnamed Layer* {number}) [{kind}]_output" for number, kind in enumerate(made)]


MLP = shaped(
    graph(
        [
            node("Gemm", "x w1 b1", "h", transB=1),
            node("Relu", "h", "r"),
            node("Gemm", "r w2 b2", "y", transB=1),
        ],
        constants={"w1": weight(4, 4), "b1": weight(4), "w2": weight(4, 4), "b2": weight(4)},
    ),
    x=(1, 4), h=(1, 4), r=(1, 4), y=(1, 4),
)  # fmt: skip


class TestNamesThatTellNothing:
    def test_are_nobodys(self) -> None:
        names = ["old", "h_out", "Relu_9_output_0", "fc_output", "(Unnamed Layer* 3)", "_output"]
        assert find_helpers(names, MLP) == ()

    def test_are_those_of_the_network_itself(self) -> None:
        assert find_helpers(["x", "h", "r", "y", "w1"], MLP) == ()

    def test_are_further_outputs_in_pytorchs_way_which_an_earlier_export_left(self) -> None:
        network = graph([replace(node("Conv", "x w", "y"), name="/m/Conv")])
        assert find_helpers(["/m/Conv_output_0", "/m/Conv_1_output_0"], network) == ()


class TestUnnamedLayers:
    def test_of_gemm_belong_to_the_gemm_that_follows_in_the_file(self) -> None:
        first = unnamed("Constant", "Matrix Multiply", "Constant", "Shuffle")
        second = [
            "(Unnamed Layer* 6) [Constant]_output",
            "(Unnamed Layer* 7) [Constant]_output",
            "(Unnamed Layer* 8) [Matrix Multiply]_output",
        ]
        assert owners(["x", *first, "h", "r", *second, "y"], MLP) == {
            first[0]: ("Gemm_h", "weight constant"),
            first[1]: ("Gemm_h", "matrix multiply"),
            first[2]: ("Gemm_h", "bias constant"),
            first[3]: ("Gemm_h", "reshaped constant"),
            second[0]: ("Gemm_y", "weight constant"),
            second[1]: ("Gemm_y", "bias constant"),
            second[2]: ("Gemm_y", "matrix multiply"),
        }

    def test_of_which_too_many_are_there_are_constants_of_no_known_operand(self) -> None:
        made = unnamed("Constant", "Constant", "Constant")
        assert owners(["x", *made, "h", "r", "y"], MLP) == dict.fromkeys(
            made, ("Gemm_h", "constant")
        )

    def test_between_two_nodes_that_could_have_made_them_belong_to_nobody_known(self) -> None:
        (made,) = unnamed("Constant")
        assert owners(["x", made, "y"], MLP) == {made: (None, "constant")}

    def test_in_a_shuffled_file_belong_to_nobody_known(self) -> None:
        (made,) = unnamed("Matrix Multiply")
        assert owners(["y", made, "x"], MLP) == {made: (None, "matrix multiply")}

    def test_of_a_type_no_node_there_makes_belong_to_nobody_known(self) -> None:
        made = unnamed("TopK", "RNN", "Never Heard Of")
        assert {node for node, _ in owners(["x", *made, "h", "r", "y"], MLP).values()} == {None}

    def test_of_the_last_node_may_come_after_every_entry(self) -> None:
        network = graph(
            [node("Relu", "x", "r"), node("ArgMax", "r", "best")], types={"best": "int64"}
        )
        names = ["x", "r", "(Unnamed Layer* 1) [TopK]_output", "(Unnamed Layer* 1) [TopK]_output_1"]
        assert owners(names, network) == {
            names[2]: ("ArgMax_best", "values"),
            names[3]: ("ArgMax_best", "indices"),
        }

    def test_of_prelu_softmax_and_padded_average_pool_are_told_by_their_types(self) -> None:
        network = graph(
            [
                node("PRelu", "x slope", "p"),
                node("Softmax", "p", "s", axis=1),
                node("AveragePool", "s", "a"),
            ],
            constants={"slope": weight(4, 1, 1)},
        )
        made = unnamed("Constant", "Shuffle", "Shuffle", "Softmax", "Pooling")
        assert owners(["x", *made[:2], "p", *made[2:4], "s", made[4], "a"], network) == {
            made[0]: ("PRelu_p", "slope constant"),
            made[1]: ("PRelu_p", "reshaped constant"),
            made[2]: ("Softmax_s", "reshape"),
            made[3]: ("Softmax_s", "softmax between reshapes"),
            made[4]: ("AveragePool_a", "pooling"),
        }

    def test_of_integers_are_nobodys_floats(self) -> None:
        network = graph(
            [node("Add", "i one", "j"), node("Relu", "x", "y")],
            inputs=["x", "i"],
            constants={"one": np.ones(3, np.int64)},
            types={"i": "int64", "j": "int64"},
        )
        (made,) = unnamed("Constant")
        assert owners(["x", made, "y"], network) == {made: (None, "constant")}


class TestNamedLayers:
    """Names that the parser of TensorRT for RTX 1.7.1 gives."""

    def test_of_constants_tell_who_reads_them(self) -> None:
        assert owners(["w2_output", "b2_output"], MLP) == {
            "w2_output": ("Gemm_y", "weight constant"),
            "b2_output": ("Gemm_y", "bias constant"),
        }
        assert owners(["half_output"], small_classifier()) == {
            "half_output": ("Mul_scaled", "constant operand")
        }

    def test_of_a_constant_node_repeat_the_suffix(self) -> None:
        network = graph(
            [node("Mul", "x /m/Constant_15_output_0", "y")],
            constants={"/m/Constant_15_output_0": weight(1)},
        )
        assert owners(["/m/Constant_15_output_0_output"], network) == {
            "/m/Constant_15_output_0_output": ("Mul_y", "constant operand")
        }

    @pytest.mark.parametrize(
        ("op", "name", "role"),
        [
            ("Gemm", "m_output", "matrix multiply"),
            ("Gemm", "m_22_output", "layer within Gemm"),
            ("Softmax", "m_output", "softmax between reshapes"),
            ("ArgMax", "m_output", "values and indices"),
            ("ArgMax", "m_output (1)", "values and indices"),
            ("ReduceL2", "m_15_output", "layer within ReduceL2"),
            ("HardSwish", "node_of_y_output", "layer within HardSwish"),
        ],
    )
    def test_of_nodes_stand_before_output(self, op: str, name: str, role: str) -> None:
        network = graph([replace(node(op, "x", "y"), name="m")])
        assert owners([name], network) == {name: ("m", role)}

    def test_of_a_name_that_two_nodes_share_are_nobodys(self) -> None:
        network = graph([replace(node("Gemm", "x w", name), name="m") for name in ("y", "z")])
        assert owners(["m_output"], network) == {}

    def test_of_broadcasts_are_counted_off_along_the_ranks(self) -> None:
        names = ["ONNXTRT_Broadcast_4_output", "x", "ONNXTRT_Broadcast_output", "h"]
        assert owners(names, MLP) == {
            "ONNXTRT_Broadcast_output": ("Gemm_h", "reshaped bias constant"),
            "ONNXTRT_Broadcast_4_output": ("Gemm_y", "reshaped bias constant"),
        }

    def test_of_a_broadcast_too_few_are_told_by_their_neighbours_or_not_at_all(self) -> None:
        name = "ONNXTRT_Broadcast_4_output"
        assert owners(["x", name, "y"], MLP) == {name: (None, "broadcast")}

    def test_of_the_parsers_own_say_what_they_do(self) -> None:
        names = ["ONNXTRT_castHelper_output", "ONNXTRT_squeezeTensor_28_output"]
        assert owners(names, MLP) == {names[0]: (None, "cast"), names[1]: (None, "squeeze")}

    def test_of_the_parsers_own_may_be_told_by_their_neighbours(self) -> None:
        network = graph([node("InstanceNormalization", "x s b", "n"), node("Relu", "n", "r")])
        name = "ONNXTRT_unsqueezeTensor_11_output"
        assert owners(["x", name, "n", "r"], network) == {
            name: ("InstanceNormalization_n", "unsqueeze")
        }


@given(st.lists(tensor_names(), unique=True, max_size=20))
def test_any_names_are_told_apart_in_file_order(names: list[str]) -> None:
    found = find_helpers(names, small_classifier())
    explained = {one.name for one in found}
    assert [one.name for one in found] == [name for name in names if name in explained]
    assert all(one.role for one in found)


def test_many_names_in_a_shuffled_file_take_no_longer_than_they_must() -> None:
    count = 3000
    network = graph(
        [node("Gemm", f"t{i} w", f"t{i + 1}") for i in range(count)],
        inputs=["t0"],
        constants={"w": weight(4, 4)},
    )
    own = [f"t{(i * 7919) % count}" for i in range(count)]
    made = [f"(Unnamed Layer* {i}) [Constant]_output" for i in range(count)]
    mixed = [name for pair in zip(own, made, strict=True) for name in pair]
    assert len(find_helpers(mixed, network)) == count
