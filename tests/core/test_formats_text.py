from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.cache import Entry
from edgecal.core.formats.ort_tables import parse_ort_text, write_ort_text
from edgecal.core.formats.ranges import parse_ranges, sample_reader_loses, write_ranges
from edgecal.core.quant import scale_of
from edgecal.errors import CacheFormatError

if TYPE_CHECKING:
    from collections.abc import Callable

GOLDEN: Final = Path(__file__).resolve().parent.parent / "golden/formats/ranges.txt"
PARSERS: Final[dict[str, Callable[..., tuple[Entry, ...]]]] = {
    ":": parse_ranges,
    " ": parse_ort_text,
}


@pytest.mark.parametrize("separator", list(PARSERS))
@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("name", "expected a tensor"),
        ("name{}", "expected a decimal number"),
        ("name{}1_000", "expected a decimal number"),
        ("name{}٣", "expected a decimal number"),
        ("name{}0x10", "expected a decimal number"),
        ("name{}1,5", "expected a decimal number"),
        ("name{}1e999", "beyond what any float holds"),
        ("name{}1e39", None),
        ("name{}1e42", "beyond what float32 holds"),
        ("{}1", "cannot stand in a calibration cache"),
        ("name{}-1", "magnitude"),
        ("first{}2", "'first' has two scales"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(
    separator: str, line: str, complaint: str | None
) -> None:
    data = f"first{separator}1\n\n{line.format(separator)}\r\n".encode()
    if complaint is None:
        assert len(PARSERS[separator](data, source="file")) == 2
        return
    with pytest.raises(CacheFormatError, match=complaint) as caught:
        PARSERS[separator](data, source="file")
    assert caught.value.where == "file:3"


def test_a_negative_value_of_onnx_runtime_points_to_the_file_that_has_both_ends() -> None:
    with pytest.raises(CacheFormatError, match=r"largest magnitude -0\.25") as caught:
        parse_ort_text(b"a 1.0\nlogits -0.25\n", source="calibration.cache")
    assert caught.value.where == "calibration.cache:2"
    assert "calibration.json" in caught.value.remedy


@pytest.mark.parametrize("separator", list(PARSERS))
def test_a_long_run_of_digits_takes_no_time(separator: str) -> None:
    started = time.monotonic()
    with pytest.raises(CacheFormatError):
        PARSERS[separator](b"a" + separator.encode() + b"1" * 1_000_000 + b"x", source="file")
    assert time.monotonic() - started < 2


def test_nvidias_lines_are_read_and_names_end_at_the_last_colon() -> None:
    first, second, third = parse_ranges(GOLDEN.read_bytes(), source="ranges.txt")
    assert first == Entry("input:0", "3c010a14")
    assert second == Entry("tensor_a", "3d2952a5")
    assert third == Entry("zero", "0")


def test_a_repeated_line_that_says_the_same_counts_once() -> None:
    assert parse_ranges(b"a:1\nb:2\na: 1.0\n", source="file") == parse_ranges(
        b"a:1\r\nb:2", source="file"
    )


def test_what_means_nothing_to_a_tensor_is_still_read() -> None:
    data = b"a:inf\nb:nan\nc:-0.0\nd:1e-44\n"
    bits = [entry.bits for entry in parse_ranges(data, source="file")]
    assert bits == ["7f800000", "7fc00000", "0", "0"]


def test_ranges_are_written_as_nvidias_sample_reads_them() -> None:
    data = write_ranges([Entry("a", "3c000000"), Entry("b\udcff", "0")])
    assert data == b"a:0.9921875\nb\xff:0.0\n"


def test_the_samples_own_reader_loses_names_with_colons() -> None:
    entries = [Entry("a:0", "1"), Entry("b", "1"), Entry("onnx::c", "1")]
    assert sample_reader_loses(entries) == ("a:0", "onnx::c")


def test_onnx_runtimes_text_is_sorted_and_its_names_may_hold_blanks() -> None:
    entries = [Entry("z y", "3c000000"), Entry("a", "3e800000")]
    data = write_ort_text(entries)
    assert data == b"a 31.75\nz y 0.9921875\n"
    assert parse_ort_text(data, source="file") == (entries[1], entries[0])


@given(st.floats(2**-100, 2.0**100, width=32))
def test_an_amax_gives_the_scale_that_tensorrt_would_divide_out(amax: float) -> None:
    data = f"a:{amax!r}\n".encode()
    (entry,) = parse_ranges(data, source="file")
    assert np.float32(entry.scale) == scale_of(np.float32(amax))
