"""Our own CSV for spreadsheets and scripts: a tensor, its bits, scale and dynamic range a row.

Quoting and line ends are those of RFC 4180. Spreadsheets may take bits such as `3e5` for a number;
rows where bits and scale then disagree are refused when read.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Final

from edgecal.core.formats.carrying import check_names
from edgecal.core.formats.decimals import parse_decimal
from edgecal.core.formats.gathering import Gathering
from edgecal.core.formats.rows import COLUMNS, Row, row_of
from edgecal.errors import CacheFormatError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgecal.core.cache import Entry

TITLE: Final = "CSV"
TENSOR: Final = "tensor"
_QUOTED: Final = 60


def parse_csv(data: bytes, *, source: str) -> tuple[Entry, ...]:
    """Read the rows by bits, or else by scale or dynamic range; other columns are left alone.

    Raises
    ------
    CacheFormatError
        If it is no such table, or a row contradicts itself or another.
    """
    gathering = Gathering(source)
    columns: list[str] | None = None
    for line, cells in _rows(data, source):
        where = f"{source}:{line}"
        if columns is None:
            columns = _columns(cells, where)
            continue
        if len(cells) > len(columns):
            raise CacheFormatError(
                f"expected {len(columns)} cells in this row, found {len(cells)}",
                where=where,
                remedy='quote names with a comma, and double the quotes in them: "a,""b"""',
            )
        row = dict(zip(columns, cells, strict=False))
        scale, dynamic_range = (
            parse_decimal(row[key], where=where) if row.get(key) else None for key in COLUMNS[1:]
        )
        Row(
            tensor=row[TENSOR],
            bits=row.get("bits") or None,
            scale=scale,
            dynamic_range=dynamic_range,
        ).add_to(gathering, where=where, line=line)
    if columns is None:
        _columns([], f"{source}:1")
    return gathering.entries()


def _rows(data: bytes, source: str) -> Iterator[tuple[int, list[str]]]:
    text = data.decode("utf-8-sig", "surrogateescape")
    # the reader of Python 3.10 refuses this in its own words
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise CacheFormatError(
            "a CSV table holds no zero bytes",
            where=f"{source}:{line}",
            remedy="pass the table; say with --from if the file is of another format",
        )
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, cells
    except csv.Error as error:
        raise CacheFormatError(
            f"expected CSV: {error}",
            where=f"{source}:{reader.line_num}",
            remedy='quote names with a comma, and double the quotes in them: "a,""b"""',
        ) from error


def _columns(cells: list[str], where: str) -> list[str]:
    if TENSOR not in cells or not set(COLUMNS) & set(cells):
        raise CacheFormatError(
            f"expected the columns {','.join((TENSOR, *COLUMNS))}, "
            f"found {','.join(cells)[:_QUOTED]!r}",
            where=where,
            remedy="keep the first row; tensor and one of the others are needed",
        )
    return cells


def write_csv(entries: Sequence[Entry]) -> bytes:
    """Write the table; the numbers of infinite and NaN scales are empty, their bits are not.

    Raises
    ------
    CacheFormatError
        If a name cannot stand in a cache either, or has a zero byte.
    """
    check_names(entries, title=TITLE, without="\0")
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow((TENSOR, *COLUMNS))
    for row in map(row_of, entries):
        numbers = ("" if one is None else repr(one) for one in (row.scale, row.dynamic_range))
        writer.writerow((row.tensor, row.bits, *numbers))
    return text.getvalue().encode("utf-8", "surrogateescape")
