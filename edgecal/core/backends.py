"""Which backend calibrates, and by which of its algorithms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgecal.core.amax import ALGORITHMS as EVERYWHERE
from edgecal.core.hosts import Verdict, native_way, takes_caches
from edgecal.core.trt_job import ALGORITHMS, CalibratorOptions, check_options
from edgecal.core.versions import parse_tensorrt
from edgecal.errors import IncompatibleError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgecal.core.hosts import HostFacts
    from edgecal.core.platforms import Platforms
    from edgecal.core.versions import TensorRTVersion

AUTO: Final = "auto"
TENSORRT: Final = "tensorrt"
ONNXRUNTIME: Final = "onnxruntime"
BACKENDS: Final = (AUTO, TENSORRT, ONNXRUNTIME)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendChoice:
    """A backend, and why it is this one."""

    backend: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibratorChoice:
    """One of TensorRT's calibrators, and why it is this one."""

    algorithm: str
    reason: str


def choose_backend(
    asked: str,
    *,
    place: bool,
    algorithm: str,
    versions: Sequence[TensorRTVersion],
    package: str | None,
    host: Callable[[], HostFacts],
    platforms: Platforms,
) -> BackendChoice:
    """Settle what `auto` means here.

    TensorRT is taken where the user says in which place it lies, or where this Python has the one
    that is asked for, by its tables the GPU runs it, and it has such an algorithm.

    Parameters
    ----------
    place
        Whether the user names another Python or a container.
    package
        Version of the TensorRT that this Python has.
    host
        Looks at this machine, which takes a while: called only where the rest speaks for TensorRT.

    Raises
    ------
    InputError
        If there is no such backend, or TensorRT is to calibrate in a version that cannot.
    """
    if asked not in BACKENDS:
        raise InputError(
            f"unknown backend {asked!r}",
            where="--backend",
            remedy=f"use one of {', '.join(BACKENDS)}",
        )
    without = next((one.major_minor for one in versions if not takes_caches(one)), None)
    if without is not None and (asked == TENSORRT or (asked == AUTO and place)):
        raise InputError(
            f"TensorRT {without} has no calibrators; 10.16 was the last that has",
            where="--backend" if asked == TENSORRT else "--trt-python",
            remedy="leave it out, or use --backend onnxruntime: its scales go into the network, in "
            "a bundle of form qdq",
        )
    if asked != AUTO:
        return BackendChoice(backend=asked, reason="asked for")
    if place:
        return BackendChoice(backend=TENSORRT, reason="the place of a TensorRT is given")
    against = _what_speaks_against(algorithm, versions, package)
    if against is None:
        ways = [native_way(host(), version, platforms) for version in versions]
        unready = (way.reason for way in ways if way.verdict is not Verdict.READY)
        against = next(unready, None)
        if against is None:
            return BackendChoice(backend=TENSORRT, reason=ways[0].reason)
    return BackendChoice(backend=ONNXRUNTIME, reason=against)


def _what_speaks_against(
    algorithm: str, versions: Sequence[TensorRTVersion], package: str | None
) -> str | None:
    if algorithm != AUTO and algorithm not in ALGORITHMS:
        return f"TensorRT has no calibrator {algorithm!r}"
    if package is None:
        return "this Python has no TensorRT"
    if without := [one.major_minor for one in versions if not takes_caches(one)]:
        return f"TensorRT {without[0]} has no calibrators"
    here = parse_tensorrt(package)
    missing = [one.major_minor for one in versions if one.major_minor != here.major_minor]
    if missing:
        return f"this Python has TensorRT {here}, not {', '.join(missing)}"
    return None


def the_one_version(versions: Sequence[TensorRTVersion]) -> TensorRTVersion:
    """Give the TensorRT that one place can calibrate for.

    Raises
    ------
    IncompatibleError
        If several are asked for.
    """
    first, *others = versions
    if others:
        asked = " and ".join(one.major_minor for one in versions)
        raise IncompatibleError(
            f"one Python or image has one TensorRT, and {asked} are asked for",
            where="--tensorrt",
            remedy="calibrate once for each, with the --trt-python or --trt-container that has it "
            "('edgecal doctor' says what to install); --backend onnxruntime serves all in one pass",
        )
    return first


def choose_calibrator(algorithm: str) -> CalibratorChoice:
    """Settle which of TensorRT's calibrators an algorithm is.

    Raises
    ------
    InputError
        If TensorRT has none such.
    """
    if algorithm == AUTO:
        return CalibratorChoice(
            algorithm="entropy2",
            reason="auto: entropy2 is the calibrator whose tables trtexec and DLA take; TensorRT's "
            "calibrators are not compared",
        )
    check_options(CalibratorOptions(algorithm=algorithm))
    return CalibratorChoice(algorithm=algorithm, reason="given")


def algorithm_without_tensorrt(algorithm: str) -> str:
    """Give the algorithm of edgecal's own whose scales are nearest to a calibrator's.

    A Legacy calibrator with a quantile of 1 cuts next to nothing off.
    """
    return algorithm if algorithm in EVERYWHERE else "minmax"
