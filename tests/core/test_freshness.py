from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import datetime, timezone

import pytest

from edgecal.core.findings import Severity
from edgecal.core.freshness import FoundData, FoundModel, judge_data, judge_model, named_sources
from edgecal.core.manifest import (
    CalibrationRecord,
    CoverageRecord,
    DataRecord,
    Digest,
    GoldenRecord,
    Manifest,
    ModelRecord,
    QualityRecord,
    SourceFile,
    TensorRecord,
    digest_of,
)
from edgecal.core.project import CalibrateDefaults, Project
from edgecal.core.versions import parse_tensorrt

IO = (TensorRecord(name="x", dtype="float32", shape=(1, 3, 8, 8)),)
MODEL, DATA = digest_of(b"model"), digest_of(b"data")
MANIFEST = Manifest(
    name="net",
    form="cache",
    created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
    edgecal="0.1",
    counter=1,
    tensorrt=parse_tensorrt("8.5.2"),
    written_by_tensorrt=False,
    model=ModelRecord(
        digest=MODEL,
        canonical_digest=digest_of(b"bare"),
        opset=13,
        inputs=IO,
        outputs=IO,
        source=SourceFile(path="nets/my net.onnx", size=5, mtime_ns=1),
    ),
    data=DataRecord(
        digest=DATA,
        source="pictures/",
        kind="images",
        samples=3,
        held_out=0,
        dropped=0,
        skipped=(),
        batch_size=1,
        first=("a.png", "b.png", "c.png"),
    ),
    calibration=CalibrationRecord(
        algorithm="minmax",
        parameters={},
        chosen_by="given",
        candidates={},
        backend="onnxruntime",
        backend_version="1.0",
    ),
    coverage=CoverageRecord(activations=1, covered=1, constants=0, missing=()),
    quality=QualityRecord(samples=1, held_out=False, outputs={}),
    golden=GoldenRecord(runs=1, held_out=False, batch=1),
    files={},
)
OTHER = digest_of(b"other")


def test_another_network_is_refused_with_both_digests_and_the_command_that_helps() -> None:
    (finding,) = judge_model(MANIFEST, FoundModel(path="new.onnx", digest=OTHER))
    assert (finding.rule, finding.severity) == ("stale-model", Severity.ERROR)
    assert OTHER[:19] in finding.message
    assert MODEL[:19] in finding.message
    assert "nets/my net.onnx" in finding.message
    assert "edgecal calibrate new.onnx --data pictures/ --tensorrt 8.5" in finding.remedy


@pytest.mark.parametrize(
    "found",
    [
        FoundModel(path="net.onnx"),
        FoundModel(path="net.onnx", digest=MODEL),
        FoundModel(path="net.onnx", digest=OTHER, canonical_digest=digest_of(b"bare")),
    ],
    ids=["size and time", "digest", "doc strings apart"],
)
def test_the_same_network_is_no_finding(found: FoundModel) -> None:
    assert not list(judge_model(MANIFEST, found))


def test_sources_that_are_not_there_are_a_note_that_names_the_option() -> None:
    gone = "it cannot be read (No such file or directory)"
    (model,) = judge_model(MANIFEST, FoundModel(path="net.onnx", problem=gone))
    (data,) = judge_data(MANIFEST, FoundData(source="pictures/", problem=gone))
    assert {model.rule, data.rule} == {"source-not-checked"}
    assert {model.severity, data.severity} == {Severity.NOTE}
    assert "--model" in model.remedy
    assert "--data" in data.remedy


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"kind": "arrays"}, ("arrays", "images")),
        ({"samples": 2}, ("2 samples", "3")),
        ({"first": ("a.png", "aa.png", "b.png")}, ("sample 2", "'aa.png'", "'b.png'")),
        ({"digest": OTHER}, (OTHER[:19], DATA[:19])),
        ({"mismatch": "the arrays are cut off"}, ("cut off",)),
    ],
    ids=["kind", "count", "names", "content", "unreadable"],
)
def test_other_data_is_refused_and_said_in_what_it_differs(
    found: dict[str, object], words: tuple[str, ...]
) -> None:
    same: dict[str, object] = {"kind": "images", "samples": 3, "digest": DATA}
    (finding,) = judge_data(MANIFEST, FoundData(source="pictures", **{**same, **found}))  # type: ignore[arg-type]
    assert (finding.rule, finding.severity) == ("stale-data", Severity.ERROR)
    assert all(word in finding.message for word in words)
    assert shlex.quote("nets/my net.onnx") in finding.remedy


@pytest.mark.parametrize("digest", [None, DATA])
def test_the_same_data_is_no_finding(digest: Digest | None) -> None:
    first = ("a.png", "b.png", "c.png")
    found = FoundData(source="pictures", kind="images", samples=3, first=first, digest=digest)
    assert not list(judge_data(MANIFEST, found))


@pytest.mark.parametrize("limit", [0, 4, 5, 100])
def test_data_that_grew_at_its_end_is_another_if_all_of_it_was_wanted(limit: int) -> None:
    wanting = replace(MANIFEST, data=replace(MANIFEST.data, limit=limit))
    (finding,) = judge_data(wanting, FoundData(source="pictures", samples=5, digest=DATA))
    assert (finding.rule, finding.severity) == ("stale-data", Severity.ERROR)
    assert "it grew to 5 samples from the 3 of the manifest" in finding.message
    assert ("--samples" in finding.remedy) == bool(limit)


@pytest.mark.parametrize("samples", [3, 5])
def test_data_that_samples_cut_may_grow(samples: int) -> None:
    cut = replace(MANIFEST, data=replace(MANIFEST.data, limit=3))
    assert not list(judge_data(cut, FoundData(source="pictures", samples=samples, digest=DATA)))


def test_data_that_samples_cut_is_another_if_its_first_ones_are() -> None:
    cut = replace(MANIFEST, data=replace(MANIFEST.data, limit=3))
    (finding,) = judge_data(cut, FoundData(source="pictures", samples=5, digest=OTHER))
    assert finding.rule == "stale-data"
    assert "--data pictures --samples 3 --tensorrt" in finding.remedy


def test_data_that_grew_is_a_note_where_an_older_manifest_does_not_tell_what_was_wanted() -> None:
    found = FoundData(source="pictures", kind="images", samples=5, digest=DATA)
    (finding,) = judge_data(MANIFEST, found)
    assert (finding.rule, finding.severity) == ("source-not-checked", Severity.NOTE)
    assert "5 samples" in finding.message


@pytest.mark.parametrize(
    ("given", "of_project", "chosen"),
    [
        ("here.onnx", "/project/my net.onnx", "here.onnx"),
        (None, "/project/my net.onnx", "/project/my net.onnx"),
        (None, "/project/another.onnx", "nets/my net.onnx"),
        (None, None, "nets/my net.onnx"),
    ],
)
def test_what_is_given_comes_before_the_project_and_a_project_of_another_network_does_not_count(
    given: str | None, of_project: str | None, chosen: str
) -> None:
    project = Project(calibrate=CalibrateDefaults(model=of_project, data="/project/pictures"))
    model, data = named_sources(MANIFEST, project, model=given, data=None)
    assert model == chosen
    assert data == "/project/pictures"
