"""The grid that a quantize or dequantize node rounds to: its scales, zero points and type."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import onnx

from edgecal.core.quant import STEPS
from edgecal.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from edgecal.adapters.known_values import KnownValues

Array = npt.NDArray[Any]

LOWEST: Final = -128
"""The least INT8; as a zero point it means that there is nothing below zero."""

_MIDDLE_OF_UINT8: Final = 128
_SAME_SCALE: Final = 1e-3
"""How far the two scales of one pair may lie apart: rounding to float16 is half of this."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The real values that integers stand for."""

    scale: npt.NDArray[np.float64]
    """Of shape () or (channels,); positive and finite."""
    zero: npt.NDArray[np.int64]
    """Integer that stands for 0, as if the integers were signed: 128 of uint8 is 0 here."""
    kind: str
    axis: int | None
    """`None` for one scale for all."""

    @property
    def is_symmetric(self) -> bool:
        """Tell whether zero stands for 0 everywhere, as TensorRT's INT8 has it."""
        return not self.zero.any()

    @property
    def largest(self) -> float:
        """Give the largest scale, as float32."""
        return float(np.float32(self.scale.max()))

    def agrees(self, other: Grid) -> bool:
        """Tell whether both are one grid, but for rounding."""
        return (
            self.kind == other.kind
            and self.scale.shape == other.scale.shape
            and self.axis == other.axis
            and np.array_equal(self.zero, other.zero)
            and np.allclose(self.scale, other.scale, rtol=_SAME_SCALE, atol=0)
        )

    def along(self, value: Array) -> npt.NDArray[np.float32]:
        """Give the scales in the form in which they broadcast over a tensor."""
        shape = [1] * value.ndim
        if self.axis is not None:
            shape[self.axis] = -1
        return self.scale.astype(np.float32).reshape(shape)


@dataclass(frozen=True, slots=True)
class Integers:
    """Constant integers on a symmetric grid."""

    steps: Array
    """Signed: int8, or int32 for a bias."""
    grid: Grid

    def real(self) -> npt.NDArray[np.float32]:
        """Give the values that they stand for, multiplied in float32 as DequantizeLinear does."""
        with np.errstate(over="ignore"):
            value = self.steps.astype(np.float32) * self.grid.along(self.steps)
        return np.asarray(value, np.float32)


def refusal(path: Path, what: str, remedy: str = "export the network again") -> ModelError:
    """Make the error of a network that cannot be read."""
    return ModelError(what, where=str(path), remedy=remedy)


def read_grid(
    node: onnx.NodeProto, of: str, values: KnownValues, path: Path, *, default: str
) -> Grid:
    """Read scale and zero point of one half of a pair.

    Parameters
    ----------
    of
        The tensor, for messages.
    default
        Type of the integers where the node does not say it.

    Raises
    ------
    ModelError
        If they are not constants, or nothing that INT8 could be.
    """
    attributes = {one.name: one.i for one in node.attribute}
    if attributes.get("block_size"):
        raise refusal(path, f"tensor {of!r} is quantized in blocks, which TensorRT's INT8 is not")
    scale = values.get(node.input[1])
    if scale is None:
        raise refusal(
            path,
            f"the scale of tensor {of!r} is computed by the network, not a constant",
            "export with static quantization, and with its scales folded into constants",
        )
    scale = np.asarray(scale, np.float64)
    bad = scale[~(np.isfinite(scale) & (scale > 0))]
    if bad.size:
        raise refusal(path, f"tensor {of!r} has scale {bad[0]}: expected positive and finite")
    zero, kind = _zero_point(node, of, values, path, attributes.get("output_dtype"))
    kind = kind or default
    if kind not in {"int8", "uint8", "int32"}:
        raise refusal(
            path,
            f"tensor {of!r} is quantized to {kind}, and a calibration cache means INT8",
            "export with int8 for activations and weights",
        )
    zero = np.zeros(scale.shape, np.int64) if zero is None else zero.astype(np.int64)
    if scale.ndim > 1 or scale.size == 0 or scale.size != zero.size:
        raise refusal(
            path,
            f"tensor {of!r} has scales of shape {scale.shape} and zero points of {zero.shape}: "
            "expected one of each, or one per channel",
        )
    if kind == "uint8":
        zero -= _MIDDLE_OF_UINT8
    if scale.size == 1:
        return Grid(scale.reshape(()), zero.reshape(()), kind, None)
    return Grid(scale, zero, kind, attributes.get("axis", 1))


def _zero_point(
    node: onnx.NodeProto, of: str, values: KnownValues, path: Path, output_dtype: int | None
) -> tuple[Array | None, str | None]:
    if len(node.input) > 2 and node.input[2]:
        zero = values.get(node.input[2])
        if zero is None:
            raise refusal(path, f"the zero point of tensor {of!r} is not a constant")
        return zero, str(zero.dtype)
    if node.op_type == "QuantizeLinear" and output_dtype:
        known = output_dtype in onnx.TensorProto.DataType.values()
        name = onnx.TensorProto.DataType.Name(output_dtype).lower() if known else "an unknown type"
        return None, name
    return None, None


def zero_point_refusal(path: Path, of: str, grid: Grid) -> ModelError:
    """Make the error of a grid that is not symmetric."""
    zero = int(grid.zero.reshape(-1)[np.flatnonzero(grid.zero)[0]])
    written = zero + _MIDDLE_OF_UINT8 if grid.kind == "uint8" else zero
    what = (
        f"tensor {of!r} is quantized to {grid.kind} with zero point {written}, and INT8 of "
        "TensorRT is symmetric"
    )
    if zero == LOWEST:
        what += "; this one clips at 0 like a Relu, and nothing says that it has no values below"
    return refusal(
        path, what, "export with symmetric int8 (in ONNX Runtime: QInt8, ActivationSymmetric)"
    )


def held_integers(steps: Array, grid: Grid, of: str, path: Path) -> Integers:
    """Take integers that the file holds for what DequantizeLinear makes of them.

    Raises
    ------
    ModelError
        If they are not on a symmetric grid, or not on this one.
    """
    if grid.kind != str(steps.dtype):
        raise refusal(path, f"tensor {of!r} is {steps.dtype}, and its zero point {grid.kind}")
    if grid.kind == "uint8":
        steps = (steps.astype(np.int16) - _MIDDLE_OF_UINT8).astype(np.int8)
    return Integers(steps, _fitting(steps, grid, of, path))


def quantize_constant(value: Array, grid: Grid, of: str, path: Path) -> Integers:
    """Do what QuantizeLinear does: divide in float32, round halves to even, saturate.

    Raises
    ------
    ModelError
        If the grid is not symmetric, or does not fit.
    """
    if value.dtype.kind != "f" or grid.kind == "int32" or not np.isfinite(value).all():
        raise refusal(
            path,
            f"tensor {of!r} is quantized to {grid.kind}, and it is of {value.dtype}, or not finite",
        )
    grid = _fitting(value, grid, of, path)
    with np.errstate(over="ignore"):  # infinities saturate
        steps = np.rint(value.astype(np.float32) / grid.along(value))
    return Integers(np.clip(steps, LOWEST, STEPS).astype(np.int8), grid)


def _fitting(value: Array, grid: Grid, of: str, path: Path) -> Grid:
    if not grid.is_symmetric:
        raise zero_point_refusal(path, of, grid)
    if grid.axis is None:
        return grid
    axis = grid.axis + value.ndim if grid.axis < 0 else grid.axis
    if not 0 <= axis < value.ndim or value.shape[axis] != grid.scale.size:
        raise refusal(
            path,
            f"tensor {of!r} of shape {value.shape} has {grid.scale.size} scales on axis "
            f"{grid.axis}",
        )
    return replace(grid, axis=axis)
