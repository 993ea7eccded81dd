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


def fit_sample(
    value: Array, tensor: TensorInfo, source: str, *, remedy: str | None = None
) -> Array:
    """Check one sample against the input's shape without its batch axis, and give it its type.

    `remedy` says what helps with this kind of data if the shape is wrong.
    """
    if value.dtype.kind not in NUMBERS:
        raise DatasetError(
            f"input {tensor.name!r} wants numbers, found an array of {value.dtype}",
            where=source,
            remedy="give float32 arrays",
        )
    check_shape(value.shape, tensor, source, remedy=remedy)
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


def check_shape(
    found: tuple[int, ...], tensor: TensorInfo, source: str, *, remedy: str | None = None
) -> None:
    """Check the shape of samples against the input's, without its batch axis.

    Parameters
    ----------
    remedy
        What helps with this kind of data; else what helps with arrays.
    """
    if tensor.shape is None or _fits(found, tensor.shape[1:]):
        return
    shape = "x".join("?" if size is None else str(size) for size in tensor.shape[1:])
    if found[:1] == (1,) and _fits(found[1:], tensor.shape[1:]):
        remedy = "leave the batch axis out: samples come one by one, and batches are made of them"
    raise DatasetError(
        f"input {tensor.name!r} wants samples of {shape}, found "
        f"{'x'.join(str(size) for size in found) or 'single numbers'}",
        where=source,
        remedy=remedy or "prepare the data as the network takes it: size, channels, layout",
    )


def _fits(found: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(found) == len(expected) and all(
        want in {None, have} for want, have in zip(expected, found, strict=True)
    )


def digest_arrays(arrays: Mapping[str, Array]) -> Digest:
    """Name a sample that comes as arrays: by inputs, types, shapes and values."""
    whole = hashlib.sha256()
    for name, value in arrays.items():
        whole.update(f"{name}\0{value.dtype.str}\0{value.shape}\0".encode())
        whole.update(np.ascontiguousarray(value).data)
    return Digest(f"sha256:{whole.hexdigest()}")
