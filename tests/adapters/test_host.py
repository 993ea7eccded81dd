"""What the host adapter finds, on machines made of small programs on the PATH."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

import pytest

from edgecal.adapters import host
from edgecal.adapters.host import read_host
from edgecal.core.hosts import GpuFact

if TYPE_CHECKING:
    from pathlib import Path

LIBCUDA = r"""
#include <string.h>
int cuInit(unsigned flags) { return @INIT@; }
int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) {
    strncpy(name, device ? "Tesla T4" : "Tesla V100", size);
    return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 1UL << 34; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 7 : device ? 5 : 0;
    return 0;
}
"""


@dataclass
class Machine:
    """A machine whose programs a test writes."""

    folder: Path

    def program(self, name: str, body: str) -> None:
        file = self.folder / name
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with nothing: no program but a shell, no CUDA, no package of TensorRT."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(host, "_CUDA_JSON", tmp_path / "version.json")
    monkeypatch.setattr(host, "_LINKERS", str(tmp_path))
    monkeypatch.setattr(host, "_TENSORRT_PACKAGES", ())
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    return Machine(tmp_path)


def test_a_machine_with_nothing_has_nothing(machine: Machine) -> None:
    assert machine.folder.is_dir()
    found = read_host()
    assert found.gpus == ()
    assert found.installed() == ()
    assert (found.driver, found.cuda_driver, found.cuda_toolkit) == (None, None, None)
    assert (found.docker, found.docker_gpus) == (None, None)
    assert found.cores > 0
    assert found.onnxruntime == metadata.version("onnxruntime")


def test_programs_that_fail_or_talk_nonsense_count_as_missing(machine: Machine) -> None:
    machine.program("nvidia-smi", "echo NVIDIA-SMI has failed; exit 9")
    machine.program("dpkg-query", "exit 1")
    machine.program("docker", "echo nonsense")
    machine.program("nvcc", "echo nonsense")
    (machine.folder / "version.json").write_text("[]")
    found = read_host()
    assert found.gpus == ()
    assert (found.tensorrt_library, found.cuda_toolkit, found.docker) == (None, None, None)


def test_a_program_that_hangs_does_not_hang_us(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "_SHORT_S", 0.2)
    machine.program("docker", f"exec {shutil.which('sleep', path='/usr/bin:/bin')} 60")
    assert read_host().docker is None


def test_nvidia_smi_tells_of_gpus_driver_and_cuda(machine: Machine) -> None:
    machine.program(
        "nvidia-smi",
        'case $* in *-q) echo "    CUDA Version                    : 12.6" ;;\n'
        "*) echo 'NVIDIA H200, 560.35.03, 143771, 9.0'; echo 'Tesla T4, 560.35.03, [N/A], 7.5' ;;"
        "esac",
    )
    found = read_host()
    assert found.gpus == (
        GpuFact(name="NVIDIA H200", compute_capability="9.0", memory_bytes=143771 * 2**20),
        GpuFact(name="Tesla T4", compute_capability="7.5", memory_bytes=None),
    )
    assert (found.gpu_source, found.driver, found.cuda_driver) == (
        "nvidia-smi",
        "560.35.03",
        "12.6",
    )


def test_an_old_driver_that_knows_no_compute_capability_still_names_its_gpu(
    machine: Machine,
) -> None:
    machine.program(
        "nvidia-smi",
        'case $* in *compute_cap*) echo "Field is not valid" ; exit 2 ;;\n'
        "*) echo 'Tesla V100, 450.80.02' ;; esac",
    )
    (gpu,) = read_host().gpus
    assert gpu == GpuFact(name="Tesla V100", compute_capability=None)


def compile_libcuda(folder: Path, *, init: int = 0) -> None:
    compiler = shutil.which("cc", path="/usr/bin:/bin:/usr/local/bin")
    if compiler is None:
        pytest.skip("needs a C compiler for a stand-in for the driver")
    source = folder / "cuda.c"
    source.write_text(LIBCUDA.replace("@INIT@", str(init)))
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), str(source)],
        check=True,
        env={"PATH": "/usr/bin:/bin"},
    )


def test_the_driver_itself_is_asked_where_there_is_no_nvidia_smi(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_libcuda(machine.folder)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(machine.folder))
    found = read_host()
    assert [(gpu.name, gpu.compute_capability) for gpu in found.gpus] == [
        ("Tesla V100", "7.0"),
        ("Tesla T4", "7.5"),
    ]
    assert (found.gpu_source, found.cuda_driver) == ("libcuda", "12.6")


def test_a_driver_that_does_not_start_shows_no_gpu(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_libcuda(machine.folder, init=999)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(machine.folder))
    assert read_host().gpus == ()


def test_the_newest_installed_library_counts_and_removed_debs_do_not(machine: Machine) -> None:
    machine.program(
        "dpkg-query",
        "echo 'ii  libnvinfer8 8.6.1.6-1+cuda12.0'\n"
        "echo 'ii  libnvinfer10 10.3.0.26-1+cuda12.5'\n"
        "echo 'ii  libnvinfer-plugin10 10.9.0-1'\n"
        "echo 'rc  libnvinfer11 11.0.0-1'",
    )
    assert read_host().tensorrt_library == "10.3.0.26"


def test_a_library_without_a_deb_is_known_by_its_file(machine: Machine) -> None:
    (machine.folder / "libnvinfer.so.8.5.2").touch()
    (machine.folder / "libnvinfer.so.8").symlink_to("libnvinfer.so.8.5.2")
    machine.program(
        "ldconfig",
        f"echo '\tlibnvinfer.so.8 (libc6,x86-64) => {machine.folder}/libnvinfer.so.8'\n"
        f"echo '\tlibnvinfer_plugin.so.8 (libc6,x86-64) => {machine.folder}/none'",
    )
    assert read_host().tensorrt_library == "8.5.2"


def test_the_python_package_is_read_from_its_metadata(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = machine.folder / "site"
    package = site / "tensorrt-10.3.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: tensorrt\nVersion: 10.3.0\n")
    monkeypatch.setattr(host, "_TENSORRT_PACKAGES", ("tensorrt",))
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    assert read_host().tensorrt_package == "10.3.0"


@pytest.mark.parametrize(
    ("info", "toolkit", "expected"),
    [
        ('echo \'{"nvidia":{"path":"x"},"runc":{}}\'', False, True),
        ("echo '{\"runc\":{}}'", False, False),
        ("exit 1", False, None),  # the daemon does not answer this user
        ("exit 1", True, True),
    ],
)
def test_docker_says_whether_containers_get_the_gpu(
    machine: Machine, *, info: str, toolkit: bool, expected: bool | None
) -> None:
    machine.program(
        "docker",
        f"case $1 in --version) echo 'Docker version 27.3.1, build ce12230' ;; *) {info} ;; esac",
    )
    if toolkit:
        machine.program("nvidia-ctk", "true")
    found = read_host()
    assert (found.docker, found.docker_gpus) == ("27.3.1", expected)


def test_the_cuda_toolkit_is_read_or_its_compiler_asked(machine: Machine) -> None:
    machine.program("nvcc", "echo 'Cuda compilation tools, release 12.4, V12.4.131'")
    assert read_host().cuda_toolkit == "12.4"
    (machine.folder / "version.json").write_text('{"cuda": {"version": "12.6.3"}}')
    assert read_host().cuda_toolkit == "12.6.3"
