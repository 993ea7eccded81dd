"""Pushes whose engine is built by TensorRT's Python API, which a stand-in gives."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from edgecal.adapters.tensorrt_builder import TensorRTBuilder
from edgecal.workflows.report import PushOptions
from tests.bundles import make_bundles
from tests.libcuda import make_libcuda
from tests.workflows.test_push import Bench

if TYPE_CHECKING:
    from edgecal.adapters.bundle import Bundle
    from edgecal.core.target import Target

FAKES: Final = Path(__file__).resolve().parent.parent / "fake_tensorrt"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundles(tmp_path_factory.mktemp("bundles"), "8.5.2")[0]


class PythonBench(Bench):
    """A target whose Python has TensorRT, or what looks like it."""

    def install_python(self, version: str = "8.5.2", mode: str = "") -> None:
        """Put a Python there that finds the stand-ins, and the metadata that the probe reads."""
        self.world = replace(
            self.world, builders={**self.world.builders, "tensorrt": TensorRTBuilder()}
        )
        make_libcuda(self.bin)
        packages = self.folder / "packages"
        about = packages / f"tensorrt-{version}.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: tensorrt\nVersion: {version}\n"
        )
        paths = {
            "PYTHONPATH": f"{packages}:{FAKES}",
            "LD_LIBRARY_PATH": str(self.bin),
            "FAKE_TENSORRT": version,
            "FAKE_TENSORRT_MODE": mode,
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        words = [f"{name}={shlex.quote(value)}" for name, value in paths.items()]
        python = self.bin / "python-with-tensorrt"
        python.write_text(f'#!/bin/sh\n{" ".join(words)} exec {sys.executable} "$@"\n')
        python.chmod(0o755)

    @property
    def target(self) -> Target:
        return replace(super().target, python=str(self.bin / "python-with-tensorrt"))

    @property
    def by_tensorrt(self) -> Target:
        return replace(self.target, builder="tensorrt")


@pytest.fixture
def bench(tmp_path: Path) -> PythonBench:
    return PythonBench(tmp_path / "bench")


def test_a_refused_cache_activates_nothing(bench: PythonBench, bundle: Bundle) -> None:
    bench.install_python(mode="ignores-cache")
    report, _ = bench.push(bundle, target=bench.by_tensorrt)
    assert report.state == "failed"
    assert report.error is not None
    assert "never read the calibration cache" in report.error.what
    assert not (bench.root / "models" / bundle.manifest.name / "current").exists()


def test_another_tensorrt_than_the_bundle_s_is_refused(bench: PythonBench, bundle: Bundle) -> None:
    bench.install_python("8.6.1")
    report, _ = bench.push(bundle, target=bench.by_tensorrt)
    assert report.state == "refused"
    assert report.error is not None
    assert report.error.what.startswith("tensorrt-version")


def test_the_python_api_builds_proves_and_runs_an_engine(
    bench: PythonBench, bundle: Bundle
) -> None:
    bench.install_python()
    report, _ = bench.push(bundle, target=bench.by_tensorrt)
    assert report.state == "active", report.error
    assert report.builder == "tensorrt"
    assert report.build is not None
    assert report.build.proof.value == "proved"
    assert report.verification is not None
    assert report.verification.passed
    again, _ = bench.push(bundle, target=bench.by_tensorrt)
    assert again.release == report.release
    assert again.build is None


def test_what_trtexec_s_log_leaves_open_is_built_once_more(
    bench: PythonBench, bundle: Bundle
) -> None:
    bench.install_python()
    bench.install_trtexec(bundle, mode="silent")
    report, _ = bench.push(bundle)
    assert report.state == "active", report.error
    assert report.builder == "tensorrt"
    folder = bench.root / "models" / bundle.manifest.name / "current"
    record = json.loads((folder / "build.json").read_text())
    assert record["proof"]["verdict"] == "proved"
    assert record["builder"]["name"] == "tensorrt"
    again, _ = bench.push(bundle)
    assert (again.state, again.release) == ("active", report.release)


@pytest.mark.parametrize("version", ["8.6.1", "8.5.3"])
def test_a_python_of_another_tensorrt_proves_nothing(
    bench: PythonBench, bundle: Bundle, version: str
) -> None:
    bench.install_python(version)
    bench.install_trtexec(bundle, mode="silent")
    report, _ = bench.push(bundle)
    assert report.state == "failed"
    assert report.error is not None
    assert "nothing proves" in report.error.what
    accepted, _ = bench.push(bundle, options=PushOptions(accept_unproven=True))
    assert (accepted.state, accepted.builder) == ("active", "trtexec")
