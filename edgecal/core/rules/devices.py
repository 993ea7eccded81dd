"""Rules about what a device's silicon can do, and what TensorRT lets it do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgecal.core.findings import Finding, Severity
from edgecal.core.hosts import calibrators_for, container_step, gpu_can, gpu_names, takes_caches
from edgecal.core.rules.pairing import REFERENCE, TRTEXEC, calibrate_command
from edgecal.core.versions import parse_tensorrt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgecal.core.platforms import HostGpu, Platforms
    from edgecal.core.rules.pairing import Pairing
    from edgecal.core.versions import TensorRTVersion

_NO_INT8: Final = frozenset({"5.3", "6.2"})
"""Compute capabilities of Nano and TX1, and of TX2: 6.2 is above 6.1, which has INT8."""

_LAST_DLA: Final = (10, 7)
_DLA_AGAIN: Final = parse_tensorrt("11.4.1")
_AGX_ORIN: Final = "agx-orin"
_FIRST_DIRECT_IO: Final = (8, 2)


def int8_unsupported(pair: Pairing) -> Iterator[Finding]:
    """Refuse modules without INT8: Nano, TX1 and TX2.

    Judged by table: TX2's compute capability 6.2 has no INT8 although it is above 6.1, which has.

    Severity: error.
    Source: github.com/NVIDIA/TensorRT, samples/sampleINT8/README.md of release/8.2 (6.1 or later,
    which leaves out Nano and TX1); for TX2 its CMakeLists.txt, whose default list lacks 6.2.
    Remedy: an FP16 engine, without this bundle's cache: `push --precision fp16`.
    """
    if pair.builder_is(REFERENCE):
        return
    capability = pair.facts.compute_capability
    without = capability in _NO_INT8
    sure = True
    if pair.module is not None:
        capability, without = pair.module.compute_capability, not pair.module.int8
        sure = pair.module.int8_verified
    if without:
        yield Finding(
            rule="int8-unsupported",
            severity=Severity.ERROR,
            subject=pair.target.name,
            message=f"the bundle is for INT8, and {pair.device} (compute capability {capability}) "
            f"has no INT8{'' if sure else ' (inferred from what TensorRT is compiled for)'}",
            remedy="build an FP16 engine, which leaves the cache unused: push --precision fp16; "
            "INT8 begins with Xavier",
        )


def dla_absent(pair: Pairing) -> Iterator[Finding]:
    """Refuse a DLA core where there is none at all, as on Orin Nano and Thor.

    Severity: error.
    Source: NVIDIA Deep-Learning-Accelerator-SW, FAQ; TensorRT 11.4.1, Working with DLA.
    Remedy: build for the GPU.
    """
    if pair.options.dla_core is not None and pair.dla_cores == 0:
        yield Finding(
            rule="dla-absent",
            severity=Severity.ERROR,
            subject=pair.target.name,
            message=f"DLA core {pair.options.dla_core} was asked for, and {pair.device} has no DLA",
            remedy="leave --dla out: the GPU builds INT8",
        )


def dla_core(pair: Pairing) -> Iterator[Finding]:
    """Refuse a DLA core that the module does not have; they are counted from 0.

    Severity: error.
    Source: jetson_stats and NVIDIA Deep-Learning-Accelerator-SW, FAQ; num_DLA_cores of TensorRT's
    builder has the last word, and the counts of Orin NX are not confirmed.
    Remedy: name a core that is there.
    """
    asked, cores = pair.options.dla_core, pair.dla_cores
    if asked is None or not cores or asked < cores:
        return
    sure = pair.module is None or pair.module.dla_cores_verified
    yield Finding(
        rule="dla-core",
        severity=Severity.ERROR,
        subject=pair.target.name,
        message=f"DLA core {asked} was asked for, and {pair.device} has "
        f"{'core 0 only' if cores == 1 else f'cores 0 to {cores - 1}'}"
        f"{'' if sure else ' (not confirmed)'}",
        remedy="use --dla 0" if cores == 1 else f"use --dla 0 to {cores - 1}",
    )


def dla_tensorrt_window(pair: Pairing) -> Iterator[Finding]:
    """Refuse a DLA where TensorRT does not build for it.

    TensorRT builds for DLA up to 10.7, and again from 11.4.1 on, for AGX Orin. JetPack 7.0 to
    7.2.1 bring 10.13 and 10.16, which have no DLA although Orin has the cores. A
    JetPack of the tables says for which SoCs its TensorRT has one.

    Severity: error.
    Source: TensorRT documentation, Working with DLA (11.4.1) and the support matrix of 10.7.
    Remedy: build for the GPU, or stay on JetPack 6 for DLA.
    """
    if pair.options.dla_core is None or pair.dla_cores == 0 or pair.builder_is(REFERENCE):
        return
    why = _why_no_dla(pair)
    if why is not None:
        yield Finding(
            rule="dla-tensorrt-window",
            severity=Severity.ERROR,
            subject=pair.target.name,
            message=f"DLA core {pair.options.dla_core} was asked for, and {why}",
            remedy="leave --dla out: the GPU builds INT8; for DLA use JetPack 6 or earlier",
        )


def dla_dynamic_shape(pair: Pairing) -> Iterator[Finding]:
    """Warn that a DLA takes no dimensions chosen at run time.

    Least, usual and largest shape of a profile have to be equal. edgecal builds such a network for
    exactly the shapes of its golden samples, so the engine runs with these alone.

    Severity: warning.
    Source: TensorRT documentation, Working with DLA (no dynamic dimensions).
    Remedy: export the network with the shapes in use.
    """
    dynamic = pair.cache.dynamic_inputs if pair.cache else None
    if pair.options.dla_core is None or pair.builder_is(REFERENCE) or not dynamic:
        return
    name, shape = next(iter(dynamic.items()))
    shown = "x".join("?" if size < 0 else str(size) for size in shape)
    more = f" and {len(dynamic) - 1} more inputs" if len(dynamic) > 1 else ""
    yield Finding(
        rule="dla-dynamic-shape",
        severity=Severity.WARNING,
        subject=pair.target.name,
        message=f"input {name!r} is {shown}{more}, and a DLA takes fixed shapes only: "
        "the engine will run with the shapes of the golden samples alone",
        remedy="export the network with the batch size and shapes in use, then calibrate it",
    )


def dla_io_format(pair: Pairing) -> Iterator[Finding]:
    """Warn that a DLA without GPU fallback wants inputs and outputs in formats of its own.

    trtexec then sets DIRECT_IO: nothing converts at the network's edges, and a DLA has no FP32.
    edgecal names no I/O formats, so the build will probably fail; no device of ours has tried.

    Severity: warning.
    Source: github.com/NVIDIA/TensorRT, samples/common/sampleEngines.cpp, release/8.2 to 10.16;
    TensorRT documentation, Working with DLA (dla_linear, dla_hwc4, chw16, chw32).
    Remedy: allow GPU fallback, or build a standalone loadable with --inputIOFormats by hand.
    """
    have = pair.tensorrt
    if pair.options.dla_core is None or pair.options.gpu_fallback or not pair.builder_is(TRTEXEC):
        return
    if have is None or (have.major, have.minor) < _FIRST_DIRECT_IO:
        return
    yield Finding(
        rule="dla-io-format",
        severity=Severity.WARNING,
        subject=pair.target.name,
        message=f"without GPU fallback trtexec {have} sets DIRECT_IO, and the network's FP32 "
        "inputs and outputs are no format of a DLA",
        remedy="leave --no-gpu-fallback out: the GPU then converts at the edges",
    )


def host_gpu_window(pair: Pairing) -> Iterator[Finding]:
    """Refuse a host GPU that cannot run the TensorRT of the target.

    Native calibration wants the target's TensorRT on the host. V100 ends with 10.4, so it serves
    JetPack 6 and no later; Blackwell begins with 10.8, so it serves JetPack 7 and no earlier.
    Calibration on the CPU needs no GPU at all.

    Severity: error; warning where the tables do not say or are not confirmed.
    Source: TensorRT release notes 10.5.0 and 10.8.0, support matrices of 8.4 and 10.1, and the
    architectures that its open-source releases compile for.
    Remedy: a GPU that can, in the container of that TensorRT; or the CPU.
    """
    have = pair.tensorrt
    if pair.explicit is not None:
        return
    if pair.host is not None and pair.platforms is not None and have is not None:
        yield from judge_host_gpu(pair.host, have, pair.platforms, subject=pair.target.name)


def judge_host_gpu(
    gpu: HostGpu, tensorrt: TensorRTVersion, platforms: Platforms, *, subject: str
) -> Iterator[Finding]:
    """Tell whether a host GPU can calibrate for a TensorRT by TensorRT itself, and what could."""
    can, sure = gpu_can(gpu, tensorrt)
    if (can and sure) or not takes_caches(tensorrt):
        return
    doubt = {
        True: "runs it, which no source confirms",
        False: "does not run it" if gpu.int8 else "has no INT8",
        None: "may or may not run it: no table says",
    }[can]
    could = calibrators_for(platforms, tensorrt)
    steps = [f"calibrate on the CPU: {calibrate_command(tensorrt, 'net')}"]
    if could.gpus:
        inside = f": {container_step(could.container)}" if could.container else ""
        steps.append(f"natively on one of {gpu_names(could.gpus)}{inside}")
    yield Finding(
        rule="host-gpu-window",
        severity=Severity.ERROR if can is False and sure else Severity.WARNING,
        subject=subject,
        message=f"the target has TensorRT {tensorrt}, and {gpu.gpu} (compute capability "
        f"{gpu.compute_capability}, TensorRT {gpu.first_tensorrt or '?'} to "
        f"{gpu.last_tensorrt or '?'}) {doubt}",
        remedy="; or ".join(steps),
    )


def _why_no_dla(pair: Pairing) -> str | None:
    have, release = pair.tensorrt, pair.release
    soc = pair.module.soc if pair.module else pair.facts.soc
    if have is not None and have < _DLA_AGAIN and (have.major, have.minor) > _LAST_DLA:
        return (
            f"TensorRT {have} does not build for DLA: 10.7 was the last that does, 11.4.1 does "
            "again, on AGX Orin"
        )
    if have is not None and have >= _DLA_AGAIN:
        if pair.module is not None and pair.module.family != _AGX_ORIN:
            return (
                f"TensorRT {have} builds for the DLA of AGX Orin alone, and this is {pair.device}"
            )
        return None
    if (
        release is not None
        and release.dla is not None
        and soc is not None
        and soc not in release.dla
    ):
        shown = ", ".join(release.dla) or "no SoC"
        return (
            f"the TensorRT of JetPack {release.jetpack} builds for the DLA of {shown}, not of {soc}"
        )
    return None
