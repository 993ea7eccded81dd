"""The calibration table that ONNX Runtime's TensorRT provider reads: `calibration.flatbuffers`.

A table with one vector `dict` of {key, value}, both strings; the value is the largest magnitude of
the tensor in decimal, which the provider gives to `std::stof` and `setDynamicRange`. The file has
no identifier, and the provider does not check it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import flatbuffers

from edgecal.core.formats.carrying import check_names, finite_scales
from edgecal.core.formats.flat_reader import table_strings
from edgecal.core.formats.gathering import Gathering
from edgecal.core.formats.ort_tables import parse_table_value
from edgecal.core.usable import LEVELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgecal.core.cache import Entry

TITLE: Final = "ONNX Runtime's calibration.flatbuffers"
_DICT, _KEY, _VALUE = 0, 0, 1  # the places of the fields in their tables


def parse_ort_flatbuffers(data: bytes, *, source: str) -> tuple[Entry, ...]:
    """Read the table in the order of its vector.

    Raises
    ------
    CacheFormatError
        If anything points outside the file, a value is no number or a negative one, or a tensor
        has two values.
    """
    gathering = Gathering(source)
    for number, (key, value) in enumerate(table_strings(data, source=source), start=1):
        tensor = key.decode("utf-8", "surrogateescape")
        text = value.decode("utf-8", "surrogateescape")
        amax = parse_table_value(text, tensor, where=f"{source}: tensor {number}")
        gathering.add_amax(tensor, amax)
    return gathering.entries()


def write_ort_flatbuffers(entries: Sequence[Entry]) -> bytes:
    """Write the table, sorted by name.

    A range below 2^-126 is written, but `std::stof` may throw at it.

    Raises
    ------
    CacheFormatError
        If a scale is not finite or negative.
    """
    check_names(entries, title=TITLE)
    scales = finite_scales(entries, title=TITLE)
    builder = flatbuffers.Builder(1024)
    tables = []
    for tensor in sorted(scales):
        key = builder.CreateString(tensor.encode("utf-8", "surrogateescape"))
        value = builder.CreateString(repr(scales[tensor] * LEVELS))
        builder.StartObject(2)
        builder.PrependUOffsetTRelativeSlot(_KEY, key, 0)
        builder.PrependUOffsetTRelativeSlot(_VALUE, value, 0)
        tables.append(builder.EndObject())
    builder.StartVector(4, len(tables), 4)
    for table in reversed(tables):  # a flatbuffer is written from its end
        builder.PrependUOffsetTRelative(table)
    vector = builder.EndVector()
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(_DICT, vector, 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())
