"""Which tensors' histograms follow from another tensor's values, so that few need be looked at.

Only what gives the same bits as looking at the tensor itself: operators that move values about,
and those that cut them off. A MaxPool takes other numbers of each value, so it is looked at, though
TensorRT copies its scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from edgecal.core.histogram import UNCLAMPED, Clamp
from edgecal.core.sweep import MOST_GRIDS
from edgecal.core.tensors import activations

if TYPE_CHECKING:
    from edgecal.core.graph import Graph, Node

_MOVES: Final = frozenset(
    {"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Dropout"}
)
"""Whose output holds the input's values, each as often, in another shape or order."""
_LARGEST: Final = float(np.finfo(np.float32).max)
_RELU: Final = Clamp(low=0.0)
_DROPOUT_ALWAYS_KEEPS: Final = 7
"""Opset from which Dropout does nothing unless an input tells it to train."""


@dataclass(frozen=True, slots=True)
class View:
    """A tensor as another tensor's values, moved about and clamped."""

    source: str
    clamp: Clamp = UNCLAMPED


def views(graph: Graph) -> dict[str, View]:
    """Say of every activation, in their order, whose values show it; most show themselves."""
    found: dict[str, View] = {}
    clamps: dict[str, set[Clamp]] = {}
    for name in activations(graph):
        view = _derived(graph, name, found) or View(name)
        of_source = clamps.setdefault(view.source, set())
        if view.clamp not in of_source and len(of_source) == MOST_GRIDS:
            view = View(name)
            of_source = clamps.setdefault(name, set())
        of_source.add(view.clamp)
        found[name] = view
    return found


def _derived(graph: Graph, name: str, found: dict[str, View]) -> View | None:
    node = graph.producers.get(name)
    if node is None or node.domain not in {"", "ai.onnx"} or not node.inputs:
        return None
    before = found.get(node.inputs[0])
    clamp = _clamp(graph, node)
    if before is None or clamp is None:
        return None
    return View(before.source, before.clamp.then(clamp))


def _clamp(graph: Graph, node: Node) -> Clamp | None:
    if node.op_type in _MOVES:
        may_drop = node.op_type == "Dropout" and (
            graph.opset < _DROPOUT_ALWAYS_KEEPS or any(node.inputs[2:])
        )
        return None if may_drop else UNCLAMPED
    if node.op_type == "Relu":
        return _RELU
    if node.op_type != "Clip":
        return None
    low, high = _bound(graph, node, 1, "min"), _bound(graph, node, 2, "max")
    # a Clip without a bound still cuts off infinity
    clamp = Clamp(-_LARGEST if low is None else low, _LARGEST if high is None else high)
    return clamp if -_LARGEST <= clamp.low <= clamp.high <= _LARGEST else None


def _bound(graph: Graph, node: Node, position: int, attribute: str) -> float | None:
    """Give a bound of Clip, NaN if it is known at run time only; nothing where it has none."""
    if attribute in node.attributes:  # up to opset 10
        given = node.attributes[attribute]
        return float(given) if isinstance(given, float) else np.nan
    name = node.inputs[position] if position < len(node.inputs) else ""
    if not name:
        return None
    value = graph.constants.get(name)
    return float(value.item()) if value is not None and value.size == 1 else np.nan
