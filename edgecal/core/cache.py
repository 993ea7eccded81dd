"""The calibration cache TensorRT reads: bytes to value and back, byte for byte."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from edgecal.core.versions import header_code
from edgecal.errors import CacheFormatError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np

    from edgecal.core.versions import TensorRTVersion

ENTROPY2: Final = "EntropyCalibration2"
"""The only algorithm word that trtexec and DLA take, whatever made the numbers."""

_HEADER = re.compile(r"TRT-(?P<code>[1-9][0-9]{3,5})-(?P<algorithm>[A-Za-z0-9]+)")
_ENTRY = re.compile(r"(?P<tensor>.+): (?P<bits>[0-9a-f]{1,8})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a calibration cache: a tensor and its scale, as the file spells it."""

    tensor: str
    bits: str  # IEEE-754 single, hex, not zero-padded: "3c010a14", "0"

    @property
    def scale(self) -> float:
        """Real units per INT8 step; may be zero, infinite or NaN: parsing is not judging."""
        value: float = struct.unpack(">f", int(self.bits, 16).to_bytes(4, "big"))[0]
        return value


@dataclass(frozen=True, slots=True)
class Header:
    """The first line: which TensorRT and which calibrator the file claims to come from."""

    code: int  # 8502 is 8.5.2, 100300 is 10.3.0
    algorithm: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationCache:
    """What TensorRT reads: who computed the scales, and one scale per tensor, in file order."""

    header: Header
    entries: tuple[Entry, ...]

    def scales(self) -> dict[str, float]:
        """Map each tensor to its scale, in file order."""
        return {entry.tensor: entry.scale for entry in self.entries}


def parse_cache(data: bytes, *, source: str = "<cache>") -> CalibrationCache:
    """Read a cache that may be shipped; anything odd is an error with its line.

    Raises
    ------
    CacheFormatError
        If a line does not have the form TensorRT writes, or names a tensor twice.
    """
    # split at "\n" only: str.splitlines would also split names at form feeds and U+2028
    text = data.decode("utf-8", "surrogateescape")
    if not text.endswith("\n"):
        raise CacheFormatError(
            "expected a newline at the end of the file; it may be cut off",
            where=source,
            remedy="copy the file again, or recalibrate",
        )
    first, *lines = text.removesuffix("\n").split("\n")
    head = _HEADER.fullmatch(first)
    if head is None:
        raise CacheFormatError(
            f"expected a header like 'TRT-8502-EntropyCalibration2', found {first[:40]!r}",
            where=f"{source}:1",
            remedy="pass the calibration cache, not the engine or the ONNX model",
        )
    entries: dict[str, Entry] = {}
    for number, line in enumerate(lines, start=2):
        match = _ENTRY.fullmatch(line)  # greedy: names may hold ": ", the last one counts
        if match is None or match["tensor"] in entries:
            raise CacheFormatError(
                f"expected a new tensor and its scale in hex, found {line[:60]!r}",
                where=f"{source}:{number}",
                remedy="recalibrate; a truncated or hand-edited cache is not worth saving",
            )
        entries[match["tensor"]] = Entry(match["tensor"], match["bits"])
    return CalibrationCache(
        header=Header(code=int(head["code"]), algorithm=head["algorithm"]),
        entries=tuple(entries.values()),
    )


def serialize_cache(cache: CalibrationCache) -> bytes:
    """Give exactly the bytes `parse_cache` read, or TensorRT would have written."""
    lines = [f"TRT-{cache.header.code}-{cache.header.algorithm}"]
    lines += [f"{entry.tensor}: {entry.bits}" for entry in cache.entries]
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")


def make_cache(
    scales: Iterable[tuple[str, np.float32]], *, tensorrt: TensorRTVersion
) -> CalibrationCache:
    """Write computed scales down for one TensorRT.

    Parameters
    ----------
    scales
        Tensor and float32 scale, in the order of the file.

    Raises
    ------
    CacheFormatError
        If a name cannot stand in a cache, or a scale is not a positive, finite, normal number:
        edgecal never writes one that TensorRT would have to guess about.
    """
    entries = []
    for tensor, scale in scales:
        if not tensor or "\n" in tensor:
            raise CacheFormatError(
                f"the tensor name {tensor[:60]!r} cannot be written in a calibration cache",
                remedy="rename the tensor in the model: names must be non-empty, on one line",
            )
        entry = entry_of_scale(tensor, float(scale))
        if not 0x00800000 <= int(entry.bits, 16) < 0x7F800000:
            raise CacheFormatError(
                f"a scale of {scale!r} for tensor {tensor!r} is not one TensorRT can use",
                remedy="look at the calibration data: this tensor has no usable range",
            )
        entries.append(entry)
    header = Header(code=header_code(tensorrt), algorithm=ENTROPY2)
    return CalibrationCache(header=header, entries=tuple(entries))


def entry_of_scale(tensor: str, scale: float, *, source: str = "<cache>") -> Entry:
    """Spell a scale as TensorRT does: the nearest float32, in hex without leading zeros.

    Zero, infinite, NaN and negative scales are spelled too: reading is not judging.

    Raises
    ------
    CacheFormatError
        If a finite scale is beyond what float32 holds.
    """
    try:
        packed = struct.pack(">f", scale)
    except OverflowError as error:
        raise CacheFormatError(
            f"a scale of {scale!r} for tensor {tensor!r} is beyond what float32 holds",
            where=source,
            remedy="correct the number; dynamic ranges of networks are far smaller",
        ) from error
    return Entry(tensor, f"{int.from_bytes(packed, 'big'):x}")


def restamp_cache(cache: CalibrationCache, tensorrt: TensorRTVersion) -> CalibrationCache:
    """Re-head a cache for one exact TensorRT; the scales stay as they are."""
    return replace(cache, header=replace(cache.header, code=header_code(tensorrt)))
