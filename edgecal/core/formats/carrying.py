"""Refuses entries that a format cannot carry, so that none is ever left out silently."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING, Final, NoReturn

from edgecal.errors import CacheFormatError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgecal.core.cache import Entry

_QUOTED: Final = 60


def check_names(
    entries: Iterable[Entry], *, title: str, without: str = "", utf8: bool = False
) -> None:
    """Make sure that every name can stand in the format, and stands there once.

    Parameters
    ----------
    without
        Characters the format has no place for, besides the line feed.
    utf8
        Whether bytes that are no UTF-8 are refused.

    Raises
    ------
    CacheFormatError
        With the name of the first tensor that cannot.
    """
    seen: set[str] = set()
    for entry in entries:
        tensor = entry.tensor
        if not tensor or any(one in tensor for one in ("\n", *without)):
            _refuse(tensor, f"{title} cannot carry the tensor name {tensor[:_QUOTED]!r}")
        if tensor in seen:
            _refuse(tensor, f"{title} cannot carry tensor {tensor[:_QUOTED]!r} twice")
        seen.add(tensor)
        try:
            tensor.encode("utf-8", "strict" if utf8 else "surrogateescape")
        except UnicodeEncodeError:
            _refuse(tensor, f"{title} cannot carry the tensor name {tensor[:_QUOTED]!r}: no UTF-8")


def finite_scales(entries: Sequence[Entry], *, title: str) -> dict[str, float]:
    """Give scales of 0 or more by tensor, in order.

    Raises
    ------
    CacheFormatError
        With the name of the first tensor whose scale is infinite, NaN or negative.
    """
    scales: dict[str, float] = {}
    for entry in entries:
        scale = entry.scale
        if not math.isfinite(scale) or math.copysign(1.0, scale) < 0:
            _refuse(
                entry.tensor,
                f"{title} cannot carry the scale {scale!r} of tensor {entry.tensor[:_QUOTED]!r}",
            )
        scales[entry.tensor] = scale
    return scales


def _refuse(tensor: str, what: str) -> NoReturn:
    # what no terminal can show or take is told as Python spells it
    name = shlex.quote(tensor) if tensor.isprintable() else repr(tensor)
    raise CacheFormatError(what, remedy=f"edgecal cache edit --drop {name}")
