"""The one pass with the real ONNX Runtime: few tensors are looked at, all as if each one was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from onnx import helper

from edgecal.adapters.onnx_model import read_model
from edgecal.adapters.ort_backend import OrtBackend
from edgecal.core.derived import View, views
from edgecal.core.histogram import Histogram, collect, start_histogram
from edgecal.core.manifest import digest_of
from edgecal.core.tensors import activations
from edgecal.ports import Sample
from edgecal.workflows.collect import CalibrateOptions, Statistics, collect_statistics
from tests.networks import floats, network, save, tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import onnx

Array = npt.NDArray[np.float32]


@dataclass
class Pictures:
    """A few pictures from memory."""

    arrays: Array
    kind: str = "arrays"
    preprocess: None = None
    skipped: Sequence[str] = ()
    excluded: Sequence[str] = ()
    groups: Mapping[str, int] = field(default_factory=dict)
    limit: int | None = None

    def __len__(self) -> int:
        return len(self.arrays)

    def __iter__(self) -> Iterator[Sample]:
        for number, one in enumerate(self.arrays):
            yield Sample(
                name=str(number), digest=digest_of(one.tobytes()), arrays={"image": np.array(one)}
            )


def moving_net() -> onnx.ModelProto:
    """One of everything that is derived, and what comes between."""
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["conv", "low", "high"], ["clip"]),
        helper.make_node("MaxPool", ["clip"], ["pool"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["pool", "w2"], ["conv2"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv2"], ["relu"]),
        helper.make_node("Transpose", ["relu"], ["moved"], perm=[0, 2, 3, 1]),
        helper.make_node("Log", ["moved"], ["log"]),  # of zeros: infinite
        helper.make_node("Clip", ["log", "low2"], ["cut"]),
        helper.make_node("Relu", ["cut"], ["cut relu"]),
        helper.make_node("Flatten", ["cut relu"], ["flat"]),
        helper.make_node("Identity", ["flat"], ["scores"]),
    ]
    constants = {
        "w": floats(4, 3, 3, 3) * 2,
        "b": floats(4, seed=1) - 1,  # further below zero than above
        "w2": floats(4, 4, 3, 3, seed=2),
        "low": np.asarray(0, np.float32),
        "high": np.asarray(6, np.float32),
        "low2": np.asarray(-2, np.float32),
    }
    shapes = [tensor("image", ["n", 3, 8, 8])], [tensor("scores", ["n", 64])]
    return network(nodes, *shapes, constants)


def statistics(folder: Path, images: Array, *, workers: int, batch_size: int = 1) -> Statistics:
    return collect_statistics(
        OrtBackend(read_model(save(moving_net(), folder / "net.onnx"))),
        Pictures(images),
        CalibrateOptions(workers=workers, batch_size=batch_size),
        lambda *_: None,
    )


def images(count: int) -> Array:
    # later ones reach further than the first one: ranges double on the way
    growing = np.linspace(0.2, 10, count)[:, None, None, None]
    return (floats(count, 3, 8, 8) * growing).astype(np.float32)


def assert_same(left: Histogram, right: Histogram) -> None:
    assert left.range_end == right.range_end
    assert np.array_equal(left.counts, right.counts)
    assert (left.minimum, left.maximum) == (right.minimum, right.maximum)
    assert left.non_finite == right.non_finite


@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_histogram_is_that_of_looking_at_the_tensor(tmp_path: Path, batch_size: int) -> None:
    pictures = images(15)  # too few to hold any out
    found = statistics(tmp_path, pictures, workers=2, batch_size=batch_size).histograms
    backend = OrtBackend(read_model(tmp_path / "net.onnx"))
    names = activations(backend.graph)
    assert tuple(found) == names
    assert {name for name, view in views(backend.graph).items() if view == View(name)} == {
        *("image", "conv", "pool", "conv2", "log")
    }
    everything = backend.expose(names)
    looked_at: dict[str, Histogram] = {}
    for start in range(0, len(pictures), batch_size):
        batch = {"image": pictures[start : start + batch_size]}
        for name, values in {**batch, **everything.run(batch)}.items():
            array = np.asarray(values, np.float32)
            looked_at.setdefault(name, start_histogram(array))
            looked_at[name] = collect(looked_at[name], array)
    assert found["log"].non_finite > 0
    assert found["cut"].non_finite == 0
    assert found["clip"].maximum == 6
    for name in names:
        assert_same(found[name], looked_at[name])


@pytest.mark.parametrize("workers", [2, 7])
def test_any_number_of_workers_gives_the_same_bits(tmp_path: Path, workers: int) -> None:
    alone = statistics(tmp_path, images(40), workers=1)
    together = statistics(tmp_path, images(40), workers=workers)
    assert list(together.histograms) == list(alone.histograms)
    for name, histogram in alone.histograms.items():
        assert_same(together.histograms[name], histogram)
    for left, right in zip(together.runs, alone.runs, strict=True):
        assert np.array_equal(left.inputs["image"], right.inputs["image"])
        assert np.array_equal(left.fp32["scores"], right.fp32["scores"])


def test_outputs_to_judge_by_keep_no_memory_of_the_runtime_s(tmp_path: Path) -> None:
    for run in statistics(tmp_path, images(20), workers=1).runs:
        assert all(values.flags.owndata for values in run.fp32.values())
