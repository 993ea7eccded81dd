"""Gathers what a foreign file says into entries: names a cache can hold, each tensor once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from edgecal.core.cache import Entry, entry_of_scale
from edgecal.core.usable import LEVELS
from edgecal.errors import CacheFormatError

if TYPE_CHECKING:
    from typing import NoReturn

_QUOTED: Final = 60


class Gathering:
    """Entries in the order of their file. A repeated tensor must repeat its scale."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._bits: dict[str, str] = {}

    def entries(self) -> tuple[Entry, ...]:
        """Give what was added."""
        return tuple(Entry(tensor, bits) for tensor, bits in self._bits.items())

    def add_amax(self, tensor: str, amax: float, *, line: int | None = None) -> None:
        """Add a tensor by its largest magnitude, which is 127 steps.

        Divided in double precision, so that the amax of a float32 scale gives that scale back: its
        24 bits times 7 bits are exact in 53.

        Raises
        ------
        CacheFormatError
            If it is negative, or as `add_entry`.
        """
        if amax < 0:
            self._refuse(
                f"the largest magnitude of tensor {tensor[:_QUOTED]!r} is negative: {amax!r}",
                line,
                "correct the number: the largest absolute value of the tensor is wanted",
            )
        self.add_scale(tensor, amax / LEVELS, line=line)

    def add_ends(self, tensor: str, low: float, high: float) -> None:
        """Add a tensor by both ends of its range: the larger magnitude counts.

        Raises
        ------
        CacheFormatError
            As `add_entry`.
        """
        ends = (abs(low), abs(high))
        self.add_amax(tensor, math.nan if any(map(math.isnan, ends)) else max(ends))

    def add_scale(self, tensor: str, scale: float, *, line: int | None = None) -> None:
        """Add a tensor by its scale.

        Raises
        ------
        CacheFormatError
            If it is negative or beyond float32, or as `add_entry`.
        """
        if scale < 0:
            self._refuse(
                f"the scale of tensor {tensor[:_QUOTED]!r} is negative: {scale!r}",
                line,
                "correct the number; TensorRT's INT8 scales are 0 or more",
            )
        # a negative zero is a zero: `max(0.0, -0.0)` is how some files come by it
        entry = entry_of_scale(tensor[:_QUOTED], abs(scale), source=self._where(line))
        self.add_entry(Entry(tensor, entry.bits), line=line)

    def add_entry(self, entry: Entry, *, line: int | None = None) -> None:
        """Add a tensor with its bits.

        Raises
        ------
        CacheFormatError
            If a calibration cache cannot hold the name, or the tensor had another scale before.
        """
        tensor = self._name(entry.tensor, line)
        if self._bits.setdefault(tensor, entry.bits) != entry.bits:
            before = Entry(tensor, self._bits[tensor])
            self._refuse(
                f"tensor {tensor[:_QUOTED]!r} has two scales: {before.scale!r} and {entry.scale!r}",
                line,
                "delete the one that is not meant",
            )

    def _name(self, tensor: str, line: int | None) -> str:
        try:
            # escaped bytes that together are UTF-8 would come back from a cache as characters
            name = tensor.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            name = ""
        if not name or "\n" in name:
            self._refuse(
                f"the tensor name {tensor[:_QUOTED]!r} cannot stand in a calibration cache",
                line,
                "rename the tensor: names must be non-empty, on one line, and have a UTF-8 form",
            )
        return name

    def _refuse(self, what: str, line: int | None, remedy: str) -> NoReturn:
        raise CacheFormatError(what, where=self._where(line), remedy=remedy)

    def _where(self, line: int | None) -> str:
        return self._source if line is None else f"{self._source}:{line}"
