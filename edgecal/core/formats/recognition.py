"""Tells the format of a file by what is in it."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Final

from edgecal.core.formats import plain_csv, plain_json, ppq, qat
from edgecal.core.formats.decimals import is_decimal
from edgecal.core.formats.flat_reader import table_strings
from edgecal.core.formats.json_text import read_object
from edgecal.core.formats.rows import COLUMNS
from edgecal.errors import CacheFormatError

if TYPE_CHECKING:
    from collections.abc import Iterator

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_HEAD_BYTES: Final = 65_536
_MOST_LINES: Final = 100
_MOST_FIELDS: Final = 64
_MOST_JSON_BYTES: Final = 64 * 2**20
"""ONNX Runtime's JSON with histograms has some 40 MB for a large network."""

_LEGACY = re.compile(rb"[0-9] ?[0-9a-f]{16} ?[0-9a-f]{16}\s")
_HEADLESS = re.compile(r".+: (?:0x)?[0-9a-f]{1,8}", re.DOTALL)
_NVDLA_FIELDS: Final = frozenset({"scale", "min", "max", "offset"})
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def recognise_word(data: bytes, *, name: str) -> str | None:
    """Give the word of the format, by content first; the name decides only where both would do.

    It looks at the beginning of most files, and reads JSON whole. A file that is recognised need
    not be sound: its reader tells.

    Raises
    ------
    CacheFormatError
        If it looks like JSON and is none, or far too much.
    """
    text = data[3:] if data[:3] == _BYTE_ORDER_MARK else data
    if text.startswith(b"TRT-") or _LEGACY.match(text):
        return "trt"
    # before JSON: a GraphDef may well begin with a newline and a brace
    if (word := _network(data) or _flatbuffers(data)) is not None:
        return word
    if not text[:_HEAD_BYTES].lstrip().startswith(b"{"):
        return _lines(text, name)
    try:
        return _json(text, name)
    except CacheFormatError:
        if (word := _lines(text, name)) is not None:
            return word  # a tensor's name may begin with a brace
        raise


def _json(text: bytes, name: str) -> str | None:
    if len(text) > _MOST_JSON_BYTES:
        raise CacheFormatError(
            f"the file has {len(text) >> 20} MiB: too large for a table of scales",
            where=name,
            remedy="pass the table; say with --from which format it is, if it is one",
        )
    table = read_object(text, source=name)
    values = list(islice(table.values(), _MOST_LINES))
    verdicts = {
        "json": table.get("schema") == plain_json.SCHEMA,
        "ppq": _numbers(table.get(ppq.KEY)),
        "qat-json": _numbers(table.get(qat.SCALES)),
        "ort-json": table.get("CLS") == "TensorsData" or all(map(_ort_value, values)),
        "nvdla": all(map(_nvdla_value, values)),
    }
    return next((word for word, fits in verdicts.items() if fits and values), None)


def _numbers(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(one, float) for one in value.values())


def _nvdla_value(value: object) -> bool:
    return isinstance(value, dict) and bool(_NVDLA_FIELDS & value.keys())


def _ort_value(value: object) -> bool:
    if isinstance(value, dict):
        return value.get("CLS") == "TensorData" or {"lowest", "highest"} <= value.keys()
    return isinstance(value, list) and len(value) == 2  # lowest, highest


def _network(data: bytes) -> str | None:
    """Tell ONNX, a SavedModel and a GraphDef apart by their first fields, in wire form.

    ONNX has an IR version (1) and a graph (7) or opsets (8); a SavedModel a schema version (1) and
    meta graphs (2), which are messages; a GraphDef begins with nodes (1), which have a name (1) and
    an operator (2).
    """
    fields = list(_fields(data))
    kinds = [(number, wire) for number, wire, _ in fields]
    if not kinds:
        return None
    if kinds[0] == (1, _VARINT):
        if {(7, _LENGTH), (8, _LENGTH)} & set(kinds):
            return "qdq"
        rest = kinds[1:]
        graphs = all(kind == (2, _LENGTH) for kind in rest)
        return (
            "tftrt" if rest and graphs and all(_message(one) for _, _, one in fields[1:]) else None
        )
    nodes = [value for number, wire, value in fields if (number, wire) == (1, _LENGTH)]
    if kinds[0] == (1, _LENGTH) and nodes and all(map(_node, nodes)):
        return "tftrt"
    return None


def _message(data: bytes) -> bool:
    return next(_fields(data), None) is not None


def _node(data: bytes) -> bool:
    first = [(number, wire) for number, wire, _ in islice(_fields(data), 2)]
    return first == [(1, _LENGTH), (2, _LENGTH)]


def _fields(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Walk over the first fields of a protocol buffer as far as they make sense.

    A field that goes beyond the end is given with what there is of it: files are cut off.
    """
    at = 0
    for _ in range(_MOST_FIELDS):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if not number or at >= len(data):
            return
        if wire == _VARINT:
            end = _varint(data, at)[1]
        elif wire == _LENGTH:
            size, at = _varint(data, at)
            end = at + size
        elif wire in {_FIXED64, _FIXED32}:
            end = at + (8 if wire == _FIXED64 else 4)
        else:
            return
        yield number, wire, data[at : min(end, at + _HEAD_BYTES)]
        at = end


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a number and where it ends; beyond the end of the data it is 0."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            return 0, at
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # the highest bit says that there is more
            return value, at
    return 0, len(data)


def _flatbuffers(data: bytes) -> str | None:
    """Tell whether this is a table with one vector, whose first element maps a name to a number."""
    try:
        _, value = next(table_strings(data, source=""), (b"", b"0"))
    except CacheFormatError:
        return None
    return "ort-flatbuffers" if is_decimal(value.decode("utf-8", "replace")) else None


def _lines(text: bytes, name: str) -> str | None:
    head = text[:_HEAD_BYTES]
    if len(text) > _HEAD_BYTES:  # the last line may be cut
        head = head[: head.rfind(b"\n") + 1]
    lines = [one.removesuffix("\r") for one in head.decode("utf-8", "surrogateescape").split("\n")]
    lines = [one for one in lines[:_MOST_LINES] if one]
    if not lines:
        return None
    columns = [one.strip('"') for one in lines[0].split(",")]
    if plain_csv.TENSOR in columns and set(COLUMNS) & set(columns):
        return "csv"
    colon = all(_value_after(one, ":") for one in lines)
    blank = all(_value_after(one, " ") for one in lines)
    if colon and blank:  # "a: 1": both, but only ONNX Runtime calls its text so
        return "ort-text" if name.endswith("calibration.cache") else "ranges"
    if colon:
        return "ranges"
    if blank:
        return "ort-text"
    # a cache that lost its header: its reader says so
    return "trt" if all(map(_HEADLESS.fullmatch, lines)) else None


def _value_after(line: str, separator: str) -> bool:
    tensor, found, value = line.rpartition(separator)
    return bool(tensor and found) and is_decimal(value.removeprefix(" "))
