"""Caches calibrated for real, held against the network they were made for and against others."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgecal.adapters.datasets import open_dataset
from edgecal.adapters.demo_data import unpack_demo
from edgecal.adapters.onnx_model import read_model
from edgecal.adapters.ort_backend import OrtBackend
from edgecal.adapters.project import read_toml
from edgecal.core.amax import ALGORITHMS
from edgecal.core.findings import Finding, Severity
from edgecal.core.preprocess import parse_preprocess
from edgecal.core.statistics import scales_from
from edgecal.core.versions import TensorRTVersion, parse_tensorrt
from edgecal.errors import DatasetError
from edgecal.workflows.check_cache import CacheCheck, Observed, check_cache, observe
from edgecal.workflows.collect import CalibrateOptions, collect_statistics
from tests.exports import counted_net
from tests.networks import conv_net, floats, save

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx

    from edgecal.core.histogram import Histogram
    from edgecal.ports import Dataset

VERSIONS = [parse_tensorrt(one) for one in ("7.1.3", "8.0.1", "8.5.2", "10.3.0")]
LATE_8 = VERSIONS[2]


def quiet(_what: str, _done: int, _total: int) -> None:
    pass


@dataclass
class Bench:
    """A network, what its calibration data made of it, and a few other samples."""

    backend: OrtBackend
    histograms: Mapping[str, Histogram]
    observed: Observed

    def scales(
        self, algorithm: str = "entropy2", tensorrt: TensorRTVersion = LATE_8
    ) -> dict[str, float]:
        made = scales_from(
            self.histograms,
            self.backend.graph,
            algorithm=algorithm,
            percentile=99.99,
            tensorrt=tensorrt,
        )
        return {name: float(scale) for name, scale in made.entries().items()}

    def check(
        self,
        scales: Mapping[str, float],
        *,
        tensorrt: TensorRTVersion = LATE_8,
        data: bool = False,
    ) -> CacheCheck:
        return check_cache(
            scales,
            self.backend.graph,
            written_by=tensorrt,
            algorithm="EntropyCalibration2",
            read_by=tensorrt,
            observed=self.observed if data else None,
        )


def make_bench(backend: OrtBackend, calibration: Dataset, other: Dataset) -> Bench:
    return Bench(
        backend,
        collect_statistics(backend, calibration, CalibrateOptions(), quiet).histograms,
        observe(backend, other, samples=8, progress=quiet),
    )


def dataset(folder: Path, backend: OrtBackend, count: int, seed: int) -> Dataset:
    file = folder / f"data{seed}.npy"
    np.save(file, floats(count, 3, 8, 8, seed=seed))
    return open_dataset(
        str(file), backend.graph.inputs, preprocess=None, skip_unreadable=False, limit=None
    )


def export_bench(folder: Path, proto: onnx.ModelProto) -> Bench:
    backend = OrtBackend(read_model(save(proto, folder / "net.onnx")))
    return make_bench(
        backend, dataset(folder, backend, 40, seed=100), dataset(folder, backend, 8, seed=200)
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    data = unpack_demo(tmp_path_factory.mktemp("demo"))
    settings = parse_preprocess(read_toml(data.preprocess), source="preprocess.toml")
    backend = OrtBackend(read_model(data.model))

    def pictures(folder: Path, limit: int) -> Dataset:
        return open_dataset(
            str(folder),
            backend.graph.inputs,
            preprocess=settings,
            skip_unreadable=False,
            limit=limit,
        )

    return make_bench(backend, pictures(data.calibration, 48), pictures(data.test, 8))


@pytest.fixture(scope="module")
def today(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The network as it is exported now."""
    return export_bench(tmp_path_factory.mktemp("today"), counted_net(start=14))


def severities(findings: tuple[Finding, ...]) -> set[Severity]:
    return {finding.severity for finding in findings}


def shuffled(scales: Mapping[str, float], seed: int) -> dict[str, float]:
    values = list(scales.values())
    random.Random(seed).shuffle(values)
    return dict(zip(scales, values, strict=True))


class TestACacheOfAnEarlierExport:
    @pytest.mark.parametrize("before", [11, 12, 13, 15, 20])
    def test_is_recognised_where_all_numbers_moved(
        self, before: int, today: Bench, tmp_path: Path
    ) -> None:
        old = export_bench(tmp_path, counted_net(start=before)).scales()
        assert set(old) & set(today.scales())  # names do hit tensors
        found = today.check(old).stale
        assert severities(found) == {Severity.ERROR}
        assert any(f"moved by {14 - before:+d}" in one.message for one in found)

    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    def test_is_recognised_where_only_numbers_after_a_new_operator_moved(
        self, algorithm: str, today: Bench, tmp_path: Path
    ) -> None:
        old = export_bench(tmp_path, counted_net(start=14, extra=True)).scales(algorithm)
        assert severities(today.check(old).stale) == {Severity.ERROR}

    @pytest.mark.parametrize("version", VERSIONS, ids=str)
    def test_is_recognised_even_if_every_name_hits_a_tensor(
        self, version: TensorRTVersion, today: Bench, tmp_path: Path
    ) -> None:
        old = export_bench(tmp_path, counted_net(start=12)).scales(tensorrt=version)
        own = today.scales(tensorrt=version)
        scales = {name: old.get(name, scale) for name, scale in own.items()}
        done = today.check(scales, tensorrt=version)
        assert (done.coverage.missing, done.coverage.unknown) == ((), ())
        assert severities(done.stale) == {Severity.ERROR}

    def test_with_other_weights_is_contradicted_by_the_data_alone(
        self, today: Bench, tmp_path: Path
    ) -> None:
        heavier = counted_net(start=14)
        for weight in heavier.graph.initializer:
            if weight.name in {"w1", "w2", "w3"}:
                values = np.frombuffer(weight.raw_data, np.float32) * 5
                weight.raw_data = values.tobytes()
        old = export_bench(tmp_path, heavier).scales()
        assert today.check(old).stale == ()
        (found,) = today.check(old, data=True).stale
        assert found.severity is Severity.ERROR
        assert "data contradict" in found.message


class TestAShuffledCache:
    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    @pytest.mark.parametrize("seed", range(5))
    def test_is_recognised_without_data(self, seed: int, algorithm: str, demo: Bench) -> None:
        found = demo.check(shuffled(demo.scales(algorithm), seed)).stale
        assert severities(found) == {Severity.ERROR}

    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    @pytest.mark.parametrize("seed", range(5))
    def test_is_contradicted_by_the_data(self, seed: int, algorithm: str, demo: Bench) -> None:
        done = demo.check(shuffled(demo.scales(algorithm), seed), data=True)
        assert any("data contradict" in one.message for one in done.stale)
        assert done.agreement is not None
        assert done.agreement.correlation < 0.6


@pytest.mark.parametrize("version", VERSIONS, ids=str)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
class TestTheRightCache:
    def test_of_the_network_that_ships_is_never_suspected(
        self, algorithm: str, version: TensorRTVersion, demo: Bench
    ) -> None:
        done = demo.check(demo.scales(algorithm, version), tensorrt=version, data=True)
        assert done.findings == ()
        assert done.agreement is not None
        assert done.agreement.correlation > 0.7

    def test_of_a_counted_export_is_never_suspected(
        self, algorithm: str, version: TensorRTVersion, today: Bench
    ) -> None:
        done = today.check(today.scales(algorithm, version), tensorrt=version, data=True)
        assert done.stale == ()
        assert done.coverage.findings == ()


def test_what_scales_must_be_like_follows_from_who_wrote_them_not_from_who_reads_them(
    demo: Bench,
) -> None:
    def check(written_by: str, read_by: str) -> CacheCheck:
        return check_cache(
            demo.scales(tensorrt=parse_tensorrt(written_by)),
            demo.backend.graph,
            written_by=parse_tensorrt(written_by),
            algorithm="EntropyCalibration2",
            read_by=parse_tensorrt(read_by),
        )

    assert check("10.3.0", "7.1.3").findings == ()
    late = check("7.1.3", "10.3.0")
    assert late.stale == ()
    assert {hole.kind for hole in late.coverage.holes} == {"constant"}


class TestObserving:
    def test_needs_a_sample(self, tmp_path: Path) -> None:
        backend = OrtBackend(read_model(save(conv_net(), tmp_path / "net.onnx")))
        with pytest.raises(DatasetError, match="no sample"):
            observe(backend, dataset(tmp_path, backend, 0, seed=1), samples=8, progress=quiet)

    def test_gives_the_largest_magnitude_of_the_first_samples(self, tmp_path: Path) -> None:
        backend = OrtBackend(read_model(save(conv_net(), tmp_path / "net.onnx")))
        given = floats(6, 3, 8, 8)
        given[1, 0, 0, 0] = -50
        given[2, 0, 0, 0] = np.inf
        given[5] = 1000
        np.save(tmp_path / "data.npy", given)
        source = open_dataset(
            str(tmp_path / "data.npy"),
            backend.graph.inputs,
            preprocess=None,
            skip_unreadable=False,
            limit=None,
        )
        found = observe(backend, source, samples=4, progress=quiet)
        assert found.samples == 4
        assert set(found.largest) == {"image", "conv", "relu", "pool", "flat", "scores"}
        assert found.largest["image"] == 50

    def test_fills_up_batches_of_a_fixed_size(self, tmp_path: Path) -> None:
        backend = OrtBackend(read_model(save(conv_net(batch=4), tmp_path / "net.onnx")))
        found = observe(backend, dataset(tmp_path, backend, 6, seed=1), samples=5, progress=quiet)
        assert found.samples == 5
        assert found.largest["image"] == np.abs(floats(6, 3, 8, 8, seed=1)[:5]).max()
