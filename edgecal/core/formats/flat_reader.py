"""Follows the offsets of ONNX Runtime's flatbuffers table, and only within the file."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from edgecal.errors import CacheFormatError

if TYPE_CHECKING:
    from collections.abc import Iterator

_DICT, _KEY, _VALUE = 0, 0, 1  # the places of the fields in their tables
_WORD: Final = 4


def table_strings(data: bytes, *, source: str) -> Iterator[tuple[bytes, bytes]]:
    """Give the key and value of every element of a table's only vector.

    The flatbuffers library trusts the offsets it finds: what lies outside the file it reads from
    the other end, or as if it were shorter.

    Raises
    ------
    CacheFormatError
        Where an offset points outside, a field is missing, or strings lie on top of each other.
    """
    reader = _Reader(data, source)
    vector = reader.field(reader.follow(0), _DICT)
    length = reader.word(vector)
    if vector + _WORD + _WORD * length > len(data):
        raise reader.broken(f"a list of {length} tensors")
    # strings may be shared, and a small file then says a lot; ONNX Runtime shares none
    left = len(data)
    for index in range(length):
        table = reader.follow(vector + _WORD + _WORD * index)
        key, value = (reader.string(reader.field(table, slot)) for slot in (_KEY, _VALUE))
        left -= len(key) + len(value)
        if left < 0:
            raise reader.broken("strings that lie on top of each other")
        yield key, value


class _Reader:
    def __init__(self, data: bytes, source: str) -> None:
        self._data = data
        self._source = source

    def word(self, at: int) -> int:
        return self._number("<I", at)

    def follow(self, at: int) -> int:
        """Give the place that an offset points to."""
        return at + self.word(at)

    def field(self, table: int, slot: int) -> int:
        """Give the place that a field of a table points to."""
        layout = table - self._number("<i", table)
        place = 4 + 2 * slot  # behind the sizes of the layout and of the table
        if place + 2 > self._number("<H", layout):
            raise self.broken("a table without its fields")
        offset = self._number("<H", layout + place)
        if not offset:
            raise self.broken("a table without its fields")
        return self.follow(table + offset)

    def string(self, at: int) -> bytes:
        end = at + _WORD + self.word(at)
        if self._data[end : end + 1] != b"\0":  # ONNX Runtime reads up to it
            raise self.broken("a string without its end")
        return self._data[at + _WORD : end]

    def broken(self, found: str) -> CacheFormatError:
        return CacheFormatError(
            f"expected a calibration table of ONNX Runtime, found {found}",
            where=self._source,
            remedy="copy calibration.flatbuffers again; say with --from if it is another format",
        )

    def _number(self, form: str, at: int) -> int:
        if not 0 <= at <= len(self._data) - struct.calcsize(form):
            raise self.broken("an offset that points outside")
        number: int = struct.unpack_from(form, self._data, at)[0]
        return number
