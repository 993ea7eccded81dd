from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.cache import (
    CalibrationCache,
    Entry,
    Header,
    make_cache,
    parse_cache,
    restamp_cache,
    serialize_cache,
)
from edgecal.core.versions import TensorRTVersion
from edgecal.errors import CacheFormatError
from tests.strategies import caches

REAL = (
    b"TRT-8502-EntropyCalibration2\n"
    b"images: 3c010a14\n"
    b"input_1:0: 3caa54fc\n"
    b"a: b: 7f800000\n"
    b"(Unnamed Layer* 8) [Constant]_output: 0\n"
)


@given(caches())
def test_a_cache_survives_the_round_trip(cache: CalibrationCache) -> None:
    data = serialize_cache(cache)
    assert parse_cache(data) == cache
    assert serialize_cache(parse_cache(data)) == data


@given(st.binary(max_size=60))
def test_what_can_be_read_is_written_byte_for_byte(body: bytes) -> None:
    data = REAL + body
    try:
        cache = parse_cache(data)
    except CacheFormatError:
        return
    assert serialize_cache(cache) == data


def test_names_end_at_the_last_colon_and_scales_are_not_padded() -> None:
    cache = parse_cache(REAL)
    assert cache.header == Header(code=8502, algorithm="EntropyCalibration2")
    assert cache.entries[1] == Entry("input_1:0", "3caa54fc")
    assert cache.entries[2] == Entry("a: b", "7f800000")
    assert cache.entries[3] == Entry("(Unnamed Layer* 8) [Constant]_output", "0")
    assert cache.scales()["images"] == pytest.approx(1 / 127, rel=1e-3)


def test_zero_infinite_and_nan_scales_are_values_when_read() -> None:
    assert Entry("x", "0").scale == 0
    assert Entry("x", "7f800000").scale == math.inf
    assert math.isnan(Entry("x", "7fc00000").scale)
    assert Entry("x", "bf800000").scale == -1


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"1 3ff0000000000000 3fefffeb074a771d",
        b"TRT-8502-EntropyCalibration2 ",
        b"TRT-8502-EntropyCalibration2\r",
        b"TRT-8XXX-EntropyCalibration2",
        b"TRT-08502-EntropyCalibration2",
        b"trt-8502-EntropyCalibration2",
        b"TRT-8502-",
        b"\x08\x01ONNX",
    ],
)
def test_another_first_line_is_no_header(header: bytes) -> None:
    with pytest.raises(CacheFormatError) as caught:
        parse_cache(header + b"\nx: 1\n", source="net.cache")
    assert caught.value.where == "net.cache:1"
    assert "TRT-8502-EntropyCalibration2" in caught.value.what


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"x",
        b"x:3c010a14",
        b": 3c010a14",
        b"x: ",
        b"x: 0x3c010a14",
        b"x: 3C010A14",
        b"x: 3c010a145",
        b"x: 0.0078",
        b"x: 3c010a14 ",
        b"x: 3c010a14\r",
        b"images: 3c010a14",
    ],
)
def test_a_line_of_another_form_is_named_by_its_number(line: bytes) -> None:
    with pytest.raises(CacheFormatError) as caught:
        parse_cache(REAL + line + b"\ny: 1\n", source="net.cache")
    assert caught.value.where == "net.cache:6"
    assert repr(line.decode()) in caught.value.what


def test_a_missing_last_newline_may_be_a_cut_off_file() -> None:
    for data in (b"", REAL[:-1], REAL[:-3]):
        with pytest.raises(CacheFormatError, match="newline at the end"):
            parse_cache(data)


def test_computed_scales_are_written_as_their_bits() -> None:
    scales = [("x: y", np.float32(1 / 127)), ("tiny", np.finfo(np.float32).tiny)]
    cache = make_cache(scales, tensorrt=TensorRTVersion(10, 3, 0, 30))
    assert serialize_cache(cache) == (
        b"TRT-100300-EntropyCalibration2\nx: y: 3c010204\ntiny: 800000\n"
    )
    assert cache.scales() == dict(scales)


@pytest.mark.parametrize(
    "scale", [0.0, -0.0, -1.0, math.inf, -math.inf, math.nan, 1e-40, float(np.float32(1e-45))]
)
def test_a_scale_tensorrt_would_have_to_guess_about_is_never_written(scale: float) -> None:
    with pytest.raises(CacheFormatError, match="'conv'"):
        make_cache([("conv", np.float32(scale))], tensorrt=TensorRTVersion(8, 5))


@pytest.mark.parametrize("name", ["", "a\nb"])
def test_a_name_that_is_no_line_is_never_written(name: str) -> None:
    with pytest.raises(CacheFormatError, match="tensor name"):
        make_cache([(name, np.float32(1))], tensorrt=TensorRTVersion(8, 5))


@given(caches())
def test_a_new_header_leaves_the_scales_alone(cache: CalibrationCache) -> None:
    stamped = restamp_cache(cache, TensorRTVersion(8, 5, 10, 4))
    assert stamped.header == Header(code=8510, algorithm=cache.header.algorithm)
    assert stamped.entries == cache.entries
