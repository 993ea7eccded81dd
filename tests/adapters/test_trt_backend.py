"""Calibration by TensorRT: the worker runs for real, against stand-ins for tensorrt and pycuda."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest

from edgecal.adapters.tables import load_platforms
from edgecal.adapters.trt_backend import TimeLimits, calibrate_with_tensorrt
from edgecal.adapters.trt_places import InContainer, OtherPython
from edgecal.adapters.trt_process import Worker
from edgecal.core.hosts import GpuFact, HostFacts
from edgecal.core.trt_job import CalibratorOptions
from edgecal.core.versions import parse_tensorrt
from edgecal.errors import (
    BackendError,
    DatasetError,
    DependencyError,
    EdgecalError,
    IncompatibleError,
    InputError,
    ModelError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from edgecal.ports import TensorRTCalibration

FAKES: Final = Path(__file__).resolve().parent.parent / "fake_tensorrt"
A10: Final = HostFacts(
    arch="x86_64",
    python="3.11.7",
    cores=8,
    gpus=(GpuFact(name="NVIDIA A10", compute_capability="8.6"),),
)
NET: Final = {"inputs": [["image", "FLOAT", [-1, 2]]], "tensors": ["conv", "relu: 0"]}


def samples(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"image": np.arange(2, dtype=np.float32) + number} for number in range(start, start + count)
    ]


class Bench:
    """One place to calibrate from, with everything that a test may change."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.model = folder / "net.onnx"
        self.log = folder / "trt.log"
        self.patch = patch
        self.use("10.3.0")
        patch.setenv("PYTHONPATH", str(FAKES))
        patch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        patch.setenv("TMPDIR", str(folder))
        patch.setattr("tempfile.tempdir", None)
        self.network(NET)

    def use(self, version: str, mode: str = "") -> None:
        self.version = version
        self.patch.setenv("FAKE_TENSORRT", version)
        self.patch.setenv("FAKE_TENSORRT_MODE", mode)

    def network(self, description: dict[str, Any]) -> None:
        self.model.write_text(json.dumps(description))

    def calibrate(
        self,
        data: Iterable[dict[str, Any]] | None = None,
        **changes: Any,  # noqa: ANN401 - of all kinds
    ) -> TensorRTCalibration:
        arguments: dict[str, Any] = {
            "batch_size": 2,
            "tensorrt": parse_tensorrt(self.version),
            "log": self.log,
            "host": A10,
            "platforms": load_platforms(),
            **changes,
        }
        return calibrate_with_tensorrt(
            self.model, samples(6) if data is None else data, **arguments
        )

    def leftovers(self) -> list[str]:
        return [path.name for path in self.folder.iterdir() if path.name.startswith("edgecal-trt-")]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(tmp_path, monkeypatch)
    yield made
    assert made.leftovers() == []


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "kind", "words"),
    [
        ("import-error", DependencyError, "cannot import tensorrt: libnvinfer.so.10"),
        ("no-gpu", BackendError, "CUDA sees no GPU"),
        ("cuda-error", BackendError, "system not yet initialized"),
        ("device-memory", BackendError, "the GPU has no 16 bytes left for a batch"),
        ("copy-error", BackendError, "illegal memory access"),
        ("builder-error", BackendError, "CUDA initialization failure with error: 35"),
        ("no-int8", IncompatibleError, "has no INT8"),
        ("parse-error", ModelError, "Plugin not found"),
        ("no-scales", BackendError, "no scaling factors"),
        ("skips", BackendError, "skipped calibration"),
        ("python-error", BackendError, "RuntimeError: something of pybind"),
        ("crash", BackendError, "crashed with SIGSEGV"),
        ("exit", BackendError, "ended with status 7"),
        ("other-header", BackendError, "found 'TRT-7203-MinMaxCalibration'"),
        ("volta", None, ""),
    ],
)
def test_each_trouble_is_told_as_what_it_is(
    bench: Bench, mode: str, kind: type[EdgecalError] | None, words: str
) -> None:
    bench.use("10.3.0", mode)
    if kind is None:
        assert bench.calibrate().compute_capability == "7.0"
        return
    with pytest.raises(kind) as caught:
        bench.calibrate()
    assert type(caught.value) is kind
    assert words in caught.value.what
    assert caught.value.remedy
    assert bench.log.exists()


def test_a_crash_names_the_log_and_the_log_is_kept(bench: Bench) -> None:
    bench.use("10.3.0", "crash")
    with pytest.raises(BackendError) as caught:
        bench.calibrate()
    assert caught.value.where == str(bench.log)
    log = bench.log.read_text()
    assert "[V] BuilderFlag.INT8" in log
    assert "library chatter on stdout" in log  # which never reaches the answers


def test_memory_that_runs_out_inside_tensorrt_is_told_as_that(bench: Bench) -> None:
    bench.use("10.3.0", "no-memory")
    with pytest.raises(BackendError, match="out of memory") as caught:
        bench.calibrate()
    assert "--batch-size" in caught.value.remedy


def test_no_tensorrt_says_which_container_and_wheel_have_it(bench: Bench) -> None:
    bench.use("8.5.2", "import-error")
    with pytest.raises(DependencyError) as caught:
        bench.calibrate()
    assert "--trt-container nvcr.io/nvidia/tensorrt:23.01-py3" in caught.value.remedy
    assert "--trt-python" in caught.value.remedy


def test_another_tensorrt_is_refused_with_both_versions(bench: Bench) -> None:
    with pytest.raises(IncompatibleError) as caught:
        bench.calibrate(tensorrt=parse_tensorrt("10.13.3"))
    assert "TensorRT 10.13 is wanted, found 10.3.0" in caught.value.what
    assert "pip install tensorrt==10.13.3.9" in caught.value.remedy


def test_another_patch_of_the_same_minor_will_do(bench: Bench) -> None:
    assert str(bench.calibrate(tensorrt=parse_tensorrt("10.3.5")).tensorrt) == "10.3.0"


@pytest.mark.parametrize(
    ("gpu", "version", "words"),
    [
        (("V100", "7.0"), "10.5", "does not run TensorRT 10.5"),
        (("B200", "10.0"), "8.6", "does not run TensorRT 8.6"),
        (("B200", "10.0"), "10.7", "does not run TensorRT 10.7"),
        (None, "10.3", "no NVIDIA GPU here"),
        (("NVIDIA A10", "8.6"), "11.1", "takes no calibration cache"),
    ],
)
def test_a_host_that_cannot_is_refused_before_any_data_is_read(
    bench: Bench, gpu: tuple[str, str] | None, version: str, words: str
) -> None:
    data = iter(samples(6))
    gpus = (GpuFact(name=gpu[0], compute_capability=gpu[1]),) if gpu else ()
    host = HostFacts(arch="x86_64", python="3.11", cores=1, gpus=gpus)
    with pytest.raises(IncompatibleError) as caught:
        bench.calibrate(data, host=host, tensorrt=parse_tensorrt(version))
    assert words in caught.value.what
    assert len(list(data)) == 6


def test_the_gpu_that_the_worker_gets_is_judged_too(bench: Bench) -> None:
    bench.use("10.8.0", "volta")
    with pytest.raises(IncompatibleError, match=r"Imaginary A10.*does not run TensorRT 10.8") as it:
        bench.calibrate()
    assert "CUDA_VISIBLE_DEVICES" in it.value.remedy


def test_a_gpu_that_no_table_knows_may_try(bench: Bench) -> None:
    host = HostFacts(
        arch="x86_64",
        python="3.11",
        cores=1,
        gpus=(GpuFact(name="Newest", compute_capability="99.0"),),
    )
    assert bench.calibrate(host=host).batches == 3


@pytest.mark.parametrize("mode", ["hang", ""])
def test_a_worker_without_sign_of_life_is_ended(bench: Bench, mode: str) -> None:
    bench.use("10.3.0", mode)
    limits = TimeLimits(start_s=60, silence_s=0.2)
    if mode == "hang":
        began = time.monotonic()
        with pytest.raises(BackendError, match=r"no sign of life for 0\.2 s"):
            bench.calibrate(limits=limits)
        assert time.monotonic() - began < 20
    else:
        assert bench.calibrate().batches == 3


def test_a_python_that_never_answers_is_ended(bench: Bench) -> None:
    sleeper = program(bench.folder / "python", "sleep 600 & echo $! >pid; wait")
    bench.patch.chdir(bench.folder)
    with pytest.raises(BackendError, match="no sign of life"):
        bench.calibrate(place=OtherPython(sleeper), limits=TimeLimits(start_s=1.0))
    assert gone(int((bench.folder / "pid").read_text()))  # what it started, too


EARLY: Final = {
    "event": "result",
    "tensorrt": "10.3.0",
    "gpu": "any",
    "compute_capability": "8.6",
    "bytes": 1,
    "sha256": "any",
    "batches": 3,
    "unknown_ranges": [],
    "built": None,
}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo 'edgecal-trt: {\"event\"'", "an answer that is none"),
        ('echo \'edgecal-trt: {"event": "batch", "number": 7}\'', "took batch 7, where 0"),
        ("head -c 3000000 /dev/zero; exit 9", "ended with status 9"),
        ("echo no module named venv >&2; exit 1", "no module named venv"),
        ("exit 139", "crashed with SIGSEGV"),  # as Docker tells it
        ("exec 1>&-; sleep 600", "ended with status 0"),
        (f"echo 'edgecal-trt: {json.dumps(EARLY)}'", "cannot read the table"),
    ],
)
def test_what_is_no_worker_of_ours_ends_as_one_clear_error(
    bench: Bench, body: str, words: str
) -> None:
    bench.patch.setattr(Worker._wait, "__defaults__", (0.5,))
    stranger = program(bench.folder / "python", body)
    with pytest.raises(BackendError) as caught:
        bench.calibrate(place=OtherPython(stranger))
    assert words in caught.value.what


def test_a_table_that_changed_on_its_way_is_not_taken(bench: Bench) -> None:
    # a Python that runs the worker and then spoils what it wrote
    spoiler = program(
        bench.folder / "python",
        f'{sys.executable} "$@"; echo "x: 1" >>"$(dirname "$2")/calibration.cache"',
    )
    with pytest.raises(BackendError, match="others were found"):
        bench.calibrate(place=OtherPython(spoiler))


@pytest.mark.parametrize("path", ["absent/python3", "net.onnx"])
def test_a_python_that_is_none_is_told_at_once(bench: Bench, path: str) -> None:
    with pytest.raises(InputError, match="expected a Python to run"):
        bench.calibrate(place=OtherPython(bench.folder / path))


def test_a_file_that_cannot_run_is_told_by_its_name(bench: Bench) -> None:
    broken = bench.folder / "python"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o755)
    with pytest.raises(BackendError, match="cannot start") as caught:
        bench.calibrate(place=OtherPython(broken))
    assert caught.value.where == str(broken)


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        ([], DatasetError, "holds no sample"),
        (samples(1), DatasetError, "1 samples make no batch of 2"),
        (
            [*samples(3), {"image": np.array([0, np.nan], np.float32)}],
            DatasetError,
            "NaN or infinity",
        ),
        (
            [*samples(2), *[{"image": np.zeros(3, np.float32)}] * 2],
            DatasetError,
            "found [2, 3]",
        ),
        (
            [*samples(3), {"picture": np.zeros(2, np.float32)}],
            DatasetError,
            "has the inputs picture",
        ),
        (
            [*samples(3), {"image": np.zeros(2, np.float32), "more": np.zeros(1)}],
            DatasetError,
            "has the inputs image, more",
        ),
        ([*samples(2), *[{"image": np.zeros(2, np.int8)}] * 2], DatasetError, "found int8"),
        ([{"image": np.zeros(3, np.float32)}] * 2, DatasetError, "has the shape [-1, 2]"),
        ([{"image": np.zeros(2, np.int32)}] * 2, DatasetError, "is FLOAT for TensorRT"),
        ([{"image": np.zeros(2, np.complex64)}] * 2, DatasetError, "found complex64"),
        ([{"picture": np.zeros(2, np.float32)}] * 2, DatasetError, "the data has ['picture']"),
    ],
)
def test_data_that_does_not_fit_is_named(
    bench: Bench, data: list[dict[str, Any]], kind: type[EdgecalError], words: str
) -> None:
    with pytest.raises(kind) as caught:
        bench.calibrate(data)
    assert words in caught.value.what
    assert caught.value.remedy


def test_a_generator_that_raises_ends_the_worker_and_is_heard(bench: Bench) -> None:
    def source() -> Iterator[dict[str, Any]]:
        yield from samples(9)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        bench.calibrate(source())
    assert workers_of(bench) == []


def test_integers_beyond_the_network_s_type_are_refused(bench: Bench) -> None:
    bench.network({"inputs": [["ids", "INT32", [1, 1]]], "tensors": []})
    with pytest.raises(DatasetError, match="beyond int32"):
        bench.calibrate([{"ids": np.array([2**31])}], batch_size=1)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"image": (4, 2)}, "--shape wants 4x2, batches have 2x2"),
        ({"picture": (2, 2)}, "--shape names 'picture'"),
    ],
)
def test_shapes_that_the_data_does_not_have_are_refused(
    bench: Bench, shapes: dict[str, tuple[int, ...]], words: str
) -> None:
    with pytest.raises(DatasetError) as caught:
        bench.calibrate(shapes=shapes)
    assert words in caught.value.what


@pytest.mark.parametrize(
    "options",
    [
        CalibratorOptions(algorithm="percentile"),
        CalibratorOptions(quantile=1.5),
        CalibratorOptions(cutoff=-1),
        CalibratorOptions(workspace_bytes=0),
        CalibratorOptions(ranges={"conv": 0.0}),
        CalibratorOptions(ranges={"conv": float("nan")}),
    ],
)
def test_options_outside_their_range_are_refused_at_once(
    bench: Bench, options: CalibratorOptions
) -> None:
    with pytest.raises(InputError):
        bench.calibrate(options=options)
    assert not bench.log.exists()


def test_a_full_disk_is_told_with_the_folder(bench: Bench) -> None:
    def fill(_: Path, __: bytes) -> None:
        raise OSError(28, "No space left on device")

    with bench.patch.context() as patch:
        patch.setattr(Path, "write_bytes", fill)
        with pytest.raises(InputError, match="No space left on device") as caught:
            bench.calibrate()
    assert "TMPDIR" in caught.value.remedy


def test_ctrl_c_ends_the_worker_s_whole_group(bench: Bench) -> None:
    bench.use("10.3.0", "hang")
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from tests.adapters.test_trt_backend import A10, samples\n"
        "from edgecal.adapters.tables import load_platforms\n"
        "from edgecal.adapters.trt_backend import calibrate_with_tensorrt\n"
        "from edgecal.core.versions import parse_tensorrt\n"
        "calibrate_with_tensorrt(Path(sys.argv[1]), samples(4), batch_size=2,\n"
        "    tensorrt=parse_tensorrt('10.3'), log=Path(sys.argv[2]), host=A10,\n"
        "    platforms=load_platforms(), progress=lambda *a: print(a, flush=True))\n"
    )
    checkout = FAKES.parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", code, str(bench.model), str(bench.log)],
        env={**os.environ, "PYTHONPATH": f"{checkout}:{FAKES}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None
        assert b"building" in parent.stdout.readline()
        assert len(workers_of(bench)) == 1
        os.kill(parent.pid, signal.SIGINT)
        _, said = parent.communicate(timeout=20)
    assert b"KeyboardInterrupt" in said
    assert workers_of(bench) == []


def test_a_worker_whose_edgecal_was_killed_ends_by_itself(bench: Bench) -> None:
    folder = bench.folder / "job"
    job = by_hand(folder, bench, batches=0)
    done = subprocess.run(
        [sys.executable, str(WORKER), str(job)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 3
    assert b"edgecal has gone" in done.stdout


# --- what goes right ------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["7.2.3", "8.0.1", "8.5.2.2", "10.3.0", "10.16.1.11"])
def test_every_sample_of_full_batches_reaches_tensorrt_once_and_in_order(
    bench: Bench, version: str
) -> None:
    bench.use(version)
    seen: list[tuple[str, int, int]] = []
    done = bench.calibrate(samples(23), total=23, progress=lambda *one: seen.append(one))
    fed = hashlib.sha256(np.stack([one["image"] for one in samples(22)]).tobytes()).hexdigest()
    assert f"fed 11 {fed}: 3c010a14\n".encode() in done.cache
    assert (done.batches, done.samples, done.dropped) == (11, 22, 1)
    assert [finding.rule for finding in done.findings] == ["incomplete-batch"]
    assert seen == [
        ("building for calibration", 0, 23),
        *(("calibrating", 2 * n, 23) for n in range(1, 12)),
    ]
    assert str(done.tensorrt) == version
    assert (done.gpu, done.compute_capability) == ("Imaginary A10", "8.6")


@pytest.mark.parametrize("version", ["7.2.3", "8.5.2", "10.3.0"])
@pytest.mark.parametrize(
    ("algorithm", "head", "before_fusion"),
    [
        ("entropy2", "EntropyCalibration2", False),
        ("minmax", "MinMaxCalibration", False),
        ("entropy", "EntropyCalibration", True),
        ("legacy", "0 3ff0000000000000 3fefffeb074a771d", True),
    ],
)
def test_each_calibrator_is_asked_for_by_its_name(
    bench: Bench, version: str, algorithm: str, head: str, *, before_fusion: bool
) -> None:
    bench.use(version)
    done = bench.calibrate(options=CalibratorOptions(algorithm=algorithm))
    assert done.cache.decode().splitlines()[0].endswith(head)
    assert ("CALIBRATE_BEFORE_FUSION" in bench.log.read_text()) == before_fusion


@pytest.mark.parametrize(
    ("version", "told"),
    [("8.2.1", "workspace 4096"), ("8.5.2", "MemoryPoolType.WORKSPACE 4096")],
)
def test_options_reach_the_builder(bench: Bench, version: str, told: str) -> None:
    bench.use(version)
    options = CalibratorOptions(
        workspace_bytes=4096, fp16=False, ranges={"image": 2.5, "relu: 0": 6, "gone": 1}
    )
    done = bench.calibrate(options=options, shapes={"image": (2, 2)})
    log = bench.log.read_text()
    assert told in log
    assert "BuilderFlag.INT8" in log
    assert "BuilderFlag.FP16" not in log
    assert "calibration profile [('image', (2, 2))]" in log
    assert b"\nimage 2.5: " in done.cache
    assert b"\nrelu: 0 6: " in done.cache
    (finding,) = done.findings
    assert (finding.rule, "gone" in finding.message) == ("unknown-range", True)
    bench.calibrate()
    assert "BuilderFlag.FP16" in bench.log.read_text()


def test_the_engine_of_this_host_is_built_only_if_wanted(bench: Bench) -> None:
    short = bench.calibrate()
    assert "timing tactics" not in bench.log.read_text()
    whole = bench.calibrate(options=CalibratorOptions(whole_build=True))
    assert "timing tactics" in bench.log.read_text()
    assert whole.cache == short.cache
    bench.use("10.3.0", "no-engine")  # which takes nothing from the table
    assert bench.calibrate(options=CalibratorOptions(whole_build=True)).cache == short.cache


def test_several_inputs_come_in_tensorrt_s_order_and_types(bench: Bench) -> None:
    bench.network(
        {
            "inputs": [["mask", "BOOL", [1, 2]], ["ids", "INT32", [1, 2]], ["x", "HALF", [1, 1]]],
            "tensors": [],
        }
    )
    sample = {
        "x": np.array([0.5], np.float16),
        "ids": np.array([7, -1]),
        "mask": np.array([True, False]),
    }
    done = bench.calibrate([sample], batch_size=1)
    fed = b"\1\0" + np.array([7, -1], np.int32).tobytes() + np.array([0.5], np.float32).tobytes()
    assert hashlib.sha256(fed).hexdigest().encode() in done.cache


def test_the_disk_holds_few_batches_at_any_time(bench: Bench) -> None:
    most = 0

    def counted() -> Iterator[dict[str, Any]]:
        nonlocal most
        for one in samples(80):
            most = max(most, len(list(bench.folder.glob("edgecal-trt-*/batch-*"))))
            yield one

    assert bench.calibrate(counted(), batch_size=1).batches == 80
    assert 1 <= most <= 4


CUDA: Final = """
#include <stdlib.h>
#include <string.h>
int cuInit(unsigned flags) { return FAILS; }
int cuDeviceGetCount(int *count) { *count = GPUS; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &memset; return 0; }
int cuCtxSetCurrent(void *context) { return context != (void *)&memset; }
int cuDeviceGetName(char *name, int room, int device) { strncpy(name, "Stub", room); return 0; }
int cuDeviceGetAttribute(int *value, int which, int device)
{ *value = which == 75 ? 8 : 6; return 0; }
int cuMemAlloc_v2(void **address, size_t size) { *address = malloc(size); return FULL; }
int cuMemcpyHtoD_v2(void *to, const void *from, size_t size) { memcpy(to, from, size); return 0; }
"""


@pytest.fixture
def libcuda(bench: Bench) -> Callable[[str], None]:
    """Put a driver's library of ours where the worker finds it."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")

    def make(settings: str) -> None:
        source = bench.folder / "cuda.c"
        source.write_text(CUDA)
        subprocess.run(
            [
                *(compiler, "-shared", "-fPIC", *settings.split()),
                *("-o", str(bench.folder / "libcuda.so.1"), str(source)),
            ],
            check=True,
        )
        bench.patch.setenv("LD_LIBRARY_PATH", str(bench.folder))

    return make


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("-DFAILS=100 -DGPUS=0 -DFULL=0", "CUDA cannot start: cuInit gave CUDA error 100"),
        ("-DFAILS=0 -DGPUS=0 -DFULL=0", "CUDA sees no GPU"),
        ("-DFAILS=0 -DGPUS=1 -DFULL=2", "the GPU has no 16 bytes left"),
        ("-DFAILS=0 -DGPUS=1 -DFULL=700", "cuMemAlloc_v2 gave CUDA error 700"),
        ("-DFAILS=0 -DGPUS=1 -DFULL=0", ""),
    ],
)
def test_without_pycuda_the_driver_s_library_does_it(
    bench: Bench, libcuda: Callable[[str], None], settings: str, words: str
) -> None:
    libcuda(settings)
    bench.use("10.3.0", "no-pycuda")
    if words:
        with pytest.raises(BackendError) as caught:
            bench.calibrate()
        assert words in caught.value.what
        return
    done = bench.calibrate()
    fed = hashlib.sha256(np.stack([one["image"] for one in samples(6)]).tobytes()).hexdigest()
    assert f"fed 3 {fed}".encode() in done.cache
    assert (done.gpu, done.compute_capability) == ("Stub", "8.6")


def test_without_pycuda_and_without_driver_the_driver_is_missed(bench: Bench) -> None:
    bench.use("10.3.0", "no-pycuda")
    (bench.folder / "libcuda.so.1").write_text("no library")
    bench.patch.setenv("LD_LIBRARY_PATH", str(bench.folder))
    with pytest.raises(BackendError, match=r"no NVIDIA driver: .*libcuda.so.1"):
        bench.calibrate()


@pytest.mark.parametrize("minor", ["3.6", "3.8"])
def test_the_worker_runs_on_old_pythons(bench: Bench, minor: str) -> None:
    # pyenv's own folders: its shims want a version chosen
    kept = sorted(Path(sys.base_prefix).parent.glob(f"{minor}.*/bin/python"))
    found = shutil.which(f"python{minor}") if not kept else str(kept[-1])
    if found is None:
        pytest.skip(f"no Python {minor} here")
    assert bench.calibrate(place=OtherPython(Path(found))).batches == 3


# --- in a container -------------------------------------------------------------------------------

DOCKER: Final = """
echo "$@" >>"$HERE/calls"
case "$1" in
image) [ -e "$HERE/absent" ] && { echo "Error: No such image: $5" >&2; exit 1; }; exit 0 ;;
rm) kill -9 "$(cat "$HERE/pid")"; exit 0 ;;
esac
echo "== TensorRT =="
printf 'NVIDIA Release '
for word in "$@"; do
    case "$word" in
    type=bind,src=*,dst=/edgecal/job) job=${word#type=bind,src=}; job=${job%,dst=*} ;;
    type=bind,src=*,dst=/edgecal/model,readonly)
        model=${word#type=bind,src=}; model=${model%,dst=*} ;;
    esac
done
# what the mounts would do
sed -i "s#/edgecal/job#$job#g; s#/edgecal/model#$model#g" "$job/job.json"
exec 3<&0  # what runs in the background would read /dev/null
setsid "$PYTHON" -u "$job/trt_calibrate.py" "$job/job.json" <&3 &
echo $! >"$HERE/pid"
wait $!
"""


@pytest.fixture
def docker(bench: Bench) -> Path:
    folder = bench.folder / "bin"
    folder.mkdir()
    program(
        folder / "docker", DOCKER.replace("$HERE", str(folder)).replace("$PYTHON", sys.executable)
    )
    bench.patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_a_container_gets_the_model_read_only_and_all_gpus(bench: Bench, docker: Path) -> None:
    done = bench.calibrate(place=InContainer("nvcr.io/nvidia/tensorrt:24.08-py3"))
    assert done.batches == 3
    ask, run = (docker / "calls").read_text().splitlines()
    assert ask.startswith("image inspect")
    assert "--gpus all" in run
    assert f"type=bind,src={bench.folder},dst=/edgecal/model,readonly" in run
    assert "nvcr.io/nvidia/tensorrt:24.08-py3 python3 -u /edgecal/job/trt_calibrate.py" in run


def test_an_image_that_is_not_here_is_never_fetched(bench: Bench, docker: Path) -> None:
    (docker / "absent").touch()
    with pytest.raises(InputError, match="the image is not here") as caught:
        bench.calibrate(place=InContainer("some/image"))
    assert caught.value.remedy == "docker pull some/image"


def test_no_docker_is_told(bench: Bench) -> None:
    bench.patch.setenv("PATH", str(bench.folder))
    with pytest.raises(InputError, match="Docker is not installed"):
        bench.calibrate(place=InContainer("some/image"))


def test_a_container_that_hangs_is_removed_by_its_name(bench: Bench, docker: Path) -> None:
    bench.use("10.3.0", "hang")
    with pytest.raises(BackendError, match="no sign of life"):
        bench.calibrate(place=InContainer("some/image"), limits=TimeLimits(silence_s=0.2))
    calls = (docker / "calls").read_text().splitlines()
    name = calls[1].split("--name ")[1].split()[0]
    assert calls[2] == f"rm --force {name}"
    assert gone(int((docker / "pid").read_text()))


# --- helpers --------------------------------------------------------------------------------------

WORKER: Final = FAKES.parent.parent / "edgecal" / "host_scripts" / "trt_calibrate.py"


def program(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def by_hand(folder: Path, bench: Bench, *, batches: int) -> Path:
    folder.mkdir()
    job = {
        "tensorrt": "10.3",
        "model": str(bench.model),
        "batches": str(folder),
        "cache": str(folder / "calibration.cache"),
        "log": str(folder / "calibration.log"),
        "inputs": [{"name": "image", "dtype": "float32", "shape": [2, 2]}],
        "algorithm": "entropy2",
        "fp16": True,
        "workspace_bytes": 1,
        "ranges": {},
        "whole_build": False,
    }
    assert batches == 0
    (folder / "job.json").write_text(json.dumps(job))
    return folder / "job.json"


def workers_of(bench: Bench) -> list[int]:
    """Processes that run the worker for this test."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(bench.folder).encode() in words and b"trt_calibrate.py" in words:
                found.append(int(entry.name))
    return found


def gone(pid: int) -> bool:
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        threading.Event().wait(0.02)
    return False
