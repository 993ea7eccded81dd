"""The JSON of PPQ's TensorRT export: the largest magnitude of every quantized activation.

`{"act_quant_info": {name: amax}}`. PPQ leaves out Gather, Unsqueeze, Concat, Reshape, Squeeze and
parameters. The weights it writes beside this (`quantized.wts`) are not read.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from edgecal.core.formats.carrying import check_names, finite_scales
from edgecal.core.formats.gathering import Gathering
from edgecal.core.formats.json_text import member, number_of, read_object
from edgecal.core.usable import LEVELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgecal.core.cache import Entry

TITLE: Final = "PPQ's JSON"
KEY: Final = "act_quant_info"


def parse_ppq(data: bytes, *, source: str) -> tuple[Entry, ...]:
    """Read the export; other keys than `act_quant_info` are left alone.

    Raises
    ------
    CacheFormatError
        If it is no such file, or holds anything but a number for a tensor.
    """
    table = member(read_object(data, source=source), KEY, of="the file", source=source)
    gathering = Gathering(source)
    for tensor, amax in table.items():
        gathering.add_amax(tensor, number_of(amax, tensor=tensor, source=source))
    return gathering.entries()


def write_ppq(entries: Sequence[Entry]) -> bytes:
    """Write what PPQ exports.

    Raises
    ------
    CacheFormatError
        If a scale is not finite or negative.
    """
    check_names(entries, title=TITLE)
    scales = finite_scales(entries, title=TITLE)
    amax = {tensor: scale * LEVELS for tensor, scale in scales.items()}
    return json.dumps({KEY: amax}, indent=4).encode("ascii")
