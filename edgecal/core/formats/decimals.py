"""Reads a decimal as C++ and Python print it, and as nothing else does."""

from __future__ import annotations

import math
import re
from typing import Final

from edgecal.errors import CacheFormatError

_QUOTED: Final = 60

# no two parts can match the same digits: a long run of them must not be tried in every split
_DECIMAL = re.compile(
    r"[+-]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf(?:inity)?|nan)",
    re.ASCII | re.IGNORECASE,
)


def is_decimal(text: str) -> bool:
    """Tell whether a text is a decimal, or the word for infinity or NaN."""
    return _DECIMAL.fullmatch(text) is not None


def parse_decimal(text: str, *, where: str) -> float:
    """Read a decimal; `float` alone would also take `1_000` and digits of any script.

    Raises
    ------
    CacheFormatError
        If it is none, or beyond what a double holds.
    """
    if not is_decimal(text):
        raise CacheFormatError(
            f"expected a decimal number, found {text[:_QUOTED]!r}",
            where=where,
            remedy="correct the line; say with --from if the file is of another format",
        )
    value = float(text)
    if math.isinf(value) and "n" not in text.lower():
        raise CacheFormatError(
            f"a number is beyond what any float holds: {text[:_QUOTED]}",
            where=where,
            remedy="correct the number",
        )
    return value
