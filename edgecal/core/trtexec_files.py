"""Files that trtexec writes: outputs of a run, and the times of many.

Both look like JSON and are not quite: C++ prints NaN and infinities as bare words, and names go out
as they are, quotes and all (samples/common/sampleReporting.cpp, release/7.1 to 10.16). So they are
taken apart by what surrounds names and values, in one pass and a piece at a time.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from edgecal.core.latency import Latency, latency_of
from edgecal.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE: Final = 2**20
_LIST = re.compile(rb"\s*\[\s*")
_NAME = re.compile(rb',?\s*\{\s*"name"\s*:\s*"')
_DIMENSIONS = re.compile(rb'"\s*,\s*"dimensions"\s*:\s*"([0-9x]*)"\s*,\s*"values"\s*:\s*\[')
_CLOSED = re.compile(rb"\s*\}\s*")
_END = re.compile(rb"\s*\]\s*\Z")
_LATENCY = re.compile(rb'"latencyMs"\s*:\s*([^\s,}]{1,40})')


def parse_output(data: bytes, *, source: str) -> dict[str, npt.NDArray[Any]]:
    """Read the file that `--exportOutput` writes: a list of name, dimensions like `1x10`, values.

    Returns
    -------
    dict
        float64 arrays by output name: all types are printed as numbers, and integers stay exact.

    Raises
    ------
    BuildError
        If it has another form, or was cut.
    """
    opening = _LIST.match(data)
    if opening is None:
        raise _unreadable("expected a list", data[:40], source)
    outputs: dict[str, npt.NDArray[Any]] = {}
    position = opening.end()
    while (head := _NAME.match(data, position)) is not None:
        shape = _DIMENSIONS.search(data, head.end())
        if shape is None:
            raise _unreadable(
                "expected dimensions and values", data[head.start() : head.end() + 60], source
            )
        name = data[head.end() : shape.start()].decode("utf-8", "surrogateescape")
        end = data.find(b"]", shape.end())
        closed = _CLOSED.match(data, end + 1) if end >= 0 else None
        if closed is None:
            raise _unreadable(f"the values of output {name!r} do not end", data[-40:], source)
        outputs[name] = _array(data, (shape.end(), end), shape[1], name, source)
        position = closed.end()
    if _END.match(data, position) is None or not outputs:
        raise _unreadable("expected outputs", data[position : position + 60], source)
    return outputs


def _array(
    data: bytes, span: tuple[int, int], dimensions: bytes, name: str, source: str
) -> npt.NDArray[Any]:
    shape = [int(size) for size in dimensions.split(b"x") if size]
    values = np.empty(math.prod(shape))
    filled = 0
    for piece in _pieces(data, *span):
        try:
            numbers = [float(word) for word in piece.split(b",")]
        except ValueError as error:
            raise _unreadable(f"output {name!r}: {error}", piece[:40], source) from error
        if filled + len(numbers) > values.size:
            raise _unreadable(
                f"output {name!r} has more values than its dimensions say", dimensions, source
            )
        values[filled : filled + len(numbers)] = numbers
        filled += len(numbers)
    if filled != values.size:
        raise _unreadable(
            f"output {name!r} has {filled} values, its dimensions say {values.size}",
            dimensions,
            source,
        )
    return values.reshape(shape)


def _pieces(data: bytes, start: int, end: int) -> Iterator[bytes]:
    """Cut a list of values at commas: a list of Python numbers takes ten times its file's room."""
    if not data[start:end].strip():
        return
    while end - start > _PIECE:
        comma = data.find(b",", start + _PIECE, end)
        if comma < 0:
            break
        yield data[start:comma]
        start = comma + 1
    yield data[start:end]


def parse_times(data: bytes, *, source: str) -> Latency:
    """Read the file that `--exportTimes` writes: one object a run, with its latency.

    Raises
    ------
    BuildError
        If it holds no times.
    """
    try:
        return latency_of([float(one[1]) for one in _LATENCY.finditer(data)])
    except ValueError as error:
        raise _unreadable(f"no latencies: {error}", data[:40], source) from error


def _unreadable(what: str, found: bytes, source: str) -> BuildError:
    return BuildError(
        f"cannot read what trtexec wrote: {what}, found {found!r}",
        where=source,
        remedy="keep the file and report it: this version writes another form",
    )
