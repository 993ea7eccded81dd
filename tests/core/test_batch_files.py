"""Headers and names of batch files: there and back, and refused where they cannot be right."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.batch_files import (
    Batch,
    BatchName,
    check_batch_words,
    judge_batch_names,
    parse_batch,
    parse_batch_name,
    serialize_header,
)
from edgecal.errors import DatasetError


def refuse(data: bytes, size: int) -> str:
    with pytest.raises(DatasetError) as caught:
        parse_batch(data, size=size, source="batch0")
    assert caught.value.where == "batch0"
    assert caught.value.remedy
    return caught.value.what


def header(*numbers: int) -> bytes:
    return struct.pack("<4i", *numbers)


@pytest.mark.parametrize("length", [0, 1, 15])
def test_a_file_shorter_than_its_header_is_refused(length: int) -> None:
    assert f"found {length} bytes" in refuse(bytes(length), length)


@pytest.mark.parametrize("odd", [0, -1, -(2**31)])
@pytest.mark.parametrize("position", range(4))
def test_numbers_below_one_are_refused(position: int, odd: int) -> None:
    numbers = [1, 3, 2, 2]
    numbers[position] = odd
    assert ", ".join(map(str, numbers)) in refuse(header(*numbers), 64)


def test_numbers_that_the_file_is_too_small_for_are_refused_with_the_size_they_mean() -> None:
    most = 2**31 - 1
    expected = 16 + 4 * most**4
    assert f": {expected} bytes" in refuse(header(most, most, most, most), 1 << 20)


def test_big_endian_files_are_refused() -> None:
    refuse(struct.pack(">4i", 1, 3, 2, 2), 64)


@pytest.mark.parametrize("size", [63, 65, 67, 69, 72, 16])
def test_only_two_sizes_are_right_and_both_are_named(size: int) -> None:
    said = refuse(header(1, 3, 2, 2), size)
    assert "64 bytes, or 68 with labels" in said
    assert said.endswith(f"found {size}")


def test_the_size_tells_whether_there_are_labels() -> None:
    bare = parse_batch(header(2, 3, 2, 2), size=16 + 96, source="batch0")
    labelled = parse_batch(header(2, 3, 2, 2), size=16 + 96 + 8, source="batch0")
    assert not bare.has_labels
    assert labelled.has_labels
    assert bare.shape == labelled.shape == (3, 2, 2)
    assert bare.labels_offset == 112


def test_the_files_of_nvidias_ssd_set_are_of_the_right_size() -> None:
    """TensorRT's SSD sample: one 3x300x300 picture a file, 1,080,016 bytes, no labels."""
    batch = parse_batch(header(1, 3, 300, 300), size=1_080_016, source="batch0")
    assert batch.sample_bytes == 1_080_000
    assert not batch.has_labels


@given(st.tuples(*[st.integers(1, 2**31 - 1)] * 4), st.booleans())
def test_a_header_survives_the_round_trip(
    numbers: tuple[int, int, int, int],
    has_labels: bool,  # noqa: FBT001 - hypothesis draws it
) -> None:
    samples, channels, height, width = numbers
    batch = Batch(
        samples=samples, channels=channels, height=height, width=width, has_labels=has_labels
    )
    size = batch.labels_offset + 4 * samples * has_labels
    assert parse_batch(serialize_header(batch) + b"more", size=size, source="b") == batch


@pytest.mark.parametrize("number", [0, -1, 2**31])
def test_what_a_header_cannot_hold_is_refused(number: int) -> None:
    with pytest.raises(DatasetError, match="cannot hold"):
        serialize_header(Batch(samples=1, channels=number, height=1, width=1))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("batch0", BatchName("batch", 0, "")),
        ("batch_calibration12.batch", BatchName("batch_calibration", 12, ".batch")),
        ("set2_007.batch", BatchName("set2_", 7, ".batch")),
        ("7", BatchName("", 7, "")),
        ("a\nb3", BatchName("a\nb", 3, "")),
        ("batch0.list", None),
        ("batch.batch", None),
        ("batch", None),
        ("batch1.bin", None),
        ("batch٣", None),
        ("", None),
    ],
)
def test_names_come_apart(name: str, parts: BatchName | None) -> None:
    assert parse_batch_name(name) == parts


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.integers(0, 10**9),
    st.sampled_from(["", ".batch"]),
)
def test_names_that_may_be_written_come_apart_again(prefix: str, number: int, suffix: str) -> None:
    try:
        check_batch_words(prefix, suffix)
    except DatasetError:
        return
    assert parse_batch_name(f"{prefix}{number}{suffix}") == BatchName(prefix, number, suffix)


@pytest.mark.parametrize(
    ("prefix", "suffix"),
    [
        ("batch2", ".batch"),
        ("a/b", ""),
        ("../b", ""),
        (".hidden", ".batch"),
        ("-o", ".batch"),
        ("batch", "0"),
        ("batch", "/x"),
        ("batch", "\0"),
    ],
)
def test_words_that_make_no_findable_names_are_refused(prefix: str, suffix: str) -> None:
    with pytest.raises(DatasetError, match="cannot be found again"):
        check_batch_words(prefix, suffix)


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ([0, 1, 2], None),
        ([7], None),
        ([], None),
        ([500, 501], None),  # where a set begins is its own affair
        ([3, 1, 0], "1 batch file is missing between numbers 0 and 3: 2"),
        ([0, 5, 6, 9], "6 batch files are missing between numbers 0 and 9: 1 to 4, 7 to 8"),
        (
            [0, 2, 4, 6, 8, 10, 12],
            "6 batch files are missing between numbers 0 and 12: 1, 3, 5, 7, 9 and 1 more",
        ),
    ],
)
def test_gaps_in_the_numbers_of_files_are_told(numbers: list[int], told: str | None) -> None:
    names = [f"batch{number}.batch" for number in numbers]
    found = list(judge_batch_names(names, source="set/"))
    assert [(one.rule, one.subject, one.message) for one in found] == (
        [("batch-files-missing", "set/", told)] if told else []
    )
