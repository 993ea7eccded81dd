from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from edgecal.core.cache import Entry
from edgecal.core.formats.nvdla import parse_nvdla, write_nvdla
from edgecal.errors import CacheFormatError

GOLDEN: Final = Path(__file__).resolve().parent.parent / "golden/formats/nvdla.json"
ENTRIES: Final = (
    Entry("data", "3c010a14"),
    Entry("(Unnamed Layer* 0) [Convolution]_output", "3e800000"),
    Entry("café:0", "0"),
)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("1", "expected an object with a scale"),
        ("{}", "neither a scale nor both min and max"),
        ('{"min": -1}', "neither a scale nor both min and max"),
        ('{"scale": 1, "offset": 3}', "the offset of tensor 'a' is 3"),
        ('{"scale": "1"}', "expected a number for tensor 'a', found '1'"),
        ('{"scale": true}', "found True"),
        ('{"scale": null}', "found nothing"),
        ('{"scale": -0.5}', "is negative: -0.5"),
        ('{"scale": 1e39}', "beyond what float32 holds"),
        ('{"scale": -Infinity}', "is negative"),
    ],
)
def test_a_value_that_the_compiler_could_not_use_is_refused(value: str, complaint: str) -> None:
    with pytest.raises(CacheFormatError, match=complaint) as caught:
        parse_nvdla(f'{{"a": {value}}}'.encode(), source="net.json")
    assert caught.value.where == "net.json"


def test_names_that_are_no_utf_8_are_refused_as_the_compilers_reader_would() -> None:
    with pytest.raises(CacheFormatError, match="no UTF-8"):
        write_nvdla([Entry("a\udcff", "3c010a14")])


def test_the_bytes_are_those_of_nvidias_script() -> None:
    assert write_nvdla(ENTRIES) == GOLDEN.read_bytes()
    assert write_nvdla(()) == b"{}"


def test_what_the_script_writes_is_read() -> None:
    assert parse_nvdla(GOLDEN.read_bytes(), source="nvdla.json") == ENTRIES


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        ('{"scale": 0.25, "min": -9, "max": 9, "offset": 0}', "3e800000"),  # the scale counts
        ('{"min": -127, "max": 3, "offset": 0}', "3f800000"),
        ('{"min": 0, "max": 63.5}', "3f000000"),
        ('{"scale": Infinity}', "7f800000"),  # Python 2 wrote these words
        ('{"scale": NaN}', "7fc00000"),
        ('{"min": NaN, "max": 1}', "7fc00000"),
        ('{"min": 1, "max": NaN}', "7fc00000"),
        ('{"scale": 1e-60}', "0"),
    ],
)
def test_a_scale_counts_or_else_the_larger_end_of_the_range(value: str, bits: str) -> None:
    data = f'{{"a": {value}}}'.encode()
    assert parse_nvdla(data, source="net.json") == (Entry("a", bits),)
