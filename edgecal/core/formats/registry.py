"""The formats by the words of `--from` and `--to`, in the order they are listed to people."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol

from edgecal.core.formats import nvdla, ort_tables, plain_csv, plain_json, ppq, qat, ranges
from edgecal.core.formats.recognition import recognise_word
from edgecal.errors import CacheFormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgecal.core.cache import Entry


class Parse(Protocol):
    """Bytes to entries."""

    def __call__(self, data: bytes, *, source: str) -> tuple[Entry, ...]:
        """Read a file of one format."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format of INT8 ranges.

    `parse` and `write` are `None` where it takes more than entries or a library: the caches
    themselves, what adapters read, and Q/DQ networks.
    """

    word: str
    title: str
    parse: Parse | None = None
    write: Callable[[Sequence[Entry]], bytes] | None = None


def _parse_qat(data: bytes, *, source: str) -> tuple[Entry, ...]:
    """Read the scales alone; `parse_qat` also gives the layers to keep in FP16."""
    return qat.parse_qat(data, source=source).entries


def _write_qat(entries: Sequence[Entry]) -> bytes:
    return qat.write_qat(qat.QatScales(entries=tuple(entries)))


_ALL: Final = (
    Format(word="trt", title="TensorRT's calibration cache"),
    Format(word="nvdla", title="NVDLA's JSON", parse=nvdla.parse_nvdla, write=nvdla.write_nvdla),
    Format(
        word="ranges",
        title="dynamic-range text of sampleINT8API",
        parse=ranges.parse_ranges,
        write=ranges.write_ranges,
    ),
    Format(
        word="ort-text",
        title="ONNX Runtime's calibration.cache",
        parse=ort_tables.parse_ort_text,
        write=ort_tables.write_ort_text,
    ),
    Format(
        word="ort-json",
        title="ONNX Runtime's calibration.json",
        parse=ort_tables.parse_ort_json,
        write=ort_tables.write_ort_json,
    ),
    Format(word="ort-flatbuffers", title="ONNX Runtime's calibration.flatbuffers"),
    Format(word="ppq", title="PPQ's JSON", parse=ppq.parse_ppq, write=ppq.write_ppq),
    Format(
        word="qat-json",
        title="JSON of NVIDIA's Q/DQ translator",
        parse=_parse_qat,
        write=_write_qat,
    ),
    Format(
        word="json",
        title="edgecal's plain JSON",
        parse=plain_json.parse_plain_json,
        write=plain_json.write_plain_json,
    ),
    Format(word="csv", title="edgecal's CSV", parse=plain_csv.parse_csv, write=plain_csv.write_csv),
    Format(word="tftrt", title="TF-TRT's graph or SavedModel"),
    Format(word="qdq", title="a network with Q/DQ nodes, as ONNX"),
)

FORMATS: Final[Mapping[str, Format]] = MappingProxyType({one.word: one for one in _ALL})

READABLE: Final = tuple(FORMATS)
WRITABLE: Final = tuple(word for word in FORMATS if word != "tftrt")


def recognise(data: bytes, *, name: str) -> str:
    """Give the word of a file's format, by content first, by `name` only to break ties.

    Raises
    ------
    CacheFormatError
        If nothing fits; the message lists the formats.
    """
    word = recognise_word(data, name=name)
    if word is None:
        words = "; ".join(f"{one.word}: {one.title}" for one in _ALL)
        raise CacheFormatError(
            f"the file is of no format known here; it begins with {data[:40]!r}",
            where=name,
            remedy=f"say with --from which it is, if it is one of them ({words})",
        )
    return word
