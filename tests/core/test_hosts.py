from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgecal.adapters.tables import load_platforms
from edgecal.core.hosts import (
    GpuFact,
    HostFacts,
    Verdict,
    calibrators_for,
    container_for,
    gpu_can,
    native_way,
    wheel_for,
)
from edgecal.core.versions import parse_tensorrt

if TYPE_CHECKING:
    from edgecal.core.platforms import Platforms

BARE = HostFacts(arch="x86_64", python="3.11.7", cores=2, onnxruntime="1.20.0")


@pytest.fixture(scope="module")
def platforms() -> Platforms:
    return load_platforms()


def host(capability: str | None, *, name: str = "a card", **more: str | bool) -> HostFacts:
    gpus = (GpuFact(name=name, compute_capability=capability),)
    return replace(BARE, gpus=gpus, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("capability", "tensorrt", "verdict"),
    [
        ("7.0", "10.3.0", Verdict.INSTALLABLE),  # V100 serves JetPack 6
        ("7.0", "10.13.3", Verdict.GPU_UNFIT),  # and not 7
        ("10.0", "10.3.0", Verdict.GPU_UNFIT),  # Blackwell the other way round
        ("12.0", "8.5.2", Verdict.GPU_UNFIT),
        ("12.0", "10.13.3", Verdict.INSTALLABLE),
        ("6.0", "8.5.2", Verdict.GPU_UNFIT),  # P100 has no INT8
        ("7.5", "8.2.1", Verdict.INSTALLABLE),
        ("7.5", "10.16.2", Verdict.INSTALLABLE),
        ("9.0", "8.5.2", Verdict.UNKNOWN),  # nobody says
        ("8.9", "8.4.1", Verdict.GPU_UNFIT),
        ("8.9", "8.5.2", Verdict.INSTALLABLE),
        ("12.1", "10.13.3", Verdict.UNKNOWN),
        ("8.7", "8.5.2", Verdict.UNKNOWN),  # a Jetson
        ("99.0", "8.5.2", Verdict.UNKNOWN),
        (None, "8.5.2", Verdict.UNKNOWN),
        ("8.0", "11.0.0", Verdict.NO_CALIBRATION),
    ],
)
def test_the_table_judges_a_gpu_for_a_tensorrt(
    platforms: Platforms, capability: str | None, tensorrt: str, verdict: Verdict
) -> None:
    way = native_way(host(capability), parse_tensorrt(tensorrt), platforms)
    assert way.verdict is verdict
    assert way.reason


def test_without_a_gpu_the_hosts_that_could_are_named(platforms: Platforms) -> None:
    way = native_way(BARE, parse_tensorrt("10.3.0"), platforms)
    assert way.verdict is Verdict.NO_GPU
    assert "V100" in way.reason
    assert "B200" not in way.reason
    assert all(step.startswith("on such a host: ") for step in way.steps)


def test_the_best_of_several_gpus_counts(platforms: Platforms) -> None:
    two = replace(
        BARE,
        gpus=(
            GpuFact(name="old", compute_capability="5.2"),
            GpuFact(name="new", compute_capability="8.6"),
        ),
    )
    assert native_way(two, parse_tensorrt("8.5.2"), platforms).verdict is Verdict.INSTALLABLE


def test_a_tensorrt_of_the_same_minor_is_enough_and_another_is_not(platforms: Platforms) -> None:
    ready = host("8.0", tensorrt_package="10.3.0.26")
    assert native_way(ready, parse_tensorrt("10.3.0.30"), platforms).verdict is Verdict.READY
    library = host("8.0", tensorrt_package="8.6.1", tensorrt_library="10.3.0.26")
    assert native_way(library, parse_tensorrt("10.3.0"), platforms).verdict is Verdict.READY
    other = host("8.0", tensorrt_package="10.4.0")
    way = native_way(other, parse_tensorrt("10.3.0.30"), platforms)
    assert way.verdict is Verdict.INSTALLABLE
    assert "10.4.0 is installed" in way.reason


def test_a_wheel_is_named_only_where_one_is_known() -> None:
    wheels = {
        text: wheel_for(parse_tensorrt(text))
        for text in (
            "8.2.1",
            "8.4.1",
            "8.5.2",
            "8.6.2",
            "10.3.0.30",
            "10.13.2",
            "10.13.3",
            "10.16.2",
        )
    }
    assert wheels == {
        "8.2.1": None,
        "8.4.1": None,
        "8.5.2": None,
        "8.6.2": "8.6.1",
        "10.3.0.30": "10.3.0",
        "10.13.2": "10.13.2.6",
        "10.13.3": "10.13.3.9",
        "10.16.2": "10.16.1.11",
    }
    assert wheel_for(parse_tensorrt("11.0.0")) is None


def test_steps_say_what_is_not_confirmed_and_what_must_come_first(platforms: Platforms) -> None:
    version = parse_tensorrt("10.3.0")
    wheel, image = native_way(host("8.0"), version, platforms).steps
    assert wheel == "python3 -m pip install tensorrt==10.3.0"
    assert image.startswith("install Docker and NVIDIA's container toolkit, then: docker run")
    assert "not confirmed" in image
    other = host("8.0", docker="27.0", docker_gpus=True)
    wheel, image = native_way(replace(other, python="3.13.1"), version, platforms).steps
    assert "here not confirmed" in wheel
    assert image.startswith("docker run --gpus all")
    steps = native_way(host("8.0"), parse_tensorrt("9.3.0"), platforms).steps
    assert [step for step in steps if "docker" in step or "pip" in step] == []


def test_the_marked_image_comes_before_newer_ones_and_device_images_never(
    platforms: Platforms,
) -> None:
    found = container_for(platforms, parse_tensorrt("8.5.2"))
    assert found is not None
    assert found.image.endswith("tensorrt:23.01-py3")
    found = container_for(platforms, parse_tensorrt("8.2.1"))
    assert found is not None
    assert found.image.endswith("tensorrt:22.05-py3")
    assert container_for(platforms, parse_tensorrt("9.0.0")) is None


def test_every_jetpack_with_a_trtexec_has_some_gpu_that_could(platforms: Platforms) -> None:
    for release in platforms.releases:
        version = release.tensorrt
        if version is None or release.is_preview or (version.major, version.minor) < (7, 1):
            continue
        found = calibrators_for(platforms, version)
        assert found.gpus, release.jetpack
        assert found.container is not None, release.jetpack
        assert all(gpu_can(choice.gpu, version)[0] for choice in found.gpus)
    assert not calibrators_for(platforms, parse_tensorrt("11.4.1")).gpus


def test_an_unconfirmed_int8_is_never_passed_off_as_confirmed(platforms: Platforms) -> None:
    choices = calibrators_for(platforms, parse_tensorrt("10.13.3")).gpus
    sure = {one.gpu.compute_capability: one.verified for one in choices}
    assert sure["8.0"] is True
    assert sure["10.0"] is False
    assert "7.0" not in sure
