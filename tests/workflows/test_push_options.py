"""What a push can be told, against the real scripts on this machine and the strict stand-in."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

import pytest

from edgecal.core.build import BuildOptions, ShapeRange
from edgecal.core.manifest import CACHE_FILE, FileRecord, digest_of
from edgecal.core.precision import PRECISION_FILE, Precision, serialize_precision
from edgecal.workflows.events import BuildRuns, EngineBuilt, EngineMeasured, StepDue, StepFailed
from edgecal.workflows.report import PushOptions
from tests.bundles import make_bundles
from tests.workflows.test_push import Bench

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgecal.adapters.bundle import Bundle
    from edgecal.core.manifest import Digest, Manifest


class WithPrecision:
    """A bundle that keeps layers in FP16."""

    def __init__(self, bundle: Bundle, *layers: str) -> None:
        self._bundle = bundle
        self._data = serialize_precision(Precision(fp16_layers=layers))

    @property
    def manifest(self) -> Manifest:
        return self._bundle.manifest

    @property
    def manifest_digest(self) -> Digest:
        return digest_of(self._data)

    def shipped(self) -> Mapping[str, FileRecord]:
        record = FileRecord(digest=digest_of(self._data), size=len(self._data))
        return {**self._bundle.shipped(), PRECISION_FILE: record}

    def open(self, name: str) -> BinaryIO:
        return io.BytesIO(self._data) if name == PRECISION_FILE else self._bundle.open(name)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    return make_bundles(tmp_path_factory.mktemp("bundles"), "8.5.2", "8.2.1")


@pytest.fixture
def bench(tmp_path: Path, bundles: list[Bundle]) -> Bench:
    made = Bench(tmp_path / "bench")
    made.install_trtexec(bundles[0])
    return made


def built_as(**options: object) -> PushOptions:
    return PushOptions(build=BuildOptions(**options))  # type: ignore[arg-type]


def test_layers_in_fp16_are_refused_before_anything_is_sent_where_trtexec_cannot(
    bench: Bench, bundles: list[Bundle]
) -> None:
    bench.install_trtexec(bundles[1], "8201")
    report, _ = bench.push(WithPrecision(bundles[1], "conv1"))  # type: ignore[arg-type]
    assert report.error is not None
    assert (report.state, report.exit_code) == ("refused", 3)
    assert "--builder tensorrt" in report.error.remedy
    assert not bench.root.exists()


def test_a_profile_that_does_not_fit_is_exit_2_and_sends_nothing(
    bench: Bench, bundles: list[Bundle]
) -> None:
    span = ShapeRange((1, 3), (1, 3), (1, 3))
    report, _ = bench.push(bundles[0], options=built_as(profile=(("x", span),)))
    assert report.exit_code == 2
    assert not bench.root.exists()


def test_an_fp16_engine_is_built_without_the_cache_and_nothing_is_to_be_proved(
    bench: Bench, bundles: list[Bundle]
) -> None:
    bench.install_trtexec(bundles[0], "8201")  # another TensorRT: no cache has to fit it
    report, _ = bench.push(bundles[0], options=built_as(precision="fp16"))
    assert report.state == "active", report.error
    assert report.to_json()["build"] == {
        "seconds": report.build_seconds,
        "proof": "not-applicable",
        "reason": "the engine was built without a calibration cache, as asked",
        "cache": {"used": None, "missing": None, "unused": None},
        "precisions": {"Float": 1, "Half": 1},
        "fell_back": 0,
    }
    assert not (bench.current / CACHE_FILE).exists()
    argv = bench.record()["argv"]
    assert isinstance(argv, list)
    assert not any("alib" in word or "int8" in word for word in argv)


def test_the_reference_builder_makes_no_fp16_engine(bench: Bench, bundles: list[Bundle]) -> None:
    target = replace(bench.target, builder="onnxruntime")
    report, _ = bench.push(bundles[0], target=target, options=built_as(precision="fp16"))
    assert (report.state, report.exit_code) == ("refused", 3)
    assert not bench.root.exists()


def test_a_cache_that_tensorrt_refuses_is_what_the_failure_says(
    bench: Bench, bundles: list[Bundle]
) -> None:
    bench.set("mode", "mismatch")
    report, _ = bench.push(bundles[0])
    assert report.error is not None
    assert "does not match calibrator algorithm" in report.error.what
    assert report.exit_code == 4


def test_what_was_measured_once_speeds_up_the_next_build_and_damage_is_forgotten(
    bench: Bench, bundles: list[Bundle]
) -> None:
    def said(events: list[object]) -> str:
        return "".join(one.log for one in events if isinstance(one, BuildRuns))

    _, events = bench.push(bundles[0])
    assert "Could not read timing cache" in said([*events])
    (file,) = (bench.root / "timing").glob("*/*.cache")
    assert file.name == "net-8.5.cache"
    report, events = bench.push(bundles[0], options=built_as(workspace_mib=64))
    assert report.state == "active", report.error
    assert "bytes of timing cache" in said([*events])
    file.write_bytes(b"half of one")
    report, _ = bench.push(bundles[0], options=built_as(workspace_mib=65))
    assert report.state == "failed"
    assert not file.exists()
    report, _ = bench.push(bundles[0], options=built_as(workspace_mib=65))
    assert report.state == "active", report.error


def test_a_dla_that_may_not_leave_a_layer_to_the_gpu_fails_the_build(
    bench: Bench, bundles: list[Bundle]
) -> None:
    bench.set("mode", "falls-back")
    report, _ = bench.push(bundles[0], options=built_as(dla_core=0, gpu_fallback=False))
    assert report.state == "failed"
    assert "GPU fallback is off" in str(report.error)


def test_a_builder_that_cannot_measure_says_so(bench: Bench, bundles: list[Bundle]) -> None:
    target = replace(bench.target, builder="onnxruntime")
    report, events = bench.push(bundles[0], target=target, options=PushOptions(bench=True))
    assert report.state == "active", report.error
    assert EngineMeasured(None, None) in events
    assert report.to_json()["latency"] is None


def test_nan_from_the_engine_fails_the_verification_and_leaves_json_whole(
    bench: Bench, bundles: list[Bundle]
) -> None:
    bench.set("mode", "nan")
    report, events = bench.push(bundles[0])
    assert isinstance(events[-1], StepFailed)
    assert "NaN or infinity" in str(report.error)
    assert report.verification is not None
    assert report.verification.outputs[0].max_error is None


def test_a_deepstream_layout_leaves_the_very_cache_and_the_two_lines(
    bench: Bench, bundles: list[Bundle]
) -> None:
    report, _ = bench.push(bundles[0], options=built_as(layout="deepstream"))
    assert report.state == "active", report.error
    table = (bench.current / "calib.table").read_bytes()
    assert table == (bench.current / CACHE_FILE).read_bytes()
    lines = (bench.current / "nvinfer-int8.txt").read_text().splitlines()
    assert f"int8-calib-file={bench.current}/calib.table" in lines
    assert "network-mode=1" in lines
    # the very file, not a second copy of it
    assert (bench.current / "calib.table").samefile(bench.current / CACHE_FILE)


def test_an_fp16_engine_has_no_table_for_deepstream(bench: Bench, bundles: list[Bundle]) -> None:
    report, _ = bench.push(bundles[0], options=built_as(layout="deepstream", precision="fp16"))
    assert report.exit_code == 2
    assert "network-mode=2" in str(report.error)


def test_the_record_says_all_that_was_asked_and_found(bench: Bench, bundles: list[Bundle]) -> None:
    bench.set("mode", "falls-back")
    options = PushOptions(builds={"bench": BuildOptions(dla_core=0, workspace_mib=77)}, bench=True)
    report, events = bench.push(WithPrecision(bundles[0], "conv1"), options=options)  # type: ignore[arg-type]
    assert report.state == "active", report.error
    record = bench.record()
    argv = record["argv"]
    assert isinstance(argv, list)
    assert {"--memPoolSize=workspace:77", "--layerPrecisions=conv1:fp16"} <= set(argv)
    (built,) = (one for one in events if isinstance(one, EngineBuilt))
    assert built.result.fell_back == ("softmax",)
    assert record["layers"] == {
        "fell_back": ["softmax"],
        "fp16": ["conv1"],
        "precisions": {"Float": 1, "Int8": 1},
    }
    (measured,) = (one for one in events if isinstance(one, EngineMeasured))
    assert measured.latency is not None
    latency = {"runs": 100, "median_ms": 2.495, "p99_ms": 2.98, "power_mode": None}
    assert report.to_json()["latency"] == record["latency"] == latency
    verification = record["verification"]
    assert isinstance(verification, dict)
    (output,) = verification["outputs"]
    assert 0 < output["max_error"] < 10
    assert output["top1_agreement"] == verification["top1_agreement"]
    again, events = bench.push(WithPrecision(bundles[0], "conv1"), options=options)  # type: ignore[arg-type]
    assert again.to_json()["latency"] == latency
    assert not any(isinstance(one, StepDue) and one.step.value == "build" for one in events)
