from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.build import Proof, split_log, without_cache
from edgecal.core.trtexec_log import read_log
from tests.strategies import tensor_names

LOGS = Path(__file__).resolve().parent.parent / "golden" / "trtexec"


def golden(name: str) -> list[str]:
    return list(split_log((LOGS / name).read_bytes()))


@pytest.mark.parametrize(
    "line",
    [
        "[E] Calibration table does not match calibrator algorithm type.",
        "[I] Starting Calibration.",
        'Error[3]: Tensor "x" is bound to nullptr',
    ],
)
def test_one_word_against_it_refutes_all_proof(line: str) -> None:
    result = read_log([*golden("proved-8.5.2.log"), line], entries=["image"])
    assert result.proof is Proof.REFUTED
    assert line in result.reason


def test_real_reports_of_a_refused_and_a_forgotten_cache_are_understood() -> None:
    refuted = read_log(golden("refuted-10.3.0.log"), entries=["image"])
    assert refuted.proof is Proof.REFUTED
    unproven = read_log(golden("unproven-10.3.0.log"), entries=["image"])
    assert unproven.proof is Proof.UNPROVEN
    assert unproven.used is None
    assert unproven.unused is None


def test_a_cache_that_was_read_but_not_taken_is_not_proved() -> None:
    line = "Reading Calibration Cache for calibrator: EntropyCalibration2"
    assert read_log([line], entries=["image"]).proof is Proof.UNPROVEN


def test_a_log_that_read_the_cache_and_took_it_is_proof() -> None:
    result = read_log(golden("proved-8.5.2.log"), entries=["image", "input:0", "stale"])
    assert result.proof is Proof.PROVED
    assert result.used == ("image", "input:0")
    assert result.unused == ("stale",)
    assert result.missing == ("(Unnamed Layer* 3) [Constant]_output", "fc_out")


def test_a_version_that_names_no_tensors_still_proves_the_cache_but_no_counts() -> None:
    result = read_log(golden("proved-7.1.3.log"), entries=["image"])
    assert result.proof is Proof.PROVED
    assert (result.used, result.unused) == (None, None)
    assert result.precisions == {"Float": 1, "Int8": 2}


@pytest.mark.parametrize(
    ("file", "layers"),
    [
        ("dla-8.0.1.log", ("Resize_12", "Conv 3 (a)", "(Unnamed Layer* 275) [Gather]")),
        ("dla-8.5.2.log", ("/model.24/Constant_1_output_0", "(Unnamed Layer* 277) [Shuffle]")),
    ],
)
def test_layers_that_the_dla_left_to_the_gpu_are_named(file: str, layers: tuple[str, ...]) -> None:
    result = read_log(golden(file), entries=["image"])
    assert result.fell_back == layers
    assert result.proof is Proof.PROVED


def test_layers_are_counted_by_their_type_in_both_spellings() -> None:
    result = read_log(golden("layers-10.3.0.log"), entries=["image"])
    assert result.precisions == {"Float": 1, "Half": 1, "Int8": 2}


def test_without_a_cache_there_is_nothing_to_prove() -> None:
    result = without_cache(read_log(golden("dla-8.5.2.log"), entries=()))
    assert result.proof is Proof.NOT_APPLICABLE
    assert (result.used, result.missing, result.unused) == (None, None, None)
    assert result.fell_back


@given(tensor_names())
def test_any_name_is_found_as_the_cache_spells_it(name: str) -> None:
    line = f"[V] INT8 Inference Tensor scales and zero-points: {name} scale and zero-point Q(...)"
    data = f"{line}\n".encode("utf-8", "surrogateescape")
    assert read_log(split_log(data), entries=[name]).used == (name,)


@given(st.binary(max_size=2000))
def test_any_bytes_are_a_log(data: bytes) -> None:
    assert read_log(split_log(data), entries=["x"]).proof in set(Proof)


@pytest.mark.parametrize(
    "piece",
    [
        b"Setting dynamic range for ",
        b"due to missing int8 scales for tensor ",
        b"Layer(a), Tactic: 0, x -> y[I",
        b"Default DLA is enabled but layer ",
        b"[11/21/2026-12:00:00] [V] [TRT] Tactic: 0x00000000000003e8 Time: 0.0107\n",
        b"\xff\xfe",
    ],
)
def test_no_log_takes_long(piece: bytes) -> None:
    data = piece * (5_000_000 // len(piece))
    started = time.perf_counter()
    assert read_log(split_log(data), entries=["x"]).proof is Proof.UNPROVEN
    assert time.perf_counter() - started < 5
