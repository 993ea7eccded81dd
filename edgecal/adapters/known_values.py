"""Values that a network holds before it runs, also behind nodes that move or cast them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgecal.adapters.onnx_errors import one_line
from edgecal.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Array = npt.NDArray[Any]

_STANDARD: Final = frozenset({"", "ai.onnx"})
_MOVES: Final = frozenset(
    {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast"}
)
_LONGEST_CHAIN: Final = 8


class KnownValues:
    """Initializers and constants of a network; more are added as its nodes are read in order."""

    def __init__(self, proto: onnx.ModelProto, path: Path) -> None:
        self._opsets = list(proto.opset_import)
        self._path = path
        self._tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
        self._arrays: dict[str, Array] = {}
        self._movers: dict[str, onnx.NodeProto] = {}

    def add(self, name: str, value: Array) -> None:
        """Know one more value."""
        self._arrays[name] = value

    def add_node(self, node: onnx.NodeProto) -> None:
        """Take notice of a node; most give nothing that is known."""
        if node.domain not in _STANDARD:
            return
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    self._tensors[node.output[0]] = attribute.t
                elif attribute.name in {"value_float", "value_floats"}:
                    value = onnx.helper.get_attribute_value(attribute)
                    self._arrays[node.output[0]] = np.asarray(value, np.float32)
                elif attribute.name in {"value_int", "value_ints"}:
                    value = onnx.helper.get_attribute_value(attribute)
                    self._arrays[node.output[0]] = np.asarray(value, np.int64)
        elif node.op_type in _MOVES:
            self._movers[node.output[0]] = node

    def moves_known(self, node: onnx.NodeProto) -> bool:
        """Tell whether this is a node that moves or casts a known value."""
        return node.output[0] in self._movers and self._chain(node.output[0]) is not None

    def get(self, name: str) -> Array | None:
        """Give a value, if it is known.

        Raises
        ------
        ModelError
            If a node on the way to it cannot be computed.
        """
        chain = self._chain(name)
        if chain is None:
            return None
        name, movers = chain
        value = self._held(name)
        for node in reversed(movers):
            feeds = {one: self._held(one) for one in node.input[1:] if one}
            value = self._evaluate(node, {node.input[0]: value, **feeds})
        return value

    def _chain(self, name: str) -> tuple[str, list[onnx.NodeProto]] | None:
        movers: list[onnx.NodeProto] = []
        while not self._holds(name):
            node = self._movers.get(name)
            if node is None or len(movers) == _LONGEST_CHAIN:
                return None
            if not all(self._holds(one) for one in node.input[1:] if one):
                return None
            movers.append(node)
            name = node.input[0]
        return name, movers

    def _holds(self, name: str) -> bool:
        return name in self._arrays or name in self._tensors

    def _held(self, name: str) -> Array:
        if name in self._arrays:
            return self._arrays[name]
        try:
            return np.asarray(numpy_helper.to_array(self._tensors[name]))
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(
                f"the values of constant {name!r} cannot be read: {one_line(error)}",
                where=str(self._path),
                remedy="export it again, or copy it again if it was transferred",
            ) from error

    def _evaluate(self, node: onnx.NodeProto, feeds: Mapping[str, Array]) -> Array:
        inputs = [onnx.ValueInfoProto(name=name) for name in feeds]
        graph = helper.make_graph(
            [node], "constant", inputs, [onnx.ValueInfoProto(name=node.output[0])]
        )
        model = helper.make_model(graph, opset_imports=self._opsets)
        try:
            outputs: Any = ReferenceEvaluator(model).run(None, dict(feeds))
            return np.asarray(outputs[0])
        except (ValueError, TypeError, IndexError, RuntimeError) as error:
            raise ModelError(
                f"node {node.name!r} cannot be computed: {one_line(error)}",
                where=str(self._path),
                remedy="export the network again",
            ) from error
