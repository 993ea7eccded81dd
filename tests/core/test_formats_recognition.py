from __future__ import annotations

import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.formats.registry import FORMATS, recognise
from edgecal.errors import CacheFormatError

if TYPE_CHECKING:
    from collections.abc import Callable

GOLDEN: Final = Path(__file__).resolve().parent.parent / "golden/formats"
MIB: Final = 2**20


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        b"{}",
        b'{"a": 1}',
        b'{"schema": "edgecal.cache-diff/1", "only_left": []}',
        b"just some words\nin two lines\n",
        b"name: 0x3c010a14 and more\n",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"PK\x03\x04" + bytes(100),
        b"\x7fELF\x02\x01\x01" + bytes(100),
        bytes(4096),
        b"\xff" * 4096,
        b"a" * 100_000,
    ],
)
def test_what_is_no_format_is_refused_with_the_list_of_them(data: bytes) -> None:
    with pytest.raises(CacheFormatError, match="no format known here") as caught:
        recognise(data, name="file")
    assert caught.value.where == "file"
    assert all(f"{word}: " in caught.value.remedy for word in FORMATS)


def test_broken_json_is_refused_with_its_line() -> None:
    with pytest.raises(CacheFormatError, match="expected JSON") as caught:
        recognise(b'{\n"a": {"scale": 1},\n', name="net.json")
    assert caught.value.where == "net.json:3"


def test_far_too_much_json_is_refused_unread() -> None:
    data = b'{"a": [' + b"1," * (40 * MIB)
    started = time.monotonic()
    with pytest.raises(CacheFormatError, match="80 MiB: too large"):
        recognise(data, name="net.json")
    assert time.monotonic() - started < 2


JUNK: Final[dict[str, Callable[[int], bytes]]] = {
    "zeros": bytes,
    "newlines": lambda size: b"\n" * size,
    "blanks": lambda size: b" " * size,
    "one line": lambda size: b"a" * size,
    "colons": lambda size: b":" * size,
    "digits": lambda size: b"a:" + b"1" * size,
    "short fields": lambda size: b"\x08\x01" * (size // 2),
    "nodes": lambda size: b"\x0a\x00" * (size // 2),
    "high bits": lambda size: b"\xff" * size,
    "noise": lambda size: random.Random(1).randbytes(MIB) * (size // MIB),
}


@pytest.mark.parametrize("kind", list(JUNK))
def test_a_hundred_megabytes_of_junk_take_no_time(kind: str) -> None:
    data = JUNK[kind](100 * MIB)
    started = time.monotonic()
    with pytest.raises(CacheFormatError, match="no format known here"):
        recognise(data, name="junk")
    assert time.monotonic() - started < 2


@given(st.binary(max_size=200))
def test_arbitrary_bytes_get_a_word_or_a_format_error(data: bytes) -> None:
    try:
        assert recognise(data, name="file") in FORMATS
    except CacheFormatError:
        return


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"TRT-8502-EntropyCalibration2\nimages: 3c010a14\n", "trt"),
        (b"\xef\xbb\xbfTRT-8XXX-EntropyCalibration2 \r\nimages: 0x3c010a14\r\n", "trt"),
        (b"0 3ff0000000000000 3fefffeb074a771d\nimages: 3c010a14\n", "trt"),
        (b"03ff00000000000003feffffde7210be9\nimages: 3c010a14\n", "trt"),
        (b"images: 3c010a14\nzero: 0\n", "trt"),  # a cache without its header
        (b"images:1.000244122\na: 5\n", "ranges"),
        (b"input:0:1\n", "ranges"),
        (b"input:0 1.5\nz y 2e-05\n", "ort-text"),
        (b'{"images": {"scale": 1, "min": 0, "max": 0, "offset": 0}}', "nvdla"),
        (b'\n {"images": {"min": -1, "max": 1}}', "nvdla"),
        (b'{"images": [-1, 2.5]}', "ort-json"),
        (b'{"images": {"lowest": 0, "highest": 1, "CLS": "TensorData"}}', "ort-json"),
        (b'{"data": {}, "CLS": "TensorsData"}', "ort-json"),
        (b'{"act_quant_info": {"images": 1}}', "ppq"),
        (b'{"fp16_nodes": [], "int8_tensor_scales": {"images": 1}}', "qat-json"),
        (b'{"findings": [], "tensors": [], "schema": "edgecal.cache/1"}', "json"),
        (b"scale,tensor\n1,images\n", "csv"),
        (b'"tensor","bits"\r\n"images","1"\r\n', "csv"),
        # a tensor may be called like anything
        (b'{"act_quant_info": {"scale": 1, "offset": 0, "a": {}}}', "nvdla"),
        (b'{"schema": {"scale": 1}}', "nvdla"),
    ],
)
def test_a_format_is_recognised_by_its_content(data: bytes, word: str) -> None:
    assert recognise(data, name="file.bin") == word


@pytest.mark.parametrize(
    ("name", "word"), [("calibration.cache", "ort-text"), ("calib.txt", "ranges")]
)
def test_the_name_breaks_a_tie(name: str, word: str) -> None:
    assert recognise(b"a: 1.5\nb: 2\n", name=f"folder/{name}") == word


@pytest.mark.parametrize(
    ("file", "word"),
    [
        ("nvdla.json", "nvdla"),
        ("ranges.txt", "ranges"),
        ("cache.json", "json"),
        ("cache.csv", "csv"),
        ("qat.json", "qat-json"),
        ("ppq.json", "ppq"),
    ],
)
def test_golden_files_are_recognised(file: str, word: str) -> None:
    assert recognise((GOLDEN / file).read_bytes(), name="file") == word


def test_a_long_table_is_recognised_though_its_sample_ends_within_a_line() -> None:
    line = b"tensor_with_a_long_name_of_odd_length:1.5\n"
    assert recognise(line * 10_000, name="file") == "ranges"
    assert recognise(b"x" * 30_000 + b":1\n" + b"y" * 60_000 + b":2\n", name="file") == "ranges"
