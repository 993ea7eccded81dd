"""What a file of any format says about scales, and what a calibration cache needs beyond that."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from edgecal.core.cache import ENTROPY2, CalibrationCache, Entry, Header
from edgecal.core.findings import Finding, Severity
from edgecal.core.formats.ranges import sample_reader_loses
from edgecal.core.versions import header_code, version_of_code
from edgecal.errors import CacheFormatError, IncompatibleError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgecal.core.versions import TensorRTVersion

_FIRST_WITHOUT_CALIBRATION: Final = 11
_MOST_NAMED: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleSet:
    """Scales by tensor, in the order of their file, and whatever else the file knew."""

    entries: tuple[Entry, ...]
    header: Header | None = None
    """`None` where the format has no TensorRT version."""
    fp16_layers: tuple[str, ...] = ()
    """Layers to keep out of INT8, where the format names them."""


def cache_from(
    scales: ScaleSet, *, tensorrt: TensorRTVersion | None, source: str
) -> CalibrationCache:
    """Make a calibration cache of what was read.

    Parameters
    ----------
    tensorrt
        For formats that do not say which; for others it must have the same major.minor.

    Raises
    ------
    CacheFormatError
        If nobody says which TensorRT it is for, or a name cannot stand on a line.
    IncompatibleError
        If the file is for another TensorRT, or this one takes no cache.
    """
    if tensorrt is not None and tensorrt.major >= _FIRST_WITHOUT_CALIBRATION:
        raise IncompatibleError(
            f"TensorRT {tensorrt} takes no calibration cache: calibrators went with 11.0",
            where=source,
            remedy="convert --to qdq --model M.onnx, which TensorRT 11 builds from",
        )
    header = scales.header
    if tensorrt is not None:
        found = None if header is None else version_of_code(header.code)
        if found is not None and found.major_minor != tensorrt.major_minor:
            raise IncompatibleError(
                f"the file is for TensorRT {found}, and {tensorrt} is asked for",
                where=source,
                remedy="edgecal cache restamp says what that risks, and does it",
            )
        given = Header(code=header_code(tensorrt), algorithm=ENTROPY2)
        header = given if header is None else replace(header, code=given.code)
    if header is None:
        raise CacheFormatError(
            "this format does not say which TensorRT the scales are for",
            where=source,
            remedy="add --tensorrt X.Y.Z, the version of the target that will read the cache",
        )
    for entry in scales.entries:
        if not entry.tensor or "\n" in entry.tensor:
            raise CacheFormatError(
                f"the tensor name {entry.tensor[:60]!r} cannot be written in a calibration cache",
                where=source,
                remedy="rename the tensor: names must be non-empty, on one line",
            )
    return CalibrationCache(header=header, entries=scales.entries)


def judge_names(entries: Sequence[Entry], to: str) -> tuple[Finding, ...]:
    """Say which names the readers of a format will lose, though the file itself holds them."""
    names = [entry.tensor for entry in entries]
    if to == "ranges":
        return _lost(
            "name-lost",
            sample_reader_loses(entries),
            "sampleINT8API splits at the first colon and will not know",
            "use edgecal's own bundles, or rename these tensors in the model",
        )
    if to == "ort-text":
        return _lost(
            "name-lost",
            [name for name in names if " " in name],
            "the text table separates name and value by a blank, which is in",
            "give ONNX Runtime calibration.flatbuffers, which holds any name",
        )
    if to == "nvdla":
        return _lost(
            "name-unknown",
            [name for name in names if name.startswith("(Unnamed Layer* ")],
            "nvdla_compiler looks layers up by their Caffe names, and will not know",
            "add --prototxt deploy.prototxt, which renames by layer index",
        )
    return ()


def _lost(rule: str, names: Sequence[str], what: str, remedy: str) -> tuple[Finding, ...]:
    if not names:
        return ()
    more = len(names) - _MOST_NAMED
    listed = ", ".join(map(repr, names[:_MOST_NAMED])) + (f" and {more} more" if more > 0 else "")
    return (
        Finding(
            rule=rule,
            severity=Severity.WARNING,
            subject=names[0],
            message=f"{what} {listed}",
            remedy=remedy,
        ),
    )
