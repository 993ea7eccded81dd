"""A pass that others measure: the same bits, whoever of them is lost on the way."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgecal.adapters.binning import fastest_sweep
from edgecal.adapters.checkpoints import CheckpointFile
from edgecal.adapters.cluster.store import Store
from edgecal.adapters.onnx_model import read_model
from edgecal.adapters.ort_backend import OrtBackend, load_packed
from edgecal.core.manifest import Digest, digest_of
from edgecal.core.statistics import serialize_histograms
from edgecal.errors import ClusterError, ModelError
from edgecal.workflows.collect import CalibrateOptions, collect_statistics
from edgecal.workflows.measuring import Measurer
from edgecal.workflows.resume import Keeper
from edgecal.workflows.sharding import Shards
from tests.clusters import HereCluster
from tests.networks import conv_net, half_net, save
from tests.workflows.test_collect import Pictures, images, moving_net

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import onnx

    from edgecal.ports import Network, Sample
    from edgecal.workflows.collect import Statistics

HERE = OrtBackend.version
NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {
    "moving": moving_net,
    "halves": half_net,
    "fixed batch": lambda: conv_net(batch=4),
}


def operations(folder: Path) -> dict[str, Callable[..., Any]]:
    """What `edgecal worker` can be called for, measuring alone."""
    store = Store(folder)
    measurer = Measurer(lambda digest: load_packed(store.read(digest)), fastest_sweep)
    return {
        "missing": store.missing,
        "put": store.put,
        "prove": measurer.prove,
        "measure": measurer.measure,
    }


def measured(
    path: Path,
    data: Pictures,
    cluster: HereCluster | None = None,
    *,
    batch_size: int | None = None,
    keeper: Keeper | None = None,
    tell: Callable[[str], object] = lambda _text: None,
) -> Statistics:
    backend = OrtBackend(read_model(path))
    options = CalibrateOptions(workers=2, batch_size=batch_size)
    if cluster is None:
        return collect_statistics(backend, data, options, lambda *_: None, keeper)
    with Shards(cluster, pack=backend.pack, runtime=HERE, tell=tell) as spread:
        return collect_statistics(backend, data, options, lambda *_: None, keeper, spread=spread)


def assert_same(left: Statistics, right: Statistics) -> None:
    assert list(left.histograms) == list(right.histograms)
    assert serialize_histograms(left.histograms) == serialize_histograms(right.histograms)
    assert left.data_digest == right.data_digest
    assert (left.samples, left.dropped, left.first) == (right.samples, right.dropped, right.first)
    for one, other in zip(left.runs, right.runs, strict=True):
        assert one.fp32.keys() == other.fp32.keys()
        assert all(np.array_equal(one.fp32[name], other.fp32[name]) for name in one.fp32)


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return save(moving_net(), tmp_path / "net.onnx")


def test_without_a_worker_nothing_begins(net: Path) -> None:
    with pytest.raises(ClusterError, match="no worker has joined"):
        measured(net, Pictures(images(20)), HereCluster())


def test_a_worker_whose_bits_may_differ_is_given_nothing(net: Path, tmp_path: Path) -> None:
    said: list[str] = []
    cluster = HereCluster()
    cluster.join("old", operations(tmp_path / "old"), onnxruntime="1.2.3")
    with pytest.raises(ClusterError, match=r"it has ONNX Runtime 1\.2\.3, and here it is"):
        measured(net, Pictures(images(20)), cluster, tell=said.append)
    odd = operations(tmp_path / "odd")
    cluster.join("odd", {**odd, "prove": lambda *_: digest_of(b"")}, onnxruntime=HERE)
    cluster.join("good", operations(tmp_path / "good"), onnxruntime=HERE)
    spread = measured(net, Pictures(images(20)), cluster, tell=said.append)
    assert_same(spread, measured(net, Pictures(images(20))))
    assert "worker odd does not measure: its processor computes other bits than this one's" in said
    assert {worker for worker, what in cluster.calls if what == "measure"} == {"tcp://here:3"}


def test_data_that_the_network_cannot_take_ends_the_pass_as_it_does_alone(
    tmp_path: Path, net: Path
) -> None:
    class Odd(Pictures):
        def __iter__(self) -> Iterator[Sample]:
            for number, sample in enumerate(super().__iter__()):
                if number == 15:  # only a worker meets it
                    sample.arrays["image"] = sample.arrays["image"][:2]  # type: ignore[index]
                yield sample

    cluster = HereCluster()
    cluster.join("a", operations(tmp_path / "a"), onnxruntime=HERE)
    with pytest.raises(ModelError, match="cannot run on this data") as spread:
        measured(net, Odd(images(30)), cluster)
    with pytest.raises(ModelError) as alone:
        measured(net, Odd(images(30)))
    assert spread.value.to_json() == alone.value.to_json()


def test_when_the_last_worker_is_lost_the_pass_ends_and_can_be_gone_on_with(
    net: Path, tmp_path: Path
) -> None:
    def happens(worker: str, what: str) -> None:
        if what == "measure" and sum(one == "measure" for _, one in cluster.calls) == 5:
            cluster.lose(worker)

    def keeper(*, resume: bool) -> Keeper:
        ticks = iter(range(10_000))
        return Keeper(
            CheckpointFile(tmp_path / "kept"),
            of={},
            resume=resume,
            clock=lambda: 100.0 * next(ticks),
            tell=lambda _text: None,
        )

    data = Pictures(images(60))
    cluster = HereCluster(happens)
    cluster.join("a", operations(tmp_path / "a"), threads=1, onnxruntime=HERE)
    with pytest.raises(ClusterError, match="no worker is left"), keeper(resume=False) as kept:
        measured(net, data, cluster, keeper=kept)
    assert (tmp_path / "kept").exists()
    cluster.join("b", operations(tmp_path / "b"), onnxruntime=HERE)
    with keeper(resume=True) as kept:
        spread = measured(net, data, cluster, keeper=kept)
    assert_same(spread, measured(net, data))


@pytest.mark.parametrize("name", NETWORKS)
def test_workers_give_the_same_bits(tmp_path: Path, name: str) -> None:
    path = save(NETWORKS[name](), tmp_path / "net.onnx")
    data = Pictures(images(61).astype(np.float16) if name == "halves" else images(61))
    cluster = HereCluster()
    for worker in ("a", "b", "c"):
        cluster.join(worker, operations(tmp_path / worker), onnxruntime=HERE)
    size = None if name == "fixed batch" else 2
    spread = measured(path, data, cluster, batch_size=size)
    assert_same(spread, measured(path, data, batch_size=size))
    assert sum(what == "put" for _, what in cluster.calls) == 3  # the network, once each


def test_what_a_lost_worker_was_at_is_measured_by_another_and_newcomers_help(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecal.workflows.sharding._LOOK_S", 0.01)
    come = threading.Event()

    def happens(worker: str, what: str) -> None:
        if what == "measure" and worker == first:
            if sum(one == "measure" for _, one in cluster.calls) < 4:
                return
            cluster.join("b", operations(tmp_path / "b"), onnxruntime=HERE)
            come.wait(10)
            cluster.lose(first)
        elif what == "measure":
            come.set()

    said: list[str] = []
    data = Pictures(images(90))
    cluster = HereCluster(happens)
    first = cluster.join("a", operations(tmp_path / "a"), threads=1, onnxruntime=HERE)
    spread = measured(net, data, cluster, tell=said.append)
    assert_same(spread, measured(net, data))
    assert "worker a was lost; others measure what it was at" in said
    assert {worker for worker, what in cluster.calls if what == "measure"} == {
        *("tcp://here:1", "tcp://here:2")
    }


def test_networks_that_nobody_asks_for_any_more_leave_the_memory(net: Path, tmp_path: Path) -> None:
    loaded: list[Digest] = []
    backend = OrtBackend(read_model(net))
    batch = {"image": images(1)}

    def load(digest: Digest) -> Network:
        loaded.append(digest)
        return load_packed(backend.pack(("conv",)))

    measurer = Measurer(load, fastest_sweep)
    names = [digest_of(bytes([number])) for number in range(3)]
    for number in (0, 1, 0, 2, 0, 1):
        measurer.prove(names[number], ("conv",), batch)
    assert loaded == [names[0], names[1], names[2], names[1]]
    assert tmp_path.exists()
