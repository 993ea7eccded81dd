"""Does the work of one calibrator, in a process of its own, and prints what it took as JSON.

The clock starts before the network is loaded and after everything is imported.

    python _calibrators.py CONTENDER NETWORK.onnx PICTURES.npy
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import resource
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

Scales = dict[str, float]
STEPS: Final = 127
_TENSORRT: Final = "8.5"
"""Whose table edgecal writes; all of them would cost the same."""


@dataclass(frozen=True, slots=True)
class Contender:
    """Who calibrates, and how."""

    tool: str
    method: str = ""
    one_thread: bool = False
    without_numba: bool = False

    @property
    def name(self) -> str:
        """Say it in words."""
        remarks = [
            *(["one thread"] if self.one_thread else []),
            *(["no numba"] if self.without_numba else []),
        ]
        return ", ".join([f"{self.tool} {self.method}".strip(), *remarks])

    @property
    def heavy(self) -> bool:
        """Tell whether it holds the activations of all pictures at once."""
        return self.tool == "onnxruntime" and self.method != "minmax"


FLOORS: Final = (Contender("plain"), Contender("plain", one_thread=True))
CONTENDERS: Final = (
    *FLOORS,
    Contender("edgecal", "percentile"),
    Contender("edgecal", "auto"),
    Contender("edgecal", "percentile", one_thread=True),
    Contender("edgecal", "percentile", without_numba=True),
    Contender("edgecal", "auto", without_numba=True),
    Contender("edgecal", "minmax"),
    Contender("edgecal", "entropy"),
    Contender("edgecal", "entropy2"),
    Contender("edgecal", "mse"),
    Contender("onnxruntime", "minmax"),
    Contender("onnxruntime", "entropy"),
    Contender("onnxruntime", "percentile"),
    Contender("modelopt", "max"),
    Contender("modelopt", "entropy"),
)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What a calibrator took and gave."""

    seconds: float
    pass_seconds: float
    """Without the search and, for edgecal, without the simulation of INT8."""
    scales: Scales = field(default_factory=dict)
    chosen: str = ""
    peak_mib: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)


def pictures(path: Path) -> Iterator[NDArray[np.float32]]:
    """Yield one picture after the other as a batch of one; mapped memory would count as used."""
    with path.open("rb") as stream:
        np.lib.format.read_magic(stream)
        shape, _, _ = np.lib.format.read_array_header_1_0(stream)
        size = int(np.prod(shape[1:]))
        for _ in range(shape[0]):
            yield np.fromfile(stream, np.float32, size).reshape(1, *shape[1:])


def _plain(contender: Contender, network: Path, data: Path) -> Outcome:
    import onnxruntime

    started = time.perf_counter()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1 if contender.one_thread else len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(network, options)
    name = session.get_inputs()[0].name
    for picture in pictures(data):
        session.run(None, {name: picture})
    seconds = time.perf_counter() - started
    return Outcome(seconds=seconds, pass_seconds=seconds)


def _edgecal(contender: Contender, network: Path, data: Path) -> Outcome:
    import edgecal.adapters.datasets
    import edgecal.adapters.ort_backend  # noqa: F401 - imported before the clock starts
    from edgecal.cli.wiring import datasets, machine, networks
    from edgecal.core.cache import parse_cache
    from edgecal.core.manifest import CACHE_FILE
    from edgecal.core.versions import parse_tensorrt
    from edgecal.workflows.calibrate import calibrate
    from edgecal.workflows.collect import CalibrateOptions

    passed = 0.0

    def watch(what: str, _done: int, _total: int) -> None:
        nonlocal passed
        if not passed and what != "calibrating":
            passed = time.perf_counter() - started

    started = time.perf_counter()
    model = networks.model(network)
    backend = networks.backend(model)
    source = datasets.open_dataset(
        str(data), model.graph.inputs, preprocess=None, skip_unreadable=False, limit=None
    )
    options = CalibrateOptions(
        algorithm=contender.method, workers=1 if contender.one_thread else machine.workers()
    )
    _, (made,) = calibrate(backend, source, [parse_tensorrt(_TENSORRT)], options, watch)
    seconds = time.perf_counter() - started
    cache = parse_cache(made.files[CACHE_FILE])
    return Outcome(
        seconds=seconds,
        pass_seconds=passed or seconds,
        scales={entry.tensor: entry.scale for entry in cache.entries},
        chosen=made.record.algorithm,
    )


def _onnxruntime(contender: Contender, network: Path, data: Path) -> Outcome:
    from onnxruntime.quantization import calibrate as peer

    names = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
    method = peer.CalibrationMethod[names[contender.method]]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        calibrator = peer.create_calibrator(
            network, None, augmented_model_path=f"{folder}/augmented.onnx", calibrate_method=method
        )
        calibrator.collect_data(_reader(network, data))
        passed = time.perf_counter() - started
        ranges = calibrator.compute_data()
    seconds = time.perf_counter() - started
    scales = {}
    for name, found in ranges.items():
        low, high = found.range_value
        scales[name] = max(abs(float(np.min(low))), abs(float(np.max(high)))) / STEPS
    return Outcome(seconds=seconds, pass_seconds=passed, scales=scales)


def _modelopt(contender: Contender, network: Path, data: Path) -> Outcome:
    import onnx
    from onnx import numpy_helper

    quantize = importlib.import_module("modelopt.onnx.quantization").quantize

    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder, "quantized.onnx")
        started = time.perf_counter()
        quantize(
            str(network),
            quantize_mode="int8",
            calibration_method=contender.method,
            calibration_data_reader=_reader(network, data),
            calibration_eps=["cpu"],
            high_precision_dtype="fp32",
            output_path=str(written),
            log_level="ERROR",
        )
        seconds = time.perf_counter() - started
        graph = onnx.load(written).graph
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    scales = {
        node.input[0]: float(constants[node.input[1]])
        for node in graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants
    }
    return Outcome(seconds=seconds, pass_seconds=seconds, scales=scales)


def _reader(network: Path, data: Path) -> Any:  # noqa: ANN401 - onnxruntime has no types
    import onnx
    from onnxruntime.quantization import calibrate as peer

    name = onnx.load(network, load_external_data=False).graph.input[0].name

    class Reader(peer.CalibrationDataReader):  # type: ignore[misc] # it has no types
        def __init__(self) -> None:
            self.rest = pictures(data)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            picture = next(self.rest, None)
            return None if picture is None else {name: picture}

        def rewind(self) -> None:
            self.rest = pictures(data)

        def get_first(self) -> dict[str, NDArray[np.float32]]:
            return {name: next(pictures(data))}

    return Reader()


_TOOLS: Final[dict[str, Callable[[Contender, Path, Path], Outcome]]] = {
    "plain": _plain,
    "edgecal": _edgecal,
    "onnxruntime": _onnxruntime,
    "modelopt": _modelopt,
}
_DISTRIBUTIONS: Final = {
    "plain": ("onnxruntime", "numpy"),
    "edgecal": ("edgecal", "onnxruntime", "numba"),
    "onnxruntime": ("onnxruntime",),
    "modelopt": ("nvidia-modelopt", "onnxruntime", "torch"),
}


def _memory(file: str, key: str) -> int:
    """Read one value of a file in /proc, in bytes."""
    for line in Path("/proc", file).read_text("ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/{file} has no {key}: this bench needs Linux")


def main() -> None:
    """Run one contender."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender", choices=[one.name for one in CONTENDERS])
    parser.add_argument("network", type=Path)
    parser.add_argument("pictures", type=Path)
    given = parser.parse_args()
    contender = next(one for one in CONTENDERS if one.name == given.contender)
    if contender.without_numba:
        # its import fails then, and that of what it brings, as if they were absent
        sys.modules.update(dict.fromkeys(("numba", "llvmlite")))  # type: ignore[arg-type]
    # rather fail than take what others use
    most = int(0.9 * _memory("meminfo", "MemAvailable"))
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    with contextlib.redirect_stdout(sys.stderr):
        outcome = _TOOLS[contender.tool](contender, given.network, given.pictures)
    # not ru_maxrss, which starts at the size of the process that started this one
    outcome.peak_mib = _memory("self/status", "VmHWM") / 2**20
    outcome.versions = {one: version(one) for one in _DISTRIBUTIONS[contender.tool]}
    print(json.dumps(asdict(outcome)))


if __name__ == "__main__":
    main()
