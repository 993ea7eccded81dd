from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pytest

from edgecal.adapters.tables import load_platforms
from edgecal.core.hosts import GpuFact, HostFacts, Verdict
from edgecal.core.target import Target, TargetFacts
from edgecal.core.target_state import LastFacts
from edgecal.core.versions import parse_tensorrt
from edgecal.workflows.doctor import diagnose

if TYPE_CHECKING:
    from edgecal.core.platforms import Platforms

SEEN = datetime(2026, 11, 21, 12, 0, tzinfo=timezone.utc)
HOST = HostFacts(
    arch="x86_64",
    python="3.11.7",
    cores=8,
    gpus=(GpuFact(name="Tesla V100", compute_capability="7.0"),),
    tensorrt_package="8.6.1",
    onnxruntime="1.20.0",
)


@pytest.fixture(scope="module")
def platforms() -> Platforms:
    return load_platforms()


def last(name: str, tensorrt: str | None, *, known: bool = True) -> LastFacts:
    target = Target(name=name, host=name)
    if not known:
        return LastFacts(target=target)
    facts = TargetFacts(
        root="/r", is_jetson=True, tensorrt=parse_tensorrt(tensorrt) if tensorrt else None
    )
    return LastFacts(target=target, facts=facts, seen=SEEN)


def test_every_jetpack_is_judged_oldest_first(platforms: Platforms) -> None:
    ways = diagnose(HOST, platforms).ways
    assert [way.tensorrt.major_minor for _, way in ways] == [
        "7.1",
        "8.0",
        "8.2",
        "8.4",
        "8.5",
        "8.6",
        "10.3",
        "10.13",
        "10.16",
    ]
    verdicts = {way.tensorrt.major_minor: way.verdict for _, way in ways}
    assert verdicts["8.6"] is Verdict.READY
    assert verdicts["8.5"] is Verdict.INSTALLABLE
    assert verdicts["10.3"] is Verdict.INSTALLABLE
    assert verdicts["10.13"] is Verdict.GPU_UNFIT


def test_targets_add_their_own_and_may_be_all(platforms: Platforms) -> None:
    targets = [last("drive", "8.5.10"), last("odd", "9.3.0"), last("new", "11.4.1")]
    ways = diagnose(HOST, platforms, targets).ways
    assert [(jetpack, str(way.tensorrt)) for jetpack, way in ways[4:6]] == [
        ("5.1 - 5.1.6", "8.5.10"),
        ("6.0", "8.6.2"),
    ]
    only = diagnose(HOST, platforms, targets, only_targets=True)
    assert [str(way.tensorrt) for _, way in only.ways] == ["8.5.10", "9.3.0", "11.4.1"]
    assert only.ways[2][1].verdict is Verdict.NO_CALIBRATION


def test_a_target_of_which_nothing_is_known_is_said_to_be_so(platforms: Platforms) -> None:
    found = diagnose(HOST, platforms, [last("a", None, known=False), last("b", None)])
    documents = found.to_json()["targets"]
    assert [one["asked"] for one in documents] == [None, "cached"]
    assert [one["native"] for one in documents] == [None, None]


def test_the_document_is_json_with_the_way_on_a_cpu(platforms: Platforms) -> None:
    document = json.loads(json.dumps(diagnose(HOST, platforms, [last("a", "11.4.1")]).to_json()))
    assert document["schema"] == "edgecal.doctor/1"
    assert document["host"]["installed"] == ["8.6.1"]
    cpu = {one["tensorrt"]: one["cpu"] for one in document["native"]}
    assert cpu["8.5"].startswith("edgecal calibrate MODEL.onnx --data DATA --tensorrt 8.5 ")
    assert cpu["11.4"] is None
