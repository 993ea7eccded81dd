"""The job of TensorRT's worker and its answers: what is told is read, and nothing else is."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal import host_scripts
from edgecal.core.cache import make_cache, serialize_cache
from edgecal.core.trt_job import (
    ALGORITHMS,
    BATCH_DTYPES,
    MARK,
    BatchTaken,
    Building,
    CalibratorOptions,
    Failure,
    Hello,
    Job,
    JobInput,
    Result,
    batch_file,
    batch_line,
    check_table,
    end_line,
    found_version,
    job_inputs,
    parse_answer,
    serialize_job,
)
from edgecal.core.versions import parse_tensorrt
from edgecal.errors import BackendError, DatasetError

WORKER = Path(host_scripts.__file__).with_name("trt_calibrate.py")
RESULT: dict[str, Any] = {
    "event": "result",
    "tensorrt": "10.3.0",
    "gpu": "NVIDIA A10",
    "compute_capability": "8.6",
    "bytes": 51,
    "sha256": "ab",
    "batches": 3,
    "unknown_ranges": ["gone: 0"],
    "built": None,
}
FAILURE = {"event": "failure", "code": "cuda", "what": "a", "where": "b", "remedy": "c"}


def job(version: str = "10.3", algorithm: str = "entropy2") -> Job:
    return Job(
        tensorrt=parse_tensorrt(version),
        model="/m/net.onnx",
        batches="/job",
        cache="/job/calibration.cache",
        log="/job/calibration.log",
        inputs=(JobInput(name="x: 0", dtype="float32", shape=(2, 3)),),
        options=CalibratorOptions(algorithm=algorithm, ranges={"conv\n": 2.5}),
    )


def table(version: str, algorithm: str = "EntropyCalibration2", *names: str) -> bytes:
    made = make_cache([(name, np.float32(0.5)) for name in names], tensorrt=parse_tensorrt(version))
    return serialize_cache(made).replace(b"EntropyCalibration2", algorithm.encode(), 1)


def worker_constants() -> dict[str, Any]:
    """What the worker, which imports nothing of ours, spells for itself."""
    found = {}
    for node in ast.parse(WORKER.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        "null",
        "{}",
        '{"event": "party"}',
        '{"event": ["batch"]}',
        '{"event": "batch"}',
        '{"event": "batch", "number": "0"}',
        '{"event": "batch", "number": true}',
        '{"event": "hello", "tensorrt": "10.3.0"}',
        json.dumps({**RESULT, "unknown_ranges": [1]}),
        json.dumps({**RESULT, "unknown_ranges": "all"}),
        json.dumps({**RESULT, "built": 1}),
        json.dumps({**RESULT, "bytes": 1.5}),
        json.dumps({**FAILURE, "what": None}),
        "[" * 100_000,
    ],
)
def test_a_marked_line_that_is_no_answer_is_an_error(text: str) -> None:
    with pytest.raises(BackendError, match="an answer that is none"):
        parse_answer(MARK + text)


@given(st.text())
def test_no_line_makes_the_parser_fail_otherwise(text: str) -> None:
    if MARK not in text:
        assert parse_answer(text) is None
    with pytest.raises(BackendError):
        parse_answer(MARK + text)


@given(st.data())
def test_an_answer_that_was_cut_off_is_an_error_or_none(data: st.DataObject) -> None:
    line = MARK + json.dumps(data.draw(st.sampled_from([RESULT, FAILURE])))
    cut = line[: data.draw(st.integers(0, len(line) - 1))]
    if MARK in cut:
        with pytest.raises(BackendError):
            parse_answer(cut)
    else:
        assert parse_answer(cut) is None


def test_every_answer_is_read_and_banners_are_passed_over() -> None:
    def say(**fields: object) -> object:
        return parse_answer(f"{MARK}{json.dumps(fields)}\n")

    assert say(
        event="hello",
        tensorrt="8.5.2.2",
        gpu="T4",
        compute_capability="7.5",
        python="3.8.10",
        memory="pycuda",
    ) == Hello(
        tensorrt="8.5.2.2", gpu="T4", compute_capability="7.5", python="3.8.10", memory="pycuda"
    )
    assert say(event="building") == Building()
    assert say(event="batch", number=4) == BatchTaken(number=4)
    assert say(**RESULT) == Result(
        tensorrt="10.3.0",
        gpu="NVIDIA A10",
        compute_capability="8.6",
        bytes=51,
        sha256="ab",
        batches=3,
        unknown_ranges=("gone: 0",),
        built=None,
    )
    assert say(**FAILURE) == Failure(code="cuda", what="a", where="b", remedy="c")
    for banner in ("== TensorRT ==\n", "", "NVIDIA Release 24.08"):
        assert parse_answer(banner) is None
    glued = f'NOTE: no newline{MARK}{{"event": "building"}}'
    assert parse_answer(glued) == Building()


def test_the_worker_speaks_the_same_language() -> None:
    words = worker_constants()
    assert words["MARK"] == MARK
    assert words["CALIBRATORS"].keys() == ALGORITHMS.keys()
    assert words["ITEM_BYTES"].keys() == set(BATCH_DTYPES)
    source = WORKER.read_text("utf-8")
    assert batch_file(7, 1) == "batch-%06d.%d" % (7, 1)  # noqa: UP031 - as the worker writes it
    assert '"batch-%06d.%d"' in source
    wanted = {key for key in json.loads(serialize_job(job())) if f'"{key}"' not in source}
    assert wanted == set(), "the worker reads every key"


def test_the_worker_is_one_file_that_needs_nothing_but_tensorrt() -> None:
    tree = ast.parse(WORKER.read_text("utf-8"))
    roots = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert roots - set(sys.stdlib_module_names) == {"tensorrt", "pycuda"}
    touched = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not {name for name in touched if "DLA" in name or "device_type" in name}


def test_a_job_names_the_major_minor_and_all_inputs() -> None:
    read = json.loads(serialize_job(job("8.5.2")))
    assert read["tensorrt"] == "8.5"
    assert read["inputs"] == [{"name": "x: 0", "dtype": "float32", "shape": [2, 3]}]
    assert read["ranges"] == {"conv\n": 2.5}
    assert json.loads(batch_line(3)) == {"batch": 3}
    assert json.loads(end_line(4)) == {"end": 4}


@pytest.mark.parametrize(
    ("data", "version", "algorithm"),
    [
        (table("8.5.2", "EntropyCalibration2", "x"), "8.6", "entropy2"),
        (table("8.5.2", "EntropyCalibration2", "x"), "10.3", "entropy2"),
        (table("8.5.2", "MinMaxCalibration", "x"), "8.5", "entropy2"),
        (table("8.5.2", "EntropyCalibration2", "x"), "8.5", "entropy"),
        (table("8.5.2", "EntropyCalibration2", "x"), "8.5", "legacy"),
        (b"0 3ff0000000000000 3fefffeb074a771d\nx: 1\n", "8.5", "entropy2"),
        (b"TRT-8502-EntropyCalibration2\n", "8.5", "entropy2"),
        (b"", "8.5", "entropy2"),
        (b"\x7fELF" + bytes(5000), "8.5", "entropy2"),
    ],
)
def test_a_table_of_something_else_is_refused(data: bytes, version: str, algorithm: str) -> None:
    with pytest.raises(BackendError):
        check_table(data, job(version, algorithm), source="log")


@pytest.mark.parametrize(
    ("data", "version", "algorithm"),
    [
        (table("8.5.3", "EntropyCalibration2", "x", "y: 0"), "8.5.2", "entropy2"),
        (table("10.3.0", "MinMaxCalibration", "x"), "10.3", "minmax"),
        (table("8.6.1", "EntropyCalibration", "x"), "8.6", "entropy"),
        (b"0 3ff0000000000000 3fefffeb074a771d\nx: 3c010a14\n", "8.5", "legacy"),
        (b"TRT-100300-EntropyCalibration2\nmask: 7f800000\nzero: 0\n", "10.3", "entropy2"),
    ],
)
def test_what_tensorrt_writes_is_taken_with_its_zeros_and_infinities(
    data: bytes, version: str, algorithm: str
) -> None:
    check_table(data, job(version, algorithm), source="log")


def test_floats_are_calibrated_in_single_precision_and_odd_types_refused() -> None:
    made = job_inputs({"x": (1, 2), "ids": (1,)}, {"x": "float16", "ids": "int64"})
    assert [(one.name, one.dtype) for one in made] == [("x", "float32"), ("ids", "int64")]
    with pytest.raises(DatasetError, match="found int16"):
        job_inputs({"x": (1,)}, {"x": "int16"})


def test_a_version_that_is_none_is_told() -> None:
    assert found_version("8.5.2.2").major_minor == "8.5"
    with pytest.raises(BackendError, match="calls itself 'nightly'"):
        found_version("nightly")
