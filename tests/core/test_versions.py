from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.versions import (
    TensorRTVersion,
    header_code,
    parse_tensorrt,
    version_of_code,
)
from edgecal.errors import InputError

builds = st.none() | st.integers(0, 999)
old_versions = st.builds(
    TensorRTVersion, st.integers(1, 9), st.integers(0, 9), st.integers(0, 99), builds
)
new_versions = st.builds(
    TensorRTVersion, st.integers(10, 99), st.integers(0, 99), st.integers(0, 99), builds
)
versions = old_versions | new_versions


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("8.5", TensorRTVersion(8, 5)),
        ("8.5.2", TensorRTVersion(8, 5, 2)),
        ("8.5.2.2", TensorRTVersion(8, 5, 2, 2)),
        (" 8.5.2.2\n", TensorRTVersion(8, 5, 2, 2)),
        ("8.5.2-1+cuda11.4", TensorRTVersion(8, 5, 2)),
        ("10.3.0.30-1+cuda12.5", TensorRTVersion(10, 3, 0, 30)),
        ("2.1-20170614-1-1", TensorRTVersion(2, 1)),
        ("8.6.1.post1", TensorRTVersion(8, 6, 1)),
        ("8502", TensorRTVersion(8, 5, 2)),
        ("8510", TensorRTVersion(8, 5, 10)),
        ("100300", TensorRTVersion(10, 3, 0)),
        ("[TensorRT v8502]", TensorRTVersion(8, 5, 2)),
        ("[TensorRT v101602] [b10]", TensorRTVersion(10, 16, 2, 10)),
        ("TensorRT v8502", TensorRTVersion(8, 5, 2)),
        (
            "&&&& RUNNING TensorRT.trtexec [TensorRT v8201] # trtexec --help",
            TensorRTVersion(8, 2, 1),
        ),
    ],
)
def test_every_spelling_names_its_release(text: str, version: TensorRTVersion) -> None:
    assert parse_tensorrt(text) == version


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8",
        "11.x",
        "latest",
        "8.5.2.2.2",
        "850",
        "1003000",
        "-8.5",
        "8.5.2 or 8.6",
        "v",
        "\u0668.\u0665",
    ],
)
def test_anything_else_is_refused_in_three_parts(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_tensorrt(text)
    assert repr(text) in caught.value.what
    assert caught.value.where
    assert caught.value.remedy


@given(versions)
def test_a_version_survives_being_written(version: TensorRTVersion) -> None:
    assert parse_tensorrt(str(version)) == version


@given(versions)
def test_a_version_survives_its_code_but_for_the_build(version: TensorRTVersion) -> None:
    expected = TensorRTVersion(version.major, version.minor, version.patch)
    assert version_of_code(header_code(version)) == expected
    assert parse_tensorrt(f"[TensorRT v{header_code(version)}]") == expected


@given(versions, versions)
def test_the_order_is_total_and_agrees_with_equality(
    left: TensorRTVersion, right: TensorRTVersion
) -> None:
    assert (left < right) + (left == right) + (left > right) == 1
    assert (left <= right) == (not left > right)


@given(versions, versions)
def test_codes_grow_with_versions(left: TensorRTVersion, right: TensorRTVersion) -> None:
    if header_code(left) < header_code(right):
        assert left < right


def test_an_unknown_build_sorts_before_every_build_of_its_patch() -> None:
    assert parse_tensorrt("8.5.1.7") < parse_tensorrt("8.5.2") < parse_tensorrt("8.5.2.0")
    assert parse_tensorrt("8.6.2.3") < parse_tensorrt("10.3")


def test_only_versions_compare() -> None:
    version: object = TensorRTVersion(8, 5)
    assert version != "8.5"
    with pytest.raises(TypeError):
        sorted([TensorRTVersion(8, 5), "8.5"])  # type: ignore[type-var]


def test_major_minor_is_what_a_cache_is_bound_to() -> None:
    assert TensorRTVersion(10, 16, 2, 10).major_minor == "10.16"


def test_major_minor_patch_is_what_everybody_tells() -> None:
    assert TensorRTVersion(10, 16, 2, 10).major_minor_patch == "10.16.2"
    assert TensorRTVersion(10, 16).major_minor_patch == "10.16.0"


@pytest.mark.parametrize(
    "version",
    [
        TensorRTVersion(8, 10),
        TensorRTVersion(8, 5, 100),
        TensorRTVersion(10, 100),
        TensorRTVersion(0, 1),
    ],
)
def test_a_field_too_large_for_its_place_has_no_code(version: TensorRTVersion) -> None:
    with pytest.raises(InputError, match="header code"):
        header_code(version)


@pytest.mark.parametrize("code", [-8502, 0, 852, 1_000_000])
def test_a_code_has_four_to_six_digits(code: int) -> None:
    with pytest.raises(InputError, match="four to six digits"):
        version_of_code(code)
