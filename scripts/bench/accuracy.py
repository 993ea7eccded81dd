"""Measures what INT8 costs in accuracy: Fashion-MNIST, all 10,000 test pictures.

Two networks: the one that ships for `edgecal demo`, and a small one of residual depthwise blocks
with ReLU6, which is trained here in PyTorch the first time. Each is calibrated on training pictures
by every algorithm and by edgecal's default, and its INT8 is simulated on the whole test set. What
that needs is downloaded once, by pip and apt-get, into the workplace.

Exits with status 1 if the default is more than 0.3 points below float32 on either network.

    .venv/bin/python scripts/bench/accuracy.py
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from _networks import depthwise
from _workplace import CHECKOUT, TORCH, Workplace, add_workplace

from edgecal.cli.wiring import datasets, lookup, machine, networks
from edgecal.core.amax import ALGORITHMS
from edgecal.core.cache import parse_cache
from edgecal.core.manifest import CACHE_FILE
from edgecal.core.preprocess import parse_preprocess
from edgecal.core.versions import parse_tensorrt
from edgecal.workflows.calibrate import calibrate
from edgecal.workflows.collect import AUTO, CalibrateOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from edgecal.ports import Network

POINTS: Final = 0.3
_TENSORRT: Final = "8.5"
_DEMO: Final = CHECKOUT / "edgecal/demo_data"
_AT_ONCE: Final = 500


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped file of unsigned bytes as MNIST has them."""
    data = gzip.decompress(path.read_bytes())
    if data[:3] != b"\x00\x00\x08":
        raise SystemExit(f"{path}: expected unsigned bytes, found {data[:4]!r}")
    shape = np.frombuffer(data, ">u4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def read_split(folder: Path, split: str) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Read pictures as the demo's network wants them, and their classes."""
    recipe = parse_preprocess(lookup.read_toml(_DEMO / "preprocess.toml"), source="preprocess.toml")
    pixels = read_idx(folder / f"{split}-images-idx3-ubyte.gz")[:, np.newaxis].astype(np.float32)
    pixels = (pixels - np.float32(recipe.mean[0])) * np.float32(recipe.scale[0])
    return pixels, read_idx(folder / f"{split}-labels-idx1-ubyte.gz")


def trained(workplace: Workplace, pixels: NDArray[np.float32], labels: NDArray[np.uint8]) -> Path:
    """Make the small network; trains it if nobody has yet."""
    weights = workplace.folder / "depthwise.npz"
    if not weights.exists():
        workplace.install(TORCH, ("numpy",))
        data = workplace.folder / "fashion-mnist.npz"
        np.savez(data, pixels=pixels, labels=labels.astype(np.int64))
        script = Path(__file__).with_name("_depthwise.py")
        fresh = weights.with_name("training.npz")
        subprocess.run([str(workplace.python), str(script), str(data), str(fresh)], check=True)
        data.unlink()
        fresh.rename(weights)
    with np.load(weights) as found:
        model = depthwise(dict(found))
    onnx.checker.check_model(model, full_check=True)
    path = workplace.folder / "depthwise.onnx"
    onnx.save(model, path)
    return path


def correct(network: Network, pixels: NDArray[np.float32], labels: NDArray[np.uint8]) -> int:
    """Count the pictures whose class is the network's largest output."""

    def chosen() -> Iterator[NDArray[Any]]:
        for start in range(0, len(pixels), _AT_ONCE):
            (logits,) = network.run({"image": pixels[start : start + _AT_ONCE]}).values()
            yield logits.argmax(axis=1)

    return int((np.concatenate(list(chosen())) == labels).sum())


def measure(
    network: Path, calibration: Path, pixels: NDArray[np.float32], labels: NDArray[np.uint8]
) -> dict[str, Any]:
    """Calibrate by each algorithm and count."""
    model = networks.model(network)
    backend = networks.backend(model)
    counts: dict[str, int] = {}
    chosen = ""
    for algorithm in (AUTO, *ALGORITHMS):
        source = datasets.open_dataset(
            str(calibration), model.graph.inputs, preprocess=None, skip_unreadable=False, limit=None
        )
        options = CalibrateOptions(algorithm=algorithm, workers=machine.workers())
        versions = [parse_tensorrt(_TENSORRT)]
        _, (made,) = calibrate(backend, source, versions, options, lambda *_told: None)
        cache = parse_cache(made.files[CACHE_FILE])
        scales = {entry.tensor: entry.scale for entry in cache.entries}
        counts[algorithm] = correct(backend.simulate(scales), pixels, labels)
        if algorithm == AUTO:
            chosen = f"{made.record.algorithm}, {made.record.chosen_by}"
    return {
        "float32": correct(networks.run_onnx(network), pixels, labels),
        "int8": counts,
        "chosen": chosen,
        "of": len(labels),
    }


def show(name: str, found: dict[str, Any]) -> None:
    """Print one network's figures."""
    whole, plain = found["of"], found["float32"]
    print(f"{name}: float32 {plain / whole:.2%}")
    for algorithm, count in found["int8"].items():
        print(f"  {algorithm:16} {count / whole:.2%}  {(count - plain) / whole * 100:+.2f} points")
    print(f"  {AUTO} chose {found['chosen']}", flush=True)


def lost(found: dict[str, Any]) -> float:
    """Give the points that the default loses."""
    points: float = (found["float32"] - found["int8"][AUTO]) / found["of"] * 100
    return points


def main() -> None:
    """Measure both networks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=256, help="to calibrate on (%(default)s)")
    parser.add_argument("--json", action="store_true", help="figures only")
    add_workplace(parser)
    given = parser.parse_args()
    workplace = Workplace(given.workplace)
    folder = workplace.debian("dataset-fashion-mnist") / "datasets/fashion-mnist"
    train_pixels, train_labels = read_split(folder, "train")
    pixels, labels = read_split(folder, "t10k")

    calibration = workplace.folder / "fashion-calibration.npy"
    picks = np.random.default_rng(0).choice(len(train_pixels), given.pictures, replace=False)
    np.save(calibration, train_pixels[picks])
    networks: dict[str, Callable[[], Path]] = {
        "demo": lambda: _DEMO / "fashion_cnn.onnx",
        "depthwise": lambda: trained(workplace, train_pixels, train_labels),
    }
    found = {}
    for name, make in networks.items():
        found[name] = measure(make(), calibration, pixels, labels)
        if not given.json:
            show(name, found[name])
    if given.json:
        print(json.dumps(found, indent=2))
    worst = max(lost(one) for one in found.values())
    if worst > POINTS:
        sys.exit(f"the default is {worst:.2f} points below float32, more than {POINTS}")


if __name__ == "__main__":
    main()
