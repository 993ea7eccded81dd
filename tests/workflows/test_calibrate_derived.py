"""Bundles out of bundles, given ranges, and hard clipping, with the real ONNX Runtime."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import helper

from edgecal.adapters.bundle import write_bundle
from edgecal.adapters.datasets import open_dataset
from edgecal.adapters.onnx_model import OnnxModel, read_model
from edgecal.adapters.ort_backend import OrtBackend
from edgecal.cli.wiring import bundling
from edgecal.core.amax import ALGORITHMS, AUTO_CANDIDATES
from edgecal.core.cache import parse_cache
from edgecal.core.golden import GoldenRun, parse_golden
from edgecal.core.manifest import (
    CACHE_FILE,
    GOLDEN_FILE,
    HISTOGRAMS_FILE,
    MODEL_FILE,
    parse_manifest,
    serialize_manifest,
)
from edgecal.core.overrides import Overrides, parse_range_table
from edgecal.core.versions import parse_tensorrt
from edgecal.errors import BundleError, InputError
from edgecal.workflows.calibrate import Calibration, RecordedData, calibrate, recalibrate
from edgecal.workflows.collect import AUTO, CalibrateOptions
from tests.networks import conv_net, floats, network, save, tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgecal.adapters.bundle import Bundle
    from edgecal.adapters.ort_backend import ScaledNetwork

JETPACK_5 = parse_tensorrt("8.5.2")


def silent(_what: str, _done: int, _total: int) -> None:
    """Tell nobody."""


@dataclass
class Desk:
    """A network, data, and bundles made of them."""

    folder: Path

    @property
    def network(self) -> OnnxModel:
        return read_model(self.folder / "net.onnx")

    def full(
        self,
        *versions: str,
        algorithm: str = AUTO,
        overrides: Sequence[Overrides] = (),
    ) -> list[Bundle]:
        """Go through the data."""
        data = str(self.folder / "data.npy")
        source = open_dataset(data, self.network.graph.inputs, preprocess=None)
        statistics, made = calibrate(
            OrtBackend(self.network),
            source,
            [parse_tensorrt(version) for version in versions or ["8.5.2"]],
            CalibrateOptions(algorithm=algorithm),
            silent,
            overrides=overrides,
        )
        number = len(list(self.folder.glob("*.edgecal")))
        return [
            bundling.save_bundle(
                self.folder / f"full-{number}-{one.tensorrt.major_minor}.edgecal",
                network=self.network,
                data=data,
                source=source,
                statistics=statistics,
                calibration=one,
            )
            for one in made
        ]

    def derived(
        self,
        parent: Bundle,
        version: str = "8.5.2",
        algorithm: str = AUTO,
        overrides: Sequence[Overrides] = (),
    ) -> tuple[Calibration, Bundle]:
        """Do without data."""
        network = read_model(parent.path / MODEL_FILE)
        recorded = parent.manifest.data
        statistics, (made,) = recalibrate(
            OrtBackend(network),
            parent,
            [parse_tensorrt(version)],
            CalibrateOptions(algorithm=algorithm),
            silent,
            overrides=overrides,
            source=str(parent.path),
        )
        bundle = bundling.save_bundle(
            self.folder / "derived.edgecal",
            network=network,
            data=recorded.source,
            source=RecordedData(kind=recorded.kind),
            statistics=statistics,
            calibration=made,
        )
        return made, bundle


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    save(conv_net(), tmp_path / "net.onnx")
    growing = np.linspace(0.2, 30, 80, dtype=np.float32)[:, None, None, None]
    np.save(tmp_path / "data.npy", floats(80, 3, 8, 8) * growing)
    return Desk(tmp_path)


def read(bundle: Bundle, name: str) -> bytes:
    with bundle.open(name) as stream:
        return stream.read()


def golden(bundle: Bundle) -> tuple[GoldenRun, ...]:
    return parse_golden(read(bundle, GOLDEN_FILE), source="g")


def scales(bundle: Bundle) -> dict[str, float]:
    return parse_cache(read(bundle, CACHE_FILE)).scales()


def table(source: str = "t", /, **amaxes: float) -> Overrides:
    return parse_range_table(amaxes, source=source)


class TestADerivedBundle:
    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    def test_has_the_very_cache_of_a_pass_for_any_tensorrt(
        self, desk: Desk, algorithm: str
    ) -> None:
        (parent,) = desk.full(algorithm="minmax")
        # 7.1 still copies to GlobalAveragePool, and 10.3 has entries for constants
        wanted = desk.full("7.1.3", "8.5.2", "10.3.0", algorithm=algorithm)
        for full in wanted:
            _, made = desk.derived(parent, str(full.manifest.tensorrt), algorithm)
            assert read(made, CACHE_FILE) == read(full, CACHE_FILE)
            assert read(made, HISTOGRAMS_FILE) == read(full, HISTOGRAMS_FILE)
            assert read(made, GOLDEN_FILE) == read(full, GOLDEN_FILE)
            assert made.manifest.coverage == full.manifest.coverage
        assert len({read(full, CACHE_FILE) for full in wanted}) == 3

    def test_keeps_model_data_and_float32_goldens_and_says_where_it_comes_from(
        self, desk: Desk
    ) -> None:
        (parent,) = desk.full(algorithm="minmax")
        _, made = desk.derived(parent, algorithm="entropy")
        assert read(made, MODEL_FILE) == read(parent, MODEL_FILE)
        assert made.manifest.model == parent.manifest.model
        assert made.manifest.data == parent.manifest.data
        assert made.manifest.derived_from == parent.manifest_digest
        assert parent.manifest.derived_from is None
        for before, after in zip(golden(parent), golden(made), strict=True):
            assert np.array_equal(before.fp32["scores"], after.fp32["scores"])
            assert np.array_equal(before.inputs["image"], after.inputs["image"])
            assert not np.array_equal(before.int8["scores"], after.int8["scores"])
        assert made.manifest.quality != parent.manifest.quality
        again = parse_manifest(serialize_manifest(made.manifest), source="m")
        assert again == made.manifest

    def test_may_be_derived_from_once_more(self, desk: Desk) -> None:
        (parent,) = desk.full(algorithm="minmax")
        _, first = desk.derived(parent, "10.3.0", "mse")
        made, second = desk.derived(first, "8.5.2", "minmax")
        assert read(second, CACHE_FILE) == read(parent, CACHE_FILE)
        assert made.parent is not None
        assert second.manifest.derived_from == first.manifest_digest != parent.manifest_digest

    def test_by_auto_is_judged_by_the_golden_runs(self, desk: Desk) -> None:
        (parent,) = desk.full(algorithm="minmax")
        made, _ = desk.derived(parent)
        assert all(f"{name} " in made.record.chosen_by for name in AUTO_CANDIDATES)
        least = min(made.record.candidates, key=lambda name: made.record.candidates[name])
        assert made.record.algorithm == least
        assert "on 8 held-out runs" in made.record.chosen_by
        assert made.quality.samples == 8

    def test_says_who_ran_the_network_over_the_data(self, desk: Desk) -> None:
        (parent,) = desk.full(algorithm="minmax")
        before = replace(parent.manifest.calibration, backend="other", backend_version="0.1")
        contents = {name: read(parent, name) for name in parent.manifest.files}
        changed = replace(parent.manifest, calibration=before)
        old = write_bundle(desk.folder / "old.edgecal", changed, contents)
        made, _ = desk.derived(old)
        assert (made.record.backend, made.record.backend_version) == ("other", "0.1")

    @pytest.mark.parametrize("name", [HISTOGRAMS_FILE, GOLDEN_FILE])
    def test_cannot_be_had_without_statistics(self, desk: Desk, name: str) -> None:
        (parent,) = desk.full(algorithm="minmax")
        contents = {one: read(parent, one) for one in parent.manifest.files if one != name}
        bare = write_bundle(desk.folder / "bare.edgecal", parent.manifest, contents)
        with pytest.raises(BundleError, match=f"has no {name}") as caught:
            desk.derived(bare)
        assert caught.value.where == str(bare.path)

    def test_cannot_be_had_by_an_unknown_algorithm(self, desk: Desk) -> None:
        (parent,) = desk.full(algorithm="minmax")
        with pytest.raises(InputError, match="unknown algorithm 'magic'"):
            desk.derived(parent, algorithm="magic")


class TestGivenRanges:
    def test_outweigh_measured_ones_and_both_are_written_down(self, desk: Desk) -> None:
        (plain,) = desk.full(algorithm="minmax")
        (made,) = desk.full(algorithm="minmax", overrides=[table(relu=12.7, pool=127.0)])
        before, after = scales(plain), scales(made)
        assert after == {**before, "relu": np.float32(0.1), "pool": 1.0}
        relu, pool = made.manifest.calibration.overrides
        cache = {entry.tensor: entry.bits for entry in parse_cache(read(plain, CACHE_FILE)).entries}
        assert (relu.name, relu.measured, relu.given) == ("relu", cache["relu"], "3dcccccd")
        assert (pool.name, pool.measured, pool.given) == ("pool", cache["pool"], "3f800000")
        assert (pool.source, pool.follows) == ("t", None)
        assert "overrides" not in json.loads(serialize_manifest(plain.manifest))["calibration"]

    def test_are_simulated_too(self, desk: Desk) -> None:
        (plain,) = desk.full(algorithm="minmax")
        (made,) = desk.full(algorithm="minmax", overrides=[table(image=1e-3)])
        assert made.manifest.quality.outputs["scores"]["sqnr_db"] is not None
        (worse, better) = (
            one.manifest.quality.outputs["scores"]["cosine_mean"] or 0.0 for one in (made, plain)
        )
        assert worse < better

    def test_are_followed_by_pools_where_tensorrt_copies(self, desk: Desk) -> None:
        old, new = desk.full("7.1.3", "8.5.2", algorithm="minmax", overrides=[table(relu=127.0)])
        assert scales(old)["pool"] == scales(old)["relu"] == 1.0
        assert scales(new)["pool"] != scales(new)["relu"] == 1.0
        assert [one.follows for one in old.manifest.calibration.overrides] == [None, "relu"]

    def test_of_constants_hold_where_these_have_entries(self, desk: Desk) -> None:
        made = desk.full("8.5.2", "10.3.0", algorithm="minmax", overrides=[table(fw_output=127.0)])
        assert [scales(one).get("fw_output") for one in made] == [None, 1.0]
        with pytest.raises(InputError, match=r"'fw_output'.*is called so"):
            desk.full("8.5.2", algorithm="minmax", overrides=[table(fw_output=127.0)])

    def test_for_nothing_are_refused_before_the_data_is_read(self, desk: Desk) -> None:
        options = CalibrateOptions()
        backend, nothing = OrtBackend(desk.network), RecordedData(kind="none")
        with pytest.raises(InputError, match=r"'rely'.*near misses: 'relu'"):
            calibrate(backend, nothing, [JETPACK_5], options, silent, overrides=[table(rely=1.0)])

    def test_stay_in_a_derived_bundle_until_others_are_given(self, desk: Desk) -> None:
        (parent,) = desk.full(algorithm="minmax", overrides=[table("first", relu=127.0, conv=254)])
        _, kept = desk.derived(parent, "7.1.3", "minmax")
        assert scales(kept)["pool"] == scales(kept)["relu"] == 1.0
        other = [table("second", relu=508.0)]
        made, changed = desk.derived(kept, "10.3.0", "percentile", other)
        assert (scales(changed)["relu"], scales(changed)["conv"]) == (4.0, 2.0)
        assert scales(changed)["pool"] != 4.0
        assert {one.name: one.source for one in made.record.overrides} == {
            "relu": "second",
            "conv": "first",
        }

    def test_give_a_scale_to_what_was_always_zero_and_that_is_no_finding_then(
        self, desk: Desk
    ) -> None:
        nodes = [
            helper.make_node("Mul", ["x", "nothing"], ["dead"]),
            helper.make_node("Add", ["x", "dead"], ["y"]),
        ]
        ends = [tensor("x", ["n", 4])], [tensor("y", ["n", 4])]
        save(network(nodes, *ends, {"nothing": np.zeros(4, np.float32)}), desk.folder / "net.onnx")
        np.save(desk.folder / "data.npy", floats(120, 4))
        (made,) = desk.full(overrides=[table(dead=127.0)])
        assert list(scales(made)) == ["x", "dead", "y"]
        assert made.manifest.coverage.missing == ()
        derived, _ = desk.derived(made)
        assert [one.rule for one in derived.findings] == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("given", "zz"), ("given", None), ("name", 3), ("measured", "3F800000"), ("follows", [])],
)
def test_a_manifest_with_a_damaged_record_of_ranges_is_refused(
    desk: Desk, key: str, value: object
) -> None:
    (made,) = desk.full(algorithm="minmax", overrides=[table(relu=127.0)])
    document = json.loads(serialize_manifest(made.manifest))
    document["calibration"]["overrides"][0][key] = value
    with pytest.raises(BundleError, match="does not hold what it should"):
        parse_manifest(json.dumps(document).encode(), source="m")


def test_a_hard_clip_is_told_and_percentile_does_not_have_it(desk: Desk) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    save(
        network([node], [tensor("x", ["n", 2000])], [tensor("y", ["n", 2000])]),
        desk.folder / "net.onnx",
    )
    crowd = np.abs(floats(120, 2000)) * 0.02
    crowd[:, :2] = np.linspace(0.1, 3, 240, dtype=np.float32).reshape(120, 2)
    np.save(desk.folder / "data.npy", crowd)
    (parent,) = desk.full(algorithm="minmax")
    for algorithm in ("entropy2", "entropy", "percentile", "mse"):
        made, _ = desk.derived(parent, algorithm=algorithm)
        rules = [one.rule for one in made.findings]
        assert ("clips-hard" in rules) is algorithm.startswith("entropy")
    given, _ = desk.derived(parent, algorithm="entropy2", overrides=[table(x=3.0, y=3.0)])
    assert "clips-hard" not in [one.rule for one in given.findings]


def test_any_number_of_workers_judges_alike(desk: Desk) -> None:
    (parent,) = desk.full(algorithm="minmax")
    made = [
        recalibrate(
            OrtBackend(desk.network),
            parent,
            [JETPACK_5],
            CalibrateOptions(workers=workers),
            silent,
            source="p",
        )[1][0]
        for workers in (1, 2, 7)
    ]
    assert made[0].files == made[1].files == made[2].files
    assert made[0].record == made[1].record == made[2].record
    assert made[0].quality == made[1].quality == made[2].quality


def test_algorithms_that_agree_are_simulated_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(desk.folder / "data.npy", np.ones((20, 3, 8, 8), np.float32))
    simulated = []
    simulate = OrtBackend.simulate

    def counted(backend: OrtBackend, scales: Mapping[str, float]) -> ScaledNetwork:
        simulated.append(dict(scales))
        return simulate(backend, scales)

    monkeypatch.setattr(OrtBackend, "simulate", counted)
    (made,) = desk.full()
    told = made.manifest.calibration.chosen_by
    assert all(f"{name} " in told for name in AUTO_CANDIDATES)
    assert len(AUTO_CANDIDATES) > len({tuple(one.items()) for one in simulated})
