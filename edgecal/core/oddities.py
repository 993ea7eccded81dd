"""What the scales, names and header of a calibration cache say about its worth."""

from __future__ import annotations

import math
import re
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgecal.core.cache import ENTROPY2, Header
from edgecal.core.document import LegacyHeader
from edgecal.core.findings import Finding, Severity
from edgecal.core.versions import TensorRTVersion, header_code, version_of_code
from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgecal.core.document import Document, DocumentEntry

_MOST_OF_A_KIND: Final = 10
"""So many are told one by one; of the rest, their number."""

_SMALLEST_NORMAL: Final = 2.0**-126

# Scales of one network differ by factors of hundreds without harm: pixels and logits beside the
# output of a sigmoid. Published tables of YOLOv5 (TensorRT 8.5.2), YOLO11 (10.12) and an SSD
# (7.2.3) have their middle at a few hundredths and reach from 0.0003 to 73; a factor of 4,000 lets
# all of them pass but one, the 1e-12 that keeps a root from zero.
_FAR_LOG2: Final = 12.0
_FAR_DEVIATIONS: Final = 4.0
_FEWEST_NEIGHBOURS: Final = 8
_MAD_TO_DEVIATION: Final = 1.4826  # of a normal distribution

_NUMBER_NAME = re.compile(r"[0-9]+")
_CONSTANT_NAME = re.compile(r"Constant|\[Shuffle\]|ONNXTRT_")  # as the ONNX parser calls them
_THIRD_PARTY_NAME: Final = ".quantized.dequantized"

_ALGORITHMS: Final = (
    ENTROPY2,
    "MinMaxCalibration",
    "EntropyCalibration",
    "LegacyCalibration",
)
_AFTER_FUSION: Final = ("EntropyCalibration", "LegacyCalibration")
_FIRST_WITHOUT_CALIBRATION: Final = 11


@dataclass(frozen=True, slots=True)
class _Trait:
    """What makes a scale suspicious, and what to do about it."""

    severity: Severity
    what: str
    remedy: str


# TensorRT itself writes zeros for constants of zeros and infinity for tensors that hold masks
# (tables of 8.4 and 10.9, a MinMax table); NaN and negative ones it has not been seen to write.
_TRAITS: Final = {
    "nan": _Trait(
        Severity.ERROR,
        "is no number",
        "recalibrate; look for NaN in the data and in the network's outputs",
    ),
    "negative": _Trait(
        Severity.ERROR, "is below zero", "recalibrate; a range has no sign, and no TensorRT does so"
    ),
    "infinite": _Trait(
        Severity.WARNING,
        "is infinite",
        "override it ('edgecal cache edit'): masks of -inf need a finite range",
    ),
    "zero": _Trait(
        Severity.WARNING,
        "says that the tensor was all zeros",
        "recalibrate with data like that in use; right only for a constant of zeros",
    ),
    "zero constant": _Trait(
        Severity.NOTE, "belongs to a constant of zeros", "nothing to do: TensorRT writes it so"
    ),
    "denormal": _Trait(
        Severity.WARNING,
        "is too small for a float32 of full precision",
        "recalibrate; a whole number or a cut-off hex number reads like this",
    ),
    "far": _Trait(
        Severity.WARNING,
        "is far from those of other tensors",
        "nothing to do for indices and large constants; otherwise look for outliers in the data",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderMeaning:
    """What a header promises: whose scales these are, and what they may be used with."""

    tensorrt: TensorRTVersion | None
    algorithm: str | None
    sentences: tuple[str, ...]
    findings: tuple[Finding, ...]


def judge_scales(document: Document) -> tuple[Finding, ...]:
    """Find scales that TensorRT would have to guess about, and names that will not last."""
    return (
        *_judge_values(document),
        *_bare_number_names(document),
        *_third_party_names(document),
    )


def explain_header(document: Document) -> HeaderMeaning:
    """Tell what the first line means to somebody who wants to use the cache."""
    header = document.header
    version = _version(header) if isinstance(header, Header) else None
    algorithm = _algorithm(document)
    return HeaderMeaning(
        tensorrt=version,
        algorithm=algorithm,
        sentences=tuple(_sentences(version, algorithm)),
        findings=tuple(_judge_header(header, version, algorithm)),
    )


def _judge_values(document: Document) -> Iterator[Finding]:
    scales = [(entry, entry.scale) for entry in document.entries]
    logs = [math.log2(scale) for _, scale in scales if scale is not None and _is_normal(scale)]
    middle, far = _neighbourhood(logs)
    kinds: dict[str, list[tuple[DocumentEntry, float]]] = {}
    for entry, scale in scales:
        if scale is None:
            continue
        kind = _kind(scale, middle, far)
        if kind == "zero" and _CONSTANT_NAME.search(entry.tensor):
            kind = "zero constant"
        if kind is not None:
            kinds.setdefault(kind, []).append((entry, scale))
    for kind, members in kinds.items():
        trait = _TRAITS[kind]
        for entry, scale in members[:_MOST_OF_A_KIND]:
            beside = f"; the middle one here is {2.0**middle:.3g}" if kind == "far" else ""
            yield Finding(
                rule="scale-suspicious",
                severity=trait.severity,
                subject=entry.tensor,
                message=f"line {entry.line}: a scale of {scale:.6g} ({entry.bits}) "
                f"{trait.what}{beside}",
                remedy=trait.remedy,
            )
        if len(members) > _MOST_OF_A_KIND:
            more = members[_MOST_OF_A_KIND:]
            yield Finding(
                rule="scale-suspicious",
                severity=trait.severity,
                subject=more[0][0].tensor,
                message=f"line {more[0][0].line}: a scale that {trait.what}; so do "
                f"{len(more) - 1} more tensors after this one",
                remedy=trait.remedy,
            )


def _neighbourhood(logs: Sequence[float]) -> tuple[float, float]:
    """Give the middle of the scales' logarithms, and how far from it is far."""
    if len(logs) < _FEWEST_NEIGHBOURS:
        return 0.0, math.inf
    middle = statistics.median(logs)
    deviation = _MAD_TO_DEVIATION * statistics.median(abs(one - middle) for one in logs)
    return middle, max(_FAR_LOG2, _FAR_DEVIATIONS * deviation)


def _kind(scale: float, middle: float, far: float) -> str | None:
    if math.isnan(scale):
        return "nan"
    if scale == 0:
        return "zero"
    if scale < 0:
        return "negative"
    if math.isinf(scale):
        return "infinite"
    if scale < _SMALLEST_NORMAL:
        return "denormal"
    return "far" if abs(math.log2(scale) - middle) > far else None


def _is_normal(scale: float) -> bool:
    return _SMALLEST_NORMAL <= scale < math.inf


def _bare_number_names(document: Document) -> Iterator[Finding]:
    names = [one for one in document.entries if _NUMBER_NAME.fullmatch(one.tensor)]
    if names:
        yield Finding(
            rule="bare-number-name",
            severity=Severity.WARNING,
            subject=names[0].tensor,
            message=f"{len(names)} of {len(document.entries)} tensors have a bare number for a "
            f"name, the first in line {names[0].line}; an exporter counts them anew each time, and "
            "then the entries of an old cache fall on other tensors without a word",
            remedy="use the cache only with the very file it was made for; 'edgecal cache check "
            "--model --data' looks for contradictions; a newer PyTorch writes names that last",
        )


def _third_party_names(document: Document) -> Iterator[Finding]:
    names = [one for one in document.entries if one.tensor.endswith(_THIRD_PARTY_NAME)]
    if names:
        yield Finding(
            rule="third-party-name",
            severity=Severity.WARNING,
            subject=names[0].tensor,
            message=f"{len(names)} of {len(document.entries)} tensors are called "
            f"'...{_THIRD_PARTY_NAME}', as a quantizer calls them, the first in line "
            f"{names[0].line}; TensorRT drops entries whose tensors the network does not have",
            remedy="take the suffix off, or check the names: edgecal cache check --help",
        )


def _version(header: Header) -> TensorRTVersion | None:
    """Give the version, if a TensorRT could have written this code."""
    try:
        version = version_of_code(header.code)
        return version if header_code(version) == header.code else None
    except InputError:
        return None


def _algorithm(document: Document) -> str | None:
    if isinstance(document.header, Header):
        return document.header.algorithm
    if isinstance(document.header, LegacyHeader):
        return "LegacyCalibration"
    # the code may be unreadable, as in 'TRT-8XXX-EntropyCalibration2 '
    word = document.header_text.rstrip().rpartition("-")[2]
    return word if word in _ALGORITHMS else None


def _sentences(version: TensorRTVersion | None, algorithm: str | None) -> Iterator[str]:
    if version is not None and version.major < _FIRST_WITHOUT_CALIBRATION:
        yield (
            f"made for TensorRT {version}: good for {version.major_minor} of any patch, and for no "
            "other minor"
        )
    elif version is not None:
        yield f"made for TensorRT {version}, which takes no calibration caches"
    else:
        yield "the TensorRT it was made for is not known"
    if algorithm == ENTROPY2:
        yield "EntropyCalibration2 is read by trtexec, by builders, and for DLA"
    elif algorithm == "MinMaxCalibration":
        yield (
            "MinMaxCalibration is read by a builder script with a MinMax calibrator; not by "
            "trtexec, nor for DLA"
        )
    elif algorithm in _AFTER_FUSION:
        yield (
            f"{algorithm} is read by a calibrator of the same kind, on the device it was made on: "
            "its names come after fusion"
        )


def _judge_header(
    header: Header | LegacyHeader | None, version: TensorRTVersion | None, algorithm: str | None
) -> Iterator[Finding]:
    if isinstance(header, Header) and version is None:
        yield Finding(
            rule="header-version",
            severity=Severity.ERROR,
            subject="header",
            message=f"the code {header.code} makes no version of TensorRT",
            remedy="write the TensorRT that made the scales: 8502 is 8.5.2, 100300 is 10.3.0",
        )
    if version is not None and version.major >= _FIRST_WITHOUT_CALIBRATION:
        yield Finding(
            rule="implicit-int8-removed",
            severity=Severity.ERROR,
            subject="header",
            message=f"TensorRT {version} takes no calibration caches; 10.16 was the last that does",
            remedy="give TensorRT 11 a network with Q/DQ nodes: edgecal cache convert --to qdq",
        )
    if algorithm in _AFTER_FUSION:
        yield Finding(
            rule="cache-not-portable",
            severity=Severity.WARNING,
            subject="header",
            message=f"{algorithm} calibrates after layers are fused, so that tensors are called "
            "by what one device fused (NvInfer.h, QuantizationFlag)",
            remedy="recalibrate with entropy2, which calibrates before fusion",
        )
    if algorithm is not None and algorithm not in _ALGORITHMS:
        yield Finding(
            rule="algorithm-header",
            severity=Severity.WARNING,
            subject="header",
            message=f"no TensorRT writes the algorithm {algorithm!r}",
            remedy=f"write {ENTROPY2}, the one word that trtexec and DLA take",
        )
    elif algorithm is not None and algorithm != ENTROPY2:
        yield Finding(
            rule="trtexec-reads-entropy2",
            severity=Severity.WARNING,
            subject="header",
            message=f"the header says {algorithm}; trtexec and DLA read {ENTROPY2} only "
            "(samples/common/sampleEngines.cpp of TensorRT)",
            remedy="build with a script whose calibrator is of this kind, or recalibrate with "
            "entropy2",
        )
