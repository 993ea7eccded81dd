"""A cache under another header: which TensorRT it says it is from, and which calibrator."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from edgecal.core.cache import ENTROPY2, restamp_cache
from edgecal.core.findings import Finding, Severity
from edgecal.core.versions import version_of_code
from edgecal.errors import IncompatibleError, InputError

if TYPE_CHECKING:
    from edgecal.core.cache import CalibrationCache
    from edgecal.core.edit_record import Origin
    from edgecal.core.versions import TensorRTVersion

MINMAX: Final = "MinMaxCalibration"
ALGORITHMS: Final = (ENTROPY2, MINMAX)
"""Both calibrate before fusion, so that names do not depend on the device."""

_FIRST_WITHOUT_CALIBRATION: Final = 11
_RISK: Final = (
    "names of constants and helper layers change with the parser, up to 8.0 Concat inputs share "
    "its output's scale and on 10 they do not, and entries that fit nothing are dropped without a "
    "word"
)


def restamp(
    cache: CalibrationCache,
    *,
    tensorrt: TensorRTVersion | None,
    algorithm: str | None,
    origin: Origin,
    force: bool,
    source: str,
) -> tuple[CalibrationCache, tuple[Finding, ...]]:
    """Give a cache another header; every scale stays as it is.

    Within one major.minor of its origin a cache may always go to another patch. A cache of
    edgecal's own goes anywhere, with a warning: its numbers are the network's, its names and
    copies those of one version.

    Raises
    ------
    InputError
        If nothing is to be changed, or the algorithm is none to be named.
    IncompatibleError
        If the header would lie about what TensorRT wrote, unless forced; always for TensorRT 11.
    """
    if tensorrt is None and algorithm is None:
        raise InputError(
            "nothing to do: neither a TensorRT nor an algorithm is given",
            where=source,
            remedy="add --tensorrt X.Y.Z, or --algorithm EntropyCalibration2",
        )
    findings: list[Finding] = []
    result = cache
    if tensorrt is not None:
        findings += _judge_version(tensorrt, origin, force=force, source=source)
        result = restamp_cache(cache, tensorrt)
    if algorithm is not None:
        _check_algorithm(cache, algorithm, force=force, source=source)
        result = replace(result, header=replace(result.header, algorithm=algorithm))
    return result, tuple(findings)


def _judge_version(
    tensorrt: TensorRTVersion, origin: Origin, *, force: bool, source: str
) -> list[Finding]:
    if tensorrt.major >= _FIRST_WITHOUT_CALIBRATION:
        raise IncompatibleError(
            f"TensorRT {tensorrt} takes no calibration caches; 10.16 was the last that does",
            where=source,
            remedy="give it a network with Q/DQ nodes: edgecal cache convert FILE --to qdq "
            "--model MODEL.onnx -o OUT.onnx",
        )
    if tensorrt.major_minor == origin.tensorrt.major_minor:
        return []
    if origin.written_by_tensorrt and not force:
        raise IncompatibleError(
            f"TensorRT {origin.tensorrt} wrote this cache, and it would say {tensorrt}; a cache is "
            f"good for one major.minor: {_RISK}",
            where=source,
            remedy=f"calibrate for {tensorrt.major_minor}; or try it with --force, and compare "
            "accuracy on the target",
        )
    writer = "TensorRT" if origin.written_by_tensorrt else "edgecal"
    return [
        Finding(
            rule="header-version",
            severity=Severity.WARNING,
            subject=source,
            message=f"{writer} made this cache for {origin.tensorrt}, now it says {tensorrt}: "
            f"{_RISK}",
            remedy="calibrate for that version where you can; compare accuracy on the target",
        )
    ]


def _check_algorithm(cache: CalibrationCache, algorithm: str, *, force: bool, source: str) -> None:
    if algorithm not in ALGORITHMS:
        raise InputError(
            f"expected {' or '.join(ALGORITHMS)}, found {algorithm!r}",
            where="--algorithm",
            remedy="trtexec and DLA read EntropyCalibration2 only",
        )
    if cache.header.algorithm not in ALGORITHMS and not force:
        raise IncompatibleError(
            f"{cache.header.algorithm} (TensorRT {version_of_code(cache.header.code)}) calibrates "
            f"after fusion, so its names depend on the device; {algorithm} does so before",
            where=source,
            remedy="calibrate again with entropy2; or try it with --force",
        )
