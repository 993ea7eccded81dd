"""Writes a network with quantize/dequantize pairs: what the host simulates and a target may run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from edgecal.adapters.float32 import in_float32, restore_edges
from edgecal.adapters.onnx_model import OnnxModel, raise_opset
from edgecal.adapters.onnx_outline import copy_without
from edgecal.core.placement import Left, Placement, Target, place_pairs
from edgecal.core.quant import STEPS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edgecal.core.graph import Graph
    from edgecal.core.placement import ActivationPair, WeightPair

FIRST_PER_CHANNEL_OPSET: Final = 13
_FIRST_FLOAT16_SCALE_OPSET: Final = 19
_IR_OF_OPSET: Final = {FIRST_PER_CHANNEL_OPSET: 7, _FIRST_FLOAT16_SCALE_OPSET: 9}
_STANDARD: Final = frozenset({"", "ai.onnx"})

_FLOAT: Final = onnx.TensorProto.FLOAT
_HALF: Final = onnx.TensorProto.FLOAT16
_LARGEST_HALF: Final = float(np.finfo(np.float16).max)
_SMALLEST_HALF: Final = float(np.finfo(np.float16).tiny)

_HALF_TYPE: Final = "tensor(float16)"
_PAIR: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})
_SOURCES: Final = frozenset({"EyeLike", "RandomNormalLike", "RandomUniformLike", "Bernoulli"})
"""Whose result is of a type that they name, whatever type they read."""


def write_qdq(
    model: OnnxModel,
    scales: Mapping[str, float],
    *,
    placement: Target = "gpu",
    fp16: bool = False,
) -> tuple[bytes, Placement]:
    """Make the INT8 network that these scales describe.

    Activations get one pair each, INT8, symmetric, zero point 0; constant weights one scale per
    output channel, stored as INT8; biases stay float. Inputs and outputs keep names and types; what
    is float16 between them becomes float32.

    Parameters
    ----------
    scales
        Real units per INT8 step, by tensor.
    fp16
        Type float16 what is float32, so that an engine of a strongly typed network (TensorRT 11)
        computes in FP16 what it does not compute in INT8. Operators whose values or constants
        float16 cannot hold stay float32, and are reported.

        ONNX Runtime (1.31) cannot fuse such pairs around a Concat: there it wants
        `session.disable_quant_qdq`.

    Returns
    -------
    bytes
        The ONNX file, self-contained.
    Placement
        What was quantized, and what was not and why.

    Raises
    ------
    ModelError
        If the network has an operator that no opset with such pairs has.
    """
    opset = _FIRST_FLOAT16_SCALE_OPSET if fp16 else FIRST_PER_CHANNEL_OPSET
    given = model.proto
    model = raise_opset(in_float32(model), opset)
    placed = place_pairs(model.graph, scales, placement=placement)
    proto = _without_weights(model.proto)
    # before 4 an initializer had to be an input too, and ours are none
    proto.ir_version = max(proto.ir_version, _IR_OF_OPSET[opset])
    writer = _Writer(proto, _taken_names(model.proto))
    writer.quantize(model, placed)
    if fp16:
        halves = _Halves(writer, model.graph, scales)
        placed = replace(placed, left_float32=halves.type_nodes())
    writer.keep_used(model.proto.graph.initializer)
    restore_edges(proto, given)
    return proto.SerializeToString(), placed


def write_simulation(model: OnnxModel, placed: Placement) -> tuple[bytes, dict[str, str]]:
    """Make the INT8 network of a placement, with the scales of activations as further inputs.

    It gives the same bits as with these scales inside, and needs to be loaded only once for all.

    Parameters
    ----------
    model
        In float32, of an opset that has scales per channel.

    Returns
    -------
    bytes
        The ONNX file.
    dict of str
        The input of each tensor's scale.
    """
    proto = _without_weights(model.proto)
    proto.ir_version = max(proto.ir_version, _IR_OF_OPSET[FIRST_PER_CHANNEL_OPSET])
    writer = _Writer(proto, _taken_names(model.proto), fed=True)
    writer.quantize(model, placed)
    writer.keep_used(model.proto.graph.initializer)
    return proto.SerializeToString(), writer.scales


def _without_weights(source: onnx.ModelProto) -> onnx.ModelProto:
    """Copy all but the initializers, most of which an INT8 network does not need."""
    proto = copy_without(source, {"initializer"})
    weights = {tensor.name for tensor in source.graph.initializer}
    # an initializer that is an input too could be fed something else
    inputs = [value for value in source.graph.input if value.name not in weights]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    return proto


def _taken_names(proto: onnx.ModelProto) -> set[str]:
    graph = proto.graph
    names = {name for node in graph.node for name in (*node.input, *node.output, node.name)}
    for part in (graph.input, graph.output, graph.value_info, graph.initializer):
        names.update(one.name for one in part)
    names.update(one.values.name for one in graph.sparse_initializer)
    return names


class _Writer:
    """The network in the making: its nodes in order, and names that it does not have yet."""

    def __init__(self, proto: onnx.ModelProto, taken: set[str], *, fed: bool = False) -> None:
        self.proto = proto
        self.scales: dict[str, str] = {}
        """Where the scale of each activation is read from."""
        self._taken = taken
        self._fed = fed
        self._numbers: dict[str, int] = {}

    def name(self, wanted: str) -> str:
        """Give a name that nothing in the network has."""
        name = wanted
        while name in self._taken:
            number = self._numbers[wanted] = self._numbers.get(wanted, 0) + 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name

    def constant(self, wanted: str, value: npt.NDArray[Any]) -> str:
        """Add an initializer."""
        name = self.name(wanted)
        self.proto.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def node(
        self, op_type: str, inputs: list[str], output: str, **attributes: int
    ) -> onnx.NodeProto:
        """Make a node, named after its output."""
        node = helper.make_node(op_type, inputs, [output], self.name(f"{output}_{op_type}"))
        node.attribute.extend(helper.make_attribute(*one) for one in attributes.items())
        return node

    def set_nodes(self, nodes: Iterable[onnx.NodeProto]) -> None:
        """Replace all nodes."""
        made = list(nodes)
        del self.proto.graph.node[:]
        self.proto.graph.node.extend(made)

    def quantize(self, model: OnnxModel, placed: Placement) -> None:
        """Put in the pairs."""
        rewired: dict[tuple[int, int], str] = {}
        renamed: dict[str, str] = {}
        pairs: dict[str, list[onnx.NodeProto]] = {}
        for pair in placed.activations:
            source = pair.tensor
            if pair.is_output:
                source = renamed[pair.tensor] = self.name(f"{pair.tensor}_float")
            output, pairs[pair.tensor] = self._pair(pair, source)
            rewired.update({(edge.node, edge.input): output for edge in pair.edges})
        nodes: list[onnx.NodeProto] = []
        for weight in placed.weights:
            value = np.asarray(model.graph.constants[weight.constant], np.float32)
            output, node = self._weight(weight, value)
            nodes.append(node)
            rewired.update({(edge.node, edge.input): output for edge in weight.edges})
        for value_info in self.proto.graph.input:
            nodes += pairs.get(value_info.name, [])
        for position, node in enumerate(self.proto.graph.node):
            for index, name in enumerate(node.input):
                node.input[index] = rewired.get((position, index), name)
            nodes.append(node)
            for index, name in enumerate(node.output):
                node.output[index] = renamed.get(name, name)
                nodes += pairs.get(name, [])
        self.set_nodes(nodes)

    def _pair(self, pair: ActivationPair, source: str) -> tuple[str, list[onnx.NodeProto]]:
        tensor = pair.tensor
        scale = self.scales[tensor] = self._scale(pair)
        zero = self.constant(f"{tensor}_zero_point", np.asarray(0, np.int8))
        quantized = self.name(f"{tensor}_quantized")
        output = tensor if pair.is_output else self.name(f"{tensor}_dequantized")
        return output, [
            self.node("QuantizeLinear", [source, scale, zero], quantized),
            self.node("DequantizeLinear", [quantized, scale, zero], output),
        ]

    def _scale(self, pair: ActivationPair) -> str:
        wanted = f"{pair.tensor}_scale"
        if not self._fed:
            return self.constant(wanted, np.asarray(pair.scale, np.float32))
        name = self.name(wanted)
        self.proto.graph.input.append(helper.make_tensor_value_info(name, _FLOAT, []))
        return name

    def _weight(
        self, pair: WeightPair, value: npt.NDArray[np.float32]
    ) -> tuple[str, onnx.NodeProto]:
        if pair.order is not None:
            value = np.transpose(value, pair.order)
        others = tuple(one for one in range(value.ndim) if one != pair.axis)
        amax = np.abs(value).max(axis=others if pair.axis is not None else None, keepdims=True)
        scale = (amax / np.float32(STEPS)).astype(np.float32)
        # a channel of zeros, or of next to nothing, is zero at any scale; it must only be sound
        scale = np.where(scale >= np.finfo(np.float32).tiny, scale, np.float32(1))
        steps = np.clip(np.rint(value / scale), -STEPS, STEPS).astype(np.int8)
        flat: Any = scale.reshape(-1) if pair.axis is not None else scale.reshape(())
        name = pair.constant
        inputs = [
            self.constant(f"{name}_quantized", steps),
            self.constant(f"{name}_scale", flat),
            self.constant(f"{name}_zero_point", np.zeros(flat.shape, np.int8)),
        ]
        output = self.name(f"{name}_dequantized")
        attributes = {} if pair.axis is None else {"axis": pair.axis}
        return output, self.node("DequantizeLinear", inputs, output, **attributes)

    def keep_used(self, weights: Iterable[onnx.TensorProto]) -> None:
        """Add those of the network's own weights that are still read; drop what nothing reads."""
        graph = self.proto.graph
        used = {value.name for value in graph.output}
        kept: list[onnx.NodeProto] = []
        for node in reversed(graph.node):
            moved = node.op_type in {"Constant", "Identity", "Transpose"}
            if moved and node.domain in _STANDARD and used.isdisjoint(node.output):
                continue  # a weight that is stored as INT8 now passed here
            used.update(node.input)
            kept.append(node)
        if len(kept) < len(graph.node):
            self.set_nodes(reversed(kept))
        made = [tensor for tensor in graph.initializer if tensor.name in used]
        del graph.initializer[:]
        graph.initializer.extend(made)
        graph.initializer.extend(tensor for tensor in weights if tensor.name in used)


class _Halves:
    """Types a Q/DQ network float16.

    Why not `convert_float_to_float16` of ONNX Runtime: it clips weights to 1e-7 and 1e4 without a
    word, leaves out operators for the sake of its own kernels, knows no scales, and gives new
    tensors names that the network may have.
    """

    def __init__(self, writer: _Writer, graph: Graph, scales: Mapping[str, float]) -> None:
        self._writer = writer
        self._graph = graph
        self._nodes = list(writer.proto.graph.node)
        self._made = {tensor.name: tensor for tensor in writer.proto.graph.initializer}
        self._floats = {name for name, one in graph.tensors.items() if one.dtype == "float32"}
        self._known = self._floats | set(graph.tensors)
        self._outputs = {tensor.name for tensor in graph.outputs}
        self._reach = {name: (STEPS + 1) * abs(float(scale)) for name, scale in scales.items()}
        self._wide = {name for name, most in self._reach.items() if most > _LARGEST_HALF}
        self._origins: dict[str, str] = {}
        for node in self._nodes:  # what is computed between pairs has no type in the graph
            if node.op_type == "QuantizeLinear":
                self._floats.update(node.input[:2])
                self._origins[node.output[0]] = node.input[0]
            elif node.op_type == "DequantizeLinear":
                self._floats.update((node.input[1], node.output[0]))
                if self._origins.get(node.input[0]) in self._wide:
                    self._wide.add(node.output[0])
                    self._reach[node.output[0]] = self._reach[self._origins[node.input[0]]]
        self._known |= self._floats
        self._names: dict[tuple[str, int], str] = {}
        """What a float tensor is called in each type it is there in."""

    def type_nodes(self) -> tuple[Left, ...]:
        """Rewrite the network; gives the operators that stay float32."""
        left: list[Left] = []
        halves: list[frozenset[int]] = []
        for position, node in enumerate(self._nodes):
            inputs, reason = self._decide(node)
            halves.append(inputs)
            if reason:
                left.append(Left(node.name or f"{node.op_type}_{position}", node.op_type, reason))
        self._decide_pairs(halves)
        made: list[onnx.NodeProto] = []
        for node, inputs in zip(self._nodes, halves, strict=True):
            given = self._half_outputs(node, inputs)
            for index, name in enumerate(node.input):
                if name in self._floats:
                    node.input[index] = self._read(name, _HALF if index in inputs else _FLOAT, made)
            made.append(node)
            for index in given:
                name = inner = node.output[index]
                if name in self._outputs:
                    inner = node.output[index] = self._writer.name(f"{name}_half")
                    made.append(self._writer.node("Cast", [inner], name, to=_FLOAT))
                    self._names[name, _FLOAT] = name
                self._names[name, _HALF] = inner
        self._writer.set_nodes(made)
        for value in self._writer.proto.graph.value_info:
            if self._names.get((value.name, _HALF)) == value.name:
                value.type.tensor_type.elem_type = _HALF
        return tuple(left)

    def _decide(self, node: onnx.NodeProto) -> tuple[frozenset[int], str]:
        """Say which inputs of a node are to be float16, or why none may be."""
        floats = [index for index, name in enumerate(node.input) if name in self._floats]
        inputs: frozenset[int] = frozenset()
        if node.op_type in _PAIR or not floats:
            return inputs, ""
        schema = _schema(node, self._graph.opset)
        if schema is not None and node.op_type not in _SOURCES:
            inputs = frozenset(
                index for index in floats if _HALF_TYPE in _formal(schema.inputs, index).types
            )
        names = [name for name in (*node.input, *node.output) if name]
        most, reason = self._constants_reason(node, floats)
        if most > _LARGEST_HALF:  # and so may its results be, of which nothing else is known
            self._wide.update(name for name in node.output if name not in self._reach)
        wide = next((name for name in names if name in self._wide), None)
        unknown = next((name for name in names if name not in self._known), None)
        if not inputs:
            reason = "it has no float16 form"
        elif unknown is not None:
            reason = f"the type of {unknown!r} is not known"
        elif wide is not None and not reason:
            reach = f"reaches {self._reach[wide]:.3g}" if wide in self._reach else "may reach more"
            reason = f"{wide!r} {reach}, float16 ends at {_LARGEST_HALF:.0f}"
        return (frozenset(), reason) if reason else (inputs, "")

    def _constants_reason(self, node: onnx.NodeProto, floats: Iterable[int]) -> tuple[float, str]:
        """Give the largest value of a node's constants, and why float16 cannot hold them."""
        largest, reason = 0.0, ""
        for name in (node.input[index] for index in floats):
            if name not in self._graph.constants:
                continue
            value = np.asarray(self._graph.constants[name], np.float32)
            most = float(np.abs(value).max(initial=0, where=np.isfinite(value)))
            largest = max(largest, most)
            if most > _LARGEST_HALF:
                reason = f"its constant {name!r} holds {most:.3g}, float16 ends at 65504"
            elif most > 0 and np.float16(most) == 0:
                reason = f"its constant {name!r} is {most:.3g}, which is 0 in float16"
        return largest, reason

    def _decide_pairs(self, halves: list[frozenset[int]]) -> None:
        """Type each pair float16 if all that read it are.

        A scale that is no normal number of float16 would lose bits or become 0: its pair stays
        float32 with Casts around, as does one that a float32 operator reads. TensorRT for RTX 1.7.1
        runs INT8 kernels behind a Cast to float16, and none behind a Cast to float32.
        """
        readers: dict[str, list[bool]] = {}
        for node, inputs in zip(self._nodes, halves, strict=True):
            for index, name in enumerate(node.input):
                readers.setdefault(name, []).append(index in inputs)
        for position in range(len(self._nodes) - 1, -1, -1):  # Q after the DQ that reads it
            node = self._nodes[position]
            if node.op_type == "QuantizeLinear":
                halves[position] = frozenset({0, 1} if all(readers[node.output[0]]) else ())
            elif node.op_type == "DequantizeLinear":
                scale = np.asarray(numpy_helper.to_array(self._made[node.input[1]]), np.float32)
                fits = scale.min() >= _SMALLEST_HALF and scale.max() <= _LARGEST_HALF
                wanted = node.output[0] not in self._outputs and all(readers[node.output[0]])
                halves[position] = frozenset({1} if fits and wanted else ())
                readers[node.input[0]] = [fits and wanted]

    def _half_outputs(self, node: onnx.NodeProto, inputs: frozenset[int]) -> list[int]:
        """Find the results that become float16 along with inputs of their type."""
        schema = _schema(node, self._graph.opset) if inputs else None
        if schema is None:
            return []
        if node.op_type == "DequantizeLinear":
            return [0]  # of the scale's type
        kinds = {_formal(schema.inputs, index).type_str for index in inputs}
        return [
            index
            for index, name in enumerate(node.output)
            if name in self._floats and _formal(schema.outputs, index).type_str in kinds
        ]

    def _read(self, name: str, kind: int, made: list[onnx.NodeProto]) -> str:
        """Name a float tensor in the type wanted; a constant is converted, others are cast."""
        if name in self._graph.constants or name in self._made:
            if kind == _FLOAT:
                return name
            if (name, kind) not in self._names:
                value = (
                    numpy_helper.to_array(self._made[name])
                    if name in self._made
                    else self._graph.constants[name]
                )
                half = np.asarray(value).astype(np.float16)
                self._names[name, kind] = self._writer.constant(f"{name}_half", half)
        elif (name, kind) not in self._names:
            other = (name, _FLOAT if kind == _HALF else _HALF)
            if other not in self._names:  # an input, or what a float32 operator gives
                self._names[name, _FLOAT] = name
            if kind == _HALF or other in self._names:
                word = "half" if kind == _HALF else "single"
                cast = self._writer.name(f"{name}_{word}")
                made.append(self._writer.node("Cast", [self._names[other]], cast, to=kind))
                self._names[name, kind] = cast
        return self._names[name, kind]


def _schema(node: onnx.NodeProto, opset: int) -> Any | None:
    """Look up what ONNX says of an operator; nothing for those of others."""
    if node.domain not in _STANDARD:
        return None
    try:
        return onnx.defs.get_schema(node.op_type, opset)
    except onnx.defs.SchemaError:
        return None


def _formal(parameters: Any, index: int) -> Any:
    """Give the declaration of an input or output; the last one may stand for many."""
    return parameters[min(index, len(parameters) - 1)]
