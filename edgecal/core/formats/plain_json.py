"""Our own plain JSON: the document that `edgecal cache show --json` prints, as a file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from edgecal.core.cache import parse_cache
from edgecal.core.formats.carrying import check_names
from edgecal.core.formats.gathering import Gathering
from edgecal.core.formats.json_text import number_of, quoted, read_object
from edgecal.core.formats.rows import Row, row_of
from edgecal.core.versions import version_of_code
from edgecal.errors import CacheFormatError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgecal.core.cache import Entry, Header

TITLE: Final = "plain JSON"
SCHEMA: Final = "edgecal.cache/1"


def parse_plain_json(data: bytes, *, source: str) -> tuple[Entry, ...]:
    """Read the tensors of the document: by their bits, or else by scale or dynamic range.

    Raises
    ------
    CacheFormatError
        If it is no such document, or contradicts itself.
    """
    gathering = Gathering(source)
    tensors = _document(data, source).get("tensors")
    if not isinstance(tensors, list):
        raise _unexpected("a list 'tensors'", tensors, source)
    for number, fields in enumerate(tensors, start=1):
        where = f"{source}: tensor {number}"
        if not isinstance(fields, dict):
            raise _unexpected("an object with a name and bits", fields, where)
        name, bits = fields.get("name"), fields.get("bits")
        if not isinstance(name, str):
            raise _unexpected("a name in quotes", name, where)
        if bits is not None and not isinstance(bits, str):
            raise _unexpected("bits in quotes, as hex", bits, where)
        scale, dynamic_range = (
            None if fields.get(key) is None else number_of(fields[key], tensor=name, source=where)
            for key in ("scale", "dynamic_range")
        )
        row = Row(tensor=name, bits=bits, scale=scale, dynamic_range=dynamic_range)
        row.add_to(gathering, where=where)
    return gathering.entries()


def parse_plain_header(data: bytes, *, source: str) -> Header | None:
    """Read what the document says about its TensorRT; `None` if nothing.

    Raises
    ------
    CacheFormatError
        If it is no such document, or its header is none that TensorRT writes.
    """
    header = _document(data, source).get("header")
    if header is None:
        return None
    if not isinstance(header, str) or "\n" in header:
        raise _unexpected("a header like 'TRT-8502-EntropyCalibration2'", header, source)
    line = f"{header}\n".encode("utf-8", "replace")
    return parse_cache(line, source=f"{source}: header").header


def _document(data: bytes, source: str) -> dict[str, object]:
    document = read_object(data, source=source)
    if document.get("schema") != SCHEMA:
        raise _unexpected(f"a document with the schema {SCHEMA!r}", document.get("schema"), source)
    return document


def _unexpected(wanted: str, found: object, where: str) -> CacheFormatError:
    return CacheFormatError(
        f"expected {wanted}, found {quoted(found)}",
        where=where,
        remedy="write the file anew with 'edgecal cache convert --to json'",
    )


def write_plain_json(entries: Sequence[Entry], *, header: Header | None = None) -> bytes:
    """Write the document, one tensor a line; infinite and NaN scales stand in their bits alone.

    Raises
    ------
    CacheFormatError
        If a name cannot stand in a cache either.
    """
    check_names(entries, title=TITLE)
    encode = json.JSONEncoder(allow_nan=False).encode
    head = {
        "schema": SCHEMA,
        "header": None if header is None else f"TRT-{header.code}-{header.algorithm}",
        "tensorrt": None if header is None else str(version_of_code(header.code)),
        "algorithm": None if header is None else header.algorithm,
    }
    lines = [f"  {encode(key)}: {encode(value)}" for key, value in head.items()]
    rows = [
        {
            "name": row.tensor,
            "bits": row.bits,
            "scale": row.scale,
            "dynamic_range": row.dynamic_range,
        }
        for row in map(row_of, entries)
    ]
    tensors = ",\n    ".join(map(encode, rows))
    lines.append(f'  "tensors": [\n    {tensors}\n  ]' if rows else '  "tensors": []')
    lines.append('  "findings": []')
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode("ascii")
