"""The text and the JSON that ONNX Runtime's `write_calibration_table` writes beside its table.

Both are for people: the TensorRT provider reads `calibration.flatbuffers`. Values are the largest
magnitudes, not scales.

The text and the flatbuffers hold `max(lowest, highest)` in ONNX Runtime 1.31.1, without absolute
values: too small for a tensor that reaches further below zero than above. Older versions took
`max(|lowest|, |highest|)`. Which of the two made a file cannot be seen, unless a number is
negative; `calibration.json` has both ends and is the one to import.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from edgecal.core.formats.carrying import check_names, finite_scales
from edgecal.core.formats.decimals import parse_decimal
from edgecal.core.formats.gathering import Gathering
from edgecal.core.formats.json_text import member, number_of, quoted, read_object
from edgecal.core.formats.text_lines import named_values
from edgecal.core.usable import LEVELS
from edgecal.errors import CacheFormatError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgecal.core.cache import Entry

TEXT_TITLE: Final = "ONNX Runtime's text table"
JSON_TITLE: Final = "ONNX Runtime's calibration.json"
_QUOTED: Final = 60


def parse_ort_text(data: bytes, *, source: str) -> tuple[Entry, ...]:
    """Read the text: a name, a blank and a number a line, split at the last blank.

    Raises
    ------
    CacheFormatError
        If a line has another form, contradicts one before, or has a negative number.
    """
    gathering = Gathering(source)
    for line, tensor, amax in named_values(data, " ", called="a blank", source=source):
        value = parse_table_value(amax, tensor, where=f"{source}:{line}")
        gathering.add_amax(tensor, value, line=line)
    return gathering.entries()


def parse_table_value(text: str, tensor: str, *, where: str) -> float:
    """Read the largest magnitude that the text and the flatbuffers hold for a tensor.

    Raises
    ------
    CacheFormatError
        If it is no number, or negative: it is then the wrong end of the tensor's range.
    """
    value = parse_decimal(text, where=where)
    if value < 0:
        raise CacheFormatError(
            f"tensor {tensor[:_QUOTED]!r} has the largest magnitude {text[:_QUOTED]}: this ONNX "
            "Runtime wrote the upper end of the range without looking at the lower one",
            where=where,
            remedy="import the calibration.json that lies beside it, which has both ends",
        )
    return value


def write_ort_text(entries: Sequence[Entry]) -> bytes:
    """Write the text, sorted by name as ONNX Runtime does.

    Raises
    ------
    CacheFormatError
        If a scale is not finite or negative.
    """
    check_names(entries, title=TEXT_TITLE)
    scales = finite_scales(entries, title=TEXT_TITLE)
    lines = [f"{tensor} {scales[tensor] * LEVELS!r}\n" for tensor in sorted(scales)]
    return "".join(lines).encode("utf-8", "surrogateescape")


def parse_ort_json(data: bytes, *, source: str) -> tuple[Entry, ...]:
    """Read calibration.json in each of its forms.

    Older versions map a name to `[lowest, highest]`, newer ones to a `TensorData` object, from 1.31
    on (or earlier) inside a `TensorsData` object. The larger magnitude of the two ends counts.

    Raises
    ------
    CacheFormatError
        If it is no such file, or holds no single range for a tensor: a range per channel, or the
        mean and deviation of a distribution.
    """
    table = read_object(data, source=source)
    if table.get("CLS") == "TensorsData":
        table = member(table, "data", of="TensorsData", source=source)
    gathering = Gathering(source)
    for tensor, value in table.items():
        ends = _ends(value)
        if ends is None:
            raise CacheFormatError(
                f"expected the lowest and the highest value of tensor {tensor[:_QUOTED]!r}, "
                f"found {quoted(value)}",
                where=source,
                remedy="calibrate in ONNX Runtime with MinMax, Entropy or Percentile, per tensor",
            )
        low, high = (number_of(end, tensor=tensor, source=source) for end in ends)
        gathering.add_ends(tensor, low, high)
    return gathering.entries()


def _ends(value: object) -> tuple[object, object] | None:
    if isinstance(value, list) and len(value) == 2:  # a lower and an upper end
        return _scalar(value[0]), _scalar(value[1])
    if isinstance(value, dict) and {"lowest", "highest"} <= value.keys():
        return _scalar(value["lowest"]), _scalar(value["highest"])
    return None


def _scalar(value: object) -> object:
    """Unwrap a serialised array of one element, as deep as it goes."""
    if isinstance(value, dict) and value.get("CLS") == "numpy.array":
        value = value.get("data")
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value


def write_ort_json(entries: Sequence[Entry]) -> bytes:
    """Write the newest form, which `onnxruntime.quantization.calibrate.load_tensors_data` reads.

    The range is symmetric. It stands as exact decimals; ONNX Runtime rounds them to float32.

    Raises
    ------
    CacheFormatError
        If a scale is not finite or negative.
    """
    check_names(entries, title=JSON_TITLE)
    ranges = {
        tensor: {
            "lowest": _array(-scale * LEVELS),
            "highest": _array(scale * LEVELS),
            "CLS": "TensorData",
        }
        for tensor, scale in finite_scales(entries, title=JSON_TITLE).items()
    }
    method = {"CLS": "CalibrationMethod", "value": "CalibrationMethod.MinMax"}
    table = {"CLS": "TensorsData", "data": ranges, "calibration_method": method}
    return json.dumps(table).encode("ascii")


def _array(value: float) -> dict[str, object]:
    return {"data": value, "dtype": "float32", "CLS": "numpy.array"}
