"""Real bundles of the network that ships with edgecal, made as `edgecal calibrate` does."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgecal.adapters.demo_data import unpack_demo
from edgecal.adapters.project import read_toml
from edgecal.cli.wiring import bundling, datasets, networks
from edgecal.core.golden import parse_golden
from edgecal.core.manifest import GOLDEN_FILE
from edgecal.core.preprocess import parse_preprocess
from edgecal.core.versions import parse_tensorrt
from edgecal.workflows.calibrate import calibrate
from edgecal.workflows.collect import CalibrateOptions

if TYPE_CHECKING:
    from edgecal.adapters.bundle import Bundle


FAKE_TRTEXEC = Path(__file__).resolve().parent / "fake_trtexec.py"
QUICK_TRTEXEC = FAKE_TRTEXEC.parent / "faults" / "trtexec.sh"


def install_trtexec(folder: Path, bundle: Bundle, *, version: str = "8502", mode: str = "") -> None:
    """Put the stand-in for trtexec into a folder, ready to answer for a bundle's golden runs."""
    program = folder / "trtexec"
    program.write_text(f"#!{sys.executable} -ES\n{FAKE_TRTEXEC.read_text()}")
    program.chmod(0o755)
    (folder / "version").write_text(version)
    (folder / "mode").write_text(mode)
    outputs = {}
    with bundle.open(GOLDEN_FILE) as stream:
        for run in parse_golden(stream.read(), source="golden.npz"):
            whole = hashlib.sha256()
            for value in run.inputs.values():
                whole.update(value.tobytes())
            outputs[whole.hexdigest()] = [
                {
                    "name": name,
                    "dimensions": "x".join(map(str, value.shape)),
                    "values": [float(one) for one in value.reshape(-1)],
                }
                for name, value in run.int8.items()
            ]
    (folder / "outputs.json").write_text(json.dumps(outputs))


def make_bundles(folder: Path, *versions: str, name: str = "net") -> list[Bundle]:
    """Calibrate on a few pictures, for each TensorRT."""
    data = unpack_demo(folder / "demo")
    network = networks.model(data.model)
    settings = parse_preprocess(read_toml(data.preprocess), source="preprocess.toml")
    source = datasets.open_dataset(
        str(data.calibration),
        network.graph.inputs,
        preprocess=settings,
        skip_unreadable=False,
        limit=24,
    )
    statistics, done = calibrate(
        networks.backend(network),
        source,
        [parse_tensorrt(version) for version in versions],
        CalibrateOptions(algorithm="percentile"),
        lambda _what, _done, _total: None,
    )
    return [
        bundling.save_bundle(
            folder / f"{name}-{one.tensorrt.major_minor}.edgecal",
            network=network,
            data=str(data.calibration),
            source=source,
            statistics=statistics,
            calibration=one,
        )
        for one in done
    ]


def record_trtexec(folder: Path, programs: Path, bundle: Bundle) -> None:
    """Put a stand-in for trtexec into `programs` that takes milliseconds.

    The strict one, which is installed in `folder`, says once what the quick one then repeats.
    """
    folder.mkdir()
    install_trtexec(folder, bundle)
    for name in ("model.onnx", "calibration.cache"):
        shutil.copy(bundle.path / name, folder)
    build = ("--onnx=model.onnx", "--int8", "--calib=calibration.cache", "--verbose", "--fp16")
    for name, words in (("help", ("--help",)), ("build", (*build, "--saveEngine=engine"))):
        done = subprocess.run(
            [folder / "trtexec", *words], cwd=folder, capture_output=True, check=True
        )
        (programs / name).write_bytes(done.stdout)
    outputs = programs / "outputs"
    outputs.mkdir()
    with bundle.open(GOLDEN_FILE) as stream:
        runs = parse_golden(stream.read(), source="golden.npz")
    for run in runs:
        (value,) = run.inputs.values()
        (folder / "input").write_bytes(value.tobytes())
        files = (f"--loadInputs={next(iter(run.inputs))}:input", "--exportOutput=output")
        subprocess.run(
            [folder / "trtexec", "--loadEngine=engine", *files],
            cwd=folder,
            capture_output=True,
            check=True,
        )
        shutil.copy(folder / "output", outputs / hashlib.sha256(value.tobytes()).hexdigest())
    shutil.copy(QUICK_TRTEXEC, programs / "trtexec")
    (programs / "trtexec").chmod(0o755)
    (programs / "breakpoint").touch()
