"""Reads a network with quantize/dequantize pairs: the plain network, scales, what stays FP16.

Quantization-aware training leaves such pairs in the network, and a builder that reads a calibration
cache wants none: the DLA of TensorRT 8 and 10 takes no pairs at all. So the pairs go, and what they
say becomes a scale per tensor and a list of layers.

No TensorRT has built what this gives. What it rests on are ONNX's definitions of the operators and
TensorRT's own rules: INT8 is symmetric, a tensor has one scale, and a builder with a cache
quantizes weights itself, per output channel, to `max(abs(w)) / 127`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnx.inliner

from edgecal.adapters.float32 import idle_casts, widen
from edgecal.adapters.known_values import KnownValues
from edgecal.adapters.onnx_checks import check_float_network, check_structure
from edgecal.adapters.onnx_errors import one_line
from edgecal.adapters.onnx_model import load_proto
from edgecal.adapters.plain_network import (
    MICROSOFT,
    MOVES,
    STANDARD,
    Claim,
    Folded,
    Kept,
    PlainNetwork,
    Reading,
    put_together,
)
from edgecal.adapters.qdq_grid import (
    LOWEST,
    Grid,
    Integers,
    held_integers,
    quantize_constant,
    read_grid,
    refusal,
    zero_point_refusal,
)
from edgecal.core.quant import STEPS
from edgecal.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

Array = npt.NDArray[Any]

_PAIR: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})
_WHOLE_INTEGER: Final = frozenset(
    {
        *("ConvInteger", "MatMulInteger", "DynamicQuantizeLinear", "DynamicQuantizeMatMul"),
        *("MatMulIntegerToFloat", "MatMulNBits", "QGemm", "QAttention", "DynamicQuantizeLSTM"),
    }
)
"""Operators that compute with integers themselves; those called QLinear... beside them."""

_NOT_NEGATIVE: Final = frozenset({"Relu", "Sigmoid", "Softmax", "HardSigmoid", "Abs", "Exp"})
_KEEPS_SIGN: Final = frozenset(
    {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Concat", "Add", "Mul", "Dropout"}
)

_STEPS_OF_UINT8: Final = 255


def read_qdq(path: Path) -> PlainNetwork:
    """Take the pairs out of a network.

    A tensor with a pair has the pair's scale. Weights become float again, with the values that
    their integers stand for. A constant that no weighted operator reads, but an Add or a Mul, has
    an entry of its own in `scales`, by its ONNX name; TensorRT's name for it differs by version.

    The layers to keep in FP16 are, by node:

    - Conv, ConvTranspose, Gemm and MatMul unless both their operands are quantized. A builder with
      a cache would quantize the weights of any such layer whose tensors have scales.
    - Any other node that computes and reads a tensor with a scale, but not through its pair, and
      none of its other inputs through one: the scale is there for the sake of another reader.

    A node that has one operand through a pair counts as quantized: a residual Add is left with
    one pair on purpose, since its other operand never leaves the layer of the convolution. Nodes
    that only move values are never listed. A listed node without a name, or with one that another
    node has too, gets a name of its own.

    Raises
    ------
    ModelError
        If it is no such network, or says something that a cache cannot: zero points, scales
        computed at run time, integers at the network's edges, types other than INT8.
    """
    file = load_proto(path)
    proto = file.proto
    check_structure(proto, path)
    if proto.functions:  # exporters wrap a pair, or a layer with its pairs, in one
        proto = onnx.inliner.inline_local_functions(proto)
        check_structure(proto, path)
    _refuse_whole_integer(proto, path)
    try:
        widened = widen(proto)
        inferred = onnx.shape_inference.infer_shapes(proto) if widened else None
    except (onnx.shape_inference.InferenceError, ValueError, TypeError) as error:
        raise refusal(path, f"its types do not fit together: {one_line(error)}") from error
    reader = _Reader(proto, path, idle_casts(inferred) if inferred is not None else set())
    plain = put_together(reader.read_nodes(), path, widened=widened)
    check_float_network(proto, path)
    return plain


def _refuse_whole_integer(proto: onnx.ModelProto, path: Path) -> None:
    kinds = set()
    for node in proto.graph.node:
        kinds.add(node.op_type)
        if node.op_type.startswith("QLinear") or node.op_type in _WHOLE_INTEGER:
            raise ModelError(
                f"node {node.name!r} is a {node.op_type}, which computes with integers itself",
                where=str(path),
                remedy="export it in QDQ form: QuantizeLinear and DequantizeLinear around "
                "operators of floats (QuantFormat.QDQ in ONNX Runtime)",
            )
    if "DequantizeLinear" not in kinds:
        raise ModelError(
            "the network is not quantized: it holds no DequantizeLinear",
            where=str(path),
            remedy="calibrate it: edgecal calibrate",
        )


@dataclass(frozen=True, slots=True)
class _Quantized:
    """A tensor of integers at run time, and the plain tensor whose values they stand for."""

    tensor: str
    grid: Grid


class _Reader:
    """Goes through the nodes in order, once."""

    def __init__(self, proto: onnx.ModelProto, path: Path, idle: set[str]) -> None:
        self._graph = proto.graph
        self._path = path
        self._idle = idle
        weights = {tensor.name for tensor in self._graph.initializer}
        self._inputs = {one.name for one in self._graph.input} - weights
        self._outputs = {one.name for one in self._graph.output}
        self._used = {name for node in self._graph.node for name in node.input}
        self._used.update(self._outputs)
        self._known = KnownValues(proto, path)
        self._integers: dict[str, tuple[str, Integers, Grid]] = {}
        """Constants between their two nodes: what they were, what they are, and as it is said."""
        self._folds: dict[tuple[object, ...], str] = {}
        self._quantized: dict[str, _Quantized] = {}
        self._reading = Reading(proto, self._known)
        self._alias = self._reading.alias
        self._through_pair: set[str] = set()
        self._not_negative: set[str] = set()

    def read_nodes(self) -> Reading:
        """Take every node for what it is."""
        for node in self._graph.node:
            if node.op_type in _PAIR and node.domain in {*STANDARD, MICROSOFT}:
                if node.op_type == "QuantizeLinear":
                    self._quantize(node)
                else:
                    self._dequantize(node)
            elif node.op_type == "Cast" and node.output[0] in self._idle:
                self._skip(node)
            else:
                self._keep(node)
        for name in sorted(self._outputs):
            if name in self._quantized or name in self._integers:
                raise self._refusal(
                    f"output {name!r} is of integers: a network without pairs has none there",
                    "export it with a DequantizeLinear before that output",
                )
        self._reading.integers.update(self._quantized)
        return self._reading

    def _quantize(self, node: onnx.NodeProto) -> None:
        source, output = node.input[0], node.output[0]
        if output not in self._used:
            return
        if source in self._quantized or source in self._integers:
            raise self._refusal(f"tensor {source!r} of integers is quantized once more")
        grid = self._grid(node, source, "uint8")
        tensor = self._alias.get(source, source)
        value = self._known.get(tensor)
        if value is not None:
            integers = quantize_constant(value, grid, source, self._path)
            self._integers[output] = tensor, integers, grid
            return
        self._claim(tensor, grid)
        self._quantized[output] = _Quantized(tensor, grid)

    def _dequantize(self, node: onnx.NodeProto) -> None:
        source, output = node.input[0], node.output[0]
        if source in self._quantized:
            tensor, grid = self._quantized[source].tensor, self._quantized[source].grid
            self._check_pair(node, tensor, grid)
            self._alias[output] = tensor
            self._through_pair.add(output)
        elif source in self._integers:
            name, integers, grid = self._integers[source]
            self._check_pair(node, name, grid)
            self._fold(output, name, integers)
        elif source in self._inputs:
            raise self._refusal(
                f"input {source!r} is of integers: a network without pairs takes real values there",
                "export it with the QuantizeLinear of that input in the network",
            )
        else:
            steps = self._known.get(source)
            if steps is None:
                raise self._refusal(
                    f"tensor {source!r} is dequantized, and neither a QuantizeLinear nor a "
                    "constant gives it",
                    "export it in QDQ form: a QuantizeLinear before each DequantizeLinear",
                )
            grid = self._grid(node, source, str(steps.dtype))
            self._fold(output, source, held_integers(steps, grid, source, self._path))

    def _grid(self, node: onnx.NodeProto, of: str, default: str) -> Grid:
        return read_grid(node, of, self._known, self._path, default=default)

    def _check_pair(self, node: onnx.NodeProto, tensor: str, grid: Grid) -> None:
        if not self._grid(node, tensor, grid.kind).agrees(grid):
            raise self._refusal(
                f"the two nodes of a pair on tensor {tensor!r} have different scales or zero "
                "points",
                "export it with one scale and zero point for both nodes",
            )

    def _fold(self, output: str, source: str, integers: Integers) -> None:
        """Make a constant float again: the values that its integers stand for."""
        grid = integers.grid
        same = (source, grid.scale.tobytes(), grid.axis, grid.kind)
        if same in self._folds and output not in self._outputs:
            self._alias[output] = self._folds[same]
        else:
            value = integers.real()
            if not np.isfinite(value).all():
                raise self._refusal(f"tensor {source!r} stands for values beyond float32")
            self._reading.folded[output] = Folded(source, value, integers)
            self._known.add(output, value)
            self._folds.setdefault(same, output)
        self._through_pair.add(output)

    def _skip(self, node: onnx.NodeProto) -> None:
        source, output = node.input[0], node.output[0]
        self._alias[output] = self._alias.get(source, source)
        if source in self._through_pair:
            self._through_pair.add(output)

    def _keep(self, node: onnx.NodeProto) -> None:
        standard = node.domain in STANDARD
        self._pass_integers(node)
        through_pair = tuple(name in self._through_pair for name in node.input)
        moves = standard and node.op_type in MOVES
        joins = standard and node.op_type == "Concat"
        if (moves and through_pair[0]) or (joins and all(through_pair)):
            self._through_pair.update(node.output)
        for index, name in enumerate(node.input):
            node.input[index] = self._alias.get(name, name)
        self._known.add_node(node)
        if standard and self._cannot_be_negative(node):
            self._not_negative.update(node.output)
        self._reading.kept.append(Kept(node, through_pair))

    def _pass_integers(self, node: onnx.NodeProto) -> None:
        """Follow integers through what only moves them: the plain network moves floats there."""
        read = [name for name in node.input if name in self._quantized]
        if not read and not any(name in self._integers for name in node.input):
            return
        grids = [self._quantized[name].grid for name in read]
        moved = node.op_type in MOVES and read == [node.input[0]]
        joined = node.op_type == "Concat" and len(read) == len(node.input)
        if (
            node.domain not in STANDARD
            or not (moved or joined)
            or not all(grid.agrees(grids[0]) and grid.axis is None for grid in grids)
        ):
            raise self._refusal(
                f"node {node.name!r}, a {node.op_type}, reads the integers of a QuantizeLinear",
                "export it in QDQ form: every QuantizeLinear followed by a DequantizeLinear",
            )
        tensors = [self._quantized[name].tensor for name in read]
        self._alias.update(zip(read, tensors, strict=True))
        for name in node.output[: 1 if node.op_type == "MaxPool" else None]:
            self._quantized[name] = _Quantized(name, grids[0])
            if self._not_negative.issuperset(tensors):
                self._not_negative.add(name)
            self._claim(name, grids[0])

    # scales of activations

    def _claim(self, tensor: str, grid: Grid) -> None:
        claim = self._reading.claims.setdefault(tensor, Claim())
        scale = grid.largest
        claim.channels = max(claim.channels, grid.scale.size)
        if grid.kind == "int32":
            raise self._refusal(f"tensor {tensor!r} is quantized to int32, not INT8")
        if not grid.is_symmetric:
            if (grid.zero != LOWEST).any() or tensor not in self._not_negative:
                raise zero_point_refusal(self._path, tensor, grid)
            claim.unsigned = True
            scale = float(np.float32(scale * _STEPS_OF_UINT8 / STEPS))
            if not math.isfinite(scale):
                raise self._refusal(f"tensor {tensor!r} has a scale beyond float32")
        claim.scales[scale] = None

    def _cannot_be_negative(self, node: onnx.NodeProto) -> bool:
        if node.op_type in _NOT_NEGATIVE:
            return True
        if node.op_type == "Clip":
            low = [one.f for one in node.attribute if one.name == "min"]
            if len(node.input) > 1 and node.input[1]:
                value = self._known.get(node.input[1])
                low = [] if value is None or value.size != 1 else [float(value.reshape(-1)[0])]
            return bool(low) and low[0] >= 0
        if node.op_type in MOVES:
            return node.input[0] in self._not_negative
        return node.op_type in _KEEPS_SIGN and all(one in self._not_negative for one in node.input)

    def _refusal(self, what: str, remedy: str = "export the network again") -> ModelError:
        return refusal(self._path, what, remedy)
