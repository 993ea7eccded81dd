"""What values tensors can have at most, whatever the data: by the operators that make them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from edgecal.core.tensors import RESHAPING

if TYPE_CHECKING:
    from edgecal.core.graph import Graph, Node

_BOUNDED_BY_ONE: Final = frozenset(
    {"Sigmoid", "HardSigmoid", "Softmax", "Tanh", "Softsign", "Erf", "Sin", "Cos"}
)
_WITHIN_INPUT: Final = RESHAPING | {
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "MaxPool",
    "Relu",
    "Slice",
    "Split",
}


def find_bounds(graph: Graph) -> dict[str, float]:
    """Give the largest magnitude of each tensor that has one by construction."""
    bounds: dict[str, float] = {}
    for node in graph.nodes:
        bound = math.inf
        if node.op_type in _BOUNDED_BY_ONE:
            bound = 1.0
        elif node.op_type == "Clip":
            bound = max((abs(end) for end in _clip_ends(node, graph)), default=math.inf)
        elif node.op_type in _WITHIN_INPUT:
            bound = bounds.get(node.inputs[0], math.inf)
        elif node.op_type == "Concat":
            bound = max(bounds.get(name, math.inf) for name in node.inputs)
        if 0 < bound < math.inf:
            bounds.update((name, bound) for name in node.outputs if name)
    return bounds


def _clip_ends(node: Node, graph: Graph) -> tuple[float, ...]:
    """Give both ends of a Clip; nothing where one is open or not known."""
    ends = []
    for index, word in ((1, "min"), (2, "max")):
        end: object = node.attributes.get(word)
        if len(node.inputs) > index and node.inputs[index] in graph.constants:
            value = graph.constants[node.inputs[index]]
            end = float(value.reshape(-1)[0]) if value.size == 1 else None
        if not isinstance(end, int | float) or not abs(end) < float(np.finfo(np.float32).max):
            return ()
        ends.append(float(end))
    return tuple(ends)
