"""An ONNX network as a graph of the core."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from edgecal.adapters.onnx_errors import corrupt, one_line
from edgecal.core.graph import Attribute, Graph, Node, TensorInfo

if TYPE_CHECKING:
    from pathlib import Path


def read_graph(proto: onnx.ModelProto, outlined: onnx.ModelProto, path: Path) -> Graph:
    """Understand a network.

    Parameters
    ----------
    outlined
        The outline of it.

    Raises
    ------
    ModelError
        If its types and shapes contradict each other.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(outlined, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        raise corrupt(path, one_line(error)) from error
    initializers = {tensor.name: tensor for tensor in proto.graph.initializer}
    constants = dict(initializers)
    tensors = {
        tensor.name: TensorInfo(
            name=tensor.name, dtype=dtype_of(tensor.data_type), shape=tuple(tensor.dims)
        )
        for tensor in proto.graph.initializer
    }
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        if value.type.HasField("tensor_type") and value.name not in initializers:
            tensors[value.name] = info_of(value)
    nodes = []
    for position, node in enumerate(proto.graph.node):
        nodes.append(_node(node, position))
        if node.op_type == "Constant" and (known := _constant(node)) is not None:
            constants[node.output[0]] = known
    return Graph(
        inputs=tuple(
            tensors[value.name] for value in proto.graph.input if value.name not in initializers
        ),
        outputs=tuple(
            tensors.get(value.name, TensorInfo(name=value.name, dtype="unknown"))
            for value in proto.graph.output
        ),
        nodes=tuple(nodes),
        tensors=tensors,
        constants=_Constants(constants),
        opset=next((one.version for one in proto.opset_import if one.domain in {"", "ai.onnx"}), 0),
    )


class _Constants(Mapping[str, npt.NDArray[np.generic]]):
    """Initializers by name, turned into arrays only when looked at."""

    def __init__(self, tensors: Mapping[str, onnx.TensorProto]) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> npt.NDArray[np.generic]:
        return np.asarray(numpy_helper.to_array(self._tensors[name]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """Give the value of a Constant node; none for strings and sparse ones."""
    for attribute in node.attribute:
        given = onnx.helper.get_attribute_value(attribute)
        if attribute.name == "value":
            return attribute.t
        if attribute.name in {"value_float", "value_floats"}:
            return numpy_helper.from_array(np.asarray(given, np.float32))
        if attribute.name in {"value_int", "value_ints"}:
            return numpy_helper.from_array(np.asarray(given, np.int64))
    return None


def _node(node: onnx.NodeProto, position: int) -> Node:
    attributes: dict[str, Attribute] = {}
    subgraph = False
    for attribute in node.attribute:
        value: Any = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        elif attribute.type in {onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS}:
            value = tuple(value)
        elif attribute.type in {onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS}:
            subgraph = True
        if isinstance(value, int | float | str | tuple):
            attributes[attribute.name] = value
    return Node(
        name=node.name or f"{node.op_type}_{position}",
        op_type=node.op_type,
        inputs=tuple(node.input),
        outputs=tuple(node.output),
        attributes=attributes,
        domain=node.domain,
        has_subgraph=subgraph,
    )


def info_of(value: onnx.ValueInfoProto) -> TensorInfo:
    """Give the declared type of a tensor."""
    tensor = value.type.tensor_type
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(
            size.dim_value if size.HasField("dim_value") and size.dim_value > 0 else None
            for size in tensor.shape.dim
        )
    return TensorInfo(name=value.name, dtype=dtype_of(tensor.elem_type), shape=shape)


def dtype_of(code: int) -> str:
    """Name an element type as NumPy does; `unknown` if ONNX has no such one."""
    if code == onnx.TensorProto.UNDEFINED or code not in onnx.TensorProto.DataType.values():
        return "unknown"
    return str(onnx.helper.tensor_dtype_to_np_dtype(code))
