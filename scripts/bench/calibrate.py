"""Times calibration beside its peers, each in a process of its own, and prints ratios.

The network is ResNet-50's graph as the onnx package carries it, with seeded random weights; the
pictures are seeded noise, prepared before the clock starts. `plain` is float32 inference of the
same pictures on one thread; every other row is wall time over it, and the process's peak memory.

    .venv/bin/python scripts/bench/calibrate.py --pictures 16 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

CONTENDERS = (
    "plain",
    "edgecal, 1 worker",
    "edgecal, all cores",
    "onnxruntime minmax",
    "onnxruntime entropy",
    "onnxruntime percentile",
)


def write_network(path: Path) -> None:
    """Give the weightless graph weights, as initializers."""
    light = Path(onnx.__file__).parent / "backend/test/data/light/light_resnet50.onnx"
    model = onnx.load(light)
    shapes = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    seed = np.random.default_rng(0)
    kept = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        shape = tuple(int(size) for size in shapes[node.input[0]])
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
        values = seed.normal(0, (2 / fan_in) ** 0.5, shape) if len(shape) > 1 else np.ones(shape)
        array = values.astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.ir_version = 8  # the first ones want every initializer among the inputs
    onnx.save(model, path)


def run(contender: str, network: Path, data: Path) -> float:
    """Do the work of one contender; gives seconds."""
    pictures = np.load(data)
    if contender.startswith("edgecal"):
        return _edgecal(network, data, workers=1 if "1 worker" in contender else None)
    if contender == "plain":
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(network, options)
        name = session.get_inputs()[0].name
        started = time.perf_counter()
        for picture in pictures:
            session.run(None, {name: picture[np.newaxis]})
        return time.perf_counter() - started
    return _onnxruntime(contender, network, pictures)


def _edgecal(network: Path, data: Path, *, workers: int | None) -> float:
    from edgecal.cli import wiring
    from edgecal.workflows.collect import CalibrateOptions, collect_statistics

    model = wiring.model(network)
    backend = wiring.backend(model)
    source = wiring.dataset(
        str(data), model.graph.inputs, preprocess=None, skip_unreadable=False, limit=None
    )
    options = CalibrateOptions(workers=workers or wiring.workers())
    started = time.perf_counter()
    collect_statistics(backend, source, options, lambda _what, _done, _total: None)
    return time.perf_counter() - started


def _onnxruntime(contender: str, network: Path, pictures: np.ndarray) -> float:
    from onnxruntime.quantization import calibrate as peer

    class Reader(peer.CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(pictures)

        def get_next(self) -> dict[str, np.ndarray] | None:
            picture = next(self.rest, None)
            return None if picture is None else {"gpu_0/data_0": picture[np.newaxis]}

    names = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
    method = peer.CalibrationMethod[names[contender.split()[1]]]
    with tempfile.TemporaryDirectory() as folder:
        calibrator = peer.create_calibrator(
            network, None, augmented_model_path=f"{folder}/augmented.onnx", calibrate_method=method
        )
        started = time.perf_counter()
        calibrator.collect_data(Reader())
        calibrator.compute_data()
        return time.perf_counter() - started


def main() -> None:
    """Run every contender in turn, several rounds, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        seconds = run(given.one, given.folder / "network.onnx", given.folder / "pictures.npy")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "mib": peak}))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_network(folder / "network.onnx")
        noise = np.random.default_rng(1).normal(size=(given.pictures, 3, 224, 224))
        np.save(folder / "pictures.npy", noise.astype(np.float32))
        results: dict[str, list[dict[str, float]]] = {one: [] for one in CONTENDERS}
        for _ in range(given.rounds):
            for contender, found in results.items():
                done = subprocess.run(
                    [sys.executable, __file__, "--one", contender, "--folder", name],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if done.returncode == 0:
                    found.append(json.loads(done.stdout.splitlines()[-1]))
    plain = statistics.median(one["seconds"] for one in results["plain"])
    print(f"{given.pictures} pictures, {given.rounds} rounds, medians; plain {plain:.2f} s")
    for contender, found in results.items():
        if not found:
            print(f"{contender:24} failed")
            continue
        seconds = statistics.median(one["seconds"] for one in found)
        peak = statistics.median(one["mib"] for one in found)
        print(f"{contender:24} {seconds / plain:6.1f} x {peak:7.0f} MiB")


if __name__ == "__main__":
    main()
