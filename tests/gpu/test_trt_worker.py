"""The worker with a real TensorRT on a real GPU: what stand-ins cannot show."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgecal.adapters.bundle import read_bundle
from edgecal.adapters.host import read_host
from edgecal.adapters.tables import load_platforms
from edgecal.adapters.trt_backend import calibrate_with_tensorrt
from edgecal.adapters.trt_places import OtherPython
from edgecal.cli import app
from edgecal.core.document import read_document
from edgecal.core.trt_job import CalibratorOptions
from edgecal.core.versions import TensorRTVersion, parse_tensorrt
from edgecal.errors import EdgecalError, ModelError
from tests.networks import conv_net, save

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgecal.core.hosts import HostFacts
    from edgecal.ports import TensorRTCalibration

pytestmark = pytest.mark.gpu

PYTHON = Path(os.environ.get("EDGECAL_TENSORRT_PYTHON", sys.executable))


def asked_version() -> str | None:
    """The TensorRT of the Python that is to have one."""
    import subprocess  # noqa: PLC0415 - only where there is something to ask

    code = "import tensorrt; print(tensorrt.__version__)"
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.split()[-1] if done.returncode == 0 else None


@pytest.fixture(scope="module")
def host() -> HostFacts:
    found = read_host()
    if not found.gpus:
        pytest.skip("needs an NVIDIA GPU: neither nvidia-smi nor libcuda knows one")
    return found


@pytest.fixture(scope="module")
def version(host: HostFacts) -> TensorRTVersion:  # noqa: ARG001 - a GPU is asked for first
    found = asked_version()
    if found is None:
        pytest.skip(f"needs TensorRT: {PYTHON} has none, see EDGECAL_TENSORRT_PYTHON")
    made = parse_tensorrt(found)
    if made.major >= 11:
        pytest.skip(f"needs TensorRT 7.1 to 10.16: {made} has no calibrators")
    return made


@pytest.fixture
def run(
    host: HostFacts, version: TensorRTVersion, tmp_path: Path
) -> Callable[..., TensorRTCalibration]:
    model = save(conv_net(), tmp_path / "net.onnx")
    draw = np.random.default_rng(1)
    data = [{"image": draw.normal(size=(3, 8, 8)).astype(np.float32)} for _ in range(16)]

    def calibrate(**changes: Any) -> TensorRTCalibration:  # noqa: ANN401 - of all kinds
        arguments: dict[str, Any] = {
            "batch_size": 4,
            "tensorrt": version,
            "log": tmp_path / "trt.log",
            "host": host,
            "platforms": load_platforms(),
            "place": OtherPython(PYTHON),
            **changes,
        }
        return calibrate_with_tensorrt(arguments.pop("model", model), data, **arguments)

    return calibrate


def test_a_file_that_is_no_network_is_tensorrt_s_to_refuse(
    run: Callable[..., TensorRTCalibration], tmp_path: Path
) -> None:
    (tmp_path / "junk.onnx").write_bytes(b"junk" * 100)
    with pytest.raises(ModelError) as caught:
        run(model=tmp_path / "junk.onnx")
    assert isinstance(caught.value, EdgecalError)


@pytest.mark.parametrize("algorithm", ["entropy2", "minmax", "entropy", "legacy"])
def test_every_calibrator_gives_a_table_of_the_network_s_tensors(
    run: Callable[..., TensorRTCalibration], algorithm: str
) -> None:
    done = run(options=CalibratorOptions(algorithm=algorithm))
    names = {entry.tensor for entry in read_document(done.cache, source="table").entries}
    assert {"image", "conv", "relu", "pool"} <= names
    assert done.batches == 4


def test_the_table_is_complete_before_the_engine_is_built(
    run: Callable[..., TensorRTCalibration],
) -> None:
    options = CalibratorOptions()
    assert run(options=replace(options, whole_build=True)).cache == run(options=options).cache


def test_the_same_data_give_the_same_table(run: Callable[..., TensorRTCalibration]) -> None:
    assert run().cache == run().cache


def test_the_command_makes_a_bundle_of_tensorrt_s_own_table(
    version: TensorRTVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(conv_net(), tmp_path / "net.onnx")
    draw = np.random.default_rng(1)
    np.save(tmp_path / "data.npy", draw.normal(size=(40, 3, 8, 8)).astype(np.float32))
    monkeypatch.chdir(tmp_path)
    words = ("net.onnx", "--data", "data.npy", "--tensorrt", version.major_minor)
    with pytest.raises(SystemExit) as end:
        app.main(["calibrate", *words, "--trt-python", str(PYTHON), "-o", "net.edgecal"])
    assert end.value.code in {0, None}
    manifest = read_bundle(tmp_path / "net.edgecal").manifest
    assert manifest.written_by_tensorrt
    assert manifest.tensorrt.major_minor == version.major_minor
    assert (manifest.quality.outputs["scores"]["cosine_min"] or 0) > 0.9
