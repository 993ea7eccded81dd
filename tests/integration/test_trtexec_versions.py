"""What edgecal asks of trtexec, given to the strict stand-in of every version."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from edgecal.adapters.trtexec_builder import TrtexecBuilder
from edgecal.core.build import (
    BuildOptions,
    BuildRequest,
    BuildResult,
    Proof,
    ShapeRange,
    span_of,
    split_log,
)
from edgecal.core.target import BuilderFact
from edgecal.core.versions import version_of_code
from edgecal.ports import RunFiles
from tests.bundles import FAKE_TRTEXEC

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CODES = (
    *(7103, 7201, 8001, 8201, 8401, 8502, 8602),
    *(100001, 100300, 100700, 100800, 101303, 101601),
)
BUILDER = TrtexecBuilder()
RUN = RunFiles(inputs={"x:0": "x.bin"}, shapes={"x:0": (1, 3)}, spec="spec.json")


class Desk:
    """A folder with a network, a cache and a trtexec of some version."""

    def __init__(self, folder: Path, code: int) -> None:
        self.folder, self.code = folder, code
        self.program = folder / "trtexec"
        self.program.write_text(f"#!{sys.executable} -ES\n{FAKE_TRTEXEC.read_text()}")
        self.program.chmod(0o755)
        (folder / "version").write_text(str(code))
        (folder / "model.onnx").write_bytes(b"a network")
        (folder / "x.bin").write_bytes(b"\0\0\0\0")
        self.write_cache(f"TRT-{code}-EntropyCalibration2\nx: 3c010a14\ny: 3c010a14\n")
        output = {"name": 'y"0', "dimensions": "1x2", "values": [1, 2]}
        digest = hashlib.sha256(b"\0\0\0\0").hexdigest()
        (folder / "outputs.json").write_text(json.dumps({digest: [output]}))

    def write_cache(self, text: str) -> None:
        (self.folder / "calibration.cache").write_text(text)

    def request(
        self,
        options: BuildOptions | None = None,
        *,
        cache_file: str | None = "calibration.cache",
        fp16_layers: tuple[str, ...] = (),
    ) -> BuildRequest:
        version = version_of_code(self.code)
        return BuildRequest(
            builder=BuilderFact(name="trtexec", path=str(self.program), tensorrt=version),
            options=options or BuildOptions(),
            shapes={"x:0": span_of([(1, 3)])},
            dynamic=frozenset({"x:0"}),
            outputs=('y"0',),
            model_file="model.onnx",
            cache_file=cache_file,
            fp16_layers=fp16_layers,
            timing_cache=str(self.folder / "timing.cache"),
        )

    def run(self, argv: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(argv, cwd=self.folder, capture_output=True, check=False, timeout=60)

    def build(self, request: BuildRequest) -> tuple[int, BuildResult]:
        done = self.run(BUILDER.build_argv(request))
        return done.returncode, BUILDER.read_log(split_log(done.stdout), ("x", "y"))


@pytest.fixture(params=CODES, ids=str)
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Desk:
    return Desk(tmp_path, request.param)


@pytest.fixture
def old(tmp_path: Path) -> Desk:
    return Desk(tmp_path, 8502)


def test_every_version_takes_what_it_is_asked(desk: Desk) -> None:
    layers = ("conv1", "head:0") if desk.code >= 8400 else ()
    span = ShapeRange((1, 3), (1, 3), (4, 3))
    dla = None if desk.code > 100700 else 0
    for options in (
        BuildOptions(),
        BuildOptions(workspace_mib=256, dla_core=dla, gpu_fallback=False),
        BuildOptions(profile=(("x:0", span),)),
    ):
        status, result = desk.build(desk.request(options, fp16_layers=layers))
        assert (status, result.proof) == (0, Proof.PROVED), result
        assert result.precisions == {"Float": 1, "Int8": 1}
    status, result = desk.build(desk.request(BuildOptions(precision="fp16"), cache_file=None))
    assert status == 0
    assert result.precisions == {"Float": 1, "Half": 1}


def test_every_version_runs_and_measures_what_it_built(desk: Desk) -> None:
    desk.build(desk.request())
    (argv,) = BUILDER.run_argvs(desk.request(), [RUN], "out.json")
    done = desk.run(argv)
    assert done.returncode == 0, done.stdout
    (outputs,) = BUILDER.parse_outputs((desk.folder / "out.json").read_bytes(), source="desk")
    assert outputs['y"0'].tolist() == [[1, 2]]
    done = desk.run(BUILDER.bench_argv(desk.request(), RUN, "times.json"))
    assert done.returncode == 0, done.stdout
    latency = BUILDER.parse_bench((desk.folder / "times.json").read_bytes(), source="desk")
    assert latency.runs == 100
    assert latency.median_ms == pytest.approx(2.495)


def test_a_header_of_another_version_or_algorithm_fails_and_is_understood(desk: Desk) -> None:
    for header in ("TRT-8510-EntropyCalibration2", f"TRT-{desk.code}-MinMaxCalibration"):
        desk.write_cache(f"{header}\nx: 3c010a14\n")
        status, result = desk.build(desk.request())
        assert (status, result.proof) == (1, Proof.REFUTED), header


def test_a_cache_that_is_not_there_builds_well_and_is_not_believed(desk: Desk) -> None:
    (desk.folder / "calibration.cache").unlink()
    status, result = desk.build(desk.request())
    assert (status, result.proof) == (0, Proof.UNPROVEN)
    assert (desk.folder / "model.engine").is_file()


def test_a_flag_of_another_version_ends_the_stand_in(old: Desk) -> None:
    for flag in ("--skipInference", "--stronglyTyped", "--maxBatchSize=1", "--int8=yes", "int8"):
        done = old.run((str(old.program), "--onnx=model.onnx", "--saveEngine=e", flag))
        assert done.returncode == 1, flag
        assert f"Unknown option: {flag}".encode() in done.stdout
    assert not (old.folder / "e").exists()


def test_a_damaged_timing_cache_fails_a_build(old: Desk) -> None:
    assert old.build(old.request())[0] == 0
    assert old.build(old.request())[0] == 0
    (old.folder / "timing.cache").write_text("half of one")
    assert old.build(old.request())[0] == 1
