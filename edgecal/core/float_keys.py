"""Whole numbers that sort as float32 values do: the next value has the next number."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_GREATEST = np.int32(0x7FFF_FFFF)
"""All bits of a float32 but its sign."""


def keys_of(values: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """Give the numbers of values; those of NaN and infinities lie at both ends."""
    return _turned(values.view(np.int32))


def values_of_keys(keys: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """Give the values of numbers."""
    return _turned(keys).view(np.float32)


def _turned(bits: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    turned: npt.NDArray[np.int32] = bits ^ ((bits >> np.int32(31)) & _GREATEST)
    return turned
