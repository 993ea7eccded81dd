"""The target's builder script with a real TensorRT on a real GPU: what stand-ins cannot show."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest

from edgecal.adapters.host import read_host
from edgecal.adapters.onnx_model import read_model
from edgecal.adapters.ort_backend import OrtBackend, load_network
from edgecal.adapters.qdq import write_qdq
from edgecal.adapters.tensorrt_builder import TensorRTBuilder
from edgecal.core.build import BuildOptions, BuildRequest, BuildResult, Proof, span_of, split_log
from edgecal.core.cache import make_cache, serialize_cache
from edgecal.core.quant import cosine
from edgecal.core.target import BuilderFact
from edgecal.core.versions import TensorRTVersion, parse_tensorrt
from edgecal.ports import RunFiles
from tests.networks import conv_net, save

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

pytestmark = pytest.mark.gpu

PYTHON: Final = os.environ.get("EDGECAL_TENSORRT_PYTHON", sys.executable)
BUILDER: Final = TensorRTBuilder()


@pytest.fixture(scope="module")
def version() -> TensorRTVersion:
    if not read_host().gpus:
        pytest.skip("needs an NVIDIA GPU: neither nvidia-smi nor libcuda knows one")
    code = "import tensorrt; print(tensorrt.__version__)"
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs TensorRT: {PYTHON} has none, see EDGECAL_TENSORRT_PYTHON")
    return parse_tensorrt(done.stdout.split()[-1])


class Job:
    """A job's folder with a network, its scales, and one golden input."""

    def __init__(self, folder: Path, version: TensorRTVersion) -> None:
        self.folder, self.version = folder, version
        save(conv_net(), folder / "model.onnx")
        for name, data in BUILDER.support_files().items():
            (folder / name).write_bytes(data)
        self.image = np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)
        backend = OrtBackend(read_model(folder / "model.onnx"))
        values = backend.expose(["conv", "relu", "pool", "flat"]).run({"image": self.image})
        values["image"] = self.image
        self.scales = {name: float(np.abs(one).max()) / 127 for name, one in values.items()}
        self.write_cache(version)

    def write_cache(self, version: TensorRTVersion, algorithm: str = "EntropyCalibration2") -> None:
        scales = [(name, np.float32(scale)) for name, scale in self.scales.items()]
        data = serialize_cache(make_cache(scales, tensorrt=version))
        data = data.replace(b"EntropyCalibration2", algorithm.encode(), 1)
        (self.folder / "c.cache").write_bytes(data)

    def build(self, **changes: Any) -> tuple[int, BuildResult]:  # noqa: ANN401 - of all kinds
        self.request = replace(
            BuildRequest(
                builder=BuilderFact(name="tensorrt", path=PYTHON, tensorrt=self.version),
                options=BuildOptions(),
                shapes={"image": span_of([(1, 3, 8, 8)])},
                dynamic=frozenset(["image"]),
                outputs=(),
                model_file="model.onnx",
                cache_file="c.cache",
                timing_cache=str(self.folder / "timing"),
            ),
            **changes,
        )
        status, log = self.start(BUILDER.build_argv(self.request))
        return status, BUILDER.read_log(split_log(log), list(self.scales))

    def start(self, argv: tuple[str, ...]) -> tuple[int, bytes]:
        done = subprocess.run(
            argv,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=600,
        )
        (self.folder / "last.log").write_bytes(done.stdout)
        return done.returncode, done.stdout

    def run(self) -> Mapping[str, np.ndarray[Any, Any]]:
        (self.folder / "0.bin").write_bytes(self.image.tobytes())
        (self.folder / "runs.json").write_text(
            '[[{"name": "image", "file": "0.bin", "dtype": "<f4", "shape": [1, 3, 8, 8]}]]'
        )
        files = RunFiles(inputs={}, shapes={}, spec="runs.json")
        status, log = self.start(BUILDER.bench_argv(self.request, files, "out"))
        assert status == 0, log[-2000:]
        data = (self.folder / "out").read_bytes()
        assert BUILDER.parse_bench(data, source="gpu").median_ms > 0
        return BUILDER.parse_outputs(data, source="gpu")[0]

    def assert_close(self) -> None:
        expected = load_network(self.folder / "model.onnx").run({"image": self.image})
        for name, value in self.run().items():
            assert cosine(expected[name], value) > 0.98


@pytest.fixture
def job(tmp_path: Path, version: TensorRTVersion) -> Job:
    return Job(tmp_path, version)


@pytest.fixture
def calibrating(job: Job) -> Job:
    if job.version.major >= 11:
        pytest.skip(f"needs TensorRT 7.1 to 10.16: {job.version} has no calibrators")
    return job


@pytest.mark.parametrize(
    "spoil",
    [
        lambda job: job.write_cache(TensorRTVersion(job.version.major - 1, 0)),
        lambda job: (job.folder / "c.cache").write_bytes(b"TRT-9999-EntropyCalibration2\n"),
    ],
)
def test_a_cache_of_another_release_is_refuted(
    calibrating: Job, spoil: Callable[[Job], object]
) -> None:
    spoil(calibrating)
    status, result = calibrating.build()
    assert (status, result.proof) == (3, Proof.REFUTED), result.reason
    assert not (calibrating.folder / "model.engine").exists()


@pytest.mark.parametrize("algorithm", ["EntropyCalibration2", "MinMaxCalibration"])
def test_an_engine_is_built_from_the_cache_and_computes_what_the_network_does(
    calibrating: Job, algorithm: str
) -> None:
    calibrating.write_cache(calibrating.version, algorithm)
    status, result = calibrating.build()
    assert (status, result.proof) == (0, Proof.PROVED), result.reason
    assert result.unused == ()
    calibrating.assert_close()
    assert (calibrating.folder / "timing").stat().st_size
    again, result = calibrating.build(fp16_layers=("conv1",))
    assert (again, result.proof) == (0, Proof.PROVED), result.reason
    calibrating.assert_close()


def test_fp16_is_built_without_a_cache(calibrating: Job) -> None:
    status, result = calibrating.build(options=BuildOptions(precision="fp16"), cache_file=None)
    assert (status, result.proof) == (0, Proof.NOT_APPLICABLE), result.reason
    calibrating.assert_close()


def test_a_network_with_its_own_scales_is_built_strongly_typed(job: Job) -> None:
    data, _ = write_qdq(read_model(job.folder / "model.onnx"), job.scales)
    (job.folder / "model.onnx").write_bytes(data)
    status, result = job.build(cache_file=None)
    assert (status, result.proof) == (0, Proof.NOT_APPLICABLE), result.reason
    job.assert_close()
