"""Which hosts can calibrate for a TensorRT by TensorRT itself, and what they lack for it.

A calibration cache wants the target's major.minor on the host, and each TensorRT runs on a window
of GPUs. ONNX Runtime on a CPU needs neither; what is judged here is the native way only. Nothing
in the tables was tried by us on these GPUs.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgecal.core.versions import TensorRTVersion, parse_tensorrt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgecal.core.platforms import Container, HostGpu, Platforms

_FIRST_WITHOUT_CALIBRATION: Final = 11

_WHEELS: Final = (
    "8.6.1",
    "10.0.1",
    "10.1.0",
    "10.2.0",
    "10.3.0",
    "10.4.0",
    "10.5.0",
    "10.6.0",
    "10.7.0",
    "10.8.0.43",
    "10.9.0.34",
    "10.10.0.31",
    "10.11.0.33",
    "10.12.0.36",
    "10.13.0.35",
    "10.13.2.6",
    "10.13.3.9",
    "10.14.1.48",
    "10.15.1.29",
    "10.16.0.72",
    "10.16.1.11",
)
"""Versions of the package `tensorrt` on PyPI, asked with Python 3.11 on x86-64 in November 2026.

8.5 has wheels for older Pythons only, which nobody confirmed; so it stands apart.
"""
WHEEL_PYTHON: Final = "3.11"
QDQ_COMMAND: Final = "edgecal calibrate --from BUNDLE --tensorrt 11.0 -o NET.edgecal"
"""How scales reach TensorRT 11."""
_WHEEL_DOUBT: Final = f"   (known for Python {WHEEL_PYTHON} on x86-64; here not confirmed)"
_IMAGE_DOUBT: Final = "   (not confirmed: see dpkg-query -W 'libnvinfer*' in it)"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFact:
    """A GPU of this host, as its driver tells."""

    name: str
    compute_capability: str | None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What this host has. Unknown and absent are `None`."""

    arch: str
    python: str
    cores: int
    gpus: tuple[GpuFact, ...] = ()
    gpu_source: str | None = None
    """Who told of the GPUs: `nvidia-smi` or `libcuda`."""
    driver: str | None = None
    cuda_driver: str | None = None
    """The newest CUDA that the driver runs."""
    cuda_toolkit: str | None = None
    tensorrt_package: str | None = None
    """Version of the Python package."""
    tensorrt_library: str | None = None
    """Version of the newest libnvinfer of the system."""
    onnxruntime: str | None = None
    docker: str | None = None
    """Version of the Docker client."""
    docker_gpus: bool | None = None
    """Whether NVIDIA's container toolkit is there; `None` where Docker could not be asked."""

    def installed(self) -> tuple[TensorRTVersion, ...]:
        """Give the TensorRTs that are here, Python's own first."""
        texts = (self.tensorrt_package, self.tensorrt_library)
        return tuple(parse_tensorrt(text) for text in texts if text is not None)


class Verdict(enum.Enum):
    """Whether a host calibrates natively for a TensorRT."""

    READY = "ready"
    """Its GPU can, and that TensorRT is installed."""
    INSTALLABLE = "installable"
    """Its GPU can, once that TensorRT is there."""
    UNKNOWN = "unknown"
    """Nobody says whether its GPU can."""
    GPU_UNFIT = "gpu-unfit"
    """By the tables its GPU cannot."""
    NO_GPU = "no-gpu"
    NO_CALIBRATION = "no-calibration"
    """That TensorRT takes no calibration cache at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeWay:
    """Whether and how this host calibrates natively for one TensorRT major.minor."""

    tensorrt: TensorRTVersion
    verdict: Verdict
    reason: str
    steps: tuple[str, ...] = ()
    """Any one of them is enough; commands come first, what is not confirmed says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuChoice:
    """Host GPUs that can calibrate with a TensorRT."""

    gpu: HostGpu
    verified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrators:
    """Everything that could calibrate natively for one TensorRT major.minor."""

    gpus: tuple[GpuChoice, ...]
    container: Container | None
    """For a host with such a GPU."""
    wheel: str | None
    """Version of the package `tensorrt` on PyPI."""


def takes_caches(tensorrt: TensorRTVersion) -> bool:
    """Tell whether that TensorRT reads calibration caches; 11.0 removed calibrators."""
    return tensorrt.major < _FIRST_WITHOUT_CALIBRATION


def calibrators_for(platforms: Platforms, tensorrt: TensorRTVersion) -> Calibrators:
    """Look up which host GPUs, container and wheel fit a target's TensorRT."""
    if not takes_caches(tensorrt):
        return Calibrators(gpus=(), container=None, wheel=None)
    verdicts = ((gpu, gpu_can(gpu, tensorrt)) for gpu in platforms.host_gpus)
    return Calibrators(
        gpus=tuple(GpuChoice(gpu=gpu, verified=sure) for gpu, (can, sure) in verdicts if can),
        container=container_for(platforms, tensorrt),
        wheel=wheel_for(tensorrt),
    )


def gpu_can(gpu: HostGpu, tensorrt: TensorRTVersion) -> tuple[bool | None, bool]:
    """Tell whether a GPU can calibrate with a TensorRT, and whether that is confirmed.

    Returns
    -------
    (bool or None, bool)
        `None` where nobody says, not even unconfirmed.
    """
    can = gpu.can_calibrate(tensorrt)
    if can is None:
        if tensorrt.major_minor in gpu.runs_unverified:
            return True, False
        if tensorrt.major_minor in gpu.cannot_run_unverified:
            return False, False
        return None, False
    # that a GPU cannot run a release is known even where its INT8 is not
    return can, gpu.verified and (gpu.int8_verified or not can)


def container_for(platforms: Platforms, tensorrt: TensorRTVersion) -> Container | None:
    """Find the image to take on a host: the marked one, else the newest of that major.minor."""
    fitting = [
        one
        for one in platforms.containers
        if one.runs_on == "host" and one.tensorrt_major_minor == tensorrt.major_minor
    ]
    marked = [one for one in fitting if one.best_match]
    return next(reversed(marked or fitting), None)


def wheel_for(tensorrt: TensorRTVersion) -> str | None:
    """Find the wheel on PyPI: of the same patch if there is one, else the newest of the minor."""
    versions = [parse_tensorrt(text) for text in _WHEELS]
    fitting = [
        (version.patch == tensorrt.patch, version, text)
        for version, text in zip(versions, _WHEELS, strict=True)
        if version.major_minor == tensorrt.major_minor
    ]
    return max(fitting)[2] if fitting else None


def native_way(host: HostFacts, tensorrt: TensorRTVersion, platforms: Platforms) -> NativeWay:
    """Judge whether a host calibrates for a TensorRT by TensorRT itself, and say what it lacks."""
    if not takes_caches(tensorrt):
        return NativeWay(
            tensorrt=tensorrt,
            verdict=Verdict.NO_CALIBRATION,
            reason=f"TensorRT {tensorrt.major_minor} takes no calibration cache, whoever makes it; "
            "10.16 was the last that does; a network with Q/DQ nodes carries the scales instead",
            steps=(QDQ_COMMAND,),
        )
    if not host.gpus:
        return NativeWay(
            tensorrt=tensorrt,
            verdict=Verdict.NO_GPU,
            reason=f"no NVIDIA GPU here; {_who_could(platforms, tensorrt)}",
            steps=_steps_elsewhere(tensorrt, platforms),
        )
    judged = [_gpu_verdict(gpu, tensorrt, platforms) for gpu in host.gpus]
    order = (True, None, False)
    can, _, reason = min(judged, key=lambda one: (order.index(one[0]), not one[1]))
    if can is None:
        return NativeWay(
            tensorrt=tensorrt,
            verdict=Verdict.UNKNOWN,
            reason=f"{reason}; {_who_could(platforms, tensorrt)}",
            steps=_steps_elsewhere(tensorrt, platforms),
        )
    if not can:
        return NativeWay(
            tensorrt=tensorrt,
            verdict=Verdict.GPU_UNFIT,
            reason=f"{reason}; {_who_could(platforms, tensorrt)}",
            steps=_steps_elsewhere(tensorrt, platforms),
        )
    here = [one for one in host.installed() if one.major_minor == tensorrt.major_minor]
    if here:
        return NativeWay(
            tensorrt=tensorrt,
            verdict=Verdict.READY,
            reason=f"{reason}, and TensorRT {here[0]} is installed",
        )
    found = ", ".join(dict.fromkeys(str(one) for one in host.installed())) or "none"
    return NativeWay(
        tensorrt=tensorrt,
        verdict=Verdict.INSTALLABLE,
        reason=f"{reason}; TensorRT {tensorrt.major_minor} is wanted, {found} is installed",
        steps=_steps(host, tensorrt, platforms),
    )


def gpu_names(choices: Sequence[GpuChoice]) -> str:
    """Name host GPUs, for people; unconfirmed ones have a question mark."""
    return (
        "; ".join(f"{one.gpu.gpu}{'' if one.verified else '?'}" for one in choices)
        or "no GPU of the tables"
    )


def container_command(image: str) -> str:
    """Say how to get into an image with the working directory and the GPUs."""
    return f'docker run --gpus all --rm -it -v "$PWD":/work -w /work {image}'


def container_step(container: Container) -> str:
    """Say how to get into an image, and whether what it holds is confirmed."""
    doubt = "" if container.verified else _IMAGE_DOUBT
    return container_command(container.image) + doubt


def wheel_command(version: str) -> str:
    """Say how to install a wheel."""
    return f"python3 -m pip install tensorrt=={version}"


def _gpu_verdict(
    fact: GpuFact, tensorrt: TensorRTVersion, platforms: Platforms
) -> tuple[bool | None, bool, str]:
    capability = fact.compute_capability
    shown = f"{fact.name} (compute capability {capability or 'unknown'})"
    row = next((one for one in platforms.host_gpus if one.compute_capability == capability), None)
    if row is None:
        if any(one.compute_capability == capability for one in platforms.modules):
            return None, False, f"{shown} is a Jetson's: it has the TensorRT of its JetPack only"
        return None, False, f"no table knows {shown}"
    can, sure = gpu_can(row, tensorrt)
    doubt = "" if sure else " (not confirmed)"
    if can is None:
        return None, False, f"no table says whether {shown} runs TensorRT {tensorrt.major_minor}"
    if can:
        return True, sure, f"{shown} runs TensorRT {tensorrt.major_minor}{doubt}"
    if not row.int8:
        return False, sure, f"{shown} has no INT8{doubt}"
    return False, sure, f"{shown} does not run TensorRT {tensorrt.major_minor}{doubt}"


def _who_could(platforms: Platforms, tensorrt: TensorRTVersion) -> str:
    return f"GPUs that could: {gpu_names(calibrators_for(platforms, tensorrt).gpus)}"


def _steps(host: HostFacts, tensorrt: TensorRTVersion, platforms: Platforms) -> tuple[str, ...]:
    """Say how to get the TensorRT onto this host."""
    found = calibrators_for(platforms, tensorrt)
    steps = []
    if found.wheel is not None:
        python = ".".join(host.python.split(".")[:2])
        confirmed = python == WHEEL_PYTHON and host.arch == "x86_64"
        steps.append(wheel_command(found.wheel) + ("" if confirmed else _WHEEL_DOUBT))
    if found.container is not None:
        first = (
            "install Docker and NVIDIA's container toolkit, then: "
            if host.docker is None
            else "install NVIDIA's container toolkit, then: "
            if host.docker_gpus is False
            else ""
        )
        steps.append(first + container_step(found.container))
    none = f"no wheel and no image with TensorRT {tensorrt.major_minor} is known to the tables"
    return tuple(steps) or (none,)


def _steps_elsewhere(tensorrt: TensorRTVersion, platforms: Platforms) -> tuple[str, ...]:
    """Say what a host with a GPU that fits would do."""
    found = calibrators_for(platforms, tensorrt)
    steps = []
    if found.gpus and found.wheel is not None:
        steps.append(f"on such a host: {wheel_command(found.wheel)}")
    if found.gpus and found.container is not None:
        steps.append(f"on such a host: {container_step(found.container)}")
    return tuple(steps)
