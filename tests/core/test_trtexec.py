from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from edgecal.core.build import BuildOptions, BuildRequest, Proof
from edgecal.core.target import BuilderFact
from edgecal.core.trtexec import build_argv, parse_output, read_log, run_argv
from edgecal.core.versions import parse_tensorrt
from edgecal.errors import BuildError

LOGS = Path(__file__).resolve().parent.parent / "golden" / "trtexec"


def request(
    version: str | None,
    options: BuildOptions | None = None,
    *,
    dynamic: bool = False,
    workspace_mib: int | None = None,
) -> BuildRequest:
    tensorrt = parse_tensorrt(version) if version else None
    return BuildRequest(
        builder=BuilderFact(
            name="trtexec", path="/usr/src/tensorrt/bin/trtexec", tensorrt=tensorrt
        ),
        options=options or BuildOptions(),
        shapes={"input:0": (1, 3, 8, 8), "mask": (1, 4)},
        dynamic=frozenset({"input:0"} if dynamic else ()),
        outputs=("out",),
        model_file="model.onnx",
        cache_file="calibration.cache",
        workspace_mib=workspace_mib,
    )


@pytest.mark.parametrize(
    ("version", "skip", "workspace", "explicit"),
    [
        ("7.1.3", "--buildOnly", "--workspace=512", True),
        ("8.2.1", "--buildOnly", "--workspace=512", False),
        ("8.4.1", "--buildOnly", "--memPoolSize=workspace:512", False),
        ("8.5.2", "--buildOnly", "--memPoolSize=workspace:512", False),
        ("8.6.2", "--skipInference", "--memPoolSize=workspace:512", False),
        ("10.3.0", "--skipInference", "--memPoolSize=workspace:512", False),
    ],
)
def test_flags_follow_the_version(
    version: str, skip: str, workspace: str, *, explicit: bool
) -> None:
    argv = build_argv(request(version, workspace_mib=512))
    assert argv[0] == "/usr/src/tensorrt/bin/trtexec"
    assert {"--onnx=model.onnx", "--int8", "--calib=calibration.cache", "--fp16"} <= set(argv)
    assert {skip, workspace} <= set(argv)
    assert ("--explicitBatch" in argv) is explicit
    assert {"--buildOnly", "--skipInference"} & set(argv) == {skip}


def test_fp16_and_dla_are_asked_for_as_wanted() -> None:
    plain = build_argv(request("8.5.2", BuildOptions(fp16=False)))
    assert "--fp16" not in plain
    assert not any("DLA" in word for word in plain)
    dla = build_argv(request("8.5.2", BuildOptions(dla_core=1)))
    assert {"--useDLACore=1", "--allowGPUFallback"} <= set(dla)
    strict = build_argv(request("8.5.2", BuildOptions(dla_core=0, gpu_fallback=False)))
    assert "--allowGPUFallback" not in strict


def test_dynamic_inputs_get_one_shape_and_names_with_colons_stand_in_quotes() -> None:
    argv = build_argv(request("8.5.2", dynamic=True))
    assert "--optShapes='input:0':1x3x8x8" in argv
    assert "--maxShapesCalib='input:0':1x3x8x8" in argv
    run = run_argv(
        request("8.5.2", dynamic=True), inputs={"input:0": "a.bin", "mask": "b.bin"}, output="o"
    )
    assert "--loadInputs='input:0':a.bin,mask:b.bin" in run
    assert "--shapes='input:0':1x3x8x8" in run
    assert "--exportOutput=o" in run
    assert not any("Shapes" in word for word in build_argv(request("8.5.2")))


def test_no_flag_is_safe_for_an_unknown_version() -> None:
    with pytest.raises(BuildError, match="not known"):
        build_argv(request(None))


def test_a_log_that_read_the_cache_and_took_it_is_proof() -> None:
    text = (LOGS / "proved-8.5.2.log").read_text()
    result = read_log(text.splitlines(), entries=["image", "input:0", "stale"])
    assert result.proof is Proof.PROVED
    assert result.used == ("image", "input:0")
    assert result.unused == ("stale",)
    assert result.missing == ("(Unnamed Layer* 3) [Constant]_output", "fc_out")


@pytest.mark.parametrize(
    "line",
    [
        "[E] Calibration table does not match calibrator algorithm type.",
        "[I] Starting Calibration.",
        'Error[3]: Tensor "x" is bound to nullptr',
    ],
)
def test_one_word_against_it_refutes_all_proof(line: str) -> None:
    text = (LOGS / "proved-8.5.2.log").read_text()
    result = read_log([*text.splitlines(), line], entries=["image"])
    assert result.proof is Proof.REFUTED
    assert line in result.reason


def test_real_reports_of_a_refused_and_a_forgotten_cache_are_understood() -> None:
    refuted = read_log((LOGS / "refuted-10.3.0.log").read_text().splitlines(), entries=["image"])
    assert refuted.proof is Proof.REFUTED
    unproven = read_log((LOGS / "unproven-10.3.0.log").read_text().splitlines(), entries=["image"])
    assert unproven.proof is Proof.UNPROVEN
    assert unproven.used is None
    assert unproven.unused is None


def test_a_cache_that_was_read_but_not_taken_is_not_proved() -> None:
    line = "Reading Calibration Cache for calibrator: EntropyCalibration2"
    assert read_log([line], entries=["image"]).proof is Proof.UNPROVEN


def test_outputs_are_read_with_the_numbers_that_json_does_not_have() -> None:
    data = (
        b'[ { "name" : "prob", "dimensions" : "1x4", "values" : [ 0.5, nan, -inf, inf ] },'
        b' { "name" : "n", "dimensions" : "2", "values" : [ 1, 2 ] } ]'
    )
    outputs = parse_output(data, source="bench")
    assert outputs["prob"].shape == (1, 4)
    assert outputs["prob"][0, 0] == np.float32(0.5)
    assert math.isnan(outputs["prob"][0, 1])
    assert list(outputs["prob"][0, 2:]) == [-math.inf, math.inf]
    assert list(outputs["n"]) == [1, 2]


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'[{"name": "x"}]', b"\xff"])
def test_another_form_of_output_is_an_error(data: bytes) -> None:
    if data == b"{}":
        assert parse_output(data, source="bench") == {}
        return
    with pytest.raises(BuildError, match="cannot read"):
        parse_output(data, source="bench")
