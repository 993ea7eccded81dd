from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.cache import CalibrationCache, serialize_cache
from edgecal.core.cache_diff import CacheDiff, Change, diff_caches
from edgecal.core.document import read_document
from tests.strategies import caches

HEAD = "TRT-8502-EntropyCalibration2"


def diff(left: str, right: str, *, heads: tuple[str, str] = (HEAD, HEAD)) -> CacheDiff:
    """Compare tables written as 'a=3c010a14 b=0'."""
    documents = [
        read_document(
            "".join(
                f"{line}\n" for line in (head, *(one.replace("=", ": ") for one in text.split()))
            ).encode(),
            source="net.cache",
        )
        for head, text in zip(heads, (left, right), strict=True)
    ]
    return diff_caches(*documents)


def test_a_tensor_on_one_side_is_named_in_the_order_of_its_file() -> None:
    found = diff("z=3c010a14 b=1 a=2", "d=1 b=1 c=2")
    assert found.only_left == ("z", "a")
    assert found.only_right == ("d", "c")
    assert (found.changed, found.unchanged, found.headers_differ) == ((), 1, False)
    assert found.beyond(1e9)


def test_a_changed_scale_has_a_ratio() -> None:
    found = diff(
        "up=3f800000 same=3f800000 down=40000000", "down=3f800000 up=40800000 same=3f800000"
    )
    assert found.changed == (Change("up", 1.0, 4.0), Change("down", 2.0, 1.0))
    assert [one.ratio for one in found.changed] == [4.0, 0.5]
    assert [one.octaves for one in found.changed] == [2.0, 1.0]
    assert not found.same
    assert found.beyond(3.99)
    assert not found.beyond(4)


@pytest.mark.parametrize(
    ("left", "right", "values"),
    [
        ("x=3f800000", "x=0", (1.0, 0.0)),
        ("x=0", "x=3f800000", (0.0, 1.0)),
        ("x=3f800000", "x=bf800000", (1.0, -1.0)),
        ("x=3f800000", "x=7f800000", (1.0, None)),
        ("x=7fc00000", "x=3f800000", (None, 1.0)),
        ("x=7fc00000", "x=7f800000", (None, None)),
        ("x=0.5", "x=3f000000", (None, 0.5)),
        ("x=0.5", "x=0.6", (None, None)),
    ],
)
def test_a_change_without_a_ratio_is_beyond_every_ratio(
    left: str, right: str, values: tuple[float | None, float | None]
) -> None:
    found = diff(left, right)
    assert found.changed == (Change("x", *values),)
    assert found.changed[0].ratio is None
    assert found.changed[0].octaves == math.inf
    assert found.beyond(1e30)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("x=3c010a14", "x=0x3C010A14"),
        ("x=0", "x=00000000"),
        ("x=7fc00000", "x=0x7fc00000"),
        ("x=0.5", "x=0.5"),
        ("x=1 x=3c010a14", "x=3c010a14"),
    ],
)
def test_spelling_is_no_difference(left: str, right: str) -> None:
    found = diff(left, right)
    assert found.same
    assert found.unchanged == 1
    assert not found.beyond(1)


@pytest.mark.parametrize(
    "head",
    ["TRT-8503-EntropyCalibration2", "TRT-8502-MinMaxCalibration", "TRT-8XXX-EntropyCalibration2"],
)
def test_another_header_differs_and_fails_nothing(head: str) -> None:
    found = diff("x=1", "x=1", heads=(HEAD, head))
    assert found.headers_differ
    assert not found.same
    assert not found.beyond(1)


def test_blanks_after_a_header_are_no_difference() -> None:
    assert diff("x=1", "x=1", heads=(HEAD, f"{HEAD} ")).same


@given(caches(), caches())
def test_two_caches_differ_alike_from_both_sides(
    left: CalibrationCache, right: CalibrationCache
) -> None:
    one, other = (read_document(serialize_cache(it), source="x") for it in (left, right))
    there, back = diff_caches(one, other), diff_caches(other, one)
    assert (there.only_left, there.only_right) == (back.only_right, back.only_left)
    assert (there.unchanged, there.headers_differ) == (back.unchanged, back.headers_differ)
    assert {(it.tensor, it.left, it.right) for it in there.changed} == {
        (it.tensor, it.right, it.left) for it in back.changed
    }
    assert there.beyond(2) == back.beyond(2)
    assert diff_caches(one, one).same


@given(
    st.floats(2**-126, 2**127, width=32),
    st.floats(2**-126, 2**127, width=32),
    st.floats(1, 1e6),
)
def test_beyond_is_the_larger_of_a_ratio_and_its_inverse(
    left: float, right: float, allowed: float
) -> None:
    change = Change("x", left, right)
    found = CacheDiff(
        only_left=(), only_right=(), changed=(change,), unchanged=0, headers_differ=False
    )
    larger = max(left / right, right / left)
    if not math.isclose(larger, allowed):
        assert found.beyond(allowed) == (larger > allowed)
