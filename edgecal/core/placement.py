"""Where quantize/dequantize pairs go so that a Q/DQ network computes what an INT8 engine would.

Checked against the parser and builder of TensorRT for RTX 1.7.1, which need no GPU: with these
places every Conv, Gemm and MatMul that has its scales reads INT8. ConvTranspose stays float there
in whatever form it comes. No engine of it has run on a device, and `dla` met no DLA at all.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from edgecal.core.graph import Graph, Node

Target = Literal["gpu", "dla"]
"""`gpu`: pairs where kernels read INT8. `dla`: on every tensor, since DLA wants all of them."""

_POOLS: Final = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"})
_CONVS: Final = frozenset({"Conv", "ConvTranspose"})
_PRODUCTS: Final = frozenset({"Gemm", "MatMul"})
_MOVED: Final = frozenset({"Identity", "Transpose"})
"""What exporters put between a weight and its reader, who gets it as it sees it."""
_ACTIVATIONS: Final = frozenset({"Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh", "HardSwish"}) | {
    "Elu",
    "HardSigmoid",
    "Mish",
    "PRelu",
    "Selu",
    "Softplus",
}
_GATES: Final = frozenset({"Sigmoid", "HardSigmoid"})
"""Times its own input, such a function makes SiLU or hard swish."""
_ELEMENTWISE: Final = frozenset({"Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "Pow"})
_SHAPES: Final = frozenset({"Shape", "Size"})
_STANDARD: Final = frozenset({"", "ai.onnx"})

_SMALLEST: Final = float(np.finfo(np.float32).tiny)
_LARGEST: Final = float(np.finfo(np.float32).max) / 128
"""Above it, dequantizing the step -128 gives infinity."""


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
    is_output: bool = False
    """Whether the network gives the dequantized values too, under the tensor's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightPair:
    """A constant to quantize per output channel; the bias stays float."""

    constant: str
    axis: int | None
    """`None` where no axis holds one output channel per index: then one scale for all of it."""
    edges: tuple[Edge, ...]
    order: tuple[int, ...] | None = None
    """The constant's axes as its readers see them, where Transposes lie between; then `axis`
    counts in this order."""


@dataclass(frozen=True, slots=True)
class Left:
    """An operator that stays in a wider type than was asked for, and why."""

    node: str
    op_type: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """All the pairs of a network, and what stays float; tensors and nodes in topological order."""

    activations: tuple[ActivationPair, ...]
    weights: tuple[WeightPair, ...]
    without_scale: tuple[str, ...]
    """Tensors that would be quantized if the cache had a usable entry for them."""
    unusable: tuple[str, ...] = ()
    """Tensors whose scale is zero, negative, denormal, NaN or so large that INT8 overflows."""
    unplaced: tuple[str, ...] = ()
    """Tensors of the network with a scale that no pair needs."""
    unknown: tuple[str, ...] = ()
    """Names with a scale that the network does not have."""
    left_float: tuple[Left, ...] = ()
    """Operators that INT8 kernels exist for, and that stay float."""
    left_float32: tuple[Left, ...] = ()
    """Operators that stay float32 in a network typed float16."""


def is_usable(scale: float) -> bool:
    """Tell whether INT8 with this scale is sound.

    TensorRT's parser refuses 0, negative numbers and NaN, and silently takes infinity and
    denormals, which no kernel could compute with (TensorRT for RTX 1.7.1).
    """
    return _SMALLEST <= scale <= _LARGEST


def place_pairs(
    graph: Graph, scales: Mapping[str, float], *, placement: Target = "gpu"
) -> Placement:
    """Decide which tensors and weights are quantized.

    For a GPU: before weighted operators and pools, on the branch of a residual Add that is not
    computed by a convolution, and before a Concat that is quantized anyway. For DLA: on every
    float tensor. A weighted operator that lacks a scale stays float whole. Only float32 tensors are
    quantized.
    """
    usable = {name: float(scale) for name, scale in scales.items() if is_usable(float(scale))}
    plan = _Plan(graph, usable)
    groups = plan.for_dla() if placement == "dla" else plan.for_gpu()
    shared = _share_largest({name: usable[name] for name in plan.wanted}, groups)
    order = {name: position for position, name in enumerate(_names(graph))}
    outputs = {tensor.name for tensor in graph.outputs} if placement == "dla" else set()
    outputs.difference_update(tensor.name for tensor in graph.inputs)
    return Placement(
        activations=tuple(
            ActivationPair(
                tensor=name,
                scale=shared[name],
                edges=tuple(sorted(plan.wanted[name], key=lambda edge: (edge.node, edge.input))),
                is_output=name in outputs,
            )
            for name in sorted(plan.wanted, key=order.__getitem__)
        ),
        weights=tuple(
            WeightPair(constant=name, order=moved, axis=axis, edges=tuple(edges))
            for (name, moved, axis), edges in plan.weights.items()
        ),
        without_scale=tuple(sorted(plan.missing, key=order.__getitem__)),
        unusable=tuple(name for name in scales if name not in usable),
        unplaced=tuple(name for name in usable if name in order and name not in plan.wanted),
        unknown=tuple(name for name in scales if name not in order),
        left_float=tuple(plan.left[position] for position in sorted(plan.left)),
    )


@dataclass(frozen=True, slots=True)
class _Weight:
    """A constant as an operator reads it."""

    constant: str
    order: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class _Use:
    """What an operator with an INT8 kernel reads: positions of activations, and of a weight."""

    activations: tuple[int, ...]
    weight: int | None = None
    obstacle: str = ""


class _Plan:
    """Collects what a placement wants; one pass over the nodes each."""

    def __init__(self, graph: Graph, scales: Mapping[str, float]) -> None:
        self._graph = graph
        self._scales = scales
        self._weights = _weights(graph)
        self._of_conv = _of_conv(graph)
        self._faults: dict[str, str] = {}
        self.wanted: dict[str, list[Edge]] = {}
        self.weights: dict[tuple[str, tuple[int, ...] | None, int | None], list[Edge]] = {}
        self.missing: set[str] = set()
        self.left: dict[int, Left] = {}

    def for_gpu(self) -> list[tuple[str, ...]]:
        """Fill in what kernels of a GPU read; gives the tensors that must share a scale."""
        for position, node in enumerate(self._graph.nodes):
            use = self._use(node)
            if use is not None and self._has_all(position, use):
                self._want(position, use.activations)
                self._quantize_weight(position, use)
        # backwards: a Concat is quantized for the sake of what reads it, another Concat too
        groups = []
        for position in range(len(self._graph.nodes) - 1, -1, -1):
            node = self._graph.nodes[position]
            if _is(node, "Concat") and node.outputs[0] in self.wanted:
                use = _Use(tuple(self._computed(node)))
                if self._has_all(position, use):
                    self._want(position, use.activations)
                    groups.append(tuple(node.inputs[index] for index in use.activations))
        return groups

    def for_dla(self) -> list[tuple[str, ...]]:
        """Fill in every float tensor; gives the tensors that must share a scale.

        DLA takes the larger of the ranges of an elementwise operator's inputs, and wants a pool to
        give what it reads (notes of `setDynamicRange` and its kin, TensorRT 10.16).
        """
        readers: dict[str, list[Edge]] = defaultdict(list)
        for position, node in enumerate(self._graph.nodes):
            for index, name in enumerate(node.inputs):
                readers[name].append(Edge(position, index))
        outputs = {tensor.name for tensor in self._graph.outputs}
        for name in _of_data(self._graph):
            if not self._is_float32(name) or not (name in readers or name in outputs):
                continue
            if name in self._scales:
                self.wanted[name] = readers[name]
            else:
                self.missing.add(name)
        groups = []
        for position, node in enumerate(self._graph.nodes):
            use = self._use(node)
            if use is not None and self._has_all(position, use):
                self._quantize_weight(position, use)
            tied: Iterable[str] = ()
            if _is(node, *_ELEMENTWISE, "Concat"):
                tied = node.inputs
            elif _is(node, *_POOLS):
                tied = (node.inputs[0], node.outputs[0])
            groups.append(tuple(name for name in tied if name in self.wanted))
        return groups

    def _use(self, node: Node) -> _Use | None:
        """Say what an INT8 kernel for this operator reads; `None` where there is none."""
        if _is(node, *_CONVS, *_PRODUCTS):
            return self._weighted(node)
        reads: tuple[int, ...] = ()
        if _is(node, *_POOLS):
            reads = self._computed(node)[:1]
        elif _is(node, "Add"):
            reads = tuple(self._residual(node))
        return _Use(reads) if reads else None

    def _weighted(self, node: Node) -> _Use | None:
        constants = [index for index in (0, 1) if node.inputs[index] in self._weights]
        if constants == [0, 1]:
            return None
        if node.op_type in _CONVS and constants != [1]:
            return _Use((), obstacle="its weights are computed while it runs")
        if not constants:
            return _Use((0, 1))
        return _Use((1 - constants[0],), constants[0], self._fault(node.inputs[constants[0]]))

    def _residual(self, node: Node) -> Iterator[int]:
        """Yield which inputs of an Add carry a pair.

        A convolution's own output goes into the Add at full precision, inside the fused layer. An
        Add without any convolution is left alone: that is the residual stream of a transformer,
        which loses much by INT8 and wins nothing.
        """
        if len(self._computed(node)) < len(node.inputs):
            return
        fused = [index for index in (0, 1) if _is_fused_conv(self._graph, node.inputs[index])]
        if fused or not self._of_conv.isdisjoint(node.inputs):
            yield from (index for index in (0, 1) if index not in fused[-1:])

    def _computed(self, node: Node) -> tuple[int, ...]:
        return tuple(
            index for index, name in enumerate(node.inputs) if name and name not in self._weights
        )

    def _has_all(self, position: int, use: _Use) -> bool:
        """Tell whether an operator can be quantized; if not, note why."""
        node = self._graph.nodes[position]
        names = [node.inputs[index] for index in use.activations]
        typed = [name for name in names if not self._is_float32(name)]
        absent = [name for name in names if name not in self._scales]
        why = use.obstacle
        if typed and not why:
            why = f"{typed[0]!r} is {self._graph.tensors[typed[0]].dtype}, not float32"
        if absent and not why:
            why = f"{absent[0]!r} has no usable scale"
            self.missing.update(absent)
        if why:
            self.left[position] = Left(node.name, node.op_type, why)
        return not why

    def _want(self, position: int, inputs: Iterable[int]) -> None:
        for index in inputs:
            name = self._graph.nodes[position].inputs[index]
            self.wanted.setdefault(name, []).append(Edge(position, index))

    def _quantize_weight(self, position: int, use: _Use) -> None:
        if use.weight is None:
            return
        node = self._graph.nodes[position]
        weight = self._weights[node.inputs[use.weight]]
        rank = len(self._graph.tensors[weight.constant].shape or ())
        key = (weight.constant, weight.order, _channel_axis(node, use.weight, rank))
        self.weights.setdefault(key, []).append(Edge(position, use.weight))

    def _fault(self, name: str) -> str:
        """Say why a weight cannot be quantized; looked at once, however many read it."""
        constant = self._weights[name].constant
        if constant not in self._faults:
            value = self._graph.constants[constant]
            what = ""
            if value.dtype != np.float32:
                what = f"is {value.dtype}, not float32"
            elif value.size == 0:
                what = "is empty"
            elif not np.isfinite(value).all():
                what = "holds NaN or infinity"
            self._faults[constant] = what and f"its weight {constant!r} {what}"
        return self._faults[constant]

    def _is_float32(self, name: str) -> bool:
        tensor = self._graph.tensors.get(name)
        return tensor is None or tensor.dtype == "float32"


def _names(graph: Graph) -> Iterator[str]:
    """Yield every tensor that is computed, in topological order."""
    names = [tensor.name for tensor in graph.inputs]
    names += [name for node in graph.nodes for name in node.outputs if name]
    yield from dict.fromkeys(names)


def _is(node: Node, *op_types: str) -> bool:
    return node.op_type in op_types and node.domain in _STANDARD


def _weights(graph: Graph) -> dict[str, _Weight]:
    """Map each constant, also as Identity and Transpose hand it on, to where its values lie."""
    found = {name: _Weight(name, None) for name in graph.constants}
    for node in graph.nodes:
        if not _is(node, *_MOVED) or node.inputs[0] not in found:
            continue
        before = found[node.inputs[0]]
        order = before.order
        if node.op_type == "Transpose":
            rank = len(graph.tensors[before.constant].shape or ())
            axes = before.order or tuple(range(rank))
            given = node.attributes.get("perm")
            moves = tuple(int(one) for one in given) if isinstance(given, tuple) else None
            order = tuple(axes[one] for one in moves or range(rank - 1, -1, -1))
        found[node.outputs[0]] = _Weight(before.constant, order)
    return found


def _channel_axis(node: Node, operand: int, rank: int) -> int | None:
    """Find the axis of output channels: it differs by operator, and by side of a product."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        # with groups, an index of axis 1 is one channel of every group
        return 1 if node.attributes.get("group", 1) == 1 else None
    if node.op_type == "Gemm":
        rows, columns = (0, 1) if operand == 0 else (1, 0)
        transposed = node.attributes.get("transA" if operand == 0 else "transB", 0)
        return columns if transposed else rows
    if rank < 2:
        return None
    return rank - 2 if operand == 0 else rank - 1


def _is_fused_conv(graph: Graph, name: str) -> bool:
    """Tell whether a tensor is what a convolution computes, for one reader only.

    Normalization and activation functions belong to it: the builder makes one kernel of them and
    the Add.
    """
    readers: tuple[Node, ...] = ()
    while True:
        node = graph.producers.get(name)
        read = graph.consumers.get(name, ())
        if node is None or (read != readers if readers else len(read) != 1):
            return False
        if _is(node, *_CONVS):
            return True
        readers = ()
        if _is(node, "Mul"):
            gated = _gated(graph, node)
            if gated is None:
                return False
            name, readers = gated
        elif _is(node, "BatchNormalization", *_ACTIVATIONS):
            name = node.inputs[0]
        else:
            return False


def _gated(graph: Graph, node: Node) -> tuple[str, tuple[Node, ...]] | None:
    """Take `x * sigmoid(x)` apart: x, and the two nodes that read it."""
    for own, other in ((0, 1), (1, 0)):
        gate = graph.producers.get(node.inputs[other])
        if gate is not None and _is(gate, *_GATES) and gate.inputs[0] == node.inputs[own]:
            return node.inputs[own], (gate, node)
    return None


def _of_conv(graph: Graph) -> set[str]:
    """Name the tensors behind a convolution, with nothing but pointwise functions between."""
    found: set[str] = set()
    for node in graph.nodes:
        gated = _gated(graph, node) if _is(node, "Mul") else None
        source = gated[0] if gated else node.inputs[0] if node.inputs else ""
        pointwise = gated or _is(node, "BatchNormalization", *_ACTIVATIONS)
        if _is(node, *_CONVS) or (pointwise and source in found):
            found.add(node.outputs[0])
    return found


def _of_data(graph: Graph) -> Iterator[str]:
    """Yield the tensors that hold samples or what became of them, in topological order.

    Sizes computed from Shape are float in some networks too; quantized they would be wrong.
    """
    found = {tensor.name for tensor in graph.inputs}
    yield from (tensor.name for tensor in graph.inputs)
    for node in graph.nodes:
        if node.op_type not in _SHAPES and not found.isdisjoint(node.inputs):
            names = [name for name in node.outputs if name]
            found.update(names)
            yield from names


def _share_largest(
    scales: Mapping[str, float], groups: Iterable[Sequence[str]]
) -> dict[str, float]:
    """Give all tensors of a group the largest scale; groups with a tensor in common are one."""
    leader = {name: name for name in scales}

    def find(name: str) -> str:
        while leader[name] != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    for names in groups:
        for name in names[1:]:
            leader[find(name)] = find(names[0])
    largest: dict[str, float] = {}
    for name, scale in scales.items():
        largest[find(name)] = max(largest.get(find(name), 0.0), scale)
    return {name: largest[find(name)] for name in scales}
