"""A network as values: nodes, tensors, attributes. Nothing here knows the onnx package."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

Attribute = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]

FLOAT_TYPES = frozenset({"float32", "float16"})
"""Element types that TensorRT quantizes; bfloat16 and double have no INT8 path from ONNX."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """A tensor's declared type. A dimension that is not known before run time is `None`."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None = None

    @property
    def is_float(self) -> bool:
        """Tell whether TensorRT could give this tensor a scale."""
        return self.dtype in FLOAT_TYPES


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operator. An absent optional input or output is the empty string."""

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    domain: str = ""
    has_subgraph: bool = False


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A network in topological order, as its file gives it."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    nodes: tuple[Node, ...]
    tensors: Mapping[str, TensorInfo]
    """Every tensor whose element type is known: inputs, outputs, initializers, activations."""
    constants: Mapping[str, npt.NDArray[np.generic]]
    """Values known before run time: initializers and the outputs of Constant nodes."""
    opset: int

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """Map each tensor to the node that computes it."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """Map each tensor to the nodes that read it, in order."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                if name:
                    found.setdefault(name, []).append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}
