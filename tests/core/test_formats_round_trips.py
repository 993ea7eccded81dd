from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.cache import Entry
from edgecal.core.formats.registry import FORMATS, READABLE, WRITABLE, recognise
from edgecal.errors import CacheFormatError
from tests.strategies import tensor_names

if TYPE_CHECKING:
    from collections.abc import Sequence

PURE: Final = [one for one in FORMATS.values() if one.parse and one.write]
WITH_ODD_SCALES: Final = {"json", "csv"}
SORTED: Final = {"ort-text"}
WITHOUT_RAW_BYTES: Final = {"nvdla"}

FINITE: Final = st.one_of(
    st.integers(0, 0x7F7FFFFF),
    st.sampled_from([0, 1, 0x7FFFFF, 0x800000, 0x3C010A14, 0x7F7FFFFF]),
)


def entries(
    bits: st.SearchStrategy[int] = FINITE, names: st.SearchStrategy[str] | None = None
) -> st.SearchStrategy[tuple[Entry, ...]]:
    odd = st.sampled_from(
        ["a:b", "a: b", " a ", "a\u2028b", "a\x0cb", '"a"', "a,b", "a\rb", "a\r", "{", "é", "日本"]
    )
    usual = tensor_names() if names is None else names
    tables = st.dictionaries(st.one_of(usual, odd), bits, min_size=1, max_size=6)
    return tables.map(
        lambda table: tuple(Entry(name, f"{value:x}") for name, value in table.items())
    )


def utf8(name: str) -> bool:
    return not any(0xD800 <= ord(one) < 0xE000 for one in name)


def carried(word: str, given: Sequence[Entry]) -> bool:
    if word in WITHOUT_RAW_BYTES and not all(utf8(one.tensor) for one in given):
        return False
    return word != "csv" or not any("\0" in one.tensor for one in given)


def written(word: str, given: Sequence[Entry]) -> bytes:
    write = FORMATS[word].write
    assert write is not None
    return write(given)


def parsed(word: str, data: bytes) -> tuple[Entry, ...]:
    parse = FORMATS[word].parse
    assert parse is not None
    return parse(data, source="table")


@pytest.mark.parametrize("word", [one.word for one in PURE])
@given(given_entries=entries())
def test_what_is_written_is_read_again_bit_for_bit(
    word: str, given_entries: tuple[Entry, ...]
) -> None:
    if not carried(word, given_entries):
        with pytest.raises(CacheFormatError, match="cannot carry"):
            written(word, given_entries)
        return
    expected = (
        sorted(given_entries, key=lambda one: one.tensor) if word in SORTED else given_entries
    )
    assert parsed(word, written(word, given_entries)) == tuple(expected)


@pytest.mark.parametrize("word", [one.word for one in PURE])
@given(given_entries=entries(names=st.sampled_from(["images", "/m/Conv_output_0", "a:0"])))
def test_what_is_written_is_recognised(word: str, given_entries: tuple[Entry, ...]) -> None:
    assert recognise(written(word, given_entries), name="table") == word


@pytest.mark.parametrize("word", sorted(WITH_ODD_SCALES))
@given(given_entries=entries(bits=st.integers(0, 0xFFFFFFFF), names=st.sampled_from(["a", "b"])))
def test_our_own_formats_carry_any_scale_by_its_bits(
    word: str, given_entries: tuple[Entry, ...]
) -> None:
    assert parsed(word, written(word, given_entries)) == given_entries


@pytest.mark.parametrize("word", [one.word for one in PURE if one.word not in WITH_ODD_SCALES])
@pytest.mark.parametrize("bits", ["7f800000", "7fc00000", "ff800000", "80000000", "bf800000"])
def test_a_scale_that_a_format_cannot_carry_is_refused_by_name(word: str, bits: str) -> None:
    with pytest.raises(CacheFormatError, match="cannot carry the scale") as caught:
        written(word, [Entry("fine", "3c010a14"), Entry("the mask", bits)])
    assert "'the mask'" in caught.value.what
    assert caught.value.remedy == "edgecal cache edit --drop 'the mask'"


@pytest.mark.parametrize("word", [one.word for one in PURE])
@pytest.mark.parametrize("name", ["", "two\nlines", "\ud800"])
def test_a_name_that_no_cache_can_hold_is_refused(word: str, name: str) -> None:
    with pytest.raises(CacheFormatError, match="cannot carry the tensor name") as caught:
        written(word, [Entry(name, "3c010a14")])
    assert "edgecal cache edit --drop" in caught.value.remedy
    str(caught.value).encode()


@pytest.mark.parametrize("word", [one.word for one in PURE])
def test_a_tensor_is_not_written_twice(word: str) -> None:
    with pytest.raises(CacheFormatError, match="'a' twice"):
        written(word, [Entry("a", "1"), Entry("a", "1")])


@pytest.mark.parametrize("word", [one.word for one in PURE])
@given(data=st.binary(max_size=200))
def test_arbitrary_bytes_give_entries_or_a_format_error(word: str, data: bytes) -> None:
    try:
        found = parsed(word, data)
    except CacheFormatError:
        return
    assert all(one.tensor and "\n" not in one.tensor for one in found)


LEAVES: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(10**400), 1e300, -1.0, 0.0, math.inf, -math.inf, math.nan]),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["\ud800", "\udc80", "a\nb", "", "3c010a14", "edgecal.cache/1"]),
)
KEYS: Final = st.one_of(
    st.text(max_size=3),
    st.sampled_from(["scale", "min", "max", "offset", "lowest", "highest", "CLS", "data", "dtype"]),
    st.sampled_from(["name", "bits", "dynamic_range", "tensors", "schema", "header"]),
    st.sampled_from(["act_quant_info", "fp16_nodes", "int8_tensor_scales"]),
    st.sampled_from(["\ud800", "\udc80", "a\nb"]),
)
VALUES: Final = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)
)
SHAPES: Final = st.one_of(
    VALUES,
    st.dictionaries(KEYS, VALUES, max_size=4),
    st.dictionaries(KEYS, VALUES, max_size=4).map(lambda one: {"act_quant_info": one}),
    st.dictionaries(KEYS, VALUES, max_size=4).map(lambda one: {"int8_tensor_scales": one}),
    st.dictionaries(KEYS, VALUES, max_size=4).map(lambda one: {"CLS": "TensorsData", "data": one}),
    st.lists(st.dictionaries(KEYS, VALUES, max_size=5), max_size=3).map(
        lambda one: {"schema": "edgecal.cache/1", "tensors": one}
    ),
)


@given(shape=SHAPES)
def test_arbitrary_json_gives_entries_a_cache_can_hold_or_a_format_error(shape: object) -> None:
    data = json.dumps(shape).encode()
    for word in ("nvdla", "ort-json", "ppq", "qat-json", "json"):
        try:
            found = parsed(word, data)
        except CacheFormatError as error:
            str(error).encode()  # can be shown
            continue
        for one in found:
            assert one.tensor
            assert "\n" not in one.tensor
            whole = one.tensor.encode("utf-8", "surrogateescape")
            assert whole.decode("utf-8", "surrogateescape") == one.tensor
            assert f"{int(one.bits, 16):x}" == one.bits


JSON_WORDS: Final = ("nvdla", "ort-json", "ppq", "qat-json", "json")


@pytest.mark.parametrize("word", JSON_WORDS)
@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "beyond what any float holds"),
        (b'{"a": 1e999}', "beyond what any float holds"),
        (b'{"a": 1, "b": 2, "a": 1}', "'a' stands twice"),
        (b'{"a": {"scale": 1, "scale": 2}}', "'scale' stands twice"),
        (b"[]", "expected a JSON object"),
        (b"", "expected JSON"),
        (b"\xff\xfe{\x00}\x00", "expected JSON"),
    ],
    ids=["lists", "objects", "long", "huge", "twice", "twice inside", "list", "empty", "utf-16"],
)
def test_hostile_json_is_refused(word: str, data: bytes, complaint: str) -> None:
    with pytest.raises(CacheFormatError, match=complaint):
        parsed(word, data)


def test_a_json_error_names_its_line() -> None:
    with pytest.raises(CacheFormatError) as caught:
        parsed("nvdla", b'{\n"a": {"scale": 1},\n"b": \n}')
    assert caught.value.where == "table:4"


def test_every_format_has_a_word_and_a_title() -> None:
    assert set(WRITABLE) < set(READABLE) == set(FORMATS)
    assert all(one.title and one.word == word for word, one in FORMATS.items())
