"""Which builder is taken where a target has several."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgecal.core.rules.pairing import choose_builder, other_builder
from edgecal.core.target import BuilderFact, TargetFacts
from edgecal.core.versions import parse_tensorrt

BUNDLE = parse_tensorrt("8.2.1")
JETSON = TargetFacts(root="/r", is_jetson=True)
REFERENCE = BuilderFact(name="onnxruntime", path="python3")


def builder(name: str, version: str = "8.2.1") -> BuilderFact:
    return BuilderFact(name=name, path=name, tensorrt=parse_tensorrt(version))


def chosen(
    *builders: BuilderFact,
    facts: TargetFacts = JETSON,
    asked: str | None = None,
    algorithm: str | None = "EntropyCalibration2",
    layers: tuple[str, ...] = (),
) -> BuilderFact | None:
    return choose_builder(
        replace(facts, builders=builders),
        asked=asked,
        tensorrt=BUNDLE,
        algorithm=algorithm,
        fp16_layers=layers,
    )


def test_the_python_api_is_taken_where_trtexec_cannot_do_it_and_it_fits() -> None:
    trtexec, api = builder("trtexec"), builder("tensorrt")
    assert chosen(api, trtexec) == trtexec
    assert chosen(trtexec, api, algorithm="MinMaxCalibration") == api
    assert chosen(trtexec, api, layers=("conv",)) == api
    assert chosen(builder("trtexec", "8.4.1"), api, layers=("conv",)) == builder("trtexec", "8.4.1")
    assert chosen(builder("trtexec", "8.4.1"), api, layers=("a,b",)) == api
    nameless = BuilderFact(name="trtexec", path="trtexec")
    assert chosen(nameless, api) == api


def test_one_of_another_tensorrt_is_no_way_out() -> None:
    trtexec = builder("trtexec")
    assert chosen(trtexec, builder("tensorrt", "10.3.0"), algorithm="MinMaxCalibration") == trtexec


def test_without_trtexec_the_python_api_builds_whatever_its_version() -> None:
    for version in ("8.2.1", "10.3.0"):
        api = builder("tensorrt", version)
        assert chosen(REFERENCE, api) == api


def test_a_machine_without_gpu_is_not_asked_for_an_engine_unless_told() -> None:
    api = builder("tensorrt")
    host = replace(JETSON, is_jetson=False)
    assert chosen(api, REFERENCE, facts=host) == REFERENCE
    assert chosen(api, REFERENCE, facts=host, asked="tensorrt") == api
    assert chosen(api, REFERENCE, facts=replace(host, gpu="NVIDIA A10")) == api


def test_the_reference_builder_stays_the_last_resort() -> None:
    trtexec = builder("trtexec")
    host = replace(JETSON, is_jetson=False, gpu="NVIDIA A10")
    assert chosen(REFERENCE, trtexec, facts=host, algorithm="MinMaxCalibration") == trtexec


@pytest.mark.parametrize(("version", "found"), [("8.2.1.8", True), ("8.2.3", False)])
def test_a_second_opinion_comes_from_the_same_tensorrt(version: str, *, found: bool) -> None:
    api, trtexec = builder("tensorrt", version), builder("trtexec")
    facts = replace(JETSON, builders=(trtexec, api))
    assert (other_builder(facts, trtexec) == api) == found
    assert other_builder(facts, api) is None
    assert other_builder(facts, BuilderFact(name="trtexec", path="t")) is None
