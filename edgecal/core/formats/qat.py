"""The precision file of NVIDIA's Q/DQ translator for DLA: scales, and layers to keep in FP16.

`{"int8_tensor_scales": {name: scale}, "fp16_nodes": [name]}`, as the translator in NVIDIA-AI-IOT's
Deep-Learning-Accelerator-SW writes it; it makes a calibration cache and a list of layer precisions
for trtexec of the two.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgecal.core.formats.carrying import check_names, finite_scales
from edgecal.core.formats.gathering import Gathering
from edgecal.core.formats.json_text import member, number_of, quoted, read_object
from edgecal.errors import CacheFormatError

if TYPE_CHECKING:
    from edgecal.core.cache import Entry

TITLE: Final = "the Q/DQ translator's JSON"
SCALES: Final = "int8_tensor_scales"
NODES: Final = "fp16_nodes"


@dataclass(frozen=True, slots=True, kw_only=True)
class QatScales:
    """Scales that training chose, and the layers that have none."""

    entries: tuple[Entry, ...]
    fp16_nodes: tuple[str, ...] = ()


def parse_qat(data: bytes, *, source: str) -> QatScales:
    """Read the file; `fp16_nodes` may be absent.

    Raises
    ------
    CacheFormatError
        If it is no such file.
    """
    table = read_object(data, source=source)
    gathering = Gathering(source)
    for tensor, scale in member(table, SCALES, of="the file", source=source).items():
        gathering.add_scale(tensor, number_of(scale, tensor=tensor, source=source))
    nodes = table.get(NODES, [])
    if not isinstance(nodes, list) or not all(isinstance(one, str) for one in nodes):
        raise CacheFormatError(
            f"expected a list of layer names as {NODES!r}, found {quoted(nodes)}",
            where=source,
            remedy="correct the list",
        )
    return QatScales(entries=gathering.entries(), fp16_nodes=tuple(nodes))


def write_qat(scales: QatScales) -> bytes:
    """Write what the translator writes.

    Raises
    ------
    CacheFormatError
        If a scale is not finite or negative.
    """
    check_names(scales.entries, title=TITLE)
    table = {
        SCALES: finite_scales(scales.entries, title=TITLE),
        NODES: list(scales.fp16_nodes),
    }
    return json.dumps(table, indent=4).encode("ascii")
