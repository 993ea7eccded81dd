"""Times calibration beside its peers, each in a process of its own, and prints ratios.

The networks have the graphs of MobileNetV2 (batch normalisation folded) and of ResNet-50 as the
onnx package carries it (not folded), with seeded random weights; the pictures are seeded noise,
prepared before the clock starts. `plain` is float32 inference of the same pictures. Every row is
wall time over `plain` on all cores, whole and marginal: what all pictures but the first one add, so
that loading and starting do not count. Beside it stands the process's peak memory.

    .venv/bin/python scripts/bench/calibrate.py --network mobilenet --pictures 64 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
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
from onnx import helper, numpy_helper

PLAIN = "plain, all cores"
CONTENDERS = (
    "plain, 1 thread",
    PLAIN,
    "edgecal, 1 worker",
    "edgecal, all cores",
    "onnxruntime minmax",
    "onnxruntime entropy",
    "onnxruntime percentile",
)
_MOBILENET = (  # expansion, channels, repeats, first stride
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class _MobileNet:
    """Puts MobileNetV2 together, operator by operator."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._seed = np.random.default_rng(0)

    def model(self) -> onnx.ModelProto:
        self._constant("low", np.asarray(0))
        self._constant("high", np.asarray(6))
        x, channels = self._conv("image", 3, 32, size=3, stride=2), 32
        for expansion, wider, repeats, first_stride in _MOBILENET:
            for number in range(repeats):
                stride, inner, before = 1 if number else first_stride, channels * expansion, x
                if expansion > 1:
                    x = self._conv(x, channels, inner)
                x = self._conv(x, inner, inner, size=3, stride=stride, groups=inner)
                x = self._conv(x, inner, wider, clip=False)
                if stride == 1 and channels == wider:
                    x = self._node("Add", [before, x])
                channels = wider
        x = self._node("Flatten", [self._node("GlobalAveragePool", [self._conv(x, 320, 1280)])])
        weights = self._constant("fc", self._seed.normal(0, 0.03, (1000, 1280)))
        x = self._node("Gemm", [x, weights, self._constant("bias", np.zeros(1000))], transB=1)
        graph = helper.make_graph(
            self.nodes,
            "mobilenet",
            [helper.make_tensor_value_info("image", 1, ["n", 3, 224, 224])],
            [helper.make_tensor_value_info(x, 1, ["n", 1000])],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)

    def _conv(
        self,
        x: str,
        channels: int,
        wider: int,
        *,
        size: int = 1,
        stride: int = 1,
        groups: int = 1,
        clip: bool = True,
    ) -> str:
        shape = (wider, channels // groups, size, size)
        spread = (2 / np.prod(shape[1:])) ** 0.5
        number = len(self.nodes)
        x = self._node(
            "Conv",
            [
                x,
                self._constant(f"w{number}", self._seed.normal(0, spread, shape)),
                self._constant(f"b{number}", self._seed.normal(0, 0.3, wider)),
            ],
            kernel_shape=[size, size],
            strides=[stride, stride],
            pads=[size // 2] * 4,
            group=groups,
        )
        return self._node("Clip", [x, "low", "high"]) if clip else x

    def _node(self, kind: str, inputs: list[str], **attributes: object) -> str:
        name = f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def _constant(self, name: str, values: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name


def resnet() -> onnx.ModelProto:
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
    return model


NETWORKS = {"mobilenet": lambda: _MobileNet().model(), "resnet": resnet}


def run(contender: str, network: Path, data: Path) -> float:
    """Do the work of one contender; gives seconds."""
    if contender.startswith("edgecal"):
        return _edgecal(network, data, workers=1 if "1 worker" in contender else None)
    pictures = np.load(data, mmap_mode="r")
    if contender.startswith("plain"):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1 if "1 thread" in contender else _cores()
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
            return None if picture is None else {name: picture[np.newaxis]}

    name = onnx.load(network, load_external_data=False).graph.input[0].name

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


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _timed(contender: str, folder: str, data: str) -> tuple[float, float]:
    """Run a contender in a process of its own; gives seconds, and peak memory in MiB."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", contender, "--folder", folder, "--data", data],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, mib = json.loads(done.stdout.splitlines()[-1])
    return seconds, mib


def main() -> None:
    """Run every contender in turn, several rounds, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=NETWORKS, default="resnet")
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[""], help="words in the contenders' names")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--data", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        seconds = run(given.one, given.folder / "network.onnx", given.folder / given.data)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps([seconds, peak]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx.save(NETWORKS[given.network](), folder / "network.onnx")
        noise = np.random.default_rng(1).normal(size=(given.pictures, 3, 224, 224))
        np.save(folder / "all.npy", noise.astype(np.float32))
        np.save(folder / "first.npy", noise[:1].astype(np.float32))
        wanted = [
            one
            for one in CONTENDERS
            if one.startswith("plain") or any(word in one for word in given.only)
        ]
        results: dict[str, list[tuple[float, float, float]]] = {one: [] for one in wanted}
        for _ in range(given.rounds):
            for contender, found in results.items():
                try:
                    one, _ = _timed(contender, name, "first.npy")
                    every, mib = _timed(contender, name, "all.npy")
                except subprocess.CalledProcessError:
                    continue
                found.append((every, every - one, mib))
    whole, marginal, _ = (statistics.median(column) for column in zip(*results[PLAIN], strict=True))
    print(f"{given.network}, {given.pictures} pictures, {given.rounds} rounds, {_cores()} cores")
    print(f"medians; {PLAIN}: {whole:.2f} s, of which {marginal:.2f} s after the first picture")
    print(f"{'':24} {'whole':>8} {'marginal':>10} {'peak':>11}")
    for contender, found in results.items():
        if not found:
            print(f"{contender:24} failed")
            continue
        every, more, mib = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"{contender:24} {every / whole:6.1f} x {more / marginal:8.2f} x {mib:7.0f} MiB")


if __name__ == "__main__":
    main()
