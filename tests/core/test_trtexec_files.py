from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.trtexec_files import parse_output, parse_times
from edgecal.errors import BuildError


def written(name: str, dimensions: str, values: str) -> str:
    rest = f'  , "dimensions" : "{dimensions}"\n  , "values" : [ {values} ]\n  }}\n'
    return f'{{ "name" : "{name}"\n{rest}'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"[1]",
        b'[{"name": "x"}]',
        b"\xff",
        b'[ { "name" : "x", "dimensions" : "2", "values" : [ 1, 2',
        b'[ { "name" : "x", "dimensions" : "2", "values" : [ 1, 2 ] }',
        b'[ { "name" : "x", "dimensions" : "2", "values" : [ 1 ] } ]',
        b'[ { "name" : "x", "dimensions" : "2", "values" : [ 1, 2, 3 ] } ]',
        b'[ { "name" : "x", "dimensions" : "2", "values" : [ 1 2 ] } ]',
        b'[ { "name" : "x", "dimensions" : "2", "values" : [ 1, two ] } ]',
        b'[ { "name" : "x", "dimensions" : "2", "values" : [ 1, ] } ]',
        b'[ { "name" : "x", "dimensions" : "2", "values" : [ 1, 2 ] } ] and more',
    ],
)
def test_another_form_of_output_is_an_error(data: bytes) -> None:
    with pytest.raises(BuildError, match="cannot read"):
        parse_output(data, source="bench")


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


@pytest.mark.parametrize("word", ["nan", "-nan", "inf", "-inf"])
def test_a_name_may_hold_what_looks_like_a_number_or_like_the_form_itself(word: str) -> None:
    name = f'[{word}, {word}] "quoted" \\ {{'
    outputs = parse_output(f"[\n  {written(name, '1', word)}]\n".encode(), source="bench")
    assert list(outputs) == [name]
    assert not np.isfinite(outputs[name]).any()


def test_a_scalar_and_an_empty_output_are_read() -> None:
    data = f"[\n  {written('s', '', '3')}, {written('e', '0x4', '')}]\n".encode()
    outputs = parse_output(data, source="bench")
    assert outputs["s"].shape == ()
    assert outputs["e"].shape == (0, 4)


@given(
    st.lists(
        st.floats(width=32) | st.integers(-(2**31), 2**31 - 1).map(float), min_size=1, max_size=40
    ),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
)
def test_what_was_written_is_read(values: list[float], name: str) -> None:
    listed = ", ".join(repr(value) for value in values)
    data = f"[\n  {written(name, f'1x{len(values)}', listed)}]\n".encode()
    (read,) = parse_output(data, source="bench").items()
    assert read[0] == name
    np.testing.assert_array_equal(read[1], [values])


def test_a_large_output_is_read_in_pieces() -> None:
    count = 1_000_000
    listed = ", ".join(["-0.123456"] * count)
    data = f"[\n  {written('y', str(count), listed)}]\n".encode()
    started = time.perf_counter()
    assert parse_output(data, source="bench")["y"].sum() == pytest.approx(-0.123456 * count)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("data", [b"", b"[]", b'[{"latencyMs" : nan}]', b'[{"latencyMs" : x}]'])
def test_times_that_are_none_are_an_error(data: bytes) -> None:
    with pytest.raises(BuildError, match="no latencies"):
        parse_times(data, source="bench")


def test_latency_is_the_middle_and_the_slow_end_of_the_runs() -> None:
    rows = ", ".join(f'{{ "computeMs" : 1, "latencyMs" : {n} }}\n' for n in range(1, 201))
    latency = parse_times(f"[\n  {rows}]\n".encode(), source="bench")
    assert (latency.runs, latency.median_ms, latency.p99_ms) == (200, 100.5, 198.0)
    assert latency.to_json() == {"runs": 200, "median_ms": 100.5, "p99_ms": 198.0}
