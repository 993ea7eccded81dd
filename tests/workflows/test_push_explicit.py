"""Pushes of bundles whose network carries the scales, by every builder there is a stand-in of."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from edgecal.adapters.bundle import read_bundle
from edgecal.core.build import BuildOptions
from edgecal.core.manifest import CACHE_FILE, MODEL_FILE, QDQ_FILE, digest_of
from edgecal.workflows.rebuild import plan_rebuild
from edgecal.workflows.report import PushOptions
from tests.bundles import install_trtexec, make_bundles
from tests.signing import authority
from tests.workflows.test_push import Bench
from tests.workflows.test_push_by_tensorrt import PythonBench
from tests.workflows.test_signing import Bench as SigningBench
from tests.workflows.test_signing import sign

if TYPE_CHECKING:
    from pathlib import Path

    from edgecal.adapters.bundle import Bundle
    from edgecal.workflows.report import PushReport


class ExplicitBench(PythonBench):
    """A target that gets bundles for TensorRT 11."""

    @property
    def current(self) -> Path:
        return self.root / "models" / "net-11.0" / "current"

    def record(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.current / "build.json").read_text())
        return document


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    return make_bundles(tmp_path_factory.mktemp("bundles"), "8.5.2", "11.0.0")


@pytest.fixture
def bundle(bundles: list[Bundle]) -> Bundle:
    return bundles[1]


@pytest.fixture
def bench(tmp_path: Path) -> ExplicitBench:
    return ExplicitBench(tmp_path / "bench")


def rules_of(report: PushReport) -> set[str]:
    return {one.rule for one in report.findings if one.severity.value == "error"}


class TestAPushIsRefused:
    def test_of_a_cache_to_tensorrt_11(self, bench: ExplicitBench, bundles: list[Bundle]) -> None:
        bench.install_trtexec(bundles[0], "110401")
        report, _ = bench.push(bundles[0])
        assert report.state == "refused"
        assert rules_of(report) == {"implicit-int8-removed"}
        assert not bench.root.exists()

    @pytest.mark.parametrize("version", ["8502", "8602", "7103"])
    def test_of_float16_pairs_to_a_tensorrt_that_does_not_read_them(
        self, bench: ExplicitBench, bundle: Bundle, version: str
    ) -> None:
        bench.install_trtexec(bundle, version)
        report, _ = bench.push(bundle)
        assert report.state == "refused"
        assert rules_of(report) == {"tensorrt-version"}
        assert not bench.root.exists()

    def test_that_forbids_the_float16_which_the_network_is_typed(
        self, bench: ExplicitBench, bundle: Bundle
    ) -> None:
        bench.install_trtexec(bundle, "110401")
        options = PushOptions(build=BuildOptions(fp16=False))
        report, _ = bench.push(bundle, options=options)
        assert report.state == "refused"
        assert rules_of(report) == {"types-in-network"}

    def test_that_wants_a_cache_left_for_nvinfer(
        self, bench: ExplicitBench, bundle: Bundle
    ) -> None:
        bench.install_trtexec(bundle, "110401")
        options = PushOptions(build=BuildOptions(layout="deepstream"))
        report, _ = bench.push(bundle, options=options)
        assert report.error is not None
        assert "no cache to leave for nvinfer" in report.error.what
        assert not (bench.root / "models").exists()

    def test_of_an_fp16_engine_where_trtexec_takes_types_from_the_network_alone(
        self, bench: ExplicitBench, bundle: Bundle
    ) -> None:
        bench.install_trtexec(bundle, "110401")
        options = PushOptions(build=BuildOptions(precision="fp16"))
        report, _ = bench.push(bundle, options=options)
        assert report.error is not None
        assert "no flag for FP16" in report.error.what


def test_an_engine_in_which_nothing_is_int8_is_not_taken(
    bench: ExplicitBench, bundle: Bundle
) -> None:
    bench.install_trtexec(bundle, "110401", mode="float")
    report, _ = bench.push(bundle)
    assert report.state == "failed"
    assert report.error is not None
    assert "nothing proves that the engine computes in INT8" in report.error.what
    assert "none of the 2 layers" in report.error.what
    assert not bench.current.exists()


@pytest.mark.parametrize("version", ["100001", "100300", "101602", "110000", "110401"])
def test_trtexec_builds_it_strongly_typed_and_its_log_shows_int8(
    bench: ExplicitBench, bundle: Bundle, version: str
) -> None:
    bench.install_trtexec(bundle, version)
    report, _ = bench.push(bundle)
    assert report.state == "active", report.error
    assert report.build is not None
    assert report.build.proof.value == "proved"
    record = bench.record()
    assert f"--onnx={QDQ_FILE}" in record["argv"]
    assert "--stronglyTyped" in record["argv"]
    assert not {"--int8", "--fp16"} & set(record["argv"])
    assert record["cache"]["bundled"] == bundle.manifest.files[QDQ_FILE].digest
    assert record["cache"]["built_from"] is None
    assert record["layers"]["precisions"] == {"Float": 1, "Int8": 1}
    assert not (bench.current / CACHE_FILE).exists()
    # the stand-in's engine is the network that it was given
    made = (bundle.path / QDQ_FILE).read_bytes()
    assert (bench.current / "model.engine").read_bytes() == made
    assert report.findings == ()


def test_a_log_that_lists_no_layers_leaves_it_to_verification(
    bench: ExplicitBench, bundle: Bundle
) -> None:
    bench.install_trtexec(bundle, "110401", mode="unlisted")
    report, _ = bench.push(bundle)
    assert report.state == "active", report.error
    assert report.build is not None
    assert report.build.proof.value == "not-applicable"
    (bench.bin / "mode").write_text("wrong")
    report, _ = bench.push(bundle, options=PushOptions(rebuild=True))
    assert report.state == "failed"
    assert report.error is not None
    assert "is wrong" in report.error.what


def test_of_several_bundles_each_target_gets_the_one_for_it(
    bench: ExplicitBench, tmp_path: Path, bundles: list[Bundle]
) -> None:
    bench.install_trtexec(bundles[0], "110401")
    other = Bench(tmp_path / "other")
    other.install_trtexec(bundles[0], "8502")
    for one, name in ((bench, "net-11.0"), (other, "net-8.5")):
        report, _ = one.push(*bundles)
        assert (report.state, report.name) == ("active", name), report.error


def test_the_reference_builder_takes_the_network_as_it_is(
    bench: ExplicitBench, bundle: Bundle
) -> None:
    report, _ = bench.push(bundle, target=replace(bench.target, python=sys.executable))
    assert report.state == "active", report.error
    assert report.build is not None
    assert report.build.proof.value == "proved"
    engine = bench.current / "model.int8.onnx"
    assert engine.read_bytes() == (bundle.path / QDQ_FILE).read_bytes()
    assert report.verification is not None
    assert report.verification.passed


@pytest.mark.parametrize("version", ["10.3.0", "11.4.0"])
def test_the_tensorrt_builder_takes_it_too(
    bench: ExplicitBench, bundle: Bundle, version: str
) -> None:
    bench.install_python(version)
    report, _ = bench.push(bundle, target=bench.by_tensorrt)
    assert report.state == "active", report.error
    assert report.builder == "tensorrt"
    record = bench.record()
    assert "--precision=qdq" in record["argv"]
    assert f"--model={QDQ_FILE}" in record["argv"]


def test_it_can_be_built_again_from_what_the_target_stores(
    bench: ExplicitBench, bundle: Bundle, tmp_path: Path
) -> None:
    away = read_bundle(shutil.copytree(bundle.path, tmp_path / bundle.path.name))
    bench.install_trtexec(away, "110000")
    first, _ = bench.push(away)
    assert first.state == "active", first.error
    shutil.rmtree(away.path)
    (bench.bin / "version").write_text("110401")  # after an upgrade
    plan = plan_rebuild(bench.target, bench.world, name="net-11.0", release=None)
    assert plan.bundle.manifest.form == "qdq"
    again, _ = bench.push(plan.bundle)  # type: ignore[arg-type]  # what was read back
    assert again.state == "active", again.error
    assert again.release != first.release


def test_an_fp16_engine_is_built_from_the_network_as_it_was_given(
    bench: ExplicitBench, bundle: Bundle
) -> None:
    bench.install_trtexec(bundle, "8201")
    options = PushOptions(build=BuildOptions(precision="fp16"))
    report, _ = bench.push(bundle, options=options)
    assert report.state == "active", report.error
    record = bench.record()
    assert f"--onnx={MODEL_FILE}" in record["argv"]
    assert "--fp16" in record["argv"]
    assert "--int8" not in record["argv"]


def test_the_stand_in_of_tensorrt_11_knows_no_flags_of_types(
    bench: ExplicitBench, bundle: Bundle
) -> None:
    bench.install_trtexec(bundle, "110401")
    program = bench.bin / "trtexec"
    for flag in ("--int8", "--fp16", "--calib=x", "--best", "--minShapesCalib=x:1"):
        done = subprocess.run([program, "--onnx=x", flag], capture_output=True, check=False)
        assert done.returncode == 1
        assert f"Unknown option: {flag}".encode() in done.stdout


def test_a_signature_covers_the_network_with_the_scales(bundle: Bundle, tmp_path: Path) -> None:
    for name in ("keys", "signing"):
        (tmp_path / name).mkdir()
    release = authority(tmp_path / "keys")
    signing = SigningBench(tmp_path / "signing")
    install_trtexec(signing.bin, bundle, version="110401")
    signing.etc.trust(release.public)
    signing.etc.policy("require_signature=yes", "name=cam7")
    signed = sign(
        read_bundle(shutil.copytree(bundle.path, tmp_path / bundle.path.name)), by=release
    )
    manifest, network = signed.path / "manifest.json", signed.path / QDQ_FILE
    whole = (manifest.read_text(), network.read_bytes())
    network.write_bytes(whole[1] + b"\0")  # by somebody who keeps the bundle whole
    digest = digest_of(network.read_bytes())
    text = whole[0].replace(signed.manifest.files[QDQ_FILE].digest, digest)
    manifest.write_text(text)
    report, _ = signing.push(read_bundle(signed.path))
    assert report.state == "refused"
    assert report.error is not None
    assert report.error.what.startswith("signature: ")
    manifest.write_text(whole[0])
    network.write_bytes(whole[1])
    report, _ = signing.push(read_bundle(signed.path))
    assert report.state == "active", report.error
