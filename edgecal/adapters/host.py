"""What this machine has for calibrating: GPU, CUDA, TensorRT, ONNX Runtime, Docker.

Every question goes to a program or a file that may be missing, and none may hang: what cannot be
found out is `None`. Nothing heavy is imported; versions come from the packages' metadata.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgecal.core.hosts import GpuFact, HostFacts
from edgecal.core.versions import parse_tensorrt
from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SHORT_S: Final = 10.0
_DRIVER_S: Final = 30.0
"""A GPU that nothing has used since boot takes seconds to wake."""

_TENSORRT_PACKAGES: Final = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11")
_ONNXRUNTIME_PACKAGES: Final = ("onnxruntime", "onnxruntime-gpu")
_DEB: Final = re.compile(r".i\s+libnvinfer[0-9]*\s+(?P<version>\S+)")
_LINKED: Final = re.compile(r"\s*libnvinfer\.so\.[0-9.]+ .*=> (?P<path>/\S+)")
_SONAME: Final = re.compile(r"libnvinfer\.so\.(?P<version>[0-9]+\.[0-9]+(?:\.[0-9]+)*)")
_CUDA: Final = re.compile(r"CUDA Version\s*:\s*(?P<version>[0-9]+\.[0-9]+)")
_LINKERS: Final = "/usr/sbin:/sbin"
"""Where ldconfig lies, which is on the PATH of few ordinary users."""
_CUDA_JSON: Final = Path("/usr/local/cuda/version.json")

# In a process of its own: a driver in trouble can hang or abort whoever asks it. 75 and 76 are
# CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h.
_ASK_DRIVER: Final = """
import ctypes, json
cuda = ctypes.CDLL("libcuda.so.1")
number, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
if cuda.cuInit(0):
    raise SystemExit("cuInit failed")
cuda.cuDriverGetVersion(ctypes.byref(number))
found = {"cuda": "%d.%d" % (number.value // 1000, number.value % 1000 // 10), "gpus": []}
count = ctypes.c_int()
cuda.cuDeviceGetCount(ctypes.byref(count))
for index in range(count.value):
    device = ctypes.c_int()
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetName(name, 256, device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    capability = []
    for attribute in (75, 76):
        cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        capability.append(str(number.value))
    shown = name.value.decode("utf-8", "replace")
    found["gpus"].append([shown, ".".join(capability), memory.value])
print(json.dumps(found))
"""


def read_host() -> HostFacts:
    """Look at this machine; takes a second or two, more where a GPU has to wake."""
    gpus, driver = _smi_gpus()
    source = "nvidia-smi" if gpus else None
    cuda_driver = _smi_cuda() if gpus else None
    if not gpus or any(gpu.compute_capability is None for gpu in gpus):
        asked, cuda = _driver_gpus()
        if asked:
            gpus, source = asked, "libcuda"
            cuda_driver = cuda_driver or cuda
    docker = _docker()
    return HostFacts(
        arch=platform.machine(),
        python=platform.python_version(),
        cores=len(os.sched_getaffinity(0)),
        gpus=gpus,
        gpu_source=source,
        driver=driver,
        cuda_driver=cuda_driver,
        cuda_toolkit=_cuda_toolkit(),
        tensorrt_package=tensorrt_package(),
        tensorrt_library=_newest([*_installed_debs(), *_linked_libraries()]),
        onnxruntime=_package(_ONNXRUNTIME_PACKAGES),
        docker=docker,
        docker_gpus=_docker_gpus() if docker else None,
    )


def tensorrt_package() -> str | None:
    """Tell which TensorRT this Python has; takes no time."""
    return _version(_package(_TENSORRT_PACKAGES))


def _run(argv: Sequence[str], *, timeout_s: float) -> str | None:
    """Give what a program prints; `None` if it is missing, fails or takes too long."""
    program = shutil.which(argv[0])
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *argv[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def _smi_gpus() -> tuple[tuple[GpuFact, ...], str | None]:
    """Ask nvidia-smi; drivers before 470 know no `compute_cap`, Jetson's no memory."""
    for columns in ("name,driver_version,memory.total,compute_cap", "name,driver_version"):
        answer = _run(
            ("nvidia-smi", f"--query-gpu={columns}", "--format=csv,noheader,nounits"),
            timeout_s=_DRIVER_S,
        )
        rows = [line.split(", ") for line in (answer or "").splitlines() if line.strip()]
        if rows and all(len(row) == columns.count(",") + 1 for row in rows):
            gpus = tuple(
                GpuFact(
                    name=row[0],
                    compute_capability=_capability(row[3]) if row[3:] else None,
                    memory_bytes=int(row[2]) * 2**20 if row[2:] and row[2].isdigit() else None,
                )
                for row in rows
            )
            return gpus, rows[0][1]
    return (), None


def _capability(text: str) -> str | None:
    return text if re.fullmatch(r"[0-9]+\.[0-9]+", text) else None


def _smi_cuda() -> str | None:
    found = _CUDA.search(_run(("nvidia-smi", "-q"), timeout_s=_DRIVER_S) or "")
    return found["version"] if found else None


def _driver_gpus() -> tuple[tuple[GpuFact, ...], str | None]:
    answer = _run((sys.executable, "-I", "-c", _ASK_DRIVER), timeout_s=_DRIVER_S)
    if answer is None:
        return (), None
    found = json.loads(answer)  # our own words: the program above printed them
    gpus = tuple(
        GpuFact(name=name, compute_capability=capability, memory_bytes=memory)
        for name, capability, memory in found["gpus"]
    )
    return gpus, found["cuda"]


def _cuda_toolkit() -> str | None:
    try:
        version = json.loads(_CUDA_JSON.read_text("utf-8"))["cuda"]["version"]
        return str(version)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    found = re.search(
        r"release (?P<version>[0-9.]+)", _run(("nvcc", "-V"), timeout_s=_SHORT_S) or ""
    )
    return found["version"] if found else None


def _package(names: Iterable[str]) -> str | None:
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _installed_debs() -> list[str]:
    answer = _run(
        (
            "dpkg-query",
            "-W",
            "-f",
            "${db:Status-Abbrev} ${Package} ${Version}\n",
            "libnvinfer[0-9]*",
        ),
        timeout_s=_SHORT_S,
    )
    return [match["version"] for match in _DEB.finditer(answer or "")]


def _linked_libraries() -> list[str]:
    """Read versions off the names of the files that the linker finds: `libnvinfer.so.8.5.2`."""
    linker = shutil.which("ldconfig", path=f"{os.environ.get('PATH', '')}:{_LINKERS}")
    answer = _run((linker, "-p"), timeout_s=_SHORT_S) if linker else None
    files = (Path(match["path"]).resolve().name for match in _LINKED.finditer(answer or ""))
    return [match["version"] for name in files if (match := _SONAME.fullmatch(name))]


def _newest(texts: Iterable[str]) -> str | None:
    versions = [text for text in map(_version, texts) if text is not None]
    return max(versions, key=parse_tensorrt, default=None)


def _version(text: str | None) -> str | None:
    """Give a version in our spelling; `None` for what is none, such as a nightly's."""
    try:
        return str(parse_tensorrt(text)) if text else None
    except InputError:
        return None


def _docker() -> str | None:
    found = re.search(
        r"version (?P<version>[0-9][^,\s]*)",
        _run(("docker", "--version"), timeout_s=_SHORT_S) or "",
    )
    return found["version"] if found else None


def _docker_gpus() -> bool | None:
    """Tell whether NVIDIA's container toolkit is there: its command, or its runtime in Docker."""
    if any(shutil.which(name) for name in ("nvidia-ctk", "nvidia-container-runtime-hook")):
        return True
    runtimes = _run(("docker", "info", "-f", "{{json .Runtimes}}"), timeout_s=_SHORT_S)
    return None if runtimes is None else '"nvidia"' in runtimes
