"""How long to wait so that a link carries no more than so many bytes a second."""

from __future__ import annotations

import re
from typing import Final

from edgecal.errors import InputError

_RATE: Final = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<unit>[kKmMgG]?)")
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_BURST_S: Final = 0.25
"""How much may go at once, in seconds of the rate."""


def parse_rate(text: str, *, source: str) -> float:
    """Read bytes a second, as curl and rsync do: `500k`, `2M`; units are powers of 1024.

    Raises
    ------
    InputError
        If it is no such number, or 0.
    """
    match = _RATE.fullmatch(text)
    rate = float(match["number"]) * _UNITS[match["unit"].lower()] if match else 0.0
    if rate < 1:
        raise InputError(
            f"expected bytes a second such as 500k or 2M, found {text!r}",
            where=source,
            remedy="write a number above 0, with k, M or G behind it",
        )
    return rate


class TokenBucket:
    """Fills at a steady rate; what is sent is taken out, in advance if need be."""

    def __init__(self, rate: float, *, now: float) -> None:
        self._rate = rate
        self._full = rate * _BURST_S
        self._level = self._full
        self._seen = now

    def take(self, count: int, *, now: float) -> float:
        """Take so many bytes out, and tell how many seconds to wait before the next."""
        filled = self._level + max(now - self._seen, 0.0) * self._rate
        self._level = min(filled, self._full) - count
        self._seen = now
        return max(-self._level / self._rate, 0.0)
