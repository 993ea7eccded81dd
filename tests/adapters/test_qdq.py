"""The INT8 network that scales describe: well formed, and computing what INT8 would."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgecal.adapters.onnx_model import OnnxModel, read_model
from edgecal.adapters.ort_backend import OrtBackend, load_network
from edgecal.adapters.qdq import write_qdq
from edgecal.core.tensors import activations
from tests.networks import conv_net, floats, network, save, tensor

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]


def read(proto: onnx.ModelProto, folder: Path) -> OnnxModel:
    return read_model(save(proto, folder / "net.onnx"))


def quantize(model: OnnxModel, scale: float = 0.05) -> onnx.ModelProto:
    """Write the INT8 network with one scale for all, and have it checked by those who know."""
    data, _ = write_qdq(model, dict.fromkeys(activations(model.graph), scale))
    proto = onnx.load_model_from_string(data)
    onnx.checker.check_model(proto, full_check=True)
    (model.path.parent / "int8.onnx").write_bytes(data)
    load_network(model.path.parent / "int8.onnx")
    return proto


def fake_quantize(values: Floats, scale: float) -> Floats:
    """Round to INT8 and back, halves to even, clipped as QuantizeLinear does."""
    step = np.float32(scale)
    steps = np.clip(np.rint(values / step), -128, 127)
    return np.asarray(steps * step, np.float32)


def weighted(
    op_type: str, weight: Floats, shape: list[int | str], **attributes: int
) -> onnx.ModelProto:
    node = helper.make_node(op_type, ["x", "w"], ["y"])
    node.attribute.extend(helper.make_attribute(*one) for one in attributes.items())
    rank = len(shape) - (weight.ndim == 1)
    output = tensor("y", ["n", *[None] * (rank - 1)])
    return network([node], [tensor("x", shape)], [output], {"w": weight})


def constants(proto: onnx.ModelProto) -> dict[str, npt.NDArray[np.generic]]:
    return {one.name: np.asarray(numpy_helper.to_array(one)) for one in proto.graph.initializer}


def per_channel(weight: Floats, axis: int | None) -> tuple[Floats, Floats]:
    """Quantize a weight as TensorRT does: scales, and the values that INT8 stands for."""
    others = tuple(one for one in range(weight.ndim) if one != axis)
    amax = np.abs(weight).max(axis=others if axis is not None else None, keepdims=True)
    scale = (amax / np.float32(127)).astype(np.float32)
    steps = np.clip(np.rint(weight / scale), -127, 127).astype(np.int8)
    return scale.reshape(-1), (steps.astype(np.float32) * scale).astype(np.float32)


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 19, 23])
def test_the_network_is_valid_onnx_whatever_opset_it_came_in(tmp_path: Path, opset: int) -> None:
    model = read(conv_net(opset=opset, ir=3 if opset < 9 else 8), tmp_path)
    proto = quantize(model)
    assert proto.opset_import[0].version == max(13, opset)
    assert [one.name for one in proto.graph.output] == ["scores"]
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds.count("QuantizeLinear") == 3  # image, relu into the pool, flat
    assert kinds.count("DequantizeLinear") == 5  # these and two weights


def test_a_tensor_keeps_its_name_when_the_opset_is_raised(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Softmax", ["x"], ["soft"], axis=1),
        helper.make_node("Squeeze", ["soft"], ["flat"], axes=[2]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    proto = network(
        nodes, [tensor("x", [1, 4, 1])], [tensor("y", [1, 4])], {"w": floats(4, 4)}, opset=11
    )
    model = read(proto, tmp_path)
    made = quantize(model)
    produced = {name for node in made.graph.node for name in node.output}
    assert {"soft", "flat", "y"} <= produced
    quantized = [node.input[0] for node in made.graph.node if node.op_type == "QuantizeLinear"]
    assert quantized == ["flat"]
    names = activations(model.graph)
    feeds = {"x": floats(1, 4, 1)}
    plain = OrtBackend(model).expose(names).run(feeds)
    simulated = OrtBackend(model).simulate(dict.fromkeys(names, 0.01)).run(feeds)
    assert np.allclose(plain["y"], simulated["y"], atol=0.1)


@pytest.mark.parametrize(
    ("proto", "axis"),
    [
        (weighted("Conv", floats(4, 3, 3, 3), ["n", 3, 8, 8]), 0),
        (weighted("Conv", floats(6, 1, 3, 3), ["n", 6, 8, 8], group=6), 0),
        (weighted("ConvTranspose", floats(3, 4, 3, 3), ["n", 3, 8, 8]), 1),
        (weighted("ConvTranspose", floats(4, 2, 3, 3), ["n", 4, 8, 8], group=2), None),
        (weighted("Gemm", floats(5, 7), ["n", 7], transB=1), 0),
        (weighted("Gemm", floats(7, 5), ["n", 7], transB=0), 1),
        (weighted("Gemm", floats(7, 5), ["n", 7]), 1),
        (weighted("MatMul", floats(7, 5), ["n", 7]), 1),
        (weighted("MatMul", floats(2, 7, 5), ["n", 2, 3, 7]), 2),
        (weighted("MatMul", floats(7), ["n", 7]), None),
    ],
)
def test_weights_have_one_scale_for_each_output_channel(
    tmp_path: Path, proto: onnx.ModelProto, axis: int | None
) -> None:
    model = read(proto, tmp_path)
    weight = np.asarray(model.graph.constants["w"], np.float32)
    made = quantize(model)
    node = next(one for one in made.graph.node if one.input[0] == "w_quantized")
    axes = [one.i for one in node.attribute if one.name == "axis"]
    assert axes == ([] if axis is None else [axis])
    held = constants(made)
    scale, values = per_channel(weight, axis)
    assert np.array_equal(held["w_scale"], scale if axis is not None else scale[0])
    assert held["w_quantized"].dtype == np.int8
    shape = [-1 if one == axis else 1 for one in range(weight.ndim)]
    steps = np.asarray(held["w_quantized"], np.float32)
    assert np.array_equal(steps * (scale.reshape(shape) if axis is not None else scale), values)
    assert "w" not in held


def test_a_channel_of_zeros_stays_zero(tmp_path: Path) -> None:
    weight = floats(4, 3, 3, 3)
    weight[2] = 0
    model = read(weighted("Conv", weight, ["n", 3, 8, 8]), tmp_path)
    scale = np.asarray(constants(quantize(model))["w_scale"], np.float32)
    assert scale[2] == 1
    network_ = OrtBackend(model).simulate({"x": 0.05, "y": 0.05})
    assert not np.asarray(network_.run({"x": floats(1, 3, 8, 8)})["y"])[:, 2].any()


def test_the_simulation_computes_what_fake_quantization_in_numpy_does(tmp_path: Path) -> None:
    weight, bias = floats(4, 3, 1, 1), floats(4, seed=1)
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"])
    proto = network(
        [node],
        [tensor("x", ["n", 3, 8, 8])],
        [tensor("y", ["n", 4, 8, 8])],
        {"w": weight, "b": bias},
    )
    scale = 0.02  # clips: the values reach beyond 127 * 0.02
    x = floats(2, 3, 8, 8, seed=2)
    assert np.abs(x).max() > 127 * scale
    have = OrtBackend(read(proto, tmp_path)).simulate({"x": scale, "y": 0.05}).run({"x": x})["y"]
    _, values = per_channel(weight, 0)
    quantized = fake_quantize(x, scale)
    want = np.einsum("ncij,oc->noij", quantized, values[:, :, 0, 0]) + bias[:, None, None]
    assert np.allclose(have, want, rtol=1e-5, atol=1e-6)
    float_output = np.einsum("ncij,oc->noij", x, weight[:, :, 0, 0]) + bias[:, None, None]
    assert not np.allclose(have, float_output, atol=1e-2)


def test_names_that_the_network_has_already_are_not_taken_again(tmp_path: Path) -> None:
    taken = ["x_scale", "x_zero_point", "x_quantized", "x_dequantized", "w_scale", "w_quantized"]
    nodes = [helper.make_node("Relu", ["x"], ["x_scale"])]
    nodes += [helper.make_node("Relu", [a], [b]) for a, b in itertools.pairwise(taken)]
    nodes += [
        helper.make_node("Conv", ["x", "w"], ["conv"]),
        helper.make_node("Add", ["conv", taken[-1]], ["y"]),
    ]
    unused = tensor("conv_scale", ["n"])  # an input that no node reads is a name too
    proto = network(
        nodes,
        [tensor("x", ["n", 3, 4, 4]), unused],
        [tensor("y", ["n", 3, 4, 4])],
        {"w": floats(3, 3, 1, 1)},
    )
    model = read(proto, tmp_path)
    quantize(model)
    names = activations(model.graph)
    feeds = {"x": floats(1, 3, 4, 4), "conv_scale": floats(1)}
    plain = OrtBackend(model).expose(names).run(feeds)["y"]
    simulated = OrtBackend(model).simulate(dict.fromkeys(names, 0.03)).run(feeds)["y"]
    assert np.allclose(plain, simulated, atol=0.3)


def test_a_tensor_without_a_scale_stays_float_and_is_named(tmp_path: Path) -> None:
    model = read(conv_net(), tmp_path)
    data, placement = write_qdq(model, {"relu": 0.05, "flat": 0.05})
    assert placement.without_scale == ("image",)
    held = constants(onnx.load_model_from_string(data))
    assert "w" in held
    assert "fw_quantized" in held


def test_weights_of_a_constant_node_are_quantized(tmp_path: Path) -> None:
    weight = floats(4, 4)
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weight)),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    proto = network(nodes, [tensor("x", ["n", 4])], [tensor("y", ["n", 4])])
    assert "w_quantized" in constants(quantize(read(proto, tmp_path)))


def test_a_weight_that_two_layers_share_is_stored_once(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["mm"]),
        helper.make_node("MatMul", ["mm", "w"], ["y"]),
    ]
    proto = network(nodes, [tensor("x", ["n", 4])], [tensor("y", ["n", 4])], {"w": floats(4, 4)})
    made = quantize(read(proto, tmp_path))
    assert [node.output[0] for node in made.graph.node].count("w_dequantized") == 1
    assert sum(name.startswith("w") for name in constants(made)) == 3
