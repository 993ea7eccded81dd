"""Nobody hears of the networks that are calibrated and run here."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.networks import floats, save, vector_net

if TYPE_CHECKING:
    from pathlib import Path

CALIBRATE = (
    "-m", "edgecal", "calibrate", "net.onnx", "--data", "data.npy", "--tensorrt", "8.5",
    "-o", "net.edgecal",
)  # fmt: skip
LIBRARY = ("-c", "import edgecal.adapters.ort_backend")


@pytest.mark.parametrize("words", [CALIBRATE, LIBRARY], ids=["command", "library"])
def test_onnx_runtime_prepares_no_reports(tmp_path: Path, words: tuple[str, ...]) -> None:
    save(vector_net(), tmp_path / "net.onnx")
    np.save(tmp_path / "data.npy", floats(20, 4))
    # it is silent by itself where tests run
    known = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    known = {name: value for name, value in known.items() if name not in {"CI", "XDG_CACHE_HOME"}}
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path,
        env={**known, "HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [one for one in home.rglob("*") if "onnxruntime" in one.name] == []


def test_who_decided_about_reports_is_not_overruled() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import edgecal, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"],
        env={**os.environ, "ORT_DISABLE_TELEMETRY": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "0\n"
