"""What keeps an ONNX network from being calibrated: corruption, control flow, quantization."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx

from edgecal.adapters.onnx_errors import corrupt, one_line
from edgecal.adapters.onnx_graph import dtype_of
from edgecal.adapters.onnx_outline import is_small, outline
from edgecal.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_NUMBERS: Final = frozenset("fiub")
"""Kinds of NumPy types that samples can have."""

_CONTROL_FLOW: Final = frozenset({"If", "Loop", "Scan"})
_STANDARD: Final = frozenset({"", "ai.onnx"})
_QUANTIZED: Final = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul"}
) | {
    "ConvInteger",
    "DynamicQuantizeLinear",
    "MatMulInteger",
}
_SHOWN: Final = 3


def check_float_network(proto: onnx.ModelProto, path: Path) -> None:
    """Make sure that this is a valid network of floats that can be calibrated.

    Raises
    ------
    ModelError
        If it is not.
    """
    _refuse_control_flow(proto, path)
    _refuse_quantized(proto, path)
    _check_structure(proto, path)
    weights = {tensor.name for tensor in proto.graph.initializer}
    _check_inputs([one for one in proto.graph.input if one.name not in weights], path)


def check_structure(proto: onnx.ModelProto, path: Path) -> None:
    """Have ONNX's own checker look at a network without control flow, quantized or not.

    Raises
    ------
    ModelError
        If it is no valid ONNX, or has control flow.
    """
    _refuse_control_flow(proto, path)
    _check_structure(proto, path)


def _refuse_quantized(proto: onnx.ModelProto, path: Path) -> None:
    for node in proto.graph.node:
        if node.op_type in _QUANTIZED:
            raise ModelError(
                f"node {_name_of(node)!r} is a {node.op_type}: the network is already quantized, "
                "and TensorRT uses no calibration cache for such a network",
                where=str(path),
                remedy="give the float network, or build this one without edgecal",
            )


def _refuse_control_flow(proto: onnx.ModelProto, path: Path) -> None:
    found = [
        node
        for node in _all_nodes(proto)
        if node.op_type in _CONTROL_FLOW and node.domain in _STANDARD
    ]
    if not found:
        return
    named = ", ".join(f"{_name_of(node)[:60]!r} ({node.op_type})" for node in found[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if found[_SHOWN:] else ""
    many = len(found) > 1
    raise ModelError(
        f"node{'s' if many else ''} {named}{more} {'are' if many else 'is'} control flow: which "
        "tensors it computes is known at run time only, and those inside have no scale",
        where=str(path),
        remedy="export without control flow: traced instead of scripted, with fixed input shapes, "
        "loops unrolled; a Loop behind the outputs that matter can be cut off with "
        "onnx.utils.extract_model",
    )


def _name_of(node: onnx.NodeProto) -> str:
    """Name a node; those without a name go by their first output."""
    return node.name or "".join(node.output[:1])


def _all_nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from proto.graph.node
    for function in proto.functions:
        yield from function.node


def _check_structure(proto: onnx.ModelProto, path: Path) -> None:
    lent = outline(proto)
    _make_checkable(lent)
    try:
        onnx.checker.check_model(lent)
        for tensor in proto.graph.initializer:
            if not is_small(tensor):  # not in the outline
                onnx.checker.check_tensor(tensor)
    except onnx.checker.ValidationError as error:
        what = one_line(error)
        if what.startswith("No Op registered"):
            raise ModelError(
                f"the model uses an operator that its opset does not have: {what}",
                where=str(path),
                remedy="export it again, with the opset that the exporter proposes",
            ) from error
        raise corrupt(path, what) from error
    except ValueError as error:  # a message of the checker that is not text
        raise corrupt(path, one_line(error)) from error


def _make_checkable(proto: onnx.ModelProto) -> None:
    """Give the checker what it wants, and no runtime does: shapes for all inputs and outputs."""
    for one in (*proto.graph.input, *proto.graph.output):
        if one.type.HasField("tensor_type"):
            one.type.tensor_type.shape.SetInParent()


def _check_inputs(inputs: Sequence[onnx.ValueInfoProto], path: Path) -> None:
    if not inputs:
        raise ModelError(
            "the network has no inputs, so there is nothing to calibrate it with",
            where=str(path),
            remedy="export it with its inputs; constants folded into it cannot be replaced",
        )
    for one in inputs:
        if not one.type.HasField("tensor_type"):
            raise ModelError(
                f"input {one.name!r} is a {one.type.WhichOneof('value')}, not a tensor",
                where=str(path),
                remedy="export the network with one input per tensor",
            )
        dtype = dtype_of(one.type.tensor_type.elem_type)
        if dtype == "unknown" or np.dtype(dtype).kind not in _NUMBERS:
            raise ModelError(
                f"input {one.name!r} is of type {dtype}, and samples are numbers",
                where=str(path),
                remedy="export the network with inputs of float32 or integers",
            )
