"""Which tensors get an entry in a calibration cache, and which of them copy their scale.

Read off real caches of TensorRT 5.1 to 10.14 whose networks are public; where versions differ, the
version stands beside the rule. TensorRT calibrates the parsed network before fusion, so Conv,
BatchNormalization and Relu all have entries of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np

    from edgecal.core.graph import Graph, Node
    from edgecal.core.versions import TensorRTVersion

_ELEMENTWISE: Final = frozenset({"Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "PRelu"})
_ONE_TENSOR: Final = frozenset({"Dropout", "BatchNormalization"})
"""Whose further outputs, masks and running statistics, no engine computes."""
_FIRST_REDUCED_GLOBAL_POOL: Final = (8, 0)
"""From here on GlobalAveragePool is a Reduce layer and measured on its own (ResNet-18 on 8.0.3)."""
_LAST_SHARED_CONCAT: Final = (8, 0)
"""Up to here inputs of Concat take its output's scale; 10.x copies nothing; 8.2 to 8.6 unknown."""
_FIRST_MEASURED_CONCAT: Final = 10

RESHAPING: Final = frozenset(
    {"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity"}
)
"""Operators whose output holds the values of their input, in another shape."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A tensor whose scale TensorRT overwrites with another's."""

    tensor: str
    source: str


def activations(graph: Graph) -> tuple[str, ...]:
    """Name the tensors that get a measured entry: float inputs, then outputs of nodes, in order.

    Weights of Conv and parameters of BatchNormalization are layer weights, not tensors; integers
    and empty optional outputs have no scale. A tensor of unknown type counts as float: TensorRT
    ignores an entry too many, but misses one too few.
    """
    names = [tensor.name for tensor in graph.inputs if tensor.is_float]
    for node in graph.nodes:
        outputs = node.outputs[:1] if node.op_type in _ONE_TENSOR else node.outputs
        names += [name for name in outputs if name and _may_be_float(graph, name)]
    return tuple(name for name in dict.fromkeys(names) if name not in graph.constants)


def constant_entries(graph: Graph, tensorrt: TensorRTVersion) -> dict[str, str]:
    """Map the entry of each constant that the parser makes a layer of to the constant's name.

    Only for TensorRT 10, whose ONNX parser names them `<constant>_output`. Earlier names hold the
    index of the layer in the network, which no rule of ours can promise; builds do without them.
    """
    if tensorrt.major != 10:
        return {}
    found: dict[str, str] = {}
    for node in graph.nodes:
        for name in _layer_constants(node):
            tensor = graph.tensors.get(name)
            if name in graph.constants and tensor is not None and tensor.is_float:
                found[f"{name}_output"] = name
    taken = set(activations(graph))
    return {entry: name for entry, name in found.items() if entry not in taken}


def copies(graph: Graph, tensorrt: TensorRTVersion) -> tuple[Copy, ...]:
    """List the scales TensorRT overwrites, in the order in which it does: pools, then concats."""
    version = (tensorrt.major, tensorrt.minor)
    pools = {"MaxPool", "AveragePool"}
    if version < _FIRST_REDUCED_GLOBAL_POOL:
        pools |= {"GlobalAveragePool", "GlobalMaxPool"}
    found = [Copy(node.outputs[0], node.inputs[0]) for node in graph.nodes if node.op_type in pools]
    if version <= _LAST_SHARED_CONCAT:
        for node in graph.nodes:
            if node.op_type == "Concat":
                found += [Copy(name, node.outputs[0]) for name in node.inputs]
    return tuple(found)


def apply_copies(
    scales: Mapping[str, np.float32], overwritten: Iterable[Copy]
) -> dict[str, np.float32]:
    """Overwrite scales one by one; a copy from or to a tensor without a scale is skipped."""
    result = dict(scales)
    for copy in overwritten:
        if copy.tensor in result and copy.source in result:
            result[copy.tensor] = result[copy.source]
    return result


def lasting_copies(graph: Graph, tensorrt: TensorRTVersion) -> tuple[Copy, ...]:
    """List the copies whose two sides are equal in the finished table: none is overwritten later.

    A tensor that feeds a pool and, later, a Concat ends with the Concat's scale, and the pool's
    output keeps what the tensor had before.
    """
    overwritten = copies(graph, tensorrt)
    last = {copy.tensor: position for position, copy in enumerate(overwritten)}
    return tuple(
        copy
        for position, copy in enumerate(overwritten)
        if last[copy.tensor] == position and last.get(copy.source, -1) < position
    )


def perhaps_overwritten(graph: Graph, tensorrt: TensorRTVersion | None) -> set[str]:
    """Name all tensors whose scale may be another's, by any release if it is not known which."""
    pools = {"GlobalAveragePool", "GlobalMaxPool", "MaxPool", "AveragePool"}
    pooled = {node.outputs[0] for node in graph.nodes if node.op_type in pools}
    return pooled | perhaps_joined(graph, tensorrt)


def perhaps_joined(graph: Graph, tensorrt: TensorRTVersion | None) -> set[str]:
    """Name inputs of Concat, if they may have its scale: between 8.0 and 10 nobody knows."""
    if tensorrt is not None and tensorrt.major >= _FIRST_MEASURED_CONCAT:
        return set()
    return {name for node in graph.nodes if node.op_type == "Concat" for name in node.inputs}


def _may_be_float(graph: Graph, name: str) -> bool:
    tensor = graph.tensors.get(name)
    return tensor is None or tensor.is_float


def _layer_constants(node: Node) -> tuple[str, ...]:
    if node.op_type in _ELEMENTWISE or node.op_type in {"Gemm", "MatMul"}:
        return node.inputs
    return ()
