from __future__ import annotations

import math
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.cache import CalibrationCache, Entry, Header, parse_cache, serialize_cache
from edgecal.core.document import (
    Document,
    DocumentEntry,
    LegacyHeader,
    Oddity,
    cache_of,
    read_document,
)
from edgecal.core.findings import Severity
from edgecal.errors import CacheFormatError
from tests.strategies import caches, scale_bits, tensor_names

HEAD = b"TRT-8502-EntropyCalibration2\n"
REAL = (
    HEAD
    + b"images: 3c010a14\n"
    + b"input_1:0: 3caa54fc\n"
    + b"/model.9/m/MaxPool_output_0: 7f800000\n"
    + b"(Unnamed Layer* 8) [Constant]_output: 0\n"
)


def read(data: bytes) -> Document:
    return read_document(data, source="net.cache")


def rules(data: bytes) -> list[str]:
    return [oddity.rule for oddity in read(data).oddities]


def only(data: bytes) -> Oddity:
    (oddity,) = read(data).oddities
    return oddity


def refusal(data: bytes) -> CacheFormatError:
    with pytest.raises(CacheFormatError, match="no calibration cache") as caught:
        read(data)
    return caught.value


def unclear(data: bytes) -> CacheFormatError:
    """The error for a document that can be read, but is no cache anybody may use."""
    with pytest.raises(CacheFormatError) as caught:
        cache_of(read(data), source="net.cache")
    return caught.value


# what is no cache


@pytest.mark.parametrize("data", [b"", b"\n", b"\r\n \n\t\n", b"\xef\xbb\xbf"])
def test_nothing_is_no_cache(data: bytes) -> None:
    error = refusal(data)
    assert error.where == "net.cache:1"
    assert "it is empty" in error.what


def test_what_holds_fewer_entries_than_other_lines_is_no_cache() -> None:
    nvdla = b'{\n    "data": {\n        "scale": 0.5,\n        "min": 0\n    }\n}\n'
    error = refusal(nvdla)
    assert error.where == "net.cache:1"
    assert "found '{'" in error.what
    assert "found '#!/bin/sh'" in refusal(b"#!/bin/sh\n\nexit 0\n").what
    assert "found 'x: 3c010a14!'" in refusal(b"\nx: 3c010a14!\ny: 1\n").what


@pytest.mark.parametrize(
    "line", [b"a word", b"", b"\x00\xff", b": 0.5", b"x: 3c010a14", b": 3c010a145", b"\r"]
)
def test_a_thousand_oddities_are_no_cache(line: bytes) -> None:
    # the first entry of its name is no duplicate
    lines = 1001 if line == b"x: 3c010a14" else 1000
    assert refusal(HEAD + (line + b"\n") * 5000).where == f"net.cache:{lines + 1}"


def test_fewer_oddities_are_all_told() -> None:
    document = read(HEAD + b"a word\n" * 999)
    assert len(document.findings) == 1000  # and that no tensor came
    assert document.findings[998].message.startswith("line 1000: ")


def test_oddities_that_hit_every_line_are_told_once_however_many_they_are() -> None:
    lines = b"".join(b"t%d: 0x3C010A14 \r\n" % number for number in range(3000))
    document = read(b"TRT-8502-EntropyCalibration2\r\n" + lines)
    assert [one.rule for one in document.findings] == [
        "crlf",
        "trailing-blank",
        "hex-prefix",
        "upper-case-hex",
    ]
    assert document.findings[0].message.endswith("; so do 3000 more")
    assert document.findings[2].message.startswith("line 2: ")
    assert len(cache_of(document, source="net.cache").entries) == 3000


@pytest.mark.parametrize(
    "junk",
    [
        b"\x00" * 10_000_000,
        b"\n" * 10_000_000,
        b" " * 10_000_000,
        b": " * 5_000_000,
        b"TRT-" + b"8" * 10_000_000,
        b"x: " + b"1" * 10_000_000 + b"!",
        HEAD + b"x: " + b"1" * 10_000_000 + b"!",
        HEAD + b"x: 3c010a14\n" * 1_000_000,
        b"\x80: \n" * 2_000_000,
    ],
    ids=["zeros", "newlines", "blanks", "colons", "header", "digits", "value", "twice", "binary"],
)
def test_junk_is_settled_in_the_time_of_a_look_at_it(junk: bytes) -> None:
    began = time.perf_counter()
    try:
        document = read(junk)
    except CacheFormatError:
        pass
    else:
        assert not document.entries
    assert time.perf_counter() - began < 1  # quadratic ways take minutes


@given(st.binary(max_size=200))
def test_arbitrary_bytes_give_a_document_or_a_format_error(data: bytes) -> None:
    try:
        document = read(data)
    except CacheFormatError:
        return
    assert document.data == data
    assert_sound(document)


@given(st.data())
def test_damaged_caches_give_a_document_or_a_format_error(drawn: st.DataObject) -> None:
    data = bytearray(serialize_cache(drawn.draw(caches())))
    pieces = st.sampled_from(
        [b"\n", b"\r", b"\r\n", b": ", b":", b" ", b"0x", b"\xef\xbb\xbf", b"0.5", b"\x00", b"\t"]
    )
    for _ in range(drawn.draw(st.integers(1, 4))):
        start = drawn.draw(st.integers(0, len(data)))
        stop = drawn.draw(st.integers(start, min(len(data), start + 4)))
        data[start:stop] = drawn.draw(st.one_of(pieces, st.binary(max_size=3), st.just(b"")))
    try:
        document = read(bytes(data))
    except CacheFormatError:
        return
    assert document.data == bytes(data)
    assert_sound(document)


def assert_sound(document: Document) -> None:
    """What holds of every document: its clean value can be written, or an error says why not."""
    for finding in document.findings:
        assert finding.message.startswith("line ")
    if isinstance(document.header, LegacyHeader) or any(
        one.severity is Severity.ERROR for one in document.oddities
    ):
        with pytest.raises(CacheFormatError) as caught:
            cache_of(document, source="net.cache")
        assert re.fullmatch(r"net\.cache:[0-9]+", caught.value.where)
        return
    cache = cache_of(document, source="net.cache")
    assert parse_cache(serialize_cache(cache)) == cache
    assert {one.tensor for one in cache.entries} == {one.tensor for one in document.entries}


# what TensorRT writes


@given(caches())
def test_a_well_formed_cache_is_read_alike_by_both_readers(cache: CalibrationCache) -> None:
    data = serialize_cache(cache)
    document = read(data)
    assert serialize_cache(parse_cache(data)) == data
    assert document.data == data
    assert document.header == cache.header
    assert [(one.tensor, one.bits) for one in document.entries] == [
        (one.tensor, one.bits) for one in cache.entries
    ]
    assert [one.line for one in document.entries] == list(range(2, 2 + len(cache.entries)))
    assert cache_of(document, source="net.cache") == cache
    assert [one.rule for one in document.findings] == [] if cache.entries else ["no-tensors"]


@given(st.binary(max_size=60))
def test_what_the_strict_reader_takes_has_no_oddity(body: bytes) -> None:
    data = REAL + body
    try:
        cache = parse_cache(data)
    except CacheFormatError:
        assert rules(data)
        return
    assert rules(data) == []
    assert cache_of(read(data), source="net.cache") == cache


@pytest.mark.parametrize(
    "name",
    [
        "a: b",
        "x:0",
        "a\rb",
        "a\x0cb",
        "a\u2028b",
        "  ",
        ":",
        ": ",
        "a\udcff",
        "[x] *+",
        "0x1",
        "1:",
    ],
)
def test_names_hold_anything_but_a_newline(name: str) -> None:
    data = HEAD + name.encode("utf-8", "surrogateescape") + b": 3c010a14\n"
    assert read(data).entries == (DocumentEntry(name, "3c010a14", 2),)
    assert rules(data) == []


def test_scales_are_given_as_they_stand() -> None:
    def scale(bits: str) -> float | None:
        return DocumentEntry("x", bits, 2).scale

    assert scale("3f800000") == scale("0x3F800000") == 1
    assert scale("0") == 0
    assert scale("7f800000") == math.inf
    nan = scale("7fc00000")
    assert nan is not None
    assert math.isnan(nan)
    assert scale("0.0078") is scale("3c010a145") is scale("1e-05") is None


@given(scale_bits())
def test_a_scale_is_that_of_the_strict_entry(bits: str) -> None:
    ours, theirs = DocumentEntry("x", bits, 2).scale, Entry("x", bits).scale
    assert ours == theirs or math.isnan(theirs)


# oddities that have one meaning


@pytest.mark.parametrize(
    ("rule", "data", "line"),
    [
        ("crlf", REAL.replace(b"\n", b"\r\n"), 1),
        ("trailing-blank", REAL.replace(b"14\n", b"14 \t\n"), 2),
        ("header-form", REAL.replace(b"2\n", b"2 \n"), 1),
        ("blank-line", REAL.replace(b"14\n", b"14\n \n\n"), 3),
        ("hex-prefix", REAL.replace(b": 3", b": 0x3"), 2),
        ("upper-case-hex", REAL.replace(b"3c010a14", b"3C010A14"), 2),
        ("colon-blank", REAL.replace(b": 3c010a14", b":3c010a14"), 2),
        ("colon-blank", REAL.replace(b": 3c010a14", b":\t3c010a14"), 2),
        ("colon-blank", REAL.replace(b": 3c010a14", b":   3c010a14"), 2),
        ("duplicate-tensor", REAL + b"images: 3c010a14\n", 6),
        ("duplicate-tensor", REAL + b"(Unnamed Layer* 8) [Constant]_output: 00\n", 6),
        ("missing-newline", REAL.removesuffix(b"\n"), 5),
        ("missing-newline", REAL + b"last: 3c010a14", 6),
        ("byte-order-mark", b"\xef\xbb\xbf" + REAL, 1),
    ],
)
def test_what_has_one_meaning_is_told_and_set_right(rule: str, data: bytes, line: int) -> None:
    oddity = only(data)
    assert (oddity.rule, oddity.line, oddity.severity) == (rule, line, Severity.WARNING)
    assert oddity.finding.message == f"line {line}: {oddity.what}"
    extra = (Entry("last", "3c010a14"),) if b"last" in data else ()
    assert cache_of(read(data), source="net.cache").entries == parse_cache(REAL).entries + extra


def test_a_header_of_many_oddities_is_still_a_header() -> None:
    document = read(b"\xef\xbb\xbfTRT-8502-EntropyCalibration2 \r\nx: 1\r\n")
    assert document.header == Header(8502, "EntropyCalibration2")
    assert document.header_text == "TRT-8502-EntropyCalibration2 "
    assert [one.rule for one in document.findings] == ["byte-order-mark", "header-form", "crlf"]


def test_a_cache_without_tensors_is_told() -> None:
    assert rules(HEAD) == ["no-tensors"]
    assert cache_of(read(HEAD), source="net.cache").entries == ()


# oddities without a clear meaning


@pytest.mark.parametrize(
    ("rule", "line", "found"),
    [
        ("unreadable-line", b"input_1:0", "'input_1:0'"),
        ("unreadable-line", b": 3c010a14", "': 3c010a14'"),
        ("unreadable-line", b"x: ", "'x: '"),
        ("unreadable-line", b"x: zz", "'x: zz'"),
        ("unreadable-line", b"x: 0x", "'x: 0x'"),
        ("unreadable-line", b"x: " + b"1" * 65, "'x: 1111"),
        ("decimal-scale", b"x: 0.0078", "'0.0078'"),
        ("decimal-scale", b"x:1.000244122", "'1.000244122'"),
        ("decimal-scale", b"x: 1e-05", "'1e-05'"),
        ("decimal-scale", b"x: -1", "'-1'"),
        ("decimal-scale", b"x: nan", "'nan'"),
        ("wide-hex", b"x: 3f8020c49ba5e354", "'3f8020c49ba5e354'"),
        ("duplicate-tensor", b"images: 3c010a15", "names 'images' again, with '3c010a15'; line 2"),
        ("duplicate-tensor", b"images: 3c010a15", "has '3c010a14'"),
    ],
)
def test_what_has_no_clear_meaning_is_an_error_with_its_line(
    rule: str, line: bytes, found: str
) -> None:
    data = REAL + line + b"\nlast: 3c010a14\n"
    oddity = only(data)
    assert (oddity.rule, oddity.line, oddity.severity) == (rule, 6, Severity.ERROR)
    assert found in oddity.what
    assert oddity.subject == (
        "line 6" if rule == "unreadable-line" else line.split(b":")[0].decode()
    )
    error = unclear(data)
    assert error.where == "net.cache:6"
    assert error.what == oddity.what
    assert read(data).entries[-1] == DocumentEntry("last", "3c010a14", 7)


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_file_that_ends_within_a_scale_was_cut_off(cut: int) -> None:
    data = REAL + b"last: 3c010a14"
    oddity = only(data[:-cut])
    assert (oddity.rule, oddity.subject, oddity.line) == ("cut-off", "last", 6)
    assert unclear(data[:-cut]).where == "net.cache:6"


def test_a_zero_at_the_end_is_whole() -> None:
    assert rules(HEAD + b"x: 0") == ["missing-newline"]


@pytest.mark.parametrize(
    "header",
    [
        b"TRT-8XXX-EntropyCalibration2 ",
        b"TRT-08502-EntropyCalibration2",
        b"TRT-8502-",
        b"TRT-8502-Entropy Calibration",
        b"trt-8502-EntropyCalibration2",
        b"a word",
    ],
)
def test_a_header_of_another_form_is_an_error(header: bytes) -> None:
    data = REAL.replace(HEAD, header + b"\n")
    document = read(data)
    assert document.header is None
    assert document.header_text == header.decode()
    assert only(data).rule == "header-form"
    assert len(document.entries) == 4
    error = unclear(data)
    assert error.where == "net.cache:1"
    assert repr(header.decode()) in error.what


def test_a_file_without_a_header_is_an_error() -> None:
    data = REAL.removeprefix(HEAD)
    document = read(data)
    assert (document.header, document.header_text) == (None, "")
    assert document.entries[0] == DocumentEntry("images", "3c010a14", 1)
    assert only(data).rule == "header-missing"
    assert unclear(data).where == "net.cache:1"


@pytest.mark.parametrize(
    ("header", "cutoff"),
    [
        ("0 3ff0000000000000 3fefffeb074a771d", 0.99999),
        ("03ff00000000000003feffffde7210be9", 0.999999),
    ],
)
def test_a_legacy_table_has_no_tensorrt(header: str, cutoff: float) -> None:
    data = REAL.replace(HEAD, header.encode() + b"\n")
    document = read(data)
    assert document.header == LegacyHeader(header, 1.0, cutoff)
    assert document.header_text == header
    assert document.findings == ()
    assert len(document.entries) == 4
    error = unclear(data)
    assert header in error.what
    assert "Legacy" in error.remedy


@given(st.lists(st.tuples(tensor_names(), scale_bits()), min_size=1, max_size=6))
def test_every_line_is_kept_though_a_tensor_comes_twice(lines: list[tuple[str, str]]) -> None:
    body = "".join(f"{tensor}: {bits}\n" for tensor, bits in lines)
    document = read(HEAD + body.encode("utf-8", "surrogateescape"))
    assert [(one.tensor, one.bits) for one in document.entries] == lines
    names = [tensor for tensor, _ in lines]
    twice = [one for one in document.oddities if one.rule == "duplicate-tensor"]
    assert len(twice) == len(document.oddities) == len(names) - len(set(names))
