from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest

from edgecal.core.manifest import (
    CalibrationRecord,
    CoverageRecord,
    DataRecord,
    ExplicitRecord,
    FileRecord,
    GoldenRecord,
    Manifest,
    ModelRecord,
    QualityRecord,
    SourceFile,
    TensorRecord,
    bundle_name,
    digest_of,
    parse_manifest,
    parse_name,
    serialize_manifest,
)
from edgecal.core.versions import parse_tensorrt
from edgecal.errors import BundleError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable

MANIFEST = Manifest(
    name="detector-v2",
    form="cache",
    created=datetime(2026, 11, 21, 12, 0, tzinfo=timezone.utc),
    edgecal="0.1.0",
    counter=7,
    tensorrt=parse_tensorrt("8.5.2.2"),
    written_by_tensorrt=False,
    model=ModelRecord(
        digest=digest_of(b"model"),
        canonical_digest=digest_of(b"canonical"),
        opset=17,
        inputs=(TensorRecord(name="images:0", dtype="float32", shape=(-1, 3, 8, 8)),),
        outputs=(TensorRecord(name="scores", dtype="float32", shape=(-1, 10)),),
        source=SourceFile(path="net.onnx", size=5, mtime_ns=1),
        external_data=("weights/a.bin",),
    ),
    data=DataRecord(
        digest=digest_of(b"data"),
        source="photos",
        kind="images",
        samples=500,
        held_out=32,
        dropped=0,
        skipped=("broken.jpg",),
        batch_size=1,
        first=("a.jpg", "ü.jpg"),
        preprocess={"color": "rgb", "mean": [1.0]},
    ),
    calibration=CalibrationRecord(
        algorithm="percentile",
        parameters={"percentile": 99.99},
        chosen_by="auto: ...",
        candidates={"minmax": 0.1},
        backend="onnxruntime",
        backend_version="1.31.1",
    ),
    coverage=CoverageRecord(activations=3, covered=2, constants=1, missing=("dead",)),
    quality=QualityRecord(samples=32, held_out=True, outputs={"scores": {"cosine_min": 0.99}}),
    golden=GoldenRecord(runs=8, held_out=True, batch=1),
    files={"model.onnx": FileRecord(digest=digest_of(b"model"), size=5)},
)


def test_a_manifest_survives_the_round_trip() -> None:
    data = serialize_manifest(MANIFEST)
    assert parse_manifest(data, source="m") == MANIFEST
    assert serialize_manifest(parse_manifest(data, source="m")) == data
    document = json.loads(data)
    assert document["schema"] == "edgecal.bundle/1"
    assert document["created"] == "2026-11-21T12:00:00Z"
    assert document["tensorrt"] == "8.5.2.2"
    assert "ü.jpg" in data.decode()


EXPLICIT = replace(
    MANIFEST,
    form="qdq",
    tensorrt=parse_tensorrt("11.0.0"),
    explicit=ExplicitRecord(
        minimum_tensorrt=parse_tensorrt("10.0.0"), fp16=True, activations=3, weights=2
    ),
)


def break_explicit(document: dict[str, Any]) -> None:
    del document["explicit"]


def break_minimum(document: dict[str, Any]) -> None:
    document["explicit"]["minimum_tensorrt"] = "soon"


def break_typing(document: dict[str, Any]) -> None:
    document["explicit"]["fp16"] = "yes"


def break_count(document: dict[str, Any]) -> None:
    document["explicit"]["weights"] = None


@pytest.mark.parametrize("change", [break_explicit, break_minimum, break_typing, break_count])
def test_a_manifest_of_form_qdq_that_lacks_its_own_is_refused(
    change: Callable[[dict[str, Any]], None],
) -> None:
    document = json.loads(serialize_manifest(EXPLICIT))
    change(document)
    with pytest.raises(BundleError, match="does not hold what it should"):
        parse_manifest(json.dumps(document).encode(), source="m")


def test_a_manifest_of_form_qdq_names_its_first_tensorrt_and_a_cache_s_none() -> None:
    data = serialize_manifest(EXPLICIT)
    assert parse_manifest(data, source="m") == EXPLICIT
    assert json.loads(data)["explicit"] == {
        "minimum_tensorrt": "10.0.0",
        "fp16": True,
        "activations": 3,
        "weights": 2,
    }
    assert "explicit" not in json.loads(serialize_manifest(MANIFEST))


def break_schema(document: dict[str, Any]) -> None:
    document["schema"] = "edgecal.bundle/9"


def break_digest(document: dict[str, Any]) -> None:
    document["files"]["model.onnx"]["digest"] = "md5:abc"


def break_out(document: dict[str, Any]) -> None:
    document["files"]["../../.ssh/authorized_keys"] = document["files"]["model.onnx"]


def break_absolute(document: dict[str, Any]) -> None:
    document["model"]["external_data"] = ["/etc/passwd"]


def break_form(document: dict[str, Any]) -> None:
    document["form"] = "engine"


def break_key(document: dict[str, Any]) -> None:
    del document["golden"]


def break_type(document: dict[str, Any]) -> None:
    document["counter"] = "seven"


def break_shape(document: dict[str, Any]) -> None:
    document["model"]["settled"] = {"image": ["1", 3]}


@pytest.mark.parametrize(
    "spoil",
    [
        break_shape,
        break_schema,
        break_digest,
        break_out,
        break_absolute,
        break_form,
        break_key,
        break_type,
    ],
)
def test_a_manifest_that_says_something_else_is_refused(
    spoil: Callable[[dict[str, Any]], None],
) -> None:
    document = json.loads(serialize_manifest(MANIFEST))
    spoil(document)
    with pytest.raises(BundleError):
        parse_manifest(json.dumps(document).encode(), source="m")


@pytest.mark.parametrize("limit", [0, 500])
def test_how_many_samples_were_wanted_survives_the_round_trip(limit: int) -> None:
    written = replace(MANIFEST, data=replace(MANIFEST.data, limit=limit))
    assert parse_manifest(serialize_manifest(written), source="m") == written
    assert "limit" not in json.loads(serialize_manifest(MANIFEST))["data"]


@pytest.mark.parametrize("limit", [-1, "all", True, None, 1.5])
def test_a_number_of_samples_that_is_none_is_refused(limit: object) -> None:
    document = json.loads(serialize_manifest(MANIFEST))
    document["data"]["limit"] = limit
    with pytest.raises(BundleError):
        parse_manifest(json.dumps(document).encode(), source="m")


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff\xfe", b"null", b'{"schema": 1}'])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError):
        parse_manifest(data, source="m")


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "ä", "x" * 65, "a\n"])
def test_names_are_one_folders_name_on_any_target(name: str) -> None:
    with pytest.raises(InputError):
        parse_name(name, source="-o")
    assert parse_name("Detector_v2.1-int8", source="-o") == "Detector_v2.1-int8"


def test_a_bundle_is_named_after_its_folder() -> None:
    assert bundle_name("net-8.5.edgecal") == "net-8.5"
    assert bundle_name("net") == "net"
    with pytest.raises(InputError):
        bundle_name(".edgecal")


def test_a_source_whose_path_is_no_text_survives_the_round_trip() -> None:
    source = replace(MANIFEST.model.source, path="/data/\udcff.onnx")
    manifest = replace(MANIFEST, model=replace(MANIFEST.model, source=source))
    assert parse_manifest(serialize_manifest(manifest), source="m") == manifest


def test_a_changed_header_is_told_with_what_the_cache_was_made_for() -> None:
    assert b"restamped_from" not in serialize_manifest(MANIFEST)
    manifest = replace(MANIFEST, restamped_from=parse_tensorrt("8.4.1"))
    document = json.loads(serialize_manifest(manifest))
    assert document["restamped_from"] == "8.4.1"
    assert parse_manifest(serialize_manifest(manifest), source="m") == manifest
    document["restamped_from"] = 8.4
    with pytest.raises(BundleError):
        parse_manifest(json.dumps(document).encode(), source="m")
