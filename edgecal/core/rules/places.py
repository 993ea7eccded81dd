"""Rules about the place where an engine would be built: programs, rights, room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgecal.core.findings import Finding, Severity
from edgecal.core.rules import boards, folders, installations
from edgecal.core.rules.pairing import FIRST_TRTEXEC, REFERENCE
from edgecal.core.rules.visit import Visit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgecal.core.rules.pairing import Pairing

_MIB: Final = 2**20
_BUILDER_BYTES: Final = 512 * _MIB
_MODEL_COPIES: Final = 4
"""A builder holds the network's file, its weights as parsed, fused ones, and the engine."""


def builder_missing(pair: Pairing) -> Iterator[Finding]:
    """Refuse a target on which nothing can build.

    A Jetson needs trtexec; elsewhere a Python for the reference builder will do.

    Severity: error.
    Source: /usr/src/tensorrt/bin, where JetPack's packages put trtexec.
    Remedy: install TensorRT from JetPack.
    """
    if pair.builder is not None:
        return
    asked = pair.target.builder
    if asked == REFERENCE or not pair.facts.is_jetson:
        python = pair.facts.python
        found = (
            f"{python.path} {python.version} with numpy {python.numpy or 'missing'}, onnx "
            f"{python.onnx or 'missing'}, onnxruntime {python.onnxruntime or 'missing'}"
            if python
            else "no Python"
        )
        remedy = (
            "install TensorRT with trtexec; or, for the reference builder, a Python of 3.10 or "
            "later with numpy, onnx and onnxruntime, and name it as 'python' of the target"
        )
    else:
        found = "a Jetson without a usable trtexec"
        remedy = (
            "install TensorRT from JetPack (package nvidia-tensorrt, or libnvinfer-bin); trtexec "
            "is looked for on the PATH and in /usr/src/tensorrt/bin, and python3 for the package "
            "tensorrt (python3-libnvinfer)"
        )
    yield Finding(
        rule="builder-missing",
        severity=Severity.ERROR,
        subject=pair.target.name,
        message=f"nothing on the target can build{f' as {asked}' if asked else ''}; found {found}",
        remedy=remedy,
    )


def builder_unsupported(pair: Pairing) -> Iterator[Finding]:
    """Refuse trtexec before TensorRT 7.1, and the reference builder without INT8.

    The first has no flag for calibration shapes, and calibrating before fusion came with 7.1. The
    other does nothing but apply scales.

    Severity: error.
    Source: github.com/NVIDIA/TensorRT, samples/common/sampleOptions.cpp of 7.0.0 and 7.1.3.
    Remedy: upgrade to JetPack 4.4 or later; build in INT8, or with another builder.
    """
    if pair.builder_is(REFERENCE) and not pair.options.int8:
        yield Finding(
            rule="builder-unsupported",
            severity=Severity.ERROR,
            subject=pair.target.name,
            message="the reference builder makes INT8 networks from scales, and nothing else",
            remedy="leave out --precision fp16, or build with trtexec or tensorrt",
        )
    version = pair.tensorrt
    if version is not None and (version.major, version.minor) < FIRST_TRTEXEC:
        yield Finding(
            rule="builder-unsupported",
            severity=Severity.ERROR,
            subject=pair.target.name,
            message=f"TensorRT {version} is too old to build with; 7.1 (JetPack 4.4) is the first",
            remedy="upgrade the target to JetPack 4.4 or later",
        )


def reference_builder(pair: Pairing) -> Iterator[Finding]:
    """Say that the reference builder makes no TensorRT engine.

    It makes an INT8 network for ONNX Runtime: good for trying edgecal, not for a Jetson's GPU.

    Severity: note; warning on a Jetson.
    Source: edgecal's own; it is taken only where asked for, or on a target that is no Jetson.
    Remedy: build with trtexec where there is one.
    """
    if pair.builder_is(REFERENCE):
        yield Finding(
            rule="reference-builder",
            severity=Severity.WARNING if pair.facts.is_jetson else Severity.NOTE,
            subject=pair.target.name,
            message="builds with the reference builder: an INT8 network for ONNX Runtime, not a "
            "TensorRT engine",
            remedy="nothing to do for trying edgecal; a Jetson with TensorRT is built by trtexec",
        )


def disk_space(pair: Pairing) -> Iterator[Finding]:
    """Refuse a disk that cannot hold what is sent and the engine.

    An engine counts as large as its network's file; it is seldom larger.

    Severity: error.
    Source: df on the target.
    Remedy: free space, or use another folder.
    """
    free = pair.facts.disk_free_bytes
    if free is not None and pair.needed_bytes is not None and pair.needed_bytes > free:
        yield Finding(
            rule="disk-space",
            severity=Severity.ERROR,
            subject=pair.target.name,
            message=f"needs about {_mib(pair.needed_bytes)} MiB in {pair.facts.root}, "
            f"{_mib(free)} MiB are free",
            remedy="free space there, or set another 'root' for this target",
        )


def memory(pair: Pairing) -> Iterator[Finding]:
    """Warn where the builder hardly fits beside what runs on the target.

    A Jetson's CPU and GPU share one memory: a builder that takes too much pushes the application
    out. What it needs is a guess, half a GiB and four times the network, measured on no device.

    Severity: warning; error if not even the network and its engine fit.
    Source: MemAvailable of /proc/meminfo; peaks of TensorRT for RTX 1.7.1 on a host (190 MiB for a
    small network, 490 MiB for ResNet-50 of 102 MB).
    Remedy: stop other programs for the time of the build, or add swap.
    """
    free = pair.facts.memory_available_bytes
    if free is None or pair.model_bytes is None or pair.builder is None:
        return
    if pair.builder_is(REFERENCE):
        return
    needed = _BUILDER_BYTES + _MODEL_COPIES * pair.model_bytes
    if free < needed:
        yield Finding(
            rule="memory",
            severity=Severity.ERROR if free < 2 * pair.model_bytes else Severity.WARNING,
            subject=pair.target.name,
            message=f"{_mib(free)} MiB of memory are available, and building a network of "
            f"{_mib(pair.model_bytes)} MiB takes about {_mib(needed)} MiB",
            remedy="stop other programs on the target while it builds, or give it swap",
        )


def root_writable(pair: Pairing) -> Iterator[Finding]:
    """Refuse a target where the user may not write in edgecal's folder.

    Severity: error.
    Source: the probe, which tries the nearest folder that exists.
    Remedy: another folder, or other rights.
    """
    yield from folders.root_writable(_visit(pair))


def target_tools(pair: Pairing) -> Iterator[Finding]:
    """Refuse a target without the programs that every step needs.

    Plain mv of a link over a link to a folder would move it into that folder, so GNU's mv -T is
    needed; setsid lets a build outlive the connection, and flock asks whether an application is to
    be left alone now.

    Severity: error.
    Source: the probe.
    Remedy: install GNU coreutils and util-linux.
    """
    yield from installations.target_tools(_visit(pair))


def gpu_access(pair: Pairing) -> Iterator[Finding]:
    """Warn where the user may not open the GPU's device nodes.

    Otherwise the build fails late and darkly: as if there were no GPU.

    Severity: warning.
    Source: the probe, which opens them; groups video and render own them on Jetsons.
    Remedy: add the user to these groups.
    """
    if pair.facts.gpu_access is False and pair.builder and not pair.builder_is(REFERENCE):
        yield from boards.gpu_access(_visit(pair))


def _visit(pair: Pairing) -> Visit:
    return Visit(target=pair.target, facts=pair.facts)


def _mib(count: int) -> int:
    return -(-count // _MIB)
