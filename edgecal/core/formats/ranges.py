"""The dynamic-range text of NVIDIA's sampleINT8API: a tensor and its largest magnitude a line.

`name:amax`, no header. NVIDIA's own file has no blank and 12 significant digits
(`tensor_a:1.000244122`); other tools write `tensor_a: 5.25`. It is applied with
`ITensor::setDynamicRange`, which went with TensorRT 11.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgecal.core.formats.carrying import check_names, finite_scales
from edgecal.core.formats.decimals import parse_decimal
from edgecal.core.formats.gathering import Gathering
from edgecal.core.formats.text_lines import named_values
from edgecal.core.usable import LEVELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgecal.core.cache import Entry

TITLE: Final = "the dynamic-range text"
_QUOTED: Final = 60


def parse_ranges(data: bytes, *, source: str) -> tuple[Entry, ...]:
    """Read the text; names end at the last colon of their line, so they may hold colons.

    Raises
    ------
    CacheFormatError
        If a line has another form, or contradicts one before.
    """
    gathering = Gathering(source)
    for line, tensor, amax in named_values(data, ":", called="a colon", source=source):
        value = parse_decimal(amax.removeprefix(" "), where=f"{source}:{line}")
        gathering.add_amax(tensor, value, line=line)
    return gathering.entries()


def write_ranges(entries: Sequence[Entry]) -> bytes:
    """Write the text in NVIDIA's form, with as many digits as the exact number needs.

    A range below 2^-126 is written, but the sample's `std::stof` may throw at it.

    Raises
    ------
    CacheFormatError
        If a scale is not finite or negative: `setDynamicRange` asks for finite numbers.
    """
    check_names(entries, title=TITLE)
    lines = [
        f"{tensor}:{scale * LEVELS!r}\n"
        for tensor, scale in finite_scales(entries, title=TITLE).items()
    ]
    return "".join(lines).encode("utf-8", "surrogateescape")


def sample_reader_loses(entries: Iterable[Entry]) -> tuple[str, ...]:
    """Name the tensors that the sample's own reader does not find: it splits at the first colon."""
    return tuple(entry.tensor for entry in entries if ":" in entry.tensor)
