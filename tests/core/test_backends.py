"""Which backend `auto` takes, and which of TensorRT's calibrators."""

from __future__ import annotations

import pytest

from edgecal.adapters.tables import load_platforms
from edgecal.core.backends import (
    BackendChoice,
    algorithm_without_tensorrt,
    choose_backend,
    choose_calibrator,
    the_one_version,
)
from edgecal.core.hosts import GpuFact, HostFacts
from edgecal.core.versions import parse_tensorrt
from edgecal.errors import IncompatibleError, InputError

A10 = GpuFact(name="NVIDIA A10", compute_capability="8.6")
B200 = GpuFact(name="NVIDIA B200", compute_capability="10.0")


def choose(
    asked: str = "auto",
    *,
    versions: tuple[str, ...] = ("8.6",),
    place: bool = False,
    algorithm: str = "auto",
    package: str | None = "8.6.1",
    gpu: GpuFact | None = A10,
) -> BackendChoice:
    gpus = () if gpu is None else (gpu,)
    return choose_backend(
        asked,
        place=place,
        algorithm=algorithm,
        versions=[parse_tensorrt(one) for one in versions],
        package=package,
        host=lambda: HostFacts(
            arch="x86_64", python="3.11.7", cores=8, gpus=gpus, tensorrt_package=package
        ),
        platforms=load_platforms(),
    )


def test_a_backend_that_nobody_knows_is_refused_with_those_that_are() -> None:
    with pytest.raises(InputError) as caught:
        choose("cuda")
    assert caught.value.remedy == "use one of auto, tensorrt, onnxruntime"


@pytest.mark.parametrize(
    ("asked", "place", "where"),
    [
        ("tensorrt", False, "--backend"),
        ("tensorrt", True, "--backend"),
        ("auto", True, "--trt-python"),
    ],
)
@pytest.mark.parametrize("versions", [("11.0",), ("10.3", "11.4")])
def test_a_tensorrt_without_calibrators_is_refused_as_a_backend(
    asked: str, where: str, versions: tuple[str, ...], *, place: bool
) -> None:
    with pytest.raises(InputError, match=f"TensorRT {versions[-1]} has no calibrators") as caught:
        choose(asked, versions=versions, place=place, package="11.0.0")
    assert caught.value.where == where
    assert "--backend onnxruntime" in caught.value.remedy


@pytest.mark.parametrize("algorithm", ["mse", "percentile", "", "nonsense"])
def test_tensorrt_has_four_calibrators_and_no_other(algorithm: str) -> None:
    with pytest.raises(InputError) as caught:
        choose_calibrator(algorithm)
    assert "entropy2, entropy, minmax, legacy" in caught.value.remedy
    assert "--backend onnxruntime" in caught.value.remedy


def test_several_tensorrts_in_one_place_are_refused_with_both_ways_out() -> None:
    versions = [parse_tensorrt("8.5.2"), parse_tensorrt("10.3.0")]
    with pytest.raises(IncompatibleError, match=r"8\.5 and 10\.3") as caught:
        the_one_version(versions)
    assert "once for each" in caught.value.remedy
    assert "--backend onnxruntime" in caught.value.remedy
    assert the_one_version(versions[:1]) == versions[0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"package": None}, "this Python has no TensorRT"),
        ({"package": "10.3.0"}, "this Python has TensorRT 10.3.0, not 8.6"),
        ({"versions": ("8.6", "10.3")}, "this Python has TensorRT 8.6.1, not 10.3"),
        ({"versions": ("11.0",), "package": "11.0.0"}, "TensorRT 11.0 has no calibrators"),
        ({"algorithm": "mse"}, "TensorRT has no calibrator 'mse'"),
        ({"gpu": None}, "no NVIDIA GPU here"),
        ({"gpu": B200}, "does not run TensorRT 8.6"),
        ({"gpu": GpuFact(name="Newest", compute_capability="99.0")}, "no table knows Newest"),
    ],
)
def test_auto_takes_the_cpu_unless_all_speaks_for_tensorrt(
    changes: dict[str, object], reason: str
) -> None:
    found = choose(**changes)  # type: ignore[arg-type]
    assert found.backend == "onnxruntime"
    assert reason in found.reason


def test_auto_takes_a_tensorrt_that_is_here_and_that_the_gpu_runs() -> None:
    found = choose(algorithm="minmax")
    assert found.backend == "tensorrt"
    assert "TensorRT 8.6.1 is installed" in found.reason


def test_auto_takes_the_place_that_it_is_given() -> None:
    assert choose(place=True, package=None, gpu=None).backend == "tensorrt"


def test_what_is_asked_for_is_not_argued_with() -> None:
    assert choose("tensorrt", package=None, gpu=None).backend == "tensorrt"
    assert choose("onnxruntime").backend == "onnxruntime"


def test_the_host_is_looked_at_only_where_that_could_matter() -> None:
    def look() -> HostFacts:
        raise AssertionError("this takes a second")

    platforms = load_platforms()
    found = choose_backend(
        "auto",
        place=False,
        algorithm="auto",
        versions=[parse_tensorrt("8.6")],
        package=None,
        host=look,
        platforms=platforms,
    )
    assert found.backend == "onnxruntime"


def test_auto_is_entropy2_and_says_so() -> None:
    found = choose_calibrator("auto")
    assert found.algorithm == "entropy2"
    assert found.reason.startswith("auto: entropy2")
    assert choose_calibrator("legacy").reason == "given"


def test_edgecal_has_its_own_of_all_but_one() -> None:
    assert [algorithm_without_tensorrt(one) for one in ("entropy2", "entropy", "legacy")] == [
        "entropy2",
        "entropy",
        "minmax",
    ]
