from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.build import BuildOptions, BuildRequest, Proof, ShapeRange, span_of
from edgecal.core.target import BuilderFact
from edgecal.core.tensorrt_builder import MARK, build_argv, read_log, run_argv
from edgecal.target_scripts import tensorrt_builder as script

START = {"event": "start", "precision": "int8"}
BUILT = {"event": "built", "cache_reads": 1}


def line(event: object) -> str:
    return MARK + json.dumps(event)


def request(options: BuildOptions | None = None, cache: str | None = "c.cache") -> BuildRequest:
    return BuildRequest(
        builder=BuilderFact(name="tensorrt", path="/usr/bin/python3"),
        options=options or BuildOptions(),
        shapes={"x": span_of([(1, 3)]), "y=z": span_of([(2, 2)])},
        dynamic=frozenset(["y=z"]),
        outputs=("out",),
        model_file="model.onnx",
        cache_file=cache,
        fp16_layers=("-a b", "größe"),
        timing_cache="/r/timing",
    )


@pytest.mark.parametrize(
    ("lines", "proof", "words"),
    [
        ([], Proof.UNPROVEN, "gave no account"),
        ([line(START)], Proof.UNPROVEN, "gave no account"),
        ([line(START), line(BUILT)[:-4]], Proof.UNPROVEN, "gave no account"),
        ([" " + line(BUILT)], Proof.UNPROVEN, "gave no account"),
        ([line({"event": "built"})], Proof.REFUTED, "never read"),
        ([line({"event": "built", "cache_reads": "1"})], Proof.REFUTED, "never read"),
        ([line({"event": "built", "cache_reads": 0})], Proof.REFUTED, "never read"),
        (
            [line(BUILT), "[E] Calibration table does not match calibrator algorithm type."],
            Proof.REFUTED,
            "does not match",
        ),
        ([line({"event": "failure", "code": "refused", "what": "w"})], Proof.REFUTED, "says: w"),
        (
            [line({"event": "failure", "code": "memory"}), line(BUILT)],
            Proof.UNPROVEN,
            "says: None",
        ),
        ([line(START), line(BUILT)], Proof.PROVED, "never asked"),
        (
            [line({**START, "precision": "fp16"}), line({"event": "built", "cache_reads": 0})],
            Proof.NOT_APPLICABLE,
            "without a calibration cache",
        ),
    ],
)
def test_only_a_whole_account_proves_anything(lines: list[str], proof: Proof, words: str) -> None:
    result = read_log(lines, entries=["x"])
    assert result.proof is proof
    assert words in result.reason


@given(st.lists(st.one_of(st.text(), st.recursive(st.none() | st.text(), st.lists).map(line))))
def test_no_log_is_too_strange_to_read(lines: list[str]) -> None:
    assert read_log(lines, entries=["x"]).proof is not Proof.PROVED


def test_what_the_network_holds_tells_used_missing_and_unused() -> None:
    tensors = [line({"event": "tensors", "items": [one, None]}) for one in ("x", "conv")]
    result = read_log([line(START), *tensors, line(BUILT)], entries=["nobody", "x"])
    assert result.used == ("x",)
    assert result.missing == ("conv",)
    assert result.unused == ("nobody",)


def test_layers_are_counted_by_what_they_give_whatever_it_is_called() -> None:
    outputs = [
        ["Thirty-two wide channel vectorized row major Int8 format"],
        ["Row major linear FP32"],
        ["Half", "Int8"],
        ["Something new"],
        [],
    ]
    layers = [["name", "kind", one] for one in outputs]
    lines = [line(START), line({"event": "layers", "items": [*layers, "x"]}), line(BUILT)]
    assert read_log(lines, entries=[]).precisions == {
        "Float": 1,
        "Half": 1,
        "Int8": 1,
        "unknown": 1,
    }


def test_the_script_understands_every_word_it_is_given() -> None:
    wide = (("y=z", ShapeRange((1, 2), (2, 2), (8, 2))),)
    options = BuildOptions(dla_core=1, workspace_mib=64, fp16=False, profile=wide)
    argv = build_argv(request(options))
    assert argv[:3] == ("/usr/bin/python3", "-u", "tensorrt_builder.py")
    given = script.parse_arguments(argv[3:])
    assert (given.precision, given.calibration_cache) == ("int8", "c.cache")
    assert (given.dla, given.gpu_fallback, given.workspace_mib) == (1, True, 64)
    assert (given.no_fp16, given.timing_cache) == (True, "/r/timing")
    assert given.fp16_layer == ["-a b", "größe"]
    assert [script.parse_shape(one) for one in given.shape] == [("y=z", [(1, 2), (2, 2), (8, 2)])]


@pytest.mark.parametrize(
    ("precision", "cache", "word"), [("fp16", None, "fp16"), ("int8", None, "qdq")]
)
def test_without_a_cache_no_layer_is_kept_and_none_is_named(
    precision: str, cache: str | None, word: str
) -> None:
    options = BuildOptions(precision=precision)  # type: ignore[arg-type]
    given = script.parse_arguments(build_argv(request(options, cache))[3:])
    assert (given.precision, given.calibration_cache, given.fp16_layer) == (word, None, [])


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_name_reaches_the_script(name: str) -> None:
    given = script.parse_arguments(
        ["build", "--model=m", "--engine=e", "--precision=qdq", f"--shape={name}=1x2"]
    )
    assert script.parse_shape(given.shape[0]) == (name, [(1, 2)] * 3)


def test_a_run_gets_its_dla_core_and_how_often() -> None:
    argv = run_argv(request(BuildOptions(dla_core=0)), spec="runs.json", output="out", bench=5)
    given = script.parse_arguments(argv[3:])
    assert (given.runs, given.output, given.dla, given.bench) == ("runs.json", "out", 0, 5)
