"""Scales in files of every format: the core's own ones, and those that need a library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecal.adapters.ort_flatbuffers import parse_ort_flatbuffers, write_ort_flatbuffers
from edgecal.adapters.tftrt import read_tftrt
from edgecal.core.cache import serialize_cache
from edgecal.core.conversion import ScaleSet, cache_from
from edgecal.core.document import LegacyHeader, entries_of, read_document
from edgecal.core.formats.plain_json import (
    parse_plain_header,
    parse_plain_json,
    write_plain_json,
)
from edgecal.core.formats.qat import QatScales, parse_qat, write_qat
from edgecal.core.formats.registry import FORMATS
from edgecal.errors import CacheFormatError

if TYPE_CHECKING:
    from edgecal.core.versions import TensorRTVersion


def read_scales(data: bytes, word: str, *, source: str, segment: str | None = None) -> ScaleSet:
    """Read scales from a file of a known format, Q/DQ networks apart.

    Raises
    ------
    CacheFormatError
        If the file does not have that form, or a TF-TRT file has several tables and none is chosen.
    """
    if word == "tftrt":
        tables = read_tftrt(data, source=source)
        if segment is None and len(tables) > 1:
            raise CacheFormatError(
                f"the file has a table for each of {', '.join(sorted(tables))}",
                where=source,
                remedy="say which with --segment",
            )
        name = segment or next(iter(tables))
        if name not in tables:
            raise CacheFormatError(
                f"expected one of {', '.join(sorted(tables))}, found {name!r}",
                where=f"{source}: --segment",
                remedy="give one of these",
            )
        return read_scales(tables[name], "trt", source=f"{source}:{name}")
    if word == "trt":
        document = read_document(data, source=source)
        header = document.header
        return ScaleSet(
            entries=entries_of(document, source=source),
            header=None if isinstance(header, LegacyHeader) else header,
        )
    if word == "ort-flatbuffers":
        return ScaleSet(entries=parse_ort_flatbuffers(data, source=source))
    if word == "qat-json":
        qat = parse_qat(data, source=source)
        return ScaleSet(entries=qat.entries, fp16_layers=qat.fp16_nodes)
    if word == "json":
        return ScaleSet(
            entries=parse_plain_json(data, source=source),
            header=parse_plain_header(data, source=source),
        )
    parse = FORMATS[word].parse
    if parse is None:
        raise AssertionError(f"no reader for {word}")
    return ScaleSet(entries=parse(data, source=source))


def write_scales(
    scales: ScaleSet, word: str, *, tensorrt: TensorRTVersion | None, source: str
) -> bytes:
    """Write scales in a known format, Q/DQ networks apart.

    Parameters
    ----------
    tensorrt
        For calibration caches whose source does not say it.

    Raises
    ------
    CacheFormatError
        If the format cannot carry a name or a scale, or lacks the TensorRT.
    IncompatibleError
        If the source is for another TensorRT.
    """
    if word == "trt":
        return serialize_cache(cache_from(scales, tensorrt=tensorrt, source=source))
    if word == "ort-flatbuffers":
        return write_ort_flatbuffers(scales.entries)
    if word == "qat-json":
        return write_qat(QatScales(entries=scales.entries, fp16_nodes=scales.fp16_layers))
    if word == "json":
        return write_plain_json(scales.entries, header=scales.header)
    write = FORMATS[word].write
    if write is None:
        raise AssertionError(f"no writer for {word}")
    return write(scales.entries)
