"""Types a float16 network float32, and finds the casts that this leaves idle."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import onnx.inliner
from onnx import helper, numpy_helper

from edgecal.adapters.onnx_graph import read_graph
from edgecal.adapters.onnx_outline import outline
from edgecal.adapters.onnx_weights import all_tensors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgecal.adapters.onnx_model import OnnxModel

_FLOAT: Final = onnx.TensorProto.FLOAT
_HALF: Final = onnx.TensorProto.FLOAT16
_NAMES_A_TYPE: Final = frozenset({"to", "dtype", "output_dtype"})


def widen(proto: onnx.ModelProto) -> bool:
    """Make float32 of all that is float16, in place: every half is exactly a float.

    Returns
    -------
    bool
        Whether there was anything.
    """
    graph = proto.graph
    tensors = list(graph.initializer)
    changed = False
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                tensors.append(attribute.t)
            elif attribute.name in _NAMES_A_TYPE and attribute.i == _HALF:
                attribute.i = _FLOAT
                changed = True
    for tensor in tensors:
        if tensor.data_type == _HALF:
            value = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
            changed = True
    for one in (*graph.input, *graph.output, *graph.value_info):
        if one.type.tensor_type.elem_type == _HALF:
            one.type.tensor_type.elem_type = _FLOAT
            changed = True
    return changed


def in_float32(model: OnnxModel) -> OnnxModel:
    """Give a float16 network as one of float32, inputs and outputs too; another one as it is.

    Why calibrate that one: TensorRT calibrates in float32 whatever the network says, ONNX Runtime
    has kernels of float16 on some processors only and else casts around every node, and tensors
    keep their names. Casts that are left without a purpose become Identity, so that a weight
    behind one is still seen to be constant.
    """
    if not _has_halves(model.proto):
        return model
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    if proto.functions:  # they have types of their own
        proto = onnx.inliner.inline_local_functions(proto)
    widen(proto)
    typed = onnx.shape_inference.infer_shapes(outline(proto))
    typed.graph.initializer.extend(proto.graph.initializer)
    idle = idle_casts(typed)
    for node in proto.graph.node:
        if node.op_type == "Cast" and node.output[0] in idle:
            node.op_type = "Identity"
            del node.attribute[:]
    return replace(model, proto=proto, graph=read_graph(proto, outline(proto), model.path))


def restore_edges(proto: onnx.ModelProto, like: onnx.ModelProto) -> None:
    """Give inputs and outputs of a widened network the types again that they had."""
    graph = proto.graph
    taken = {name for node in graph.node for name in (*node.input, *node.output, node.name)}
    before, after = [], []
    renamed: dict[str, str] = {}
    halves = {one.name for one in (*like.graph.input, *like.graph.output) if _is_half(one)}
    for value in graph.input:
        if value.name in halves:
            value.type.tensor_type.elem_type = _HALF
            renamed[value.name] = name = _free(f"{value.name}_single", taken)
            before.append(helper.make_node("Cast", [value.name], [name], name, to=_FLOAT))
    for value in graph.output:
        if value.name in halves:
            value.type.tensor_type.elem_type = _HALF
            if value.name in renamed:  # an input that is an output
                continue
            renamed[value.name] = _free(f"{value.name}_single", taken)
            name = _free(f"{value.name}_half", taken)
            after.append(
                helper.make_node("Cast", [renamed[value.name]], [value.name], name, to=_HALF)
            )
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = renamed.get(name, name)
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)


def _has_halves(proto: onnx.ModelProto) -> bool:
    graph = proto.graph
    return (
        any(map(_is_half, (*graph.input, *graph.output)))
        or any(tensor.data_type == _HALF for tensor in all_tensors(graph))
        or any(
            attribute.name in _NAMES_A_TYPE and attribute.i == _HALF
            for nodes in (graph.node, *(function.node for function in proto.functions))
            for node in nodes
            for attribute in node.attribute
        )
    )


def _is_half(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type == _HALF)


def _free(wanted: str, taken: set[str]) -> str:
    name, number = wanted, 0
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    taken.add(name)
    return name


def idle_casts(proto: onnx.ModelProto) -> set[str]:
    """Name the outputs of casts from float32 to float32, most of which were float16 on one side.

    The types of tensors must have been inferred already, and stand in `value_info`.
    """
    floats = {
        value.name
        for value in (*proto.graph.input, *proto.graph.value_info)
        if value.type.tensor_type.elem_type == _FLOAT
    }
    floats.update(one.name for one in proto.graph.initializer if one.data_type == _FLOAT)
    idle: set[str] = set()
    for node in proto.graph.node:
        if node.op_type == "DequantizeLinear":  # of any domain: it gives floats
            floats.update(node.output)
        if node.op_type == "Cast" and _to(node.attribute) == _FLOAT:
            if node.input[0] in floats:
                idle.add(node.output[0])
            floats.add(node.output[0])
    return idle


def _to(attributes: Iterable[onnx.AttributeProto]) -> int:
    return next((int(one.i) for one in attributes if one.name == "to"), 0)
