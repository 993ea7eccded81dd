"""Where quantize/dequantize pairs go so that a Q/DQ network computes what an INT8 engine would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from edgecal.core.graph import Graph, Node

_POOLS: Final = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"})
_FUSED_INTO_CONV: Final = frozenset({"BatchNormalization"})


@dataclass(frozen=True, slots=True)
class Edge:
    """One use of a tensor: the node's position in the graph, and which of its inputs."""

    node: int
    input: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationPair:
    """One Q/DQ pair on an activation, read by some of its consumers."""

    tensor: str
    scale: float
    edges: tuple[Edge, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightPair:
    """A constant to quantize per output channel; the bias stays float."""

    constant: str
    axis: int | None
    """`None` where no axis holds one output channel per index: then one scale for all of it."""
    edges: tuple[Edge, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """All the pairs of a network, and what stays float for want of a scale."""

    activations: tuple[ActivationPair, ...]
    weights: tuple[WeightPair, ...]
    without_scale: tuple[str, ...]
    """Tensors that would be quantized if the cache had an entry for them, in topological order."""


def place_pairs(graph: Graph, scales: Mapping[str, float]) -> Placement:
    """Put pairs before weighted operators and pools, on one branch of a residual Add, on Concat.

    A weighted operator whose input has no scale stays float whole. Only float32 tensors are
    quantized.
    """
    wanted: dict[str, list[Edge]] = {}
    weights: dict[tuple[str, int | None], list[Edge]] = {}
    concats: list[tuple[str, ...]] = []
    missing: dict[str, None] = {}
    for position, node in enumerate(graph.nodes):
        edges = [
            index for index in _quantized_inputs(graph, node) if _is_float32(graph, node, index)
        ]
        absent = [node.inputs[index] for index in edges if node.inputs[index] not in scales]
        missing.update(dict.fromkeys(absent))
        if absent:
            continue
        for index in edges:
            wanted.setdefault(node.inputs[index], []).append(Edge(position, index))
        if edges and _weight_of(graph, node) is not None:
            key = (node.inputs[1], _weight_axis(graph, node))
            weights.setdefault(key, []).append(Edge(position, 1))
        if node.op_type == "Concat" and edges:
            concats.append(tuple(node.inputs[index] for index in edges))
    shared = _share_largest({name: scales[name] for name in wanted}, concats)
    return Placement(
        activations=tuple(
            ActivationPair(tensor=name, scale=shared[name], edges=tuple(edges))
            for name, edges in wanted.items()
        ),
        weights=tuple(
            WeightPair(constant=name, axis=axis, edges=tuple(edges))
            for (name, axis), edges in weights.items()
        ),
        without_scale=tuple(missing),
    )


def _quantized_inputs(graph: Graph, node: Node) -> Iterator[int]:
    """Yield the positions of a node's inputs that carry a pair."""
    if node.op_type in {"Conv", "ConvTranspose", "Gemm"}:
        if _weight_of(graph, node) is not None:
            yield 0
    elif node.op_type == "MatMul":
        yield from (index for index in (0, 1) if node.inputs[index] not in graph.constants)
    elif node.op_type in _POOLS:
        yield 0
    elif node.op_type == "Concat":
        yield from (i for i, name in enumerate(node.inputs) if name not in graph.constants)
    elif node.op_type == "Add" and not any(name in graph.constants for name in node.inputs):
        # a convolution's own output goes into the Add at full precision, inside the fused layer
        fused = [index for index in (0, 1) if _is_fused_conv(graph, node.inputs[index])]
        yield from (index for index in (0, 1) if index not in fused[-1:])


def _share_largest(
    scales: Mapping[str, float], concats: Iterable[tuple[str, ...]]
) -> dict[str, float]:
    """Give all inputs of a Concat the largest scale; those that share an input make one group."""
    groups: list[set[str]] = []
    for names in concats:
        touching = [group for group in groups if not group.isdisjoint(names)]
        groups = [group for group in groups if group not in touching]
        groups.append(set(names).union(*touching))
    result = {name: float(scale) for name, scale in scales.items()}
    for group in groups:
        result.update(dict.fromkeys(group, max(result[name] for name in group)))
    return result


def _is_fused_conv(graph: Graph, name: str) -> bool:
    if len(graph.consumers.get(name, ())) != 1:
        return False
    node = graph.producers.get(name)
    while node is not None and node.op_type in _FUSED_INTO_CONV:
        node = graph.producers.get(node.inputs[0])
    return node is not None and node.op_type in {"Conv", "ConvTranspose"}


def _weight_of(graph: Graph, node: Node) -> str | None:
    if node.op_type not in {"Conv", "ConvTranspose", "Gemm", "MatMul"}:
        return None
    name = node.inputs[1]
    tensor = graph.tensors.get(name)
    if name not in graph.constants or tensor is None or tensor.dtype != "float32":
        return None
    return name


def _weight_axis(graph: Graph, node: Node) -> int | None:
    """Find the axis of output channels: it differs by operator."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if node.attributes.get("group", 1) == 1 else None
    if node.op_type == "Gemm":
        return 0 if node.attributes.get("transB", 0) else 1
    dimensions = len(graph.tensors[node.inputs[1]].shape or ())
    return dimensions - 1 if dimensions > 1 else None


def _is_float32(graph: Graph, node: Node, index: int) -> bool:
    tensor = graph.tensors.get(node.inputs[index])
    return tensor is None or tensor.dtype == "float32"
