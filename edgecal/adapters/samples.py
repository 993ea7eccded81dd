"""One sample of calibration data, checked against an input of the network."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from edgecal.core.manifest import Digest
from edgecal.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgecal.core.graph import TensorInfo

Array = npt.NDArray[Any]

NUMBERS: Final = "fiub"
"""Kinds of NumPy types that samples can have."""


def fit_sample(value: Array, tensor: TensorInfo, source: str) -> Array:
    """Check one sample against the input's shape without its batch axis, and give it its type."""
    check_shape(value.shape, tensor, source)
    if value.dtype.kind not in NUMBERS:
        raise DatasetError(
            f"expected numbers, found {value.dtype}", where=source, remedy="store float32 arrays"
        )
    wanted = np.dtype(tensor.dtype)
    with np.errstate(over="ignore", invalid="ignore"):  # infinities are counted and reported
        fitted = np.asarray(value, dtype=wanted, order="C")
    if wanted.kind != "f" and not np.array_equal(fitted, value):
        raise DatasetError(
            f"input {tensor.name!r} wants {wanted}, and the {value.dtype} values found do not fit",
            where=source,
            remedy="store whole numbers in the range of that type; for pictures, check --scale "
            "and --mean",
        )
    return fitted


def check_shape(found: tuple[int, ...], tensor: TensorInfo, source: str) -> None:
    """Check the shape of samples against the input's, without its batch axis."""
    expected = (tensor.shape or ())[1:]
    if tensor.shape is not None and (
        len(found) != len(expected)
        or any(want not in {None, have} for want, have in zip(expected, found, strict=True))
    ):
        shape = "x".join("?" if size is None else str(size) for size in expected)
        raise DatasetError(
            f"input {tensor.name!r} wants samples of {shape}, found "
            f"{'x'.join(str(size) for size in found) or 'single numbers'}",
            where=source,
            remedy="check --preprocess (resize, crop, layout, color); axis 0 counts samples",
        )


def digest_arrays(arrays: Mapping[str, Array]) -> Digest:
    """Name a sample that comes as arrays: by inputs, types, shapes and values."""
    whole = hashlib.sha256()
    for name, value in arrays.items():
        whole.update(f"{name}\0{value.dtype.str}\0{value.shape}\0".encode())
        whole.update(value.tobytes())
    return Digest(f"sha256:{whole.hexdigest()}")
