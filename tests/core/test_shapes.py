"""Shapes that users choose for dynamic inputs, and what they may not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.graph import TensorInfo
from edgecal.core.shapes import (
    GivenShape,
    by_x,
    parse_shape_table,
    parse_shapes,
    settle_inputs,
)
from edgecal.errors import InputError

IMAGE = TensorInfo(name="image", dtype="float32", shape=(None, 3, None, None))
IDS = TensorInfo(name="ids", dtype="int64", shape=(None, 6))


@pytest.mark.parametrize(
    "text",
    [
        *("", "image", "=1x3", "image=", "image=x", "image=1x", "image=0x3", "image=-1x3"),
        *("image=1X3", "image=1,3", "image=1x 3", "image=1.0x3", "image=1x3\n"),
        "image=1x3x" + "9" * 5000,
    ],
)
def test_what_is_no_shape_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_shapes([text])
    assert caught.value.where == "--shape"
    assert "1x3x640x640" in caught.value.remedy


@pytest.mark.parametrize("value", [1, [1, 3], "1x3x", None, {"image": "1x3"}])
def test_what_is_no_shape_in_a_table_is_refused_by_its_place(value: object) -> None:
    with pytest.raises(InputError, match="'image'") as caught:
        parse_shape_table({"image": value}, source="edgecal.toml: [calibrate.shapes]")
    assert caught.value.where == "edgecal.toml: [calibrate.shapes]"


def test_two_shapes_of_one_input_are_refused_and_the_same_twice_is_not() -> None:
    with pytest.raises(InputError, match="1x3 and 1x4"):
        parse_shapes(["x=1x3", "x=1x4"])
    assert parse_shapes(["x=1x3", "x=1x3"]) == {"x": GivenShape((1, 3), "--shape")}


@pytest.mark.parametrize(
    ("shape", "found"),
    [((1, 3, 8), "1x3x8"), ((1, 4, 8, 8), "1x4x8x8"), ((1, 3, 8, 8, 1), "1x3x8x8x1")],
)
def test_a_shape_that_contradicts_the_network_is_told_beside_the_network_s(
    shape: tuple[int, ...], found: str
) -> None:
    with pytest.raises(InputError) as caught:
        settle_inputs([IMAGE], {"image": GivenShape(shape, "--shape")})
    assert found in caught.value.what
    assert "?x3x?x?" in caught.value.what


def test_a_shape_that_lacks_the_batch_is_shown_with_it() -> None:
    with pytest.raises(InputError) as caught:
        settle_inputs([IMAGE], {"image": GivenShape((3, 64, 64), "--shape")})
    assert caught.value.remedy == "the batch goes first: --shape image=1x3x64x64"


def test_an_unknown_input_is_told_beside_those_that_there_are() -> None:
    with pytest.raises(InputError) as caught:
        settle_inputs([IMAGE, IDS], {"img": GivenShape((1, 3, 8, 8), "here")})
    assert "'image' of ?x3x?x?, 'ids' of ?x6" in caught.value.what
    assert caught.value.where == "here"


def test_only_what_was_given_changes() -> None:
    settled = settle_inputs([IMAGE, IDS], {"image": GivenShape((2, 3, 8, 8), "--shape")})
    assert [one.shape for one in settled] == [(2, 3, 8, 8), (None, 6)]


def test_an_input_of_unknown_rank_takes_any_shape() -> None:
    free = TensorInfo(name="x", dtype="float32")
    (settled,) = settle_inputs([free], {"x": GivenShape((2, 3), "--shape")})
    assert settled.shape == (2, 3)


@given(
    st.text(min_size=1),
    st.lists(st.integers(1, 10**9 - 1), min_size=1, max_size=6).map(tuple),
)
def test_any_name_and_shape_are_read_back(name: str, shape: tuple[int, ...]) -> None:
    assert parse_shapes([f"{name}={by_x(shape)}"]) == {name: GivenShape(shape, "--shape")}
