"""Pairs taken out of a network: the same network, its scales, and what training left float."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort  # noqa: TID253 - it judges what networks compute
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (  # noqa: TID253 - it writes what others write
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

from edgecal.adapters.onnx_model import OnnxModel, read_model
from edgecal.adapters.qdq import write_qdq
from edgecal.adapters.qdq_reader import read_qdq
from edgecal.core.findings import Severity
from edgecal.core.tensors import activations
from edgecal.errors import ModelError
from tests.networks import conv_net, floats, network, save, tensor, token_net, two_input_net

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgecal.adapters.plain_network import PlainNetwork
    from edgecal.core.placement import Target

Array = npt.NDArray[Any]

SCALE = np.asarray(0.05, np.float32)
ZERO = np.asarray(0, np.int8)
WEIGHT = np.asarray(127 * np.eye(4, 4), np.int8)
WEIGHT[1, 1] = 64


def q(
    source: str, output: str, scale: str = "s", zero: str = "z", **attributes: int
) -> onnx.NodeProto:
    return node("QuantizeLinear", f"{source} {scale} {zero}", output, **attributes)


def dq(
    source: str, output: str, scale: str = "s", zero: str = "z", **attributes: int
) -> onnx.NodeProto:
    return node("DequantizeLinear", f"{source} {scale} {zero}", output, **attributes)


def pair(source: str, output: str, scale: str = "s", zero: str = "z") -> list[onnx.NodeProto]:
    return [q(source, f"{output}_q", scale, zero), dq(f"{output}_q", output, scale, zero)]


def node(
    op_type: str, inputs: str, outputs: str, name: str = "", /, **attributes: object
) -> onnx.NodeProto:
    made = helper.make_node(op_type, inputs.split(), outputs.split(), name)
    made.attribute.extend(helper.make_attribute(*one) for one in attributes.items())
    return made


def net(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Array] | None = None,
    *,
    inputs: Sequence[str] = ("x",),
    outputs: Sequence[str] = ("y",),
    opset: int = 13,
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    return network(
        nodes,
        [tensor(name, ["n", 4], kind) for name in inputs],
        [tensor(name, None) for name in outputs],
        {"s": SCALE, "z": ZERO, **(constants or {})},
        opset=opset,
        ir=10,
        domains={"com.microsoft": 1},
    )


def read(proto: onnx.ModelProto, folder: Path) -> PlainNetwork:
    """Read a network, and have the result judged by all that must take it."""
    plain = read_qdq(save(proto, folder / "qdq.onnx"))
    found = onnx.load_model_from_string(plain.model)
    onnx.shape_inference.infer_shapes(found, check_type=True, strict_mode=True)
    (folder / "plain.onnx").write_bytes(plain.model)
    model = read_model(folder / "plain.onnx")
    assert not {one.op_type for one in model.graph.nodes} & {"QuantizeLinear", "DequantizeLinear"}
    assert [one.name for one in found.graph.output] == [one.name for one in proto.graph.output]
    assert {one.name for one in found.graph.input} <= {one.name for one in proto.graph.input}
    read_names = {name for one in found.graph.node for name in one.input}
    read_names.update(one.name for one in found.graph.output)
    assert {one.name for one in found.graph.initializer} <= read_names
    made = {name for one in found.graph.node for name in one.output}
    assert {one.name for one in found.graph.value_info} <= made
    names = {*activations(model.graph), *model.graph.constants}
    assert set(plain.scales) <= names
    layers = [one.name for one in model.graph.nodes]
    assert list(plain.fp16_layers) == [name for name in layers if name in plain.fp16_layers]
    assert all(layers.count(name) == 1 for name in plain.fp16_layers)
    return plain


def graph_of(plain: PlainNetwork) -> onnx.GraphProto:
    return onnx.load_model_from_string(plain.model).graph


def wires(plain: PlainNetwork) -> list[tuple[str, list[str], list[str]]]:
    return [(one.op_type, list(one.input), list(one.output)) for one in graph_of(plain).node]


def run(model: bytes, feeds: Mapping[str, Array]) -> list[Array]:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return [np.asarray(one) for one in session.run(None, dict(feeds))]


def refuse(proto: onnx.ModelProto, folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_qdq(save(proto, folder / "qdq.onnx"))
    assert caught.value.where == str(folder / "qdq.onnx")
    assert caught.value.remedy
    return caught.value.what


def rules(plain: PlainNetwork) -> list[str]:
    return [one.rule for one in plain.findings]


class TestRefused:
    def test_is_a_network_without_pairs(self, tmp_path: Path) -> None:
        assert "not quantized" in refuse(conv_net(), tmp_path)

    def test_is_what_is_no_network(self, tmp_path: Path) -> None:
        (tmp_path / "qdq.onnx").write_bytes(b"\xff" * 40)
        with pytest.raises(ModelError, match="corrupt"):
            read_qdq(tmp_path / "qdq.onnx")
        with pytest.raises(ModelError, match="cannot read"):
            read_qdq(tmp_path / "none.onnx")

    def test_is_a_constant_of_another_size_than_its_shape(self, tmp_path: Path) -> None:
        for name in ("s", "z", "wq"):
            nodes = [dq("wq", "w"), *pair("x", "xd"), node("MatMul", "xd w", "y")]
            proto = net(nodes, {"wq": WEIGHT})
            (broken,) = (one for one in proto.graph.initializer if one.name == name)
            broken.raw_data += bytes(4)  # too few are refused by ONNX's own checker
            assert repr(name) in refuse(proto, tmp_path)
        halves = net([*pair("x", "xd"), node("Mul", "xd c", "y")], {"c": floats(4)})
        halves.graph.initializer[-1].data_type = TensorProto.FLOAT16
        assert "do not fit together" in refuse(halves, tmp_path)

    def test_is_control_flow(self, tmp_path: Path) -> None:
        inner = helper.make_graph([], "inner", [], [tensor("y", ["n", 4])])
        nodes = [*pair("x", "xd"), node("If", "c", "y", then_branch=inner, else_branch=inner)]
        assert "(If) is control flow" in refuse(net(nodes, {"c": np.ones(1, np.bool_)}), tmp_path)

    @pytest.mark.parametrize(
        "op_type", ["QLinearConv", "ConvInteger", "DynamicQuantizeLinear", "MatMulInteger"]
    )
    def test_is_integer_arithmetic_and_the_other_form_is_named(
        self, tmp_path: Path, op_type: str
    ) -> None:
        schema = onnx.defs.get_schema(op_type, 13)
        words = " ".join(["x"] * schema.min_input)
        outputs = " ".join(f"y{i}" for i in range(schema.min_output))
        proto = net([node(op_type, words, outputs, "odd")], outputs=outputs.split()[:1])
        assert f"node 'odd' is a {op_type}" in refuse(proto, tmp_path)

    @pytest.mark.parametrize(
        ("scale", "zero", "said"),
        [
            (SCALE, np.asarray(3, np.int8), "'x' is quantized to int8 with zero point 3"),
            (SCALE, np.asarray(-128, np.int8), "clips at 0"),
            (SCALE, np.asarray(0, np.uint8), "uint8 with zero point 0"),
            (SCALE, np.asarray(100, np.uint8), "uint8 with zero point 100"),
            (SCALE, np.asarray(0, np.int16), "quantized to int16"),
            (SCALE, np.asarray(0, np.uint16), "quantized to uint16"),
            (np.asarray(0, np.float32), ZERO, "scale 0.0"),
            (np.asarray(-1, np.float32), ZERO, "scale -1.0"),
            (np.asarray(np.inf, np.float32), ZERO, "scale inf"),
            (np.asarray(np.nan, np.float32), ZERO, "scale nan"),
            (np.asarray([[0.1] * 4] * 2, np.float32), np.zeros((2, 4), np.int8), "(2, 4)"),
            (np.asarray([0.1] * 4, np.float32), np.zeros(3, np.int8), "zero points of (3,)"),
        ],
    )
    def test_is_an_activation_that_a_cache_cannot_describe(
        self, tmp_path: Path, scale: Array, zero: Array, said: str
    ) -> None:
        nodes = [*pair("x", "xd", "s1", "z1"), node("Sigmoid", "xd", "y")]
        assert said in refuse(net(nodes, {"s1": scale, "z1": zero}, opset=21), tmp_path)

    @pytest.mark.parametrize("kind", ["FLOAT8E4M3FN", "INT4", "UINT4"])
    def test_is_a_type_of_few_bits(self, tmp_path: Path, kind: str) -> None:
        zero = helper.make_tensor("z1", getattr(TensorProto, kind), [], [0])
        proto = net([*pair("x", "xd", "s", "z1"), node("Sigmoid", "xd", "y")], opset=21)
        proto.graph.initializer.append(zero)
        assert f"quantized to {kind.lower()}" in refuse(proto, tmp_path).replace("_", "")

    def test_is_a_type_that_only_an_attribute_names(self, tmp_path: Path) -> None:
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s"], ["xq"], output_dtype=TensorProto.INT16),
            helper.make_node("DequantizeLinear", ["xq", "s"], ["y"]),
        ]
        assert "quantized to int16" in refuse(net(nodes, opset=21), tmp_path)

    def test_is_a_pair_without_zero_point_which_onnx_reads_as_uint8(self, tmp_path: Path) -> None:
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s"], ["xq"]),
            helper.make_node("DequantizeLinear", ["xq", "s"], ["y"]),
        ]
        assert "uint8 with zero point 0" in refuse(net(nodes), tmp_path)

    def test_is_a_scale_that_the_network_computes(self, tmp_path: Path) -> None:
        nodes = [
            node("ReduceMax", "x", "peak", keepdims=0),
            *pair("x", "xd", "peak"),
            node("Sigmoid", "xd", "y"),
        ]
        said = refuse(net(nodes), tmp_path)
        assert "scale of tensor 'x' is computed" in said

    def test_is_quantization_in_blocks(self, tmp_path: Path) -> None:
        scales, zeros = np.ones((2, 4), np.float32), np.zeros((2, 4), np.int8)
        nodes = [
            dq("wq", "w", "s1", "z1", axis=0, block_size=2),
            *pair("x", "xd"),
            node("MatMul", "xd w", "y"),
        ]
        constants: dict[str, Array] = {"wq": WEIGHT, "s1": scales, "z1": zeros}
        assert "'wq' is quantized in blocks" in refuse(net(nodes, constants, opset=21), tmp_path)

    def test_is_a_network_that_takes_or_gives_integers(self, tmp_path: Path) -> None:
        given = net([dq("x", "y")], kind=TensorProto.INT8)
        assert "input 'x' is of integers" in refuse(given, tmp_path)
        gives = net([node("Sigmoid", "x", "h"), *pair("h", "y"), q("h", "end")], outputs=["end"])
        gives.graph.output[0].type.tensor_type.elem_type = TensorProto.INT8
        assert "output 'end' is of integers" in refuse(gives, tmp_path)

    def test_is_a_pair_whose_nodes_disagree(self, tmp_path: Path) -> None:
        nodes = [q("x", "xq"), dq("xq", "y", "s1")]
        said = refuse(net(nodes, {"s1": np.asarray(0.06, np.float32)}), tmp_path)
        assert "pair on tensor 'x'" in said

    @pytest.mark.parametrize(
        ("value", "scale", "zero", "said"),
        [
            (WEIGHT, SCALE, np.asarray(5, np.int8), "'wq' is quantized to int8 with zero point 5"),
            (WEIGHT.astype(np.uint8), SCALE, np.asarray(0, np.uint8), "uint8 with zero point 0"),
            (WEIGHT.astype(np.int16), SCALE, np.asarray(0, np.int16), "int16"),
            (WEIGHT, np.ones(3, np.float32), np.zeros(3, np.int8), "3 scales on axis 1"),
        ],
    )
    def test_is_a_weight_that_is_not_symmetric_int8(
        self, tmp_path: Path, value: Array, scale: Array, zero: Array, said: str
    ) -> None:
        nodes = [dq("wq", "w", "s1", "z1"), *pair("x", "xd"), node("MatMul", "xd w", "y")]
        assert said in refuse(
            net(nodes, {"wq": value, "s1": scale, "z1": zero}, opset=21), tmp_path
        )

    def test_is_an_operator_on_integers_between_the_two_nodes(self, tmp_path: Path) -> None:
        nodes = [q("x", "xq"), node("Add", "xq xq", "sum", "adder"), dq("sum", "y")]
        assert "node 'adder', a Add, reads the integers" in refuse(net(nodes, opset=14), tmp_path)


class TestActivations:
    def test_keep_their_names_and_get_the_scale_of_their_pair(self, tmp_path: Path) -> None:
        nodes = [*pair("x", "xd"), node("Sigmoid", "xd", "h", "sig"), *pair("h", "hd", "s1")]
        nodes.append(node("Tanh", "hd", "y", "tanh"))
        plain = read(net(nodes, {"s1": np.asarray([0.25], np.float32), "z": ZERO}), tmp_path)
        assert wires(plain) == [("Sigmoid", ["x"], ["h"]), ("Tanh", ["h"], ["y"])]
        assert plain.scales == {"x": float(SCALE), "h": 0.25}
        assert plain.fp16_layers == ()
        assert plain.findings == ()

    @pytest.mark.parametrize("domain", ["", "com.microsoft"])
    def test_may_be_quantized_by_any_of_the_two_kinds_of_nodes(
        self, tmp_path: Path, domain: str
    ) -> None:
        nodes = [*pair("x", "xd"), node("Sigmoid", "xd", "y")]
        for one in nodes[:2]:
            one.domain = domain
        plain = read(net(nodes), tmp_path)
        assert plain.scales == {"x": float(SCALE)}
        opsets = onnx.load_model_from_string(plain.model).opset_import
        assert [(one.domain, one.version) for one in opsets] == [("", 13)]

    def test_at_an_output_keep_the_outputs_name(self, tmp_path: Path) -> None:
        nodes = [node("Sigmoid", "x", "before"), *pair("before", "y")]
        plain = read(net(nodes), tmp_path)
        assert wires(plain) == [("Sigmoid", ["x"], ["y"])]
        assert plain.scales == {"y": float(SCALE)}

    def test_at_an_output_that_is_read_before_its_pair_too(self, tmp_path: Path) -> None:
        nodes = [
            node("Sigmoid", "x", "before"),
            *pair("before", "y"),
            node("Tanh", "before", "plain", "tanh"),
            node("Neg", "y", "rounded"),
        ]
        plain = read(net(nodes, outputs=["y", "plain", "rounded"]), tmp_path)
        assert wires(plain) == [
            ("Sigmoid", ["x"], ["y"]),
            ("Tanh", ["y"], ["plain"]),
            ("Neg", ["y"], ["rounded"]),
        ]
        assert plain.fp16_layers == ("tanh",)

    def test_may_be_two_outputs_or_an_input_as_well(self, tmp_path: Path) -> None:
        nodes = [
            *pair("x", "same"),
            node("Sigmoid", "x", "h"),
            *pair("h", "y"),
            dq("y_q", "z1"),
        ]
        plain = read(net(nodes, outputs=["same", "y", "z1", "h"]), tmp_path)
        assert plain.scales == {"x": float(SCALE), "h": float(SCALE)}
        x = floats(2, 4)
        same, y, again, h = run(plain.model, {"x": x})
        assert np.array_equal(same, x)
        assert np.array_equal(y, h)
        assert np.array_equal(again, h)

    def test_quantized_over_and_over_are_quantized_once(self, tmp_path: Path) -> None:
        nodes = [*pair("x", "a"), *pair("a", "b"), *pair("b", "c"), node("Sigmoid", "c", "y")]
        plain = read(net(nodes), tmp_path)
        assert wires(plain) == [("Sigmoid", ["x"], ["y"])]
        assert plain.scales == {"x": float(SCALE)}
        assert plain.findings == ()

    def test_with_one_quantize_node_for_several_readers(self, tmp_path: Path) -> None:
        nodes = [q("x", "xq"), dq("xq", "a"), dq("xq", "b"), node("Add", "a b", "y", "add")]
        plain = read(net(nodes), tmp_path)
        assert wires(plain) == [("Add", ["x", "x"], ["y"])]
        assert plain.fp16_layers == ()

    def test_with_different_scales_on_branches_take_the_largest_and_say_so(
        self, tmp_path: Path
    ) -> None:
        nodes = [
            *pair("x", "a"),
            *pair("x", "b", "s1"),
            *pair("x", "c"),
            node("Add", "a b", "h"),
            node("Add", "h c", "y"),
        ]
        plain = read(net(nodes, {"s1": np.asarray(0.5, np.float32)}), tmp_path)
        assert plain.scales == {"x": 0.5}
        (finding,) = plain.findings
        assert (finding.rule, finding.subject) == ("several-scales", "x")
        assert finding.severity is Severity.WARNING
        assert "2 scales, 0.05 to 0.5" in finding.message

    def test_per_channel_take_the_largest_and_say_so(self, tmp_path: Path) -> None:
        constants: dict[str, Array] = {
            "s1": np.asarray([0.1, 0.5, 0.2, 0.3], np.float32),
            "z1": np.zeros(4, np.int8),
        }
        nodes = [*pair("x", "xd", "s1", "z1"), node("Sigmoid", "xd", "y")]
        plain = read(net(nodes, constants), tmp_path)
        assert plain.scales == {"x": 0.5}
        assert rules(plain) == ["activation-per-channel"]

    def test_of_uint8_around_128_are_int8(self, tmp_path: Path) -> None:
        nodes = [*pair("x", "xd", "s", "z1"), node("Sigmoid", "xd", "y")]
        plain = read(net(nodes, {"z1": np.asarray(128, np.uint8)}), tmp_path)
        assert plain.scales == {"x": float(SCALE)}
        assert plain.findings == ()

    @pytest.mark.parametrize("zero", [np.asarray(0, np.uint8), np.asarray(-128, np.int8)])
    @pytest.mark.parametrize(
        "above",
        [
            [node("Relu", "x", "h")],
            [node("Softmax", "x", "h", axis=1)],
            [node("Clip", "x low", "h")],
            [node("Relu", "x", "r"), node("Reshape", "r shape", "h")],
            [node("Relu", "x", "r"), node("Abs", "x", "a"), node("Add", "r a", "h")],
        ],
    )
    def test_of_steps_above_zero_keep_their_range_where_none_is_below(
        self, tmp_path: Path, above: list[onnx.NodeProto], zero: Array
    ) -> None:
        nodes = [*above, *pair("h", "hd", "s", "z1"), node("Sigmoid", "hd", "y")]
        constants: dict[str, Array] = {
            "z1": zero,
            "low": np.asarray(0, np.float32),
            "shape": np.asarray([-1, 2, 2], np.int64),
        }
        plain = read(net(nodes, constants), tmp_path)
        assert plain.scales["h"] * 127 == pytest.approx(float(SCALE) * 255, rel=1e-6)
        assert rules(plain) == ["activation-unsigned"]

    def test_of_steps_above_zero_are_refused_where_some_may_be_below(self, tmp_path: Path) -> None:
        constants: dict[str, Array] = {
            "z1": np.asarray(0, np.uint8),
            "low": np.asarray(-1, np.float32),
        }
        nodes = [*pair("h", "hd", "s", "z1"), node("Sigmoid", "hd", "y")]
        assert "clips at 0" in refuse(
            net([node("Clip", "x low", "h"), *nodes], constants), tmp_path
        )
        both = [node("Relu", "x", "r"), node("Add", "r x", "h")]
        assert "clips at 0" in refuse(net([*both, *nodes], constants), tmp_path)

    def test_may_be_moved_as_integers(self, tmp_path: Path) -> None:
        nodes = [
            *(q("x", "xq"), node("Reshape", "xq shape", "moved"), dq("moved", "a")),
            node("Transpose", "moved", "turned", perm=[0, 2, 1]),
            *(node("Concat", "moved turned", "both", axis=2), dq("both", "b")),
            *(node("Tanh", "a", "y"), node("Sigmoid", "b", "y2")),
        ]
        constants: dict[str, Array] = {"shape": np.asarray([-1, 2, 2], np.int64)}
        proto = net(nodes, constants, outputs=["y", "y2"])
        plain = read(proto, tmp_path)
        assert plain.scales == dict.fromkeys(["x", "moved", "turned", "both"], float(SCALE))
        x = floats(3, 4)
        for have, want in zip(
            run(plain.model, {"x": x}), run(proto.SerializeToString(), {"x": x}), strict=True
        ):
            assert np.allclose(have, want, atol=float(SCALE))

    def test_may_be_quantized_in_a_function_of_the_file(self, tmp_path: Path) -> None:
        proto = net([node("fake", "x s z", "xd"), node("Sigmoid", "xd", "y")])
        proto.graph.node[0].domain = "trained"
        proto.opset_import.add(domain="trained", version=1)
        body = [*pair("a", "b", "scale", "zero")]
        opsets = [helper.make_opsetid("", 13)]
        made = helper.make_function("trained", "fake", ["a", "scale", "zero"], ["b"], body, opsets)
        proto.functions.append(made)
        plain = read(proto, tmp_path)
        assert plain.scales == {"x": float(SCALE)}
        assert wires(plain) == [("Sigmoid", ["x"], ["y"])]

    def test_that_are_all_float_are_pointed_out(self, tmp_path: Path) -> None:
        proto = net([dq("wq", "w"), node("MatMul", "x w", "y", "mm")], {"wq": WEIGHT})
        plain = read(proto, tmp_path)
        assert plain.scales == {}
        assert plain.fp16_layers == ("mm",)
        assert "activations-float" in rules(plain)

    def test_that_nobody_dequantizes_have_no_scale(self, tmp_path: Path) -> None:
        nodes = [*pair("x", "xd"), node("Sigmoid", "xd", "y"), q("y", "idle")]
        assert plain_scales(net(nodes), tmp_path) == {"x": float(SCALE)}

    def test_have_scales_through_constants_of_any_make(self, tmp_path: Path) -> None:
        half = numpy_helper.from_array(np.asarray(0.5, np.float16))
        nodes = [
            node("Constant", "", "raw", value=half),
            node("Cast", "raw", "wide", to=TensorProto.FLOAT),
            node("Identity", "wide", "s1"),
            node("Constant", "", "z1", value=numpy_helper.from_array(ZERO)),
            *pair("x", "xd", "s1", "z1"),
            node("Sigmoid", "xd", "y"),
        ]
        plain = read(net(nodes), tmp_path)
        assert plain.scales == {"x": 0.5}
        assert [one[0] for one in wires(plain)] == ["Sigmoid"]


def plain_scales(proto: onnx.ModelProto, folder: Path) -> dict[str, float]:
    return read(proto, folder).scales


class TestWeights:
    def test_are_float_again_with_the_values_of_their_integers(self, tmp_path: Path) -> None:
        scales = np.asarray([0.5, 0.25, 0.125, 1], np.float32)
        constants: dict[str, Array] = {
            "w_quantized": WEIGHT,
            "s1": scales,
            "z1": np.zeros(4, np.int8),
        }
        nodes = [
            *(dq("w_quantized", "anything", "s1", "z1", axis=1), *pair("x", "xd")),
            node("MatMul", "xd anything", "y", "mm"),
        ]
        plain = read(net(nodes, constants), tmp_path)
        assert wires(plain) == [("MatMul", ["x", "w"], ["y"])]
        (weight,) = graph_of(plain).initializer
        assert weight.data_type == TensorProto.FLOAT
        assert np.array_equal(numpy_helper.to_array(weight), WEIGHT * scales)
        assert plain.scales == {"x": float(SCALE)}
        assert plain.fp16_layers == ()
        (finding,) = plain.findings
        assert finding.rule == "weights-requantized"
        assert finding.subject == "w"
        assert "1 of 4 output channels" in finding.message

    @given(
        scale=st.floats(2**-100, 2**100, width=32),
        steps=st.lists(st.integers(-127, 127), min_size=3, max_size=9),
    )
    def test_that_reach_127_are_quantized_to_the_same_integers_again(
        self, scale: float, steps: list[int]
    ) -> None:
        integers = np.asarray([*steps, 127], np.float32)
        values = (integers * np.float32(scale)).astype(np.float32)
        again = np.abs(values).max() / np.float32(127)
        assert np.array_equal(np.rint(values / again), integers)

    def test_of_uint8_around_128_are_int8(self, tmp_path: Path) -> None:
        stored = (WEIGHT.astype(np.int16) + 128).astype(np.uint8)
        constants: dict[str, Array] = {"wq": stored, "z1": np.asarray(128, np.uint8)}
        nodes = [dq("wq", "w", "s", "z1"), *pair("x", "xd"), node("MatMul", "xd w", "y")]
        plain = read(net(nodes, constants), tmp_path)
        (weight,) = graph_of(plain).initializer
        assert np.array_equal(numpy_helper.to_array(weight), WEIGHT * SCALE)

    def test_that_were_float_before_their_pair_keep_their_name_and_are_rounded(
        self, tmp_path: Path
    ) -> None:
        value = floats(4, 4)
        scale = (np.abs(value).max(axis=0) / 127).astype(np.float32)
        nodes = [
            q("w", "wq", "s1", "z1", axis=-1),
            dq("wq", "wd", "s1", "z1", axis=-1),
            *pair("x", "xd"),
            node("MatMul", "xd wd", "y"),
        ]
        proto = net(nodes, {"w": value, "s1": scale, "z1": np.zeros(4, np.int8)})
        plain = read(proto, tmp_path)
        (weight,) = graph_of(plain).initializer
        assert weight.name == "w"
        want = (np.clip(np.rint(value / scale), -128, 127) * scale).astype(np.float32)
        assert np.array_equal(numpy_helper.to_array(weight), want)
        x = floats(3, 4, seed=1)
        have, before = run(plain.model, {"x": x}), run(proto.SerializeToString(), {"x": x})
        assert np.allclose(have[0], before[0], atol=0.3)

    def test_that_are_read_as_float_too_exist_twice(self, tmp_path: Path) -> None:
        value = floats(4, 4)
        nodes = [
            *(*pair("w", "wd"), *pair("x", "xd")),
            *(node("MatMul", "xd wd", "h", "first"), node("MatMul", "h w", "y", "second")),
        ]
        plain = read(net(nodes, {"w": value}), tmp_path)
        assert [one[1] for one in wires(plain)] == [["x", "wd"], ["h", "w"]]
        held = {one.name: numpy_helper.to_array(one) for one in graph_of(plain).initializer}
        assert np.array_equal(held["w"], value)
        assert not np.array_equal(held["wd"], value)
        assert plain.fp16_layers == ("second",)

    def test_that_layers_share_are_stored_once(self, tmp_path: Path) -> None:
        nodes = [
            *(dq("wq", "w1"), dq("wq", "w2"), *pair("x", "xd")),
            *(node("MatMul", "xd w1", "h"), *pair("h", "hd"), node("MatMul", "hd w2", "y")),
        ]
        plain = read(net(nodes, {"wq": WEIGHT}), tmp_path)
        assert [one.name for one in graph_of(plain).initializer] == ["wq"]

    @pytest.mark.parametrize("turned", ["before", "after"])
    def test_may_be_turned_before_or_after_their_pair(self, tmp_path: Path, turned: str) -> None:
        value = floats(4, 4)
        turn = [node("Transpose", "w", "wt", perm=[1, 0]), *pair("wt", "last")]
        if turned == "after":
            turn = [*pair("w", "wd"), node("Transpose", "wd", "last", perm=[1, 0])]
        nodes = [*turn, *pair("x", "xd"), node("MatMul", "xd last", "y", "mm")]
        proto = net(nodes, {"w": value})
        plain = read(proto, tmp_path)
        assert plain.fp16_layers == ()
        assert len(graph_of(plain).initializer) == 1
        x = floats(3, 4, seed=1)
        have, before = run(plain.model, {"x": x}), run(proto.SerializeToString(), {"x": x})
        assert np.allclose(have[0], before[0], atol=0.3)

    def test_of_a_constant_node_are_initializers(self, tmp_path: Path) -> None:
        nodes = [
            helper.make_node("Constant", [], ["wq"], value=numpy_helper.from_array(WEIGHT)),
            *(dq("wq", "w"), *pair("x", "xd"), node("MatMul", "xd w", "y")),
        ]
        plain = read(net(nodes), tmp_path)
        assert wires(plain) == [("MatMul", ["x", "wq"], ["y"])]

    def test_that_reach_minus_128_are_counted_as_well(self, tmp_path: Path) -> None:
        lowest = WEIGHT.copy()
        lowest[0, 0], lowest[1, 1] = -128, 127
        nodes = [dq("wq", "w"), *pair("x", "xd"), node("MatMul", "xd w", "y")]
        plain = read(net(nodes, {"wq": lowest}), tmp_path)
        assert "1 of 4 output channels" in plain.findings[0].message

    def test_beyond_float32_are_refused(self, tmp_path: Path) -> None:
        nodes = [dq("wq", "w", "s1"), *pair("x", "xd"), node("MatMul", "xd w", "y")]
        constants: dict[str, Array] = {"wq": WEIGHT, "s1": np.asarray(3e38, np.float32)}
        assert "'wq' stands for values beyond float32" in refuse(net(nodes, constants), tmp_path)

    def test_of_int32_are_biases_without_a_scale(self, tmp_path: Path) -> None:
        constants: dict[str, Array] = {
            "wq": WEIGHT,
            "b_quantized": np.asarray([1, -2, 300, 70_000], np.int32),
            "s1": np.asarray([1, 2, 4, 0.5], np.float32),
            "z1": np.zeros(4, np.int32),
        }
        nodes = [
            *(dq("wq", "w"), *pair("x", "xd"), dq("b_quantized", "b", "s1", "z1", axis=0)),
            node("Gemm", "xd w b", "y"),
        ]
        plain = read(net(nodes, constants), tmp_path)
        assert wires(plain) == [("Gemm", ["x", "wq", "b"], ["y"])]
        held = {one.name: numpy_helper.to_array(one) for one in graph_of(plain).initializer}
        assert held["b"].tolist() == [1, -4, 1200, 35_000]
        assert plain.scales == {"x": float(SCALE)}

    def test_that_no_weighted_layer_reads_have_a_scale(self, tmp_path: Path) -> None:
        nodes = [*pair("x", "xd"), dq("cq", "c"), node("Mul", "xd c", "y")]
        plain = read(net(nodes, {"cq": WEIGHT}), tmp_path)
        assert plain.scales == {"x": float(SCALE), "cq": float(SCALE)}


class TestLayersToKeepInFp16:
    def test_are_weighted_ones_without_two_quantized_operands(self, tmp_path: Path) -> None:
        nodes = [
            node("MatMul", "x w", "h", "first"),
            *pair("h", "hd"),
            *(dq("wq", "wd"), node("MatMul", "hd wd", "h2", "second")),
            *(*pair("h2", "h2d"), node("MatMul", "h2d w", "h3", "third")),
            node("Relu", "h3", "y", "relu"),
        ]
        plain = read(net(nodes, {"w": floats(4, 4), "wq": WEIGHT}), tmp_path)
        assert plain.fp16_layers == ("first", "third")

    def test_are_readers_of_a_scaled_tensor_that_pass_by_its_pair(self, tmp_path: Path) -> None:
        nodes = [
            node("Tanh", "x", "h", "before"),
            *(*pair("h", "hd"), dq("wq", "wd"), node("MatMul", "hd wd", "mm", "mm")),
            *(node("Sigmoid", "h", "sig", "sigmoid"), node("Mul", "h sig", "silu", "mul")),
            *(node("Add", "hd h", "sum", "residual"), node("Neg", "sig", "neg", "unscaled")),
            *(node("Reshape", "h shape", "flat", "moves"), node("Shape", "h", "size", "shape")),
        ]
        constants: dict[str, Array] = {"wq": WEIGHT, "shape": np.asarray([-1, 2, 2], np.int64)}
        outputs = ["mm", "silu", "sum", "neg", "flat", "size"]
        proto = net(nodes, constants, outputs=outputs)
        proto.graph.output[-1].type.tensor_type.elem_type = TensorProto.INT64
        plain = read(proto, tmp_path)
        assert plain.fp16_layers == ("sigmoid", "mul")

    def test_see_a_pair_through_what_only_moves_values(self, tmp_path: Path) -> None:
        nodes = [
            *(*pair("x", "xd"), node("Reshape", "xd shape", "moved")),
            *(dq("wq", "wd"), node("MatMul", "moved wd", "y", "mm")),
        ]
        plain = read(net(nodes, {"wq": WEIGHT, "shape": np.asarray([-1, 1, 4])}), tmp_path)
        assert plain.fp16_layers == ()

    def test_get_a_name_if_they_have_none_or_share_it(self, tmp_path: Path) -> None:
        nodes = [
            node("MatMul", "x w", "a"),
            node("MatMul", "a w", "b", "twice"),
            *(*pair("b", "bd"), dq("wq", "wd"), node("MatMul", "bd wd", "c", "twice")),
            node("Neg", "c", "y", "MatMul_0"),
        ]
        plain = read(net(nodes, {"w": floats(4, 4), "wq": WEIGHT}), tmp_path)
        assert [one.name for one in graph_of(plain).node] == [
            *("MatMul_0_1", "twice_1", "twice", "MatMul_0"),
        ]
        assert plain.fp16_layers == ("MatMul_0_1", "twice_1")


class Readings(CalibrationDataReader):  # type: ignore[misc]
    """The same batch, once."""

    def __init__(self, feeds: dict[str, Array]) -> None:
        self.items = iter([feeds])

    def get_next(self) -> dict[str, Array] | None:
        return next(self.items, None)


def residual_net() -> onnx.ModelProto:
    """Two convolutions around a residual Add, pools, a Concat, and SiLU: what has rules."""
    nodes = [
        node("Conv", "image w1 b1", "conv1", "conv1", pads=[1, 1, 1, 1]),
        node("Sigmoid", "conv1", "sig", "sigmoid"),
        node("Mul", "conv1 sig", "silu", "mul"),
        node("Conv", "silu w2", "conv2", "conv2", pads=[1, 1, 1, 1]),
        node("Add", "silu conv2", "sum", "add"),
        node("MaxPool", "sum", "pool", "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("ConvTranspose", "pool w3", "up", "up", kernel_shape=[2, 2], strides=[2, 2]),
        node("Concat", "up sum", "cat", "cat", axis=1),
        node("GlobalAveragePool", "cat", "mean", "mean"),
        node("Flatten", "mean", "flat", "flatten"),
        node("Gemm", "flat w4 b4", "scores", "fc", transB=1),
    ]
    constants: dict[str, Array] = {
        "w1": floats(4, 3, 3, 3),
        "b1": floats(4, seed=1),
        "w2": floats(4, 4, 3, 3, seed=2) / 6,
        "w3": floats(4, 4, 2, 2, seed=3),
        "w4": floats(5, 8, seed=4),
        "b4": floats(5, seed=5),
    }
    image, scores = tensor("image", ["n", 3, 8, 8]), tensor("scores", ["n", 5])
    return network(nodes, [image], [scores], constants)


class TestRealNetworks:
    @pytest.mark.parametrize("proto", [conv_net(), residual_net()])
    @pytest.mark.parametrize("options", [(), ("bias",), ("per_channel",), ("bias", "per_channel")])
    def test_of_onnx_runtimes_quantizer(
        self, tmp_path: Path, proto: onnx.ModelProto, options: tuple[str, ...]
    ) -> None:
        image = floats(4, 3, 8, 8, seed=9)
        quantize_static(
            str(save(proto, tmp_path / "net.onnx")),
            str(tmp_path / "ort.onnx"),
            Readings({"image": image}),
            quant_format=QuantFormat.QDQ,
            per_channel="per_channel" in options,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": "bias" in options,
            },
        )
        quantized = onnx.load(tmp_path / "ort.onnx")
        plain = read(quantized, tmp_path)
        assert wires(plain) == [
            (one.op_type, list(one.input), list(one.output)) for one in proto.graph.node
        ]
        assert [one.name for one in graph_of(plain).node] == [one.name for one in proto.graph.node]
        assert {"image", "flat", "scores"} <= set(plain.scales)
        assert plain.fp16_layers == ()
        held = {one.name: numpy_helper.to_array(one) for one in graph_of(plain).initializer}
        for one in proto.graph.initializer:
            value = numpy_helper.to_array(one)
            assert np.allclose(held[one.name], value, atol=np.abs(value).max() / 100)
        feeds = {"image": image}
        (have,), (want,) = run(plain.model, feeds), run(quantized.SerializeToString(), feeds)
        assert np.abs(have - want).max() < 0.05 * np.abs(want).max()

    @pytest.mark.parametrize("placement", ["gpu", "dla"])
    @pytest.mark.parametrize(
        "proto", [conv_net(), residual_net(), two_input_net(), token_net(), conv_net(opset=19)]
    )
    def test_of_ours_come_back_as_they_were(
        self, tmp_path: Path, proto: onnx.ModelProto, placement: Target
    ) -> None:
        model = read_model(save(proto, tmp_path / "net.onnx"))
        names = activations(model.graph)
        scales = {name: float(np.float32(0.01 * (1 + i))) for i, name in enumerate(names)}
        plain, placed = there_and_back(model, scales, placement)
        again = graph_of(plain)
        assert [one.SerializeToString() for one in again.node] == [
            one.SerializeToString() for one in proto.graph.node
        ]
        assert list(again.input) == list(proto.graph.input)
        assert list(again.output) == list(proto.graph.output)
        assert plain.scales == placed
        order = [*(one.name for one in again.input), *(o for n in again.node for o in n.output)]
        assert list(plain.scales) == [name for name in order if name in plain.scales]
        shapes = {one.name: (one.data_type, list(one.dims)) for one in proto.graph.initializer}
        assert {one.name: (one.data_type, list(one.dims)) for one in again.initializer} == shapes

    @pytest.mark.parametrize("placement", ["gpu", "dla"])
    @pytest.mark.parametrize("proto", [conv_net(), residual_net(), two_input_net()])
    def test_of_ours_in_float16_come_back_in_float32(
        self, tmp_path: Path, proto: onnx.ModelProto, placement: Target
    ) -> None:
        model = read_model(save(proto, tmp_path / "net.onnx"))
        scales = dict.fromkeys(activations(model.graph), 0.03)
        plain, placed = there_and_back(model, scales, placement, fp16=True)
        assert [(one.op_type, one.name, one.output) for one in graph_of(plain).node] == [
            (one.op_type, one.name, one.output) for one in proto.graph.node
        ]
        assert plain.scales == pytest.approx(placed, rel=1e-3)
        assert "float16-widened" in rules(plain)

    @settings(
        max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(data=st.data())
    def test_with_any_scales_come_back(self, tmp_path: Path, data: st.DataObject) -> None:
        model = read_model(save(residual_net(), tmp_path / "net.onnx"))
        names = st.sampled_from(activations(model.graph))
        scale = st.floats(np.float32(1e-6).item(), np.float32(1e6).item(), width=32)
        scales = data.draw(st.dictionaries(names, scale))
        data_placed = write_qdq(model, scales)[1].activations
        if not data_placed:
            return
        plain, placed = there_and_back(model, scales, "gpu")
        assert plain.scales == placed
        assert list(itertools.chain(*(one.output for one in graph_of(plain).node))) == list(
            itertools.chain(*(one.output for one in model.proto.graph.node))
        )


def there_and_back(
    model: OnnxModel, scales: Mapping[str, float], placement: Target, *, fp16: bool = False
) -> tuple[PlainNetwork, dict[str, float]]:
    """Write pairs and read them; gives the scales that were placed as well."""
    folder = model.path.parent
    data, placed = write_qdq(model, scales, placement=placement, fp16=fp16)
    (folder / "pairs.onnx").write_bytes(data)
    plain = read(onnx.load_model_from_string(data), folder)
    return plain, {one.tensor: one.scale for one in placed.activations}
