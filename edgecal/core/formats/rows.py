"""A row of our own plain formats: a tensor's bits, scale and dynamic range, which must agree."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgecal.core.cache import Entry
from edgecal.core.usable import LEVELS
from edgecal.errors import CacheFormatError

if TYPE_CHECKING:
    from edgecal.core.formats.gathering import Gathering

COLUMNS: Final = ("bits", "scale", "dynamic_range")

_QUOTED: Final = 60
_CLOSE: Final = 1e-3
"""Spreadsheets round what they show; a number further off was changed by somebody."""

_BITS = re.compile(r"(?:0[xX])?(?P<digits>[0-9a-fA-F]{1,8})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a row says about a tensor; `None` where it says nothing."""

    tensor: str
    bits: str | None
    scale: float | None
    dynamic_range: float | None

    def add_to(self, gathering: Gathering, *, where: str, line: int | None = None) -> None:
        """Add the tensor by its bits, or else by its scale, or else by its dynamic range.

        Raises
        ------
        CacheFormatError
            If nothing of these is there, or two contradict each other.
        """
        name = self.tensor[:_QUOTED]
        if self.bits is not None:
            match = _BITS.fullmatch(self.bits)
            if match is None:
                raise CacheFormatError(
                    f"expected the bits of tensor {name!r} as up to eight hex digits, found "
                    f"{self.bits[:_QUOTED]!r}",
                    where=where,
                    remedy="restore the bits, or delete them: the scale then counts",
                )
            entry = Entry(self.tensor, f"{int(match['digits'], 16):x}")
            self._check(entry.scale, where)
            gathering.add_entry(entry, line=line)
        elif self.scale is not None:
            self._check(self.scale, where)
            gathering.add_scale(self.tensor, self.scale, line=line)
        elif self.dynamic_range is not None:
            gathering.add_amax(self.tensor, self.dynamic_range, line=line)
        else:
            raise CacheFormatError(
                f"tensor {name!r} has neither bits nor a scale nor a dynamic range",
                where=where,
                remedy="give one of the three, or delete the tensor",
            )

    def _check(self, scale: float, where: str) -> None:
        for told, meant, word in (
            (self.scale, scale, "scale"),
            (self.dynamic_range, scale * LEVELS, "dynamic range"),
        ):
            if told is None or _close(told, meant):
                continue
            raise CacheFormatError(
                f"tensor {self.tensor[:_QUOTED]!r} contradicts itself: its {word} is {told!r}, and "
                f"the rest says {meant!r}",
                where=where,
                remedy="delete what is not meant: bits count before a scale, a scale before a "
                "dynamic range",
            )


def _close(told: float, meant: float) -> bool:
    both_nan = math.isnan(told) and math.isnan(meant)
    return both_nan or math.isclose(told, meant, rel_tol=_CLOSE)


def row_of(entry: Entry) -> Row:
    """Give the row to write; numbers are left out where the bits are infinite or NaN."""
    scale = entry.scale if math.isfinite(entry.scale) else None
    return Row(
        tensor=entry.tensor,
        bits=f"{int(entry.bits, 16):x}",
        scale=scale,
        dynamic_range=None if scale is None else scale * LEVELS,
    )
