"""`edgecal calibrate --backend tensorrt` as a user meets it, with a stand-in for TensorRT."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest

from edgecal.adapters.bundle import read_bundle
from edgecal.cli import app
from edgecal.core.golden import parse_golden
from edgecal.core.statistics import parse_histograms
from tests.networks import conv_net, floats, save

if TYPE_CHECKING:
    from edgecal.core.manifest import Manifest

CHECKOUT: Final = Path(__file__).resolve().parents[2]
FAKES: Final = CHECKOUT / "tests" / "fake_tensorrt"
GPU: Final = """
case "$1" in
--query-gpu=name,driver_version,memory.total,compute_cap)
    echo "$EDGECAL_TEST_GPU" ;;
*) exit 1 ;;
esac
"""
A10: Final = "NVIDIA A10, 535.104.05, 23028, 8.6"
B200: Final = "NVIDIA B200, 570.124.06, 183359, 10.0"
CHANGING: Final = """
import numpy as np
calls = []

def data():
    calls.append(1)
    for number in range(20):
        yield np.full((3, 8, 8), len(calls) + number, np.float32)

def breaks():
    for number in range(7):
        yield np.full((3, 8, 8), number, np.float32)
    raise ValueError("sensor 17 is off")
"""


@dataclass
class Answer:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def rules(self) -> set[str]:
        return {finding["rule"] for finding in self.document["findings"]}


@dataclass
class Desk:
    """A host with an A10, and Pythons that have a TensorRT."""

    folder: Path
    capture: pytest.CaptureFixture[str]
    patch: pytest.MonkeyPatch

    def program(self, name: str, body: str) -> Path:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    def python(self, version: str, mode: str = "") -> str:
        """A Python with that TensorRT."""
        words = f"PYTHONPATH={FAKES} FAKE_TENSORRT={version} FAKE_TENSORRT_MODE={mode}"
        name = f"python-{version}{mode}"
        return str(self.program(name, f'{words} exec {sys.executable} -B "$@"'))

    def edgecal(self, *words: str) -> Answer:
        self.capture.readouterr()
        code: object = 0
        try:
            app.main(list(words))
        except SystemExit as end:
            code = end.code
        said = self.capture.readouterr()
        assert "Traceback" not in said.out + said.err
        return Answer(code if isinstance(code, int) else 0, said.out, said.err)

    def calibrate(self, *words: str) -> Answer:
        data = () if "--data" in words or "--from" in words else ("net.onnx", "--data", "data.npy")
        out = () if "-o" in words else ("-o", "net.edgecal")
        return self.edgecal("calibrate", *data, *out, *words)

    def manifest(self, name: str = "net.edgecal") -> Manifest:
        return read_bundle(self.folder / name).manifest

    def table(self, name: str = "net.edgecal") -> bytes:
        return (self.folder / name / "calibration.cache").read_bytes()

    def left(self) -> list[str]:
        return sorted(one.name for one in self.folder.iterdir() if "edgecal" in one.name)


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Desk:
    made = Desk(tmp_path, capsys, monkeypatch)
    save(conv_net(), tmp_path / "net.onnx")
    np.save(tmp_path / "data.npy", floats(40, 3, 8, 8))
    (tmp_path / "changing.py").write_text(CHANGING)
    (tmp_path / "bin").mkdir()
    made.program("bin/nvidia-smi", GPU)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("EDGECAL_TEST_GPU", A10)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "changing", raising=False)
    return made


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--backend", "cuda"), 2, "use one of auto, tensorrt, onnxruntime"),
        (("--algorithm", "mse"), 2, "entropy2, entropy, minmax, legacy, or --backend onnxruntime"),
        (("--algorithm", "percentile"), 2, "TensorRT has no calibrator 'percentile'"),
        (("--backend", "onnxruntime"), 2, "leave --trt-python and --trt-container out"),
        (("--trt-container", "some/image"), 2, "a Python and a container are given"),
        (("--resume",), 2, "leave --resume out, or use --backend onnxruntime"),
        (("--tensorrt", "10.3"), 3, "8.5 and 10.3 are asked for"),
        (("--batch-size", "50"), 2, "make no batch of 50"),
    ],
)
def test_what_tensorrt_cannot_do_is_told_with_the_way_out(
    desk: Desk, words: tuple[str, ...], code: int, said: str
) -> None:
    answer = desk.calibrate("--tensorrt", "8.5", "--trt-python", desk.python("8.5.3"), *words)
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err
    assert desk.left() == []


def test_a_python_without_that_tensorrt_is_refused_with_what_to_install(desk: Desk) -> None:
    answer = desk.calibrate("--tensorrt", "10.13", "--trt-python", desk.python("8.5.3"))
    assert answer.code == 3
    assert "TensorRT 10.13 is wanted, found 8.5.3" in answer.err
    assert "pip install tensorrt==10.13" in answer.err
    assert desk.left() == []


def test_a_gpu_that_cannot_is_refused_before_anything_runs(desk: Desk) -> None:
    desk.patch.setenv("EDGECAL_TEST_GPU", B200)
    absent = str(desk.folder / "no-python")
    answer = desk.calibrate("--tensorrt", "8.5", "--trt-python", absent)
    assert answer.code == 3
    assert "NVIDIA B200" in answer.err
    assert "use --backend onnxruntime" in answer.err


def test_a_host_without_a_gpu_is_refused(desk: Desk) -> None:
    desk.program("bin/nvidia-smi", "exit 1")
    answer = desk.calibrate("--tensorrt", "8.5", "--backend", "tensorrt")
    assert answer.code == 3
    assert "no NVIDIA GPU here" in answer.err


def test_a_container_without_docker_is_told(desk: Desk) -> None:
    desk.patch.setenv("PATH", str(desk.folder / "bin"))
    answer = desk.calibrate("--tensorrt", "8.5", "--trt-container", "some/image")
    assert answer.code == 2
    assert "Docker is not installed" in answer.err
    assert desk.left() == []


def test_a_crash_leaves_the_old_bundle_and_the_log(desk: Desk) -> None:
    assert desk.calibrate("--tensorrt", "8.5", "--trt-python", desk.python("8.5.3")).code == 0
    before = digest(desk.folder / "net.edgecal")
    crashing = desk.python("8.5.3", "crash")
    answer = desk.calibrate("--tensorrt", "8.5", "--trt-python", crashing)
    assert answer.code == 2
    assert "crashed with SIGSEGV" in answer.err
    assert "net.edgecal.tensorrt.log" in answer.err
    assert digest(desk.folder / "net.edgecal") == before
    assert desk.left() == ["net.edgecal", "net.edgecal.tensorrt.log"]
    assert desk.calibrate("--tensorrt", "8.5", "--trt-python", desk.python("8.5.3")).code == 0
    assert desk.left() == ["net.edgecal"]


def test_a_table_without_one_usable_scale_is_no_bundle(desk: Desk) -> None:
    infinite = desk.python("8.5.3", "infinite")
    answer = desk.calibrate("--tensorrt", "8.5", "--trt-python", infinite)
    assert answer.code == 2
    assert "no usable scale" in answer.err
    assert desk.left() == []


def test_data_that_changes_between_the_two_readings_is_refused(desk: Desk) -> None:
    python = desk.python("8.5.3")
    answer = desk.calibrate(
        *("net.onnx", "--data", "changing:data", "--tensorrt", "8.5", "--trt-python", python)
    )
    assert answer.code == 2
    assert "another one when it was read a second time" in answer.err
    assert "fixed seed" in answer.err


def test_a_generator_that_raises_is_told_and_ends_the_worker(desk: Desk) -> None:
    python = desk.python("8.5.3")
    answer = desk.calibrate(
        *("net.onnx", "--data", "changing:breaks", "--tensorrt", "8.5", "--trt-python", python)
    )
    assert answer.code == 2
    assert "sensor 17 is off" in answer.err
    assert desk.left() == []


def test_a_network_that_onnx_runtime_cannot_run_is_told_before_tensorrt_starts(desk: Desk) -> None:
    strange = conv_net()
    strange.graph.node[1].op_type = "EfficientNMS_TRT"
    strange.graph.node[1].domain = "plugins"
    save(strange, desk.folder / "net.onnx")
    absent = str(desk.folder / "no-python")
    answer = desk.calibrate("--tensorrt", "8.5", "--trt-python", absent)
    assert answer.code == 2
    assert "EfficientNMS_TRT" in answer.err or "plugins" in answer.err


def test_ctrl_c_ends_everything_and_leaves_the_old_bundle(desk: Desk) -> None:
    python = desk.python("8.5.3")
    assert desk.calibrate("--tensorrt", "8.5", "--trt-python", python).code == 0
    before = digest(desk.folder / "net.edgecal")
    hanging = desk.python("8.5.3", "hang")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "edgecal", "calibrate", "net.onnx", "--data", "data.npy"),
            *("--tensorrt", "8.5", "--trt-python", hanging, "-o", "net.edgecal"),
        ],
        cwd=desk.folder,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 - no threads here
    )
    until = time.monotonic() + 30
    while not list(desk.folder.glob("edgecal-trt-*/calibration.log")):
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert digest(desk.folder / "net.edgecal") == before
    assert desk.left() == ["net.edgecal"]


def test_a_project_s_python_is_not_run_if_others_can_change_it(desk: Desk) -> None:
    marker = desk.folder / "ran"
    desk.program("evil", f"touch {marker}; exit 1")
    file = desk.folder / "edgecal.toml"
    file.write_text('[calibrate]\ntrt_python = "evil"\n')
    file.chmod(0o666)
    answer = desk.calibrate("--tensorrt", "8.5", "-v")
    assert answer.code == 0
    assert "'trt_python' is ignored" in answer.err
    assert not marker.exists()
    file.chmod(0o644)
    assert desk.calibrate("--tensorrt", "8.5").code == 2
    assert marker.exists()


# --- what comes out -------------------------------------------------------------------------------


def test_the_bundle_holds_tensorrt_s_bytes_and_says_who_wrote_them(desk: Desk) -> None:
    python = desk.python("8.5.3")
    answer = desk.calibrate("--tensorrt", "8.5", "--trt-python", python, "--json")
    assert answer.code == 0
    assert answer.document["backend"] == "tensorrt"
    manifest = desk.manifest()
    assert manifest.written_by_tensorrt
    assert str(manifest.tensorrt) == "8.5.3"  # what was found, not the newest JetPack's
    assert (manifest.calibration.backend, manifest.calibration.backend_version) == (
        "tensorrt",
        "8.5.3",
    )
    assert manifest.calibration.algorithm == "entropy2"
    assert manifest.calibration.chosen_by.startswith("auto: entropy2 is")
    assert manifest.calibration.parameters["gpu"] == "Imaginary A10"
    table = desk.table()
    assert table.startswith(b"TRT-8503-EntropyCalibration2\nimage: 3c010a14\n")
    # what the stand-in was fed: every sample that is not held out, in order, none twice
    fed = floats(40, 3, 8, 8)
    kept = [one for number, one in enumerate(fed) if not held_out(number)]
    told = hashlib.sha256(b"".join(one.tobytes() for one in kept)).hexdigest()
    assert f"fed {len(kept)} {told}: ".encode() in table
    bundle = read_bundle(desk.folder / "net.edgecal")
    assert set(manifest.files) == {
        *("model.onnx", "calibration.cache", "golden.npz"),
        *("histograms.npz", "calibration.log"),
    }
    assert "calibration.log" not in bundle.shipped()
    with bundle.open("calibration.log") as stream:
        assert b"[V] BuilderFlag.INT8" in stream.read()
    with bundle.open("golden.npz") as stream:
        runs = parse_golden(stream.read(), source="golden")
    assert manifest.golden.held_out
    assert all(np.isfinite(run.int8["scores"]).all() for run in runs)
    assert not np.array_equal(runs[0].int8["scores"], runs[0].fp32["scores"])
    with bundle.open("histograms.npz") as stream:
        assert {"image", "conv", "relu"} <= set(parse_histograms(stream.read(), source="h"))
    assert (manifest.coverage.covered, manifest.coverage.missing) == (
        manifest.coverage.activations,
        (),
    )
    assert desk.left() == ["net.edgecal"]


def test_people_are_told_where_it_ran(desk: Desk) -> None:
    answer = desk.calibrate("--tensorrt", "8.5", "--trt-python", desk.python("8.5.3"), "-v")
    assert "backend    TensorRT 8.5.3 on Imaginary A10" in answer.out
    assert "backend: tensorrt" in answer.err


@pytest.mark.parametrize(
    ("algorithm", "header"),
    [
        ("minmax", b"TRT-100300-MinMaxCalibration\n"),
        ("entropy", b"TRT-100300-EntropyCalibration\n"),
        ("legacy", b"0 3ff0000000000000 3fefffeb074a771d\n"),
    ],
)
def test_every_calibrator_of_tensorrt_can_be_had(desk: Desk, algorithm: str, header: bytes) -> None:
    python = desk.python("10.3.0")
    words = ("--tensorrt", "10.3", "--trt-python", python, "--algorithm", algorithm)
    assert desk.calibrate(*words).code == 0
    assert desk.table().startswith(header)
    assert desk.manifest().calibration.chosen_by == "given"
    assert desk.edgecal("check", "net.edgecal").code in {0, 3}
    assert desk.edgecal("cache", "show", "net.edgecal").code == 0


def test_zeros_of_tensorrt_stay_in_the_table_and_out_of_the_simulation(desk: Desk) -> None:
    zeros = desk.python("8.5.3", "zeros")
    answer = desk.calibrate("--tensorrt", "8.5", "--trt-python", zeros, "--json", "-v")
    assert answer.code == 0
    assert b"relu: 0\n" in desk.table()
    assert desk.manifest().coverage.missing == ("relu",)
    assert "no-scale-in-table" in answer.rules


def test_given_ranges_reach_tensorrt_and_their_originals_the_manifest(desk: Desk) -> None:
    (desk.folder / "ranges.txt").write_text("relu: 4.0\n")
    python = desk.python("8.5.3")
    answer = desk.calibrate(
        *("--tensorrt", "8.5", "--trt-python", python, "--ranges", "ranges.txt", "--json")
    )
    assert answer.code == 0
    assert b"relu 4: " in desk.table()  # the stand-in tells what it was told
    (record,) = desk.manifest().calibration.overrides
    assert (record.name, record.source) == ("relu", "ranges.txt")
    assert record.measured not in {None, record.given}
    assert "range-not-in-table" in answer.rules


def test_another_tensorrt_is_derived_and_the_record_says_from_what(desk: Desk) -> None:
    python = desk.python("8.5.3")
    assert desk.calibrate("--tensorrt", "8.5", "--trt-python", python).code == 0
    words = ("--from", "net.edgecal", "--tensorrt", "10.3", "--algorithm", "minmax")
    answer = desk.calibrate(*words, "-o", "next.edgecal", "--json", "-v")
    assert answer.code == 0
    assert "not-of-tensorrt" in answer.rules
    manifest = desk.manifest("next.edgecal")
    assert not manifest.written_by_tensorrt
    assert manifest.calibration.backend == "onnxruntime"
    assert manifest.calibration.backend_version[0].isdigit()
    assert "beside TensorRT 8.5.3's table" in manifest.calibration.chosen_by
    assert "calibration.log" not in manifest.files
    assert desk.table("next.edgecal").startswith(b"TRT-100300-EntropyCalibration2\n")
    stamped = desk.calibrate(*words, "-o", "more.edgecal", "--trt-python", python)
    assert stamped.code == 2
    assert "--trt-python belongs to a pass over data" in stamped.err


def test_a_shape_that_is_given_is_the_one_tensorrt_gets(desk: Desk) -> None:
    python = desk.python("8.5.3")
    words = ("--tensorrt", "8.5", "--trt-python", python, "--shape", "image=4x3x8x8")
    assert desk.calibrate(*words).code == 0
    with read_bundle(desk.folder / "net.edgecal").open("calibration.log") as stream:
        assert b"calibration profile [('image', (4, 3, 8, 8))]" in stream.read()
    manifest = desk.manifest()
    assert (manifest.data.batch_size, manifest.calibration.parameters["batches"]) == (4, 8)


def test_the_project_may_name_backend_and_place(desk: Desk) -> None:
    desk.python("8.5.3")
    file = desk.folder / "edgecal.toml"
    file.write_text('[calibrate]\nbackend = "tensorrt"\ntrt_python = "python-8.5.3"\n')
    file.chmod(0o644)
    assert desk.calibrate("--tensorrt", "8.5").code == 0
    assert desk.manifest().written_by_tensorrt
    assert desk.calibrate("--tensorrt", "8.5", "--backend", "onnxruntime").code == 0
    assert not desk.manifest().written_by_tensorrt


def test_auto_takes_the_tensorrt_of_this_python_where_the_gpu_can(desk: Desk) -> None:
    package = desk.folder / "site" / "tensorrt-8.6.1.dist-info" / "METADATA"
    package.parent.mkdir(parents=True)
    package.write_text("Metadata-Version: 2.1\nName: tensorrt\nVersion: 8.6.1\n")
    desk.patch.syspath_prepend(str(desk.folder / "site"))
    desk.patch.setenv("PYTHONPATH", str(FAKES))
    desk.patch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    desk.patch.setenv("FAKE_TENSORRT", "8.6.1")
    answer = desk.calibrate("--tensorrt", "8.6", "-v")
    assert answer.code == 0
    assert desk.manifest().written_by_tensorrt
    assert "backend: tensorrt (NVIDIA A10" in answer.err
    answer = desk.calibrate("--tensorrt", "8.6", "--algorithm", "mse", "-v")
    assert answer.code == 0
    assert "backend: onnxruntime (TensorRT has no calibrator 'mse')" in answer.err
    assert not desk.manifest().written_by_tensorrt


def test_a_calibrator_that_only_tensorrt_has_is_told_to_be_so(desk: Desk) -> None:
    answer = desk.calibrate("--tensorrt", "8.5", "--algorithm", "legacy")
    assert answer.code == 2
    assert "only TensorRT has a legacy calibrator" in answer.err
    assert "--backend tensorrt" in answer.err


def test_without_a_place_the_cpu_calibrates_and_says_why(desk: Desk) -> None:
    answer = desk.calibrate("--tensorrt", "8.5", "-v", "--json")
    assert answer.code == 0
    assert answer.document["backend"] == "onnxruntime"
    assert "backend: onnxruntime (this Python has no TensorRT)" in answer.err


def held_out(index: int) -> bool:
    """Tell whether the sample is one of those that judge; batch size 1, 40 samples."""
    stride = 4 if index < 16 else 8
    return index >= 1 and index % stride == stride - 1


def digest(folder: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        whole.update(path.name.encode() + path.read_bytes())
    return whole.hexdigest()
