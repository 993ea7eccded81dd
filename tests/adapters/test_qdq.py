"""The INT8 network that scales describe: well formed, and computing what INT8 would."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime  # noqa: TID253 - the test runs what the adapter only writes
import pytest
from onnx import helper, numpy_helper

from edgecal.adapters.onnx_model import OnnxModel, read_model
from edgecal.adapters.ort_backend import OrtBackend, load_network
from edgecal.adapters.qdq import write_qdq
from edgecal.core.tensors import activations
from tests.networks import OLD_IR, conv_net, floats, network, save, tensor
from tests.rtx.nets import NETS, feeds_of, scales_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

    from edgecal.core.placement import Placement, Target

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


def run(
    data: bytes, feeds: Mapping[str, npt.NDArray[np.generic]], *, optimized: bool
) -> list[Floats]:
    """Run on the CPU; with all optimizations, integer kernels among them, or with none."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return [np.asarray(one) for one in session.run(None, feeds)]


def simulate(model: OnnxModel, placed: Placement, feeds: dict[str, Floats]) -> list[Floats]:
    """Run node by node, and quantize in numpy what passes between them."""
    values: dict[str, npt.NDArray[np.generic]] = {**model.graph.constants, **feeds}
    steps = {(edge.node, edge.input): pair for pair in placed.activations for edge in pair.edges}
    weights = {(edge.node, edge.input): pair for pair in placed.weights for edge in pair.edges}
    ends = {pair.tensor: pair.scale for pair in placed.activations if pair.is_output}
    for position, node in enumerate(model.proto.graph.node):
        given = {name: values[name] for name in node.input if name}
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for index, name in enumerate(node.input):
            if (position, index) in steps:
                value = np.asarray(values[name], np.float32)
                copy.input[index] = f"operand{index}"
                given[f"operand{index}"] = fake_quantize(value, steps[position, index].scale)
            elif (position, index) in weights:
                value = np.asarray(values[name], np.float32)
                copy.input[index] = f"operand{index}"
                given[f"operand{index}"] = per_channel(value, weights[position, index].axis)[1]
        inputs = [
            tensor(name, value.shape, helper.np_dtype_to_tensor_dtype(value.dtype))
            for name, value in given.items()
            if name in copy.input
        ]
        given = {one.name: given[one.name] for one in inputs}
        one = network(
            [copy],
            inputs,
            [helper.make_empty_tensor_value_info(name) for name in node.output],
            opset=model.graph.opset,
        )
        # the same kernels as the export's: where a pool's two ends share a scale, as on DLA, the
        # mean of four steps is often a tie, and the last bit of another kernel tips it
        results = run(one.SerializeToString(), given, optimized=False)
        values.update(zip(node.output, results, strict=True))
    return [
        fake_quantize(value, ends[one.name]) if one.name in ends else value
        for one in model.graph.outputs
        for value in [np.asarray(values[one.name], np.float32)]
    ]


def distance(left: list[Floats], right: list[Floats]) -> float:
    """Give the mean difference of outputs."""
    pairs = zip(left, right, strict=True)
    return float(np.mean([np.abs(a - b).mean() for a, b in pairs]))


@pytest.mark.parametrize("placement", ["gpu", "dla"])
@pytest.mark.parametrize("name", sorted(NETS))
def test_onnx_runtime_computes_what_a_simulation_in_numpy_does(
    tmp_path: Path, name: str, placement: Target
) -> None:
    proto = NETS[name]()
    model, feeds = read(proto, tmp_path), feeds_of(proto)
    data, placed = write_qdq(model, scales_of(model, feeds), placement=placement)
    want = simulate(model, placed, feeds)
    plain = run(proto.SerializeToString(), feeds, optimized=True)
    error_of_int8 = distance(want, plain)
    assert error_of_int8 > 0
    assert distance(run(data, feeds, optimized=False), want) < 1e-3 * error_of_int8
    # integer kernels tip ties the other way, so that results differ as much as INT8 errs; what
    # holds is that they err no more
    assert distance(run(data, feeds, optimized=True), plain) < 1.2 * error_of_int8


@pytest.mark.parametrize("placement", ["gpu", "dla"])
@pytest.mark.parametrize("name", sorted(NETS))
def test_a_network_typed_float16_agrees_with_one_typed_float32(
    tmp_path: Path, name: str, placement: Target
) -> None:
    proto = NETS[name]()
    model, feeds = read(proto, tmp_path), feeds_of(proto)
    scales = scales_of(model, feeds)
    single, _ = write_qdq(model, scales, placement=placement)
    half, placed = write_qdq(model, scales, placement=placement, fp16=True)
    assert placed.left_float32 == ()
    made = onnx.load_model_from_string(half)
    onnx.checker.check_model(made, full_check=True)
    assert [one.name for one in made.graph.output] == [one.name for one in model.graph.outputs]
    ends = (*made.graph.input, *made.graph.output)
    assert {one.type.tensor_type.elem_type for one in ends} == {onnx.TensorProto.FLOAT}
    # left in float32 are sizes of a Resize, which wants them so, and pairs of outputs themselves
    whole = {one.name for one in made.graph.initializer if one.data_type == onnx.TensorProto.FLOAT}
    readers = {node.op_type for node in made.graph.node if whole & set(node.input)}
    pairs = {"QuantizeLinear", "DequantizeLinear"} if placement == "dla" else set()
    assert readers <= {"Resize", *pairs}
    have, want = run(half, feeds, optimized=False), run(single, feeds, optimized=False)
    plain = run(proto.SerializeToString(), feeds, optimized=True)
    assert distance(have, plain) < 1.5 * distance(want, plain)
    for one, other in zip(have, want, strict=True):
        assert one.dtype == np.float32
        assert np.abs(one - other).max() < 0.05 * np.abs(other).max()


def test_pairs_of_float16_around_a_concat_run_unfused(tmp_path: Path) -> None:
    proto = NETS["yolo"]()
    model, feeds = read(proto, tmp_path), feeds_of(proto)
    data, _ = write_qdq(model, scales_of(model, feeds), placement="dla", fp16=True)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    want = run(data, feeds, optimized=False)
    have = [np.asarray(one) for one in session.run(None, feeds)]
    assert distance(have, want) < 0.05 * float(np.abs(want[0]).mean())


def half_of(
    nodes: list[onnx.NodeProto],
    constants: dict[str, Floats],
    scales: dict[str, float],
    folder: Path,
) -> tuple[onnx.ModelProto, Placement]:
    """Type a network of vectors float16, and see that it runs."""
    proto = network(nodes, [tensor("x", [2, 4])], [tensor("y", [2, 4])], constants, opset=17)
    data, placed = write_qdq(read(proto, folder), scales, fp16=True)
    made = onnx.load_model_from_string(data)
    onnx.checker.check_model(made, full_check=True)
    want = run(proto.SerializeToString(), {"x": floats(2, 4)}, optimized=False)[0]
    have = run(data, {"x": floats(2, 4)}, optimized=True)[0]
    assert np.allclose(have, want, rtol=0.02, atol=0.02)
    return made, placed


def test_a_mask_that_float16_cannot_hold_stays_float32_with_what_it_masks(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], "relu"),
        helper.make_node("Add", ["r", "mask"], ["masked"], "add"),
        helper.make_node("Softmax", ["masked"], ["soft"], "softmax", axis=-1),
        helper.make_node("Relu", ["soft"], ["y"], "last"),
    ]
    lowest = float(np.finfo(np.float32).min)
    made, placed = half_of(nodes, {"mask": np.asarray([0, 0, lowest, 0], np.float32)}, {}, tmp_path)
    assert [(left.node, left.op_type) for left in placed.left_float32] == [
        ("add", "Add"),
        ("softmax", "Softmax"),
    ]
    assert "'mask' holds 3.4e+38" in placed.left_float32[0].reason
    assert "'masked'" in placed.left_float32[1].reason
    assert "mask" in constants(made)


def test_an_epsilon_that_is_zero_in_float16_stays_float32(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Add", ["x", "eps"], ["a"], "add"),
        helper.make_node("Relu", ["a"], ["y"], "relu"),
    ]
    _, placed = half_of(nodes, {"eps": np.asarray([1e-12], np.float32)}, {}, tmp_path)
    assert [left.reason for left in placed.left_float32] == [
        "its constant 'eps' is 1e-12, which is 0 in float16"
    ]


def test_a_tensor_that_reaches_beyond_float16_stays_float32(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "c"], ["much"], "up"),
        helper.make_node("MatMul", ["much", "w"], ["more"], "product"),
        helper.make_node("Div", ["more", "c"], ["less"], "down"),
        helper.make_node("Relu", ["less"], ["y"], "last"),
    ]
    held = {"c": np.asarray([30000], np.float32), "w": floats(4, 4)}
    scales = {"much": 600.0, "more": 1000.0, "less": 0.02}
    _, placed = half_of(nodes, held, scales, tmp_path)
    assert [left.node for left in placed.left_float32] == ["up", "product", "down"]
    assert "'much' reaches 7.68e+04, float16 ends at 65504" in placed.left_float32[0].reason


def test_an_output_that_others_read_keeps_its_name_and_type(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "w"], ["y"], "product"),
        helper.make_node("Relu", ["y"], ["z"], "last"),
    ]
    outputs = [tensor("r", [2, 4]), tensor("y", [2, 4]), tensor("z", [2, 4])]
    proto = network(nodes, [tensor("x", [2, 4])], outputs, {"w": floats(4, 4)})
    model, feeds = read(proto, tmp_path), {"x": floats(2, 4)}
    want = run(proto.SerializeToString(), feeds, optimized=False)
    for placement, fp16 in itertools.product(("gpu", "dla"), (False, True)):
        where: Target = "dla" if placement == "dla" else "gpu"
        data, _ = write_qdq(model, scales_of(model, feeds), placement=where, fp16=fp16)
        made = onnx.load_model_from_string(data)
        onnx.checker.check_model(made, full_check=True)
        assert [one.name for one in made.graph.output] == ["r", "y", "z"]
        have = run(data, feeds, optimized=False)
        assert {str(one.dtype) for one in have} == {"float32"}
        assert all(np.allclose(a, b, atol=0.1) for a, b in zip(have, want, strict=True))
        exact = np.abs(have[0] - want[0]).max() < 2e-3  # only DLA's outputs have pairs
        assert exact == (placement == "gpu")


def test_weights_that_are_inputs_too_are_none_any_more(tmp_path: Path) -> None:
    made = quantize(read(conv_net(opset=8, ir=OLD_IR), tmp_path))
    assert [one.name for one in made.graph.input] == ["image"]
    assert {"b", "fb"} <= set(constants(made))


def test_nothing_of_a_quantized_weight_is_left_behind(tmp_path: Path) -> None:
    weight = floats(300, 200)
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weight)),
        helper.make_node("Identity", ["w"], ["same"]),
        helper.make_node("Transpose", ["same"], ["turned"]),
        helper.make_node("MatMul", ["x", "turned"], ["y"]),
    ]
    proto = network(nodes, [tensor("x", ["n", 200])], [tensor("y", ["n", 300])])
    model = read(proto, tmp_path)
    data, _ = write_qdq(model, dict.fromkeys(activations(model.graph), 0.05))
    assert len(data) < 1.1 * weight.size
    held = constants(onnx.load_model_from_string(data))
    assert held["w_quantized"].shape == (200, 300)
    feeds = {"x": floats(3, 200)}
    want = run(proto.SerializeToString(), feeds, optimized=False)
    assert distance(run(data, feeds, optimized=False), want) < 0.03 * float(np.abs(want[0]).mean())


def test_a_weight_that_a_float_operator_reads_too_is_there_twice(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["mm"]),
        helper.make_node("Add", ["mm", "w"], ["y"]),
    ]
    proto = network(nodes, [tensor("x", [4, 4])], [tensor("y", [4, 4])], {"w": floats(4, 4)})
    made = quantize(read(proto, tmp_path))
    assert {"w", "w_quantized"} <= set(constants(made))
    assert next(node for node in made.graph.node if node.op_type == "Add").input[1] == "w"


def test_the_model_given_is_not_changed(tmp_path: Path) -> None:
    model = read(conv_net(), tmp_path)
    before = model.proto.SerializeToString()
    for placement in ("gpu", "dla"):
        where: Target = "dla" if placement == "dla" else "gpu"
        for fp16 in (False, True):
            write_qdq(
                model, dict.fromkeys(activations(model.graph), 0.05), placement=where, fp16=fp16
            )
    assert model.proto.SerializeToString() == before
