from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given

from edgecal.core.cache import CalibrationCache, Entry, Header
from edgecal.core.formats.plain_csv import parse_csv, write_csv
from edgecal.core.formats.plain_json import (
    parse_plain_header,
    parse_plain_json,
    write_plain_json,
)
from edgecal.core.formats.ppq import parse_ppq, write_ppq
from edgecal.core.formats.qat import QatScales, parse_qat, write_qat
from edgecal.errors import CacheFormatError
from tests.strategies import caches

GOLDEN: Final = Path(__file__).resolve().parent.parent / "golden/formats"
HEADER: Final = Header(code=8502, algorithm="EntropyCalibration2")
IMAGES: Final = Entry("images", "3c000000")
MASK: Final = Entry("mask", "7f800000")


def document(*tensors: object, **fields: object) -> bytes:
    return json.dumps({"schema": "edgecal.cache/1", "tensors": tensors, **fields}).encode()


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"{}", "expected a document with the schema 'edgecal.cache/1', found nothing"),
        (b'{"schema": "edgecal.cache/2"}', "found 'edgecal.cache/2'"),
        (b'{"schema": "edgecal.cache/1"}', "expected a list 'tensors', found nothing"),
        (document(1), "expected an object with a name and bits, found 1.0"),
        (document({"bits": "1"}), "expected a name in quotes"),
        (document({"name": "a", "bits": 1}), "expected bits in quotes"),
        (document({"name": "a", "bits": "0.0078"}), "up to eight hex digits, found '0.0078'"),
        (document({"name": "a"}), "neither bits nor a scale nor a dynamic range"),
        (document({"name": "a", "scale": "1"}), "expected a number"),
        (document({"name": "a", "bits": "3c000000", "scale": 0.5}), "its scale is 0.5"),
        (document({"name": "a", "bits": "7f800000", "scale": 1}), "contradicts itself"),
        (
            document({"name": "a", "scale": 1, "dynamic_range": 128.5}),
            "its dynamic range is 128.5, and the rest says 127.0",
        ),
        (
            document({"name": "a", "bits": "1"}, {"name": "a", "bits": "2"}),
            "'a' has two scales",
        ),
    ],
)
def test_a_plain_document_that_is_none_is_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(CacheFormatError, match=complaint):
        parse_plain_json(data, source="net.json")


@pytest.mark.parametrize("header", ["TRT-8502", 8502, "TRT-8502-EntropyCalibration2\n", "\ud800"])
def test_a_header_that_tensorrt_does_not_write_is_refused(header: object) -> None:
    with pytest.raises(CacheFormatError, match="header like"):
        parse_plain_header(document(header=header), source="net.json")


@pytest.mark.parametrize(
    ("data", "line", "complaint"),
    [
        (b"", 1, "expected the columns tensor,bits,scale,dynamic_range, found ''"),
        (b"name,bits\na,1\n", 1, "found 'name,bits'"),
        (b"tensor,comment\na,1\n", 1, "found 'tensor,comment'"),
        (b"tensor,bits\na,b,1\n", 2, "expected 2 cells in this row, found 3"),
        (b"tensor,bits\na\n", 2, "neither bits nor a scale"),
        (b'tensor,bits\n"a"b,1\n', 2, "expected CSV"),
        (b'tensor,bits\n"a,1\n', 2, "expected CSV"),
        (b"tensor,bits\na,1\n\0,1\n", 3, "no zero bytes"),
        (b'tensor,bits\n"a\nb",1\n', 3, "cannot stand in a calibration cache"),
        (b"tensor,bits,scale\na,3.00E+05,1\n", 2, "found '3.00E[+]05'"),
        (b"tensor,bits,scale\na,3c000000,0.0079\n", 2, "contradicts itself"),
        (b"tensor,scale\na,one\n", 2, "expected a decimal number"),
        (b"tensor,scale\na,1\na,2\n", 3, "'a' has two scales"),
        (b"tensor,bits\n" + b"a" * 200_000 + b",1\n", 2, "expected CSV: field larger"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(data: bytes, line: int, complaint: str) -> None:
    with pytest.raises(CacheFormatError, match=complaint) as caught:
        parse_csv(data, source="net.csv")
    assert caught.value.where == f"net.csv:{line}"


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (
            b'{"act_quant_info": []}',
            "expected an object 'act_quant_info' in the file, found a list",
        ),
        (b"{}", "found nothing"),
        (b'{"act_quant_info": {"a": [1, 2]}}', "expected a number for tensor 'a', found a list"),
        (b'{"act_quant_info": {"a": -1}}', "negative"),
    ],
)
def test_a_ppq_file_with_anything_but_one_number_a_tensor_is_refused(
    data: bytes, complaint: str
) -> None:
    with pytest.raises(CacheFormatError, match=complaint):
        parse_ppq(data, source="quant.json")


@pytest.mark.parametrize("nodes", [b'"relu"', b"[1]", b'[["relu"]]', b"null"])
def test_fp16_nodes_are_a_list_of_names(nodes: bytes) -> None:
    data = b'{"int8_tensor_scales": {"a": 1}, "fp16_nodes": ' + nodes + b"}"
    with pytest.raises(CacheFormatError, match="expected a list of layer names"):
        parse_qat(data, source="net.json")


def test_the_plain_document_is_that_of_cache_show() -> None:
    golden = (GOLDEN / "cache.json").read_bytes()
    assert write_plain_json((IMAGES, MASK), header=HEADER) == golden
    assert parse_plain_json(golden, source="cache.json") == (IMAGES, MASK)
    assert parse_plain_header(golden, source="cache.json") == HEADER


def test_a_plain_document_need_not_say_its_tensorrt() -> None:
    data = write_plain_json(())
    assert json.loads(data)["header"] is None
    assert parse_plain_json(data, source="cache.json") == ()
    assert parse_plain_header(data, source="cache.json") is None


@given(caches())
def test_a_plain_document_carries_any_cache(cache: CalibrationCache) -> None:
    data = write_plain_json(cache.entries, header=cache.header)
    assert [
        (one.tensor, int(one.bits, 16)) for one in parse_plain_json(data, source="cache.json")
    ] == [(one.tensor, int(one.bits, 16)) for one in cache.entries]
    assert parse_plain_header(data, source="cache.json") == cache.header


@pytest.mark.parametrize(
    "fields",
    [
        {"bits": "0x3C000000"},
        {"bits": "3c000000", "scale": 0.00781, "dynamic_range": None},
        {"scale": 0.0078125},
        {"scale": 0.0078125, "dynamic_range": 0.992},
        {"dynamic_range": 0.9921875},
    ],
)
def test_bits_count_then_the_scale_then_the_dynamic_range(fields: dict[str, object]) -> None:
    assert parse_plain_json(document({"name": "images", **fields}), source="x") == (IMAGES,)
    head, cells = ",".join(fields), ",".join(str(one or "") for one in fields.values())
    data = f"{head},tensor\n{cells},images\n".encode()
    assert parse_csv(data, source="x") == (IMAGES,)


def test_the_csv_is_one_that_spreadsheets_read_and_write() -> None:
    golden = (GOLDEN / "cache.csv").read_bytes()
    entries = (IMAGES, Entry('a,"b"', "0"), MASK)
    assert write_csv(entries) == golden
    assert parse_csv(golden, source="cache.csv") == entries
    resaved = b"\xef\xbb\xbf" + golden.replace(b"\r\n", b"\n") + b"\n\n"
    assert parse_csv(resaved, source="cache.csv") == entries


def test_ppq_holds_the_largest_magnitudes() -> None:
    golden = (GOLDEN / "ppq.json").read_bytes()
    assert write_ppq((IMAGES,)) == golden
    assert parse_ppq(golden, source="ppq.json") == (IMAGES,)
    assert parse_ppq(b'{"other": 1, "act_quant_info": {}}', source="ppq.json") == ()


def test_the_translators_file_holds_scales_and_layers_to_keep_in_fp16() -> None:
    golden = (GOLDEN / "qat.json").read_bytes()
    scales = QatScales(entries=(IMAGES,), fp16_nodes=("/head/Softmax",))
    assert write_qat(scales) == golden
    assert parse_qat(golden, source="qat.json") == scales
    assert parse_qat(b'{"int8_tensor_scales": {}}', source="qat.json") == QatScales(entries=())
