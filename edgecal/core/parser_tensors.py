"""Tensors that TensorRT's ONNX parser makes beside the network's own: whose they are, and what for.

Up to TensorRT 8.x they are called `(Unnamed Layer* 8) [Constant]_output`, with the index of the
layer; such a name tells its type, and the table's order, which is topological there, tells the
neighbours. From 10.x on a layer's name stands in it: `fc_output`, `fc.weight_output`,
`ONNXTRT_Broadcast_4_output`. The latter forms were read off tables of 10.1 to 10.14 and off the
parser of TensorRT for RTX 1.7.1; the former off tables of 5.1 to 8.5 whose networks are public.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from edgecal.core.graph import Graph, Node

_UNNAMED: Final = re.compile(
    r"\(Unnamed Layer\* [0-9]+\) \[(?P<type>[^\]]+)\]_output(?:_[0-9]+| \([0-9]+\))?"
)
_PARSERS_OWN: Final = re.compile(r"ONNXTRT_(?P<what>[A-Za-z]+)(?:_(?P<number>[0-9]+))?")
_FURTHER_OUTPUT: Final = re.compile(r" \([0-9]+\)")
_NUMBERED: Final = re.compile(r"_[0-9]+\Z")
_NODE_OF: Final = "node_of_"
"""How the parser calls a node without a name, ahead of its first output."""

_OPERANDS: Final = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean"}) | {
    "PRelu",
    "Where",
    "Equal",
    "Greater",
    "Less",
}
_SOFTMAX: Final = frozenset({"Softmax", "LogSoftmax", "Hardmax"})
_NORMS: Final = frozenset({"InstanceNormalization", "LayerNormalization", "GroupNormalization"})
_REDUCED_BY_MANY: Final = frozenset({"ReduceL1", "ReduceL2", "ReduceLogSum"}) | {
    "ReduceLogSumExp",
    "ReduceSumSquare",
}
_RECURRENT: Final = frozenset({"RNN", "LSTM", "GRU"})
_COMPOSED: Final = frozenset({"HardSwish", "Gelu", "Mish", "Celu", "Shrink", "Swish"})
_FLAT: Final = frozenset({"Conv", "ConvTranspose", "BatchNormalization", "MaxPool", "AveragePool"})
"""Layers of two or three dimensions: the parser reshapes around those of one."""

_MAKERS: Final[Mapping[str, frozenset[str]]] = {
    "Constant": _OPERANDS | _NORMS | {"Gemm", "MatMul", "Concat", "Gather", "Einsum"},
    "Shuffle": _OPERANDS | _SOFTMAX | _NORMS | _FLAT | _RECURRENT
    | {"Gemm", "MatMul", "DepthToSpace", "SpaceToDepth", "Einsum", "Resize", "Upsample"},
    "Matrix Multiply": frozenset({"Gemm", "MatMul", "Einsum"}) | _RECURRENT,
    "Fully Connected": frozenset({"Gemm", "MatMul"}),
    "ElementWise": _OPERANDS | _NORMS | _COMPOSED | _REDUCED_BY_MANY | _RECURRENT
    | {"Gemm", "Softplus", "Selu", "Clip"},
    "Activation": _COMPOSED | _RECURRENT | {"Clip"},
    "Unary": _NORMS | _REDUCED_BY_MANY | _COMPOSED | {"LogSoftmax"},
    "Reduce": _NORMS | _REDUCED_BY_MANY,
    "Softmax": _SOFTMAX,
    "Ragged SoftMax": _SOFTMAX,
    "TopK": frozenset({"ArgMax", "ArgMin", "TopK", "Hardmax"}),
    "Pooling": frozenset({"AveragePool", "MaxPool", "GlobalAveragePool", "LRN"}),
    "Padding": frozenset({"Conv", "ConvTranspose", "AveragePool", "MaxPool", "Pad"}),
    "Convolution": frozenset({"Conv"}),
    "Deconvolution": frozenset({"ConvTranspose"}),
    "Scale": _NORMS | _FLAT | _OPERANDS | {"Gemm"},
    "Slice": _RECURRENT | {"Split", "Pad", "Slice"},
    "Concatenation": _RECURRENT | {"Pad", "Concat"},
    "Gather": _RECURRENT | {"Gather"},
    "Resize": frozenset({"Resize", "Upsample"}),
    "RNN": _RECURRENT,
    "Broadcast": _OPERANDS | {"Gemm", "MatMul", "LayerNormalization"},
    "ShapeShuffle": _SOFTMAX,
    "squeezeTensor": _FLAT | {"ArgMax", "ArgMin", "TopK"},
    "unsqueezeTensor": _FLAT | {"InstanceNormalization", "GroupNormalization", "TopK"},
}  # fmt: skip
"""Which operators the parser makes such a layer of, beside the one that has the ONNX name."""

_SLOTS: Final[Mapping[tuple[str, int], str]] = {
    ("Gemm", 1): "weight constant",
    ("Gemm", 2): "bias constant",
    ("MatMul", 1): "weight constant",
    ("PRelu", 1): "slope constant",
    ("LayerNormalization", 1): "scale constant",
    ("LayerNormalization", 2): "bias constant",
    ("InstanceNormalization", 1): "scale constant",
    ("InstanceNormalization", 2): "bias constant",
}
_WORDS: Final[Mapping[str, str]] = {
    "ShapeShuffle": "reshape",
    "castHelper": "cast",
    "squeezeTensor": "squeeze",
    "unsqueezeTensor": "unsqueeze",
    "convertToScalar": "reshape to a scalar",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Helper:
    """An entry that the parser's naming explains."""

    name: str
    node: str | None
    """`None` where neither the name nor its neighbours tell: several nodes could be meant."""
    role: str


def find_helpers(names: Sequence[str], graph: Graph) -> tuple[Helper, ...]:
    """Say of each entry that is no tensor of the network, but of the parser, where it belongs.

    Parameters
    ----------
    names
        All entries of the cache, in file order.
    """
    finder = _Finder(graph)
    strangers = [name for name in names if not finder.is_own(name)]
    found = {name: helper for name in strangers if (helper := finder.by_name(name)) is not None}
    made = [name for name in strangers if name not in found and finder.layer_type(name)]
    found.update(finder.broadcasts(made))
    found.update(finder.by_neighbours([name for name in made if name not in found], names))
    return tuple(found[name] for name in strangers if name in found)


def constant_role(graph: Graph, constant: str) -> tuple[str | None, str]:
    """Name the first node that reads a constant, and what the constant is to it."""
    for node in graph.consumers.get(constant, ()):
        return node.name, _slot(node, node.inputs.index(constant))
    return None, "constant"


class _Finder:
    """Indexes of one network, so that thousands of names take no longer than they must."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._position = {
            name: position
            for position, node in enumerate(graph.nodes)
            for name in node.outputs
            if name
        }
        self._position.update((tensor.name, -1) for tensor in graph.inputs)
        named = Counter(node.name for node in graph.nodes)
        self._nodes = {node.name: node for node in graph.nodes if named[node.name] == 1}
        self._makers: dict[str, list[int]] = {}

    def is_own(self, name: str) -> bool:
        return name in self._position or name in self._graph.tensors

    def layer_type(self, name: str) -> str:
        """Give the type of layer, or the parser's own word, that a name tells; else nothing."""
        if unnamed := _UNNAMED.fullmatch(name):
            return unnamed["type"]
        layer = _layer(name)
        own = _PARSERS_OWN.fullmatch(layer) if layer else None
        return own["what"] if own else ""

    def by_name(self, name: str) -> Helper | None:
        layer = _layer(name)
        if not layer:
            return None
        if layer in self._graph.constants:
            node, role = constant_role(self._graph, layer)
            return Helper(name=name, node=node, role=role)
        bare = _NUMBERED.sub("", layer)
        for candidate in (layer, bare):
            found = self._nodes.get(candidate)
            if found is None and candidate.startswith(_NODE_OF):
                found = self._graph.producers.get(candidate.removeprefix(_NODE_OF))
            if found is not None:
                role = _named_role(found) if candidate == layer else _within(found)
                return Helper(name=name, node=found.name, role=role)
        return None

    def broadcasts(self, made: Iterable[str]) -> dict[str, Helper]:
        """Tell broadcasts apart by their numbers, if as many are there as the ranks call for."""
        numbered = []
        for name in made:
            match = _PARSERS_OWN.fullmatch(_layer(name))
            if match is not None and match["what"] == "Broadcast":
                numbered.append((int((match["number"] or "-1")[:18]), name))
        expected = _broadcasts(self._graph)
        if not numbered or expected is None or len(expected) != len(numbered):
            return {}
        return {
            name: Helper(name=name, node=node.name, role=self._broadcast_role(node, operand))
            for (_, name), (node, operand) in zip(sorted(numbered), expected, strict=True)
        }

    def _broadcast_role(self, node: Node, operand: str) -> str:
        if operand in self._graph.constants:
            return f"reshaped {_slot(node, node.inputs.index(operand))}"
        return "reshaped operand"

    def by_neighbours(self, made: Sequence[str], names: Sequence[str]) -> dict[str, Helper]:
        """Place entries between the network's own ones that surround them in the file.

        The parser makes helpers ahead of the tensor that has the ONNX name, so they belong to a
        node after the own entry before them, and up to the own entry after them.
        """
        wanted = set(made)
        before: dict[str, int] = {}
        after: dict[str, int] = {}
        place = -1
        for name in names:
            place = self._position.get(name, place)
            if name in wanted:
                before[name] = place
        place = len(self._graph.nodes) - 1
        for name in reversed(names):
            place = self._position.get(name, place)
            if name in wanted:
                after[name] = place
        owners = {name: self._only_maker(name, before[name], after[name]) for name in made}
        return dict(self._with_roles(made, owners))

    def _only_maker(self, name: str, after: int, up_to: int) -> Node | None:
        kind = self.layer_type(name)
        if kind not in self._makers:
            self._makers[kind] = [
                position
                for position, node in enumerate(self._graph.nodes)
                if _can_make(self._graph, node, kind)
            ]
        makers = self._makers[kind]
        first, end = bisect_right(makers, after), bisect_right(makers, up_to)
        return self._graph.nodes[makers[first]] if end - first == 1 else None

    def _with_roles(
        self, made: Sequence[str], owners: Mapping[str, Node | None]
    ) -> Iterable[tuple[str, Helper]]:
        constants = Counter(
            node.name
            for name, node in owners.items()
            if node is not None and self.layer_type(name) == "Constant"
        )
        used: Counter[str] = Counter()
        for name in made:
            node, kind = owners[name], self.layer_type(name)
            role = _WORDS.get(kind, kind.lower())
            if node is not None and kind == "Constant":
                slots = [
                    index
                    for index, operand in enumerate(node.inputs)
                    if operand in self._graph.constants
                ]
                if len(slots) == constants[node.name]:
                    role = _slot(node, slots[used[node.name]])
                used[node.name] += 1
            elif node is not None and kind == "Shuffle":
                role = "reshaped constant" if used[node.name] else "reshape"
            elif node is not None and kind == "TopK":
                role = "indices" if name.endswith(("_1", " (1)")) else "values"
            elif node is not None and kind == "Softmax":
                role = "softmax between reshapes"
            yield name, Helper(name=name, node=node.name if node else None, role=role)


def _layer(name: str) -> str:
    """Give the layer's name in `<layer>_output`, or nothing.

    Why no `_output_1`: exporters of PyTorch call their own tensors so, and an entry of an earlier
    export would pass for one of the parser's.
    """
    layer, _, tail = name.rpartition("_output")
    return layer if not tail or _FURTHER_OUTPUT.fullmatch(tail) else ""


def _slot(node: Node, index: int) -> str:
    return _SLOTS.get((node.op_type, index), "constant operand")


def _named_role(node: Node) -> str:
    if node.op_type == "Gemm":
        return "matrix multiply"
    if node.op_type in _SOFTMAX:
        return "softmax between reshapes"
    if node.op_type in {"ArgMax", "ArgMin"}:
        return "values and indices"
    return _within(node)


def _within(node: Node) -> str:
    return f"layer within {node.op_type}"


def _can_make(graph: Graph, node: Node, kind: str) -> bool:
    if kind.startswith("Plugin"):
        return node.op_type in _NORMS or node.domain not in {"", "ai.onnx"}
    return (
        node.op_type in _MAKERS.get(kind, ())
        and _may_hold_floats(graph, node)
        and _calls_for(graph, node, kind)
    )


def _calls_for(graph: Graph, node: Node, kind: str) -> bool:
    """Look at the operands: most operators make a further layer only for some of them."""
    ranks = [_rank(graph, name) for name in node.inputs if name]
    constant = any(name in graph.constants for name in node.inputs)
    if kind == "Constant":
        return constant or node.op_type == "Gemm"
    if kind in {"Shuffle", "Scale", "Broadcast"} and node.op_type in _OPERANDS:
        return constant or None in ranks or len(set(ranks)) > 1
    if kind != "Padding" and node.op_type in _FLAT:
        return bool(ranks) and ranks[0] in {None, 2, 3}
    if kind == "ElementWise" and node.op_type in _OPERANDS:
        return len(node.inputs) > 2
    if kind == "Matrix Multiply" and node.op_type == "MatMul":
        return None in ranks or 1 in ranks
    return True


def _may_hold_floats(graph: Graph, node: Node) -> bool:
    return any(
        (tensor := graph.tensors.get(name)) is None or tensor.is_float
        for name in node.inputs
        if name
    )


def _rank(graph: Graph, name: str) -> int | None:
    tensor = graph.tensors.get(name)
    return None if tensor is None or tensor.shape is None else len(tensor.shape)


def _broadcasts(graph: Graph) -> list[tuple[Node, str]] | None:
    """List what has to be brought to a higher rank, in order; `None` if a rank is unknown."""
    found: list[tuple[Node, str]] = []
    for node in graph.nodes:
        operands = _broadcast_operands(node)
        if not operands or not _may_hold_floats(graph, node):
            continue
        ranks = {name: _rank(graph, name) for name in operands}
        known = [rank for rank in ranks.values() if rank is not None]
        if len(known) < len(ranks):
            return None
        highest = max(known, default=0)
        if node.op_type == "Gemm":
            highest, operands = 2, operands[2:]
        for name in operands:
            tensor = graph.tensors[name]
            if (ranks[name] or 0) < highest and tensor.is_float:
                found.append((node, name))
    return found


def _broadcast_operands(node: Node) -> tuple[str, ...]:
    if node.op_type in _OPERANDS or node.op_type in {"Gemm", "MatMul", "LayerNormalization"}:
        return tuple(name for name in node.inputs if name)
    return ()
