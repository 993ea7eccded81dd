"""Whether a bundle fits a target with these build options: one rule, one function, one source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgecal.core.findings import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgecal.core.build import BuildOptions
    from edgecal.core.platforms import Module
    from edgecal.core.target import BuilderFact, Target, TargetFacts
    from edgecal.core.versions import TensorRTVersion

TRTEXEC: Final = "trtexec"
REFERENCE: Final = "onnxruntime"
_BUILDERS: Final = (TRTEXEC, REFERENCE)
_FIRST_TRTEXEC: Final = (7, 1)
_FIRST_WITHOUT_CALIBRATION: Final = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """A bundle, a target and build options: what a rule looks at."""

    bundle: str
    bundle_tensorrt: TensorRTVersion
    target: Target
    facts: TargetFacts
    module: Module | None
    """The target's row in the platform tables, where it has one."""
    builder: BuilderFact | None
    """The one that would build; `None` where the target has none that may."""
    options: BuildOptions
    needed_bytes: int | None = None
    """Disk space the push would take."""
    restamped_from: TensorRTVersion | None = None
    """Which TensorRT wrote the cache, where its header was changed since."""
    accept_restamped: bool = False


def choose_builder(
    facts: TargetFacts, *, asked: str | None, tensorrt: TensorRTVersion
) -> BuilderFact | None:
    """Pick what builds on a target.

    trtexec where it is found; of several, one of the bundle's major.minor before others. The
    reference builder only where it is asked for, or the target is no Jetson.
    """
    usable = [one for one in facts.builders if asked in {None, one.name}]
    if asked is None and facts.is_jetson:
        usable = [one for one in usable if one.name != REFERENCE]

    def preference(builder: BuilderFact) -> tuple[int, bool]:
        version = builder.tensorrt
        fits = version is not None and version.major_minor == tensorrt.major_minor
        return (_BUILDERS.index(builder.name) if builder.name in _BUILDERS else 9, not fits)

    return min(usable, key=preference, default=None)


def builder_missing(pair: Pairing) -> Iterator[Finding]:
    """Refuse a target on which nothing can build."""
    if pair.builder is not None:
        return
    if pair.target.builder == REFERENCE or not pair.facts.is_jetson:
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
            "is looked for on the PATH and in /usr/src/tensorrt/bin"
        )
    yield Finding(
        rule="builder-missing",
        severity=Severity.ERROR,
        subject=pair.target.name,
        message=f"nothing on the target can build"
        f"{f' as {pair.target.builder}' if pair.target.builder else ''}; found {found}",
        remedy=remedy,
    )


def builder_unsupported(pair: Pairing) -> Iterator[Finding]:
    """Refuse trtexec before 7.1: its flags and its calibration before fusion are not settled."""
    version = pair.builder.tensorrt if pair.builder else None
    if version is not None and (version.major, version.minor) < _FIRST_TRTEXEC:
        yield Finding(
            rule="builder-unsupported",
            severity=Severity.ERROR,
            subject=pair.target.name,
            message=f"TensorRT {version} is too old to build with; 7.1 (JetPack 4.4) is the first",
            remedy="upgrade the target to JetPack 4.4 or later",
        )


def tensorrt_version(pair: Pairing) -> Iterator[Finding]:
    """Refuse another major.minor: TensorRT takes such a cache, or drops it, without a word.

    Judged by the chosen builder's own TensorRT; the reference builder has none to compare with.
    """
    if pair.builder is None or pair.builder.name == REFERENCE:
        return
    have = pair.builder.tensorrt
    if have is None:
        yield Finding(
            rule="tensorrt-version",
            severity=Severity.ERROR,
            subject=pair.target.name,
            message=f"the bundle is for TensorRT {pair.bundle_tensorrt.major_minor}, and the "
            f"version of {pair.builder.path} is not known",
            remedy=f"run '{pair.builder.path} --help' there and look for '[TensorRT v...]'",
        )
    elif have.major_minor != pair.bundle_tensorrt.major_minor:
        yield Finding(
            rule="tensorrt-version",
            severity=Severity.ERROR,
            subject=pair.target.name,
            message=f"the bundle is for TensorRT {pair.bundle_tensorrt.major_minor}, the target "
            f"has {have}; a calibration cache is good for one major.minor",
            remedy=_calibrate_for(pair, have),
        )
    elif pair.restamped_from is not None and pair.restamped_from.major_minor != have.major_minor:
        yield Finding(
            rule="tensorrt-version",
            severity=Severity.WARNING if pair.accept_restamped else Severity.ERROR,
            subject=pair.target.name,
            message=f"TensorRT {pair.restamped_from} wrote the cache, only its header was set to "
            f"{pair.bundle_tensorrt}; the target has {have}",
            remedy="compare the engine's accuracy before you rely on it"
            if pair.accept_restamped
            else f"{_calibrate_for(pair, have)}; or try it with push --accept-restamped",
        )
    elif have.patch != pair.bundle_tensorrt.patch:  # a header holds no build number
        yield Finding(
            rule="tensorrt-version",
            severity=Severity.NOTE,
            subject=pair.target.name,
            message=f"the bundle is for TensorRT {pair.bundle_tensorrt}, the target has {have}; "
            "the header is set to the target's version in a copy",
            remedy="nothing to do: patch releases share caches",
        )


def _calibrate_for(pair: Pairing, have: TensorRTVersion) -> str:
    return (
        f"make a bundle for this target: edgecal calibrate MODEL.onnx --data DATA "
        f"--tensorrt {have.major_minor} -o {pair.bundle}-{have.major_minor}.edgecal"
    )


def implicit_int8_removed(pair: Pairing) -> Iterator[Finding]:
    """TensorRT 11 has no calibrators any more (API of the 11.0 wheels)."""
    have = pair.builder.tensorrt if pair.builder else None
    if have is not None and have.major >= _FIRST_WITHOUT_CALIBRATION:
        yield Finding(
            rule="implicit-int8-removed",
            severity=Severity.ERROR,
            subject=pair.target.name,
            message=f"TensorRT {have} takes no calibration caches; 10.16 was the last that does",
            remedy="stay on TensorRT 10 on this target, or give it a network with Q/DQ nodes",
        )


def int8_unsupported(pair: Pairing) -> Iterator[Finding]:
    """Refuse modules without INT8, by table: 6.2 has none although it is above 6.1."""
    if pair.module is not None and pair.module.int8 is False:
        yield Finding(
            rule="int8-unsupported",
            severity=Severity.ERROR,
            subject=pair.target.name,
            message=f"{pair.module.name} (compute capability {pair.module.compute_capability}) has "
            "no INT8",
            remedy="build an FP16 engine there; INT8 begins with Xavier",
        )


def dla_core(pair: Pairing) -> Iterator[Finding]:
    """Refuse a DLA core that the module does not have."""
    asked, cores = pair.options.dla_core, pair.facts.dla_cores
    if asked is None or cores is None or asked < cores:
        return
    yield Finding(
        rule="dla-core" if cores else "dla-absent",
        severity=Severity.ERROR,
        subject=pair.target.name,
        message=f"DLA core {asked} was asked for, and {pair.module.name if pair.module else 'it'} "
        f"has {f'cores 0 to {cores - 1}' if cores else 'no DLA'}",
        remedy=f"use --dla 0 to {cores - 1}" if cores else "leave --dla out: the GPU builds INT8",
    )


def reference_builder(pair: Pairing) -> Iterator[Finding]:
    """Say that what will run is no TensorRT engine."""
    if pair.builder is not None and pair.builder.name == REFERENCE:
        yield Finding(
            rule="reference-builder",
            severity=Severity.WARNING if pair.facts.is_jetson else Severity.NOTE,
            subject=pair.target.name,
            message="builds with the reference builder: an INT8 network for ONNX Runtime, not a "
            "TensorRT engine",
            remedy="nothing to do for trying edgecal; a Jetson with TensorRT is built by trtexec",
        )


def disk_space(pair: Pairing) -> Iterator[Finding]:
    """Refuse what cannot fit: the files to send, and an engine of about the model's size."""
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


def root_writable(pair: Pairing) -> Iterator[Finding]:
    """Refuse where nothing could be stored."""
    if pair.facts.root_writable is False:
        yield Finding(
            rule="root-writable",
            severity=Severity.ERROR,
            subject=pair.target.name,
            message=f"user {pair.facts.user or 'of this login'} cannot write in {pair.facts.root}",
            remedy="set another 'root' for this target, or give the folder to that user",
        )


def target_tools(pair: Pairing) -> Iterator[Finding]:
    """Refuse a target without the programs every step needs."""
    if pair.facts.missing_tools:
        yield Finding(
            rule="target-tools",
            severity=Severity.ERROR,
            subject=pair.target.name,
            message=f"lacks {', '.join(pair.facts.missing_tools)}",
            remedy="install GNU coreutils (and util-linux for setsid) on the target",
        )


def gpu_access(pair: Pairing) -> Iterator[Finding]:
    """Warn where the SSH user cannot open the GPU: the build would fail late and darkly."""
    if pair.facts.gpu_access is False and pair.builder and pair.builder.name != REFERENCE:
        yield Finding(
            rule="gpu-access",
            severity=Severity.WARNING,
            subject=pair.target.name,
            message=f"user {pair.facts.user or 'of this login'} cannot open the GPU's device nodes",
            remedy="add the user to groups 'video' and 'render' on the target, then log in anew",
        )


RULES: Final[tuple[Callable[[Pairing], Iterator[Finding]], ...]] = (
    builder_missing,
    builder_unsupported,
    tensorrt_version,
    implicit_int8_removed,
    int8_unsupported,
    dla_core,
    reference_builder,
    disk_space,
    root_writable,
    target_tools,
    gpu_access,
)


def check_pairing(pair: Pairing) -> tuple[Finding, ...]:
    """Apply every rule."""
    return tuple(finding for rule in RULES for finding in rule(pair))


def _mib(count: int) -> int:
    return -(-count // 2**20)
