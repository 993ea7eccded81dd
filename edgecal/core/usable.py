"""Whether an entry holds a scale that TensorRT can use, and entries that surely do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from edgecal.core.cache import entry_of_scale
from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edgecal.core.cache import Entry

LEVELS: Final = 127
"""The largest INT8 level: a dynamic range is a scale times this, exactly, in double precision."""

_SMALLEST_NORMAL: Final = 0x00800000
_INFINITY: Final = 0x7F800000


def is_usable(entry: Entry) -> bool:
    """Tell whether a scale is positive, finite and normal."""
    return _SMALLEST_NORMAL <= int(entry.bits, 16) < _INFINITY


def is_zero(entry: Entry) -> bool:
    """Tell whether a scale is zero or denormal: TensorRT writes zeros for tensors of zeros."""
    return int(entry.bits, 16) & 0x7FFFFFFF < _SMALLEST_NORMAL


def amax_of(entry: Entry) -> float:
    """Give the largest absolute value that the entry lets through."""
    return entry.scale * LEVELS


def usable_ranges(scales: Mapping[str, float]) -> dict[str, float]:
    """Give the amax of every entry that has one, in real units."""
    return {
        name: scale * LEVELS for name, scale in scales.items() if math.isfinite(scale) and scale > 0
    }


def usable_entry(tensor: str, scale: float, *, where: str) -> Entry:
    """Spell a scale that is to be written.

    Raises
    ------
    InputError
        If TensorRT would have to guess what it means.
    """
    entry = entry_of_scale(tensor, scale, source=where)
    if not is_usable(entry):
        raise InputError(
            f"a scale of {scale!r} for tensor {tensor!r} is not one TensorRT can use",
            where=where,
            remedy="give a positive, finite range; float32 holds scales down to 1.2e-38",
        )
    return entry


def unusable(entries: Iterable[Entry]) -> tuple[str, ...]:
    """Name the tensors whose scales are zero, negative, denormal, infinite or NaN."""
    return tuple(entry.tensor for entry in entries if not is_usable(entry))
