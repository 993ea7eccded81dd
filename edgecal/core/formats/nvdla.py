"""The JSON that `nvdla_compiler --calibtable` reads.

One object; per network input and per Caffe layer a key, whose value has `scale`, `min`, `max` and
`offset`. What the compiler makes of them stands in nvdla/sw (umd/core/src/compiler); the layout is
that of umd/utils/calibdata/calib_txt_to_json.py, a Python 2 script. Where that one fails, this does
not: it drops tensors with a colon in their name, and ends at a scale of `0`.

The compiler looks layers up by their Caffe names; see `caffe_names`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from edgecal.core.formats.carrying import check_names, finite_scales
from edgecal.core.formats.gathering import Gathering
from edgecal.core.formats.json_text import number_of, quoted, read_object
from edgecal.errors import CacheFormatError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgecal.core.cache import Entry

TITLE: Final = "NVDLA JSON"
_ENDS: Final = ("min", "max")
_QUOTED: Final = 60


def parse_nvdla(data: bytes, *, source: str) -> tuple[Entry, ...]:
    """Read a table as the compiler does: `scale`, or else the larger of `min` and `max`.

    Raises
    ------
    CacheFormatError
        If it is no such table, or an offset is not 0: TensorRT's INT8 is symmetric.
    """
    gathering = Gathering(source)
    for tensor, fields in read_object(data, source=source).items():
        _add(gathering, tensor, fields, source)
    return gathering.entries()


def _add(gathering: Gathering, tensor: str, fields: object, source: str) -> None:
    if not isinstance(fields, dict):
        raise CacheFormatError(
            f"expected an object with a scale for tensor {tensor[:_QUOTED]!r}, "
            f"found {quoted(fields)}",
            where=source,
            remedy="correct the value; say with --from if the file is of another format",
        )
    offset = number_of(fields.get("offset", 0.0), tensor=tensor, source=source)
    if offset != 0:
        raise CacheFormatError(
            f"the offset of tensor {tensor[:_QUOTED]!r} is {offset:g}; TensorRT's INT8 is "
            "symmetric and has none",
            where=source,
            remedy="quantize symmetrically, or drop the tensor",
        )
    if "scale" in fields:
        gathering.add_scale(tensor, number_of(fields["scale"], tensor=tensor, source=source))
    elif {"min", "max"} <= fields.keys():
        low, high = (number_of(fields[key], tensor=tensor, source=source) for key in _ENDS)
        gathering.add_ends(tensor, low, high)
    else:
        raise CacheFormatError(
            f"tensor {tensor[:_QUOTED]!r} has neither a scale nor both min and max, "
            "and the compiler wants one of these",
            where=source,
            remedy="add a scale: the largest absolute value / 127",
        )


def write_nvdla(entries: Sequence[Entry]) -> bytes:
    """Write what calib_txt_to_json.py prints, byte for byte, for every scale and name.

    Raises
    ------
    CacheFormatError
        If a scale is not finite or negative, or a name is no UTF-8: the compiler's JSON reader
        knows neither.
    """
    check_names(entries, title=TITLE, utf8=True)
    scales = finite_scales(entries, title=TITLE)
    table = {
        tensor: {"scale": scale, "min": 0, "max": 0, "offset": 0}
        for tensor, scale in scales.items()
    }
    # Python 2 left the blank of its separator at line ends
    return json.dumps(table, indent=4, separators=(", ", ": ")).encode("ascii")
