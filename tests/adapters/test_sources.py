"""Sources of a bundle, looked at on disk: what changed is seen, what did not is not."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from edgecal.adapters.batches import BatchWords, write_batches
from edgecal.adapters.sources import find_data, find_model
from edgecal.cli.wiring import datasets, networks
from edgecal.core.freshness import judge_data, judge_model
from edgecal.core.versions import parse_tensorrt
from edgecal.workflows.calibrate import calibrate
from edgecal.workflows.collect import CalibrateOptions
from tests.bundles import make_bundles

if TYPE_CHECKING:
    from edgecal.core.manifest import Manifest

LONG_AGO = 1_500_000_000
SAMPLES = 16
OF_BUNDLE = 24


@dataclass(frozen=True)
class Place:
    """A bundle's manifest, and copies of its sources that a test may change."""

    manifest: Manifest
    model: Path
    pictures: Path

    def model_rules(self, *, deep: bool = False) -> list[str]:
        found = find_model(str(self.model), self.manifest, deep=deep)
        return [one.rule for one in judge_model(self.manifest, found)]

    def data_rules(self, data: Path | str | None = None, *, deep: bool = False) -> list[str]:
        found = find_data(str(data or self.pictures), self.manifest, deep=deep)
        return [one.rule for one in judge_data(self.manifest, found)]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("made")
    return make_bundles(folder, "8.5.2")[0].manifest


@pytest.fixture
def place(manifest: Manifest, tmp_path: Path) -> Place:
    model, pictures = tmp_path / "net.onnx", tmp_path / "pictures"
    shutil.copy2(manifest.model.source.path, model)
    pictures.mkdir()
    for file in sorted(Path(manifest.data.source).iterdir())[: manifest.data.samples]:
        shutil.copy2(file, pictures)
        os.utime(pictures / file.name, (LONG_AGO, LONG_AGO))
    return Place(manifest, model, pictures)


def keep_time(file: Path, data: bytes) -> None:
    """Change a file's content, and not its time."""
    status = file.stat()
    file.write_bytes(data)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("deep", [False, True])
def test_sources_that_did_not_change_are_as_the_manifest_says(place: Place, *, deep: bool) -> None:
    assert place.model_rules(deep=deep) == []
    assert place.data_rules(deep=deep) == []


def test_new_weights_are_seen_although_the_network_has_the_same_size(place: Place) -> None:
    data = bytearray(place.model.read_bytes())
    data[len(data) // 2] ^= 1
    place.model.write_bytes(data)
    assert place.model_rules() == ["stale-model"]


def test_a_network_that_was_only_copied_is_the_same(place: Place) -> None:
    os.utime(place.model)
    found = find_model(str(place.model), place.manifest, deep=False)
    assert found.digest == place.manifest.model.digest
    assert place.model_rules() == []


def test_doc_strings_make_no_other_network(place: Place) -> None:
    proto = onnx.load(place.model)
    proto.doc_string = "exported on a Tuesday"
    onnx.save(proto, place.model)
    assert place.model_rules() == []
    proto.graph.node[0].name += "x"
    onnx.save(proto, place.model)
    assert place.model_rules() == ["stale-model"]


def test_what_is_no_network_any_more_is_stale(place: Place) -> None:
    place.model.write_bytes(b"text")
    assert place.model_rules() == ["stale-model"]


def test_weights_in_a_file_of_their_own_are_looked_at_too(place: Place) -> None:
    proto = onnx.load(place.model)
    onnx.save(proto, place.model, save_as_external_data=True, location="w.bin", size_threshold=0)
    weights = place.model.parent / "w.bin"
    os.utime(weights, (LONG_AGO, LONG_AGO))
    manifest = replace(place.manifest, model=networks.model(place.model).record())
    external = replace(place, manifest=manifest)
    assert manifest.model.external_data == ("w.bin",)
    assert external.model_rules() == external.model_rules(deep=True) == []
    weights.write_bytes(bytes(weights.stat().st_size))
    assert external.model_rules() == ["stale-model"]
    weights.unlink()
    assert external.model_rules() == ["source-not-checked"]


def test_only_deep_sees_what_has_the_old_size_and_time(place: Place) -> None:
    data = bytearray(place.model.read_bytes())
    data[len(data) // 2] ^= 1
    keep_time(place.model, bytes(data))
    assert place.model_rules() == []
    assert place.model_rules(deep=True) == ["stale-model"]
    picture = min(place.pictures.iterdir())
    keep_time(picture, picture.read_bytes() + b"x")
    assert place.data_rules() == []
    assert place.data_rules(deep=True) == ["stale-data"]


def test_a_changed_picture_is_seen_and_one_that_was_only_touched_is_not(place: Place) -> None:
    picture = max(place.pictures.iterdir())
    os.utime(picture)
    assert place.data_rules() == []
    picture.write_bytes(picture.read_bytes() + b"x")
    assert place.data_rules() == ["stale-data"]


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    ("limit", "rules"),
    [
        (0, ["stale-data"]),
        (OF_BUNDLE + 1, ["stale-data"]),
        (OF_BUNDLE, []),
        (None, ["source-not-checked"]),
    ],
    ids=["all", "more", "cut", "not told"],
)
def test_a_picture_more_at_the_end_counts_where_it_would_have_been_used(
    place: Place, limit: int | None, rules: list[str], *, deep: bool
) -> None:
    *_, last = sorted(place.pictures.iterdir())
    shutil.copy2(last, place.pictures / "99999.png")
    record = replace(place.manifest.data, limit=limit)
    wanting = replace(place, manifest=replace(place.manifest, data=record))
    assert wanting.data_rules(deep=deep) == rules


def test_a_picture_less_or_one_between_is_seen(place: Place) -> None:
    first, *_, last = sorted(place.pictures.iterdir())
    shutil.copy2(last, place.pictures / f"{first.stem}a.png")
    assert place.data_rules() == ["stale-data"]
    (place.pictures / f"{first.stem}a.png").unlink()
    last.unlink()
    assert place.data_rules() == ["stale-data"]


def test_pictures_that_were_skipped_then_do_not_count_now(place: Place) -> None:
    (place.pictures / "00000-broken.png").write_bytes(b"")
    assert place.data_rules() == ["stale-data"]
    record = replace(place.manifest.data, skipped=("00000-broken.png",))
    skipping = replace(place, manifest=replace(place.manifest, data=record))
    assert skipping.data_rules() == []


def test_sources_that_are_gone_and_generators_are_not_checked(place: Place) -> None:
    place.model.unlink()
    assert place.model_rules() == ["source-not-checked"]
    assert place.data_rules("nowhere/pictures") == ["source-not-checked"]
    assert place.data_rules("my_data:samples") == ["source-not-checked"]
    os.mkfifo(place.model)
    assert place.model_rules(deep=True) == ["source-not-checked"]


@pytest.mark.parametrize("form", ["npy", "npz", "batches"])
def test_arrays_are_read_and_compared_as_they_were_calibrated(form: str, tmp_path: Path) -> None:
    shown = make_bundles(tmp_path, "8.5.2")[0].manifest
    network = networks.model(tmp_path / "demo" / "fashion_cnn.onnx")
    values = np.random.default_rng(0).normal(size=(SAMPLES, 1, 28, 28)).astype(np.float32)
    data, change = _write(form, tmp_path, values)
    source = datasets.open_dataset(
        str(data), network.graph.inputs, preprocess=None, skip_unreadable=False, limit=None
    )
    statistics, _ = calibrate(
        networks.backend(network),
        source,
        [parse_tensorrt("8.5.2")],
        CalibrateOptions(algorithm="minmax"),
        lambda _what, _done, _total: None,
    )
    record = replace(
        shown.data,
        digest=statistics.data_digest,
        kind=source.kind,
        samples=SAMPLES,
        first=statistics.first,
    )
    place = Place(replace(shown, data=record), network.path, data)
    assert place.data_rules() == []
    assert place.data_rules(deep=True) == []
    values[-1, 0, 0, 0] += 1
    _write(form, tmp_path, values)
    os.utime(change)
    assert place.data_rules() == ["stale-data"]
    _write(form, tmp_path, values[:8])
    assert place.data_rules() == ["stale-data"]


def _write(form: str, folder: Path, values: np.ndarray) -> tuple[Path, Path]:
    """Write samples; gives what names them, and a file of them."""
    if form == "npy":
        np.save(folder / "x.npy", values)
        return folder / "x.npy", folder / "x.npy"
    if form == "npz":
        np.savez(folder / "x.npz", image=values)
        return folder / "x.npz", folder / "x.npz"
    np.save(folder / "x.npy", values)
    model = networks.model(folder / "demo" / "fashion_cnn.onnx")
    samples = datasets.open_dataset(
        str(folder / "x.npy"),
        model.graph.inputs,
        preprocess=None,
        skip_unreadable=False,
        limit=None,
    )
    write_batches(
        folder / "batches",
        samples,
        words=BatchWords(),
        batch_size=8,
        progress=lambda _count: None,
    )
    return folder / "batches", folder / "batches" / "batch0.batch"
