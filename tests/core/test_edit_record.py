from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given

from edgecal.core.cache import Header
from edgecal.core.edit_record import (
    Change,
    Left,
    NamedFile,
    Origin,
    Past,
    Record,
    common_origin,
    join_histories,
    past_of,
    serialize_record,
)
from edgecal.core.manifest import Manifest, digest_of
from edgecal.core.versions import parse_tensorrt
from tests.core.test_manifest import MANIFEST
from tests.strategies import tensor_names

HEADER = Header(code=8502, algorithm="EntropyCalibration2")
V852, V103 = parse_tensorrt("8.5.2"), parse_tensorrt("10.3.0")
DATA = b"TRT-8502-EntropyCalibration2\nx: 3c010a14\n"


def record(
    *,
    data: bytes = DATA,
    name: str = "x",
    origin: Origin = Origin(written_by_tensorrt=False, tensorrt=V103),  # noqa: B008 - frozen
) -> Record:
    return Record(
        command="cache edit",
        created=datetime(2026, 11, 21, 14, 0, tzinfo=timezone(timedelta(hours=2))),
        edgecal="0.1.0",
        inputs=(NamedFile(path="a.cache", digest=digest_of(b"before")),),
        output=NamedFile(path="b.cache", digest=digest_of(data)),
        options={"set": ["x=1.0"]},
        before=HEADER,
        after=HEADER,
        origin=origin,
        changes=(Change(name=name, before=None, after="0", rule="set", source="--set x=1.0"),),
        remaining=(Left(name=name, reason="its scale is 0"),),
        history=({"command": "cache merge"},),
    )


def past(beside: bytes | None, manifest: Manifest | None = None) -> Past:
    return past_of("b.cache", DATA, HEADER, manifest=manifest, record=beside)


def changed(**keys: object) -> bytes:
    return json.dumps({**record().to_json(), **keys}).encode()


@pytest.mark.parametrize(
    "damaged",
    [
        None,
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"schema": "edgecal.cache-record/1"}',
        serialize_record(record(data=b"another file")),
        serialize_record(record())[:-20],
        changed(schema="edgecal.cache-record/2"),
        changed(history="long"),
        changed(history=None),
        changed(origin={"written_by_tensorrt": False}),
        changed(origin={"written_by_tensorrt": "no", "tensorrt": "8.5.2"}),
        changed(origin={"written_by_tensorrt": False, "tensorrt": "new"}),
        changed(origin={"written_by_tensorrt": False, "tensorrt": 8}),
    ],
)
def test_without_a_record_of_these_bytes_tensorrt_counts_as_the_writer(
    damaged: bytes | None,
) -> None:
    found = past(damaged)
    assert found.origin == Origin(written_by_tensorrt=True, tensorrt=V852)
    assert found.history == ()


def test_a_record_of_these_bytes_tells_origin_and_history() -> None:
    found = past(serialize_record(record()))
    assert found.file == NamedFile(path="b.cache", digest=digest_of(DATA))
    assert found.origin == Origin(written_by_tensorrt=False, tensorrt=V103)
    assert [step["command"] for step in found.history] == ["cache merge", "cache edit"]
    assert "history" not in found.history[1]


def test_a_manifest_outweighs_a_record() -> None:
    beside = serialize_record(record())
    manifest = replace(MANIFEST, written_by_tensorrt=True, tensorrt=V852)
    found = past(beside, manifest)
    assert found.origin == Origin(written_by_tensorrt=True, tensorrt=V852)
    assert len(found.history) == 2
    again = past(beside, replace(manifest, restamped_from=V103))
    assert again.origin.tensorrt == V103


def test_times_are_utc_and_headers_are_spelled_as_in_files() -> None:
    document = record().to_json()
    assert document["created"] == "2026-11-21T12:00:00Z"
    assert document["header"]["after"] == "TRT-8502-EntropyCalibration2"


@given(tensor_names())
def test_every_name_survives_in_a_record(name: str) -> None:
    read = json.loads(serialize_record(record(name=name)))
    assert read["changes"][0]["name"] == name
    assert past(serialize_record(record(name=name))).history


def test_of_several_origins_the_one_to_be_careful_about_counts() -> None:
    def one(version: str, *, written: bool) -> Past:
        origin = Origin(written_by_tensorrt=written, tensorrt=parse_tensorrt(version))
        return Past(file=record().output, origin=origin)

    ours, theirs = one("8.5.2", written=False), one("8.5.3", written=True)
    forced, moved = one("8.4.1", written=True), one("8.2.1", written=False)
    assert common_origin([ours, ours], HEADER) == ours.origin
    assert common_origin([ours, theirs], HEADER).written_by_tensorrt
    assert common_origin([ours, moved, forced], HEADER) == forced.origin
    assert common_origin([ours, moved], HEADER) == moved.origin


def test_a_step_that_histories_share_stands_once() -> None:
    assert join_histories([[{"a": 1}, {"b": 2}], [{"a": 1}, {"c": 3}]]) == (
        {"a": 1},
        {"b": 2},
        {"c": 3},
    )
