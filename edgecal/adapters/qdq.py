"""Writes a network with quantize/dequantize pairs: what the host simulates and a target may run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from edgecal.adapters.onnx_model import OnnxModel, raise_opset
from edgecal.core.placement import Placement, place_pairs
from edgecal.core.quant import STEPS

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIRST_PER_CHANNEL_OPSET = 13
_IR_OF_OPSET_13 = 7


def write_qdq(model: OnnxModel, scales: Mapping[str, float]) -> tuple[bytes, Placement]:
    """Make the INT8 network that these scales describe.

    Activations get one pair each, INT8, symmetric, zero point 0; constant weights one scale per
    output channel, stored as INT8; biases stay float.

    Parameters
    ----------
    scales
        Real units per INT8 step, by tensor.

    Returns
    -------
    bytes
        The ONNX file, self-contained.
    Placement
        What was quantized, and what was not for want of a scale.
    """
    model = raise_opset(model, _FIRST_PER_CHANNEL_OPSET)
    placement = place_pairs(model.graph, scales)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    rewired: dict[tuple[int, int], str] = {}
    nodes: dict[str, list[onnx.NodeProto]] = {}
    names = _FreshNames(proto.graph)
    for pair in placement.activations:
        scale = np.asarray(pair.scale, np.float32)
        output, made = _pair(proto.graph, names, pair.tensor, scale)
        nodes[pair.tensor] = made
        rewired.update({(edge.node, edge.input): output for edge in pair.edges})
    ahead: list[onnx.NodeProto] = []
    for weight in placement.weights:
        value = np.asarray(model.graph.constants[weight.constant], np.float32)
        output, node = _weight(proto.graph, names, weight.constant, value, weight.axis)
        ahead.append(node)
        rewired.update({(edge.node, edge.input): output for edge in weight.edges})

    ordered = list(ahead)
    for value_info in proto.graph.input:
        ordered += nodes.get(value_info.name, [])
    for position, node in enumerate(model.proto.graph.node):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for index in range(len(copy.input)):
            copy.input[index] = rewired.get((position, index), copy.input[index])
        ordered.append(copy)
        for name in node.output:
            ordered += nodes.get(name, [])
    del proto.graph.node[:]
    proto.graph.node.extend(ordered)
    # before 4 an initializer had to be an input too, and ours are none; opset 13 came with 7
    proto.ir_version = max(proto.ir_version, _IR_OF_OPSET_13)
    _drop_unused_initializers(proto.graph)
    return proto.SerializeToString(), placement


class _FreshNames:
    """Gives names that no tensor of the network has."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._taken = {name for node in graph.node for name in (*node.input, *node.output)}
        self._taken.update(one.name for one in (*graph.input, *graph.output))
        self._taken.update(tensor.name for tensor in graph.initializer)

    def __call__(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self._taken:
            name, number = f"{wanted}_{number}", number + 1
        self._taken.add(name)
        return name


def _pair(
    graph: onnx.GraphProto, names: _FreshNames, tensor: str, scale: npt.NDArray[np.float32]
) -> tuple[str, list[onnx.NodeProto]]:
    scale_name = _constant(graph, names(f"{tensor}_scale"), scale)
    zero_name = _constant(graph, names(f"{tensor}_zero_point"), np.asarray(0, np.int8))
    quantized = names(f"{tensor}_quantized")
    output = names(f"{tensor}_dequantized")
    return output, [
        helper.make_node("QuantizeLinear", [tensor, scale_name, zero_name], [quantized]),
        helper.make_node("DequantizeLinear", [quantized, scale_name, zero_name], [output]),
    ]


def _weight(
    graph: onnx.GraphProto,
    names: _FreshNames,
    name: str,
    value: npt.NDArray[np.float32],
    axis: int | None,
) -> tuple[str, onnx.NodeProto]:
    others = tuple(one for one in range(value.ndim) if one != axis)
    amax = np.abs(value).max(axis=others if axis is not None else None, keepdims=True)
    # a channel of zeros is zero at any scale; it must only be a positive one
    scale = np.where(amax > 0, amax / np.float32(STEPS), np.float32(1)).astype(np.float32)
    steps = np.clip(np.rint(value / scale), -STEPS, STEPS).astype(np.int8)
    flat: Any = scale.reshape(-1) if axis is not None else scale.reshape(())
    quantized = _constant(graph, names(f"{name}_quantized"), steps)
    scale_name = _constant(graph, names(f"{name}_scale"), flat)
    zero_name = _constant(graph, names(f"{name}_zero_point"), np.zeros(flat.shape, np.int8))
    output = names(f"{name}_dequantized")
    node = helper.make_node("DequantizeLinear", [quantized, scale_name, zero_name], [output])
    if axis is not None:
        node.attribute.append(helper.make_attribute("axis", axis))
    return output, node


def _constant(graph: onnx.GraphProto, name: str, value: npt.NDArray[Any]) -> str:
    graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def _drop_unused_initializers(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    used.update(value.name for value in graph.output)
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    dropped = {tensor.name for tensor in graph.initializer} - {tensor.name for tensor in kept}
    del graph.initializer[:]
    graph.initializer.extend(kept)
    inputs = [value for value in graph.input if value.name not in dropped]
    del graph.input[:]
    graph.input.extend(inputs)
