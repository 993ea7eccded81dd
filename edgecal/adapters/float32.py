"""Types a float16 network float32, and finds the casts that this leaves idle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterable

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
