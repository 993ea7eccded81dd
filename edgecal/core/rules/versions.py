"""Rules about TensorRT versions: of the bundle, of its cache's header, of what would build."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgecal.core.cache import Header
from edgecal.core.findings import Finding, Severity
from edgecal.core.rules.pairing import (
    FIRST_TRTEXEC,
    FIRST_WITHOUT_CALIBRATION,
    REFERENCE,
    calibrate_command,
    derive_command,
)
from edgecal.core.versions import header_code, parse_tensorrt, version_of_code
from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgecal.core.manifest import ExplicitRecord
    from edgecal.core.rules.pairing import CacheFacts, Pairing
    from edgecal.core.versions import TensorRTVersion

_FIRST_DEPRECATED: Final = (10, 1)
_FIRST_EXPLICIT: Final = parse_tensorrt("11.0")


def tensorrt_version(pair: Pairing) -> Iterator[Finding]:
    """Refuse a TensorRT of another major.minor than the cache was made for.

    A bundle of form `qdq` has no cache: any TensorRT takes it from the first one on that knows such
    networks, 8.0 where they are typed float32, 10.0 where float16.

    TensorRT takes a cache of another release, or drops it, often without a word; names of helper
    tensors and copied scales change between releases. Judged by the chosen builder's own TensorRT,
    since system library, pip wheel and container may differ. A version that nobody knows cannot be
    built for. TensorRT 11 takes no cache at all and has a rule of its own.

    Severity: error; note where only the patch differs; a header that was forced to another
    major.minor is an error until push is told --accept-restamped, then a warning.
    Source: github.com/NVIDIA/TensorRT, samples/sampleINT8/README.md of release/8.2 (a cache of
    another version is not used); DeepStream migration guides (new caches from 7 to 8, 8 to 10).
    Remedy: calibrate for the target's TensorRT.
    """
    if pair.builder is None or pair.builder.name == REFERENCE:
        return
    have = pair.builder.tensorrt
    if have is None:
        yield _finding(
            pair,
            f"the bundle is for TensorRT {pair.bundle_tensorrt.major_minor}, and the version of "
            f"{pair.builder.path} is not known",
            "install trtexec from JetPack's own packages, in /usr/src/tensorrt/bin: "
            "'dpkg-query -W libnvinfer*' there tells its version",
        )
    elif pair.explicit is not None:
        if have < pair.explicit.minimum_tensorrt:
            yield _too_old(pair, pair.explicit, have)
    elif have.major >= FIRST_WITHOUT_CALIBRATION:
        return
    elif have.major_minor != pair.bundle_tensorrt.major_minor:
        yield _finding(
            pair,
            f"the bundle is for TensorRT {pair.bundle_tensorrt.major_minor}, the target has "
            f"{have}; a calibration cache is good for one major.minor",
            _calibrate_for(pair, have),
        )
    elif pair.restamped_from is not None and pair.restamped_from.major_minor != have.major_minor:
        yield _finding(
            pair,
            f"TensorRT {pair.restamped_from} wrote the cache, only its header was set to "
            f"{pair.bundle_tensorrt}; the target has {have}",
            "compare the engine's accuracy before you rely on it"
            if pair.accept_restamped
            else f"{_calibrate_for(pair, have)}; or try it with push --accept-restamped",
            Severity.WARNING if pair.accept_restamped else Severity.ERROR,
        )
    elif have.patch != pair.bundle_tensorrt.patch:  # a header holds no build number
        kept = pair.cache is not None and pair.cache.written_by_tensorrt
        yield _finding(
            pair,
            f"the bundle is for TensorRT {pair.bundle_tensorrt}, the target has {have}; "
            + (
                "the cache goes out as TensorRT wrote it"
                if kept
                else "the header is set to the target's version in a copy"
            ),
            "nothing to do: patch releases share caches",
            Severity.NOTE,
        )


def header_version(cache: CacheFacts) -> Iterator[Finding]:
    """Refuse a cache whose header names another TensorRT than the manifest.

    TensorRT looks at the header alone. Where edgecal made the numbers, push re-heads a copy for
    the target, but a header of another release means that somebody changed one of the two.

    Severity: error where major.minor differ, or the code is none of TensorRT; note where only the
    patch differs.
    Source: getInferLibVersion in NvInferRuntimeCommon.h of release/8.5 and NvInferRuntimeBase.h of
    release/10.16 (major*1000 + minor*100 + patch up to 9, major*10000 + ... from 10 on).
    Remedy: restamp the cache, or calibrate again.
    """
    if not isinstance(cache.header, Header):
        return
    says = _version_of(cache.header.code)
    remedy = (
        f"edgecal cache restamp {cache.place} --tensorrt {_three(cache.tensorrt)} "
        f"-o {cache.bundle}-restamped.edgecal"
    )
    if says is None:
        yield Finding(
            rule="header-version",
            severity=Severity.ERROR,
            subject=cache.bundle,
            message=f"the cache's header says {cache.header_text!r}, and {cache.header.code} makes "
            f"no version of TensorRT; the manifest says {cache.tensorrt}",
            remedy=remedy,
        )
    elif says.major_minor != cache.tensorrt.major_minor:
        yield Finding(
            rule="header-version",
            severity=Severity.ERROR,
            subject=cache.bundle,
            message=f"the cache's header says TensorRT {says}, the manifest {cache.tensorrt}",
            remedy=remedy,
        )
    elif says.patch != cache.tensorrt.patch:
        yield Finding(
            rule="header-version",
            severity=Severity.NOTE,
            subject=cache.bundle,
            message=f"the cache's header says TensorRT {says}, the manifest {cache.tensorrt}",
            remedy="nothing to do: patch releases share caches",
        )


def implicit_int8_deprecated(pair: Pairing) -> Iterator[Finding]:
    """Say that TensorRT 10.1 to 10.16 take calibration caches for the last time.

    Calibrators and dynamic ranges are deprecated from 10.1 on; TensorRT 11 has none.

    Severity: note.
    Source: NvInfer.h of release/10.1 (TRT_DEPRECATED on IInt8Calibrator); removed in the wheels of
    11.0.
    Remedy: plan for a bundle of form `qdq` before the target moves to TensorRT 11.
    """
    have = pair.tensorrt
    if pair.explicit is not None or have is None:
        return
    if _FIRST_DEPRECATED <= (have.major, have.minor) < (11, 0):
        yield Finding(
            rule="implicit-int8-deprecated",
            severity=Severity.NOTE,
            subject=pair.target.name,
            message=f"TensorRT {have} takes calibration caches, but calls them deprecated; "
            "TensorRT 11 takes none",
            remedy=f"nothing to do now; for TensorRT 11: {derive_command(_FIRST_EXPLICIT, pair)}",
        )


def implicit_int8_removed(pair: Pairing) -> Iterator[Finding]:
    """Refuse a cache for TensorRT 11, which takes none.

    Calibrators, dynamic ranges, --int8 and --calib are gone; INT8 comes from Q/DQ nodes in the
    network alone.

    Severity: error.
    Source: API of the 11.0 wheels; TensorRT documentation, migration from 10.x to 11.x.
    Remedy: derive a bundle of form `qdq` from it, whose network carries the same scales.
    """
    have = pair.tensorrt
    if pair.explicit is not None or have is None:
        return
    if have.major >= FIRST_WITHOUT_CALIBRATION:
        yield Finding(
            rule="implicit-int8-removed",
            severity=Severity.ERROR,
            subject=pair.target.name,
            message=f"the bundle holds a calibration cache for TensorRT "
            f"{pair.bundle_tensorrt.major_minor}, and TensorRT {have} takes none; 10.16 was the "
            "last that does",
            remedy="put the scales into the network, in a bundle of form qdq: "
            f"{derive_command(have, pair)}; for the network alone: {_qdq_command(pair)}",
        )


def _finding(
    pair: Pairing, message: str, remedy: str, severity: Severity = Severity.ERROR
) -> Finding:
    return Finding(
        rule="tensorrt-version",
        severity=severity,
        subject=pair.target.name,
        message=message,
        remedy=remedy,
    )


def _calibrate_for(pair: Pairing, have: TensorRTVersion) -> str:
    if (have.major, have.minor) < FIRST_TRTEXEC:
        return "upgrade the target to JetPack 4.4 or later, whose trtexec edgecal drives"
    return f"make a bundle for this target: {calibrate_command(have, pair.bundle)}"


def _too_old(pair: Pairing, explicit: ExplicitRecord, have: TensorRTVersion) -> Finding:
    typed = "float16" if explicit.fp16 else "float32"
    return _finding(
        pair,
        f"the bundle holds a network with Q/DQ pairs, typed {typed}, which TensorRT "
        f"{explicit.minimum_tensorrt.major_minor} is the first to take; the target has {have}",
        f"make a bundle with a cache of it: {derive_command(have, pair)}"
        if (have.major, have.minor) >= FIRST_TRTEXEC
        else _calibrate_for(pair, have),
    )


def _qdq_command(pair: Pairing) -> str:
    return f"edgecal cache convert {pair.place} --to qdq --fp16 -o {pair.bundle}.int8.onnx"


def _version_of(code: int) -> TensorRTVersion | None:
    try:
        version = version_of_code(code)
        return version if header_code(version) == code else None
    except InputError:
        return None


def _three(version: TensorRTVersion) -> str:
    return f"{version.major}.{version.minor}.{version.patch}"
