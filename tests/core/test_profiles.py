from __future__ import annotations

import pytest

from edgecal.core.build import ShapeRange, span_of
from edgecal.core.profiles import Profile, check_profile, parse_profile_table, parse_profiles
from edgecal.errors import IncompatibleError, InputError

SPAN = "1x3x8x8,4x3x8x8,8x3x8x8"


def check(profile: Profile, *, dla: bool = False, batches: tuple[int, ...] = (2,)) -> None:
    inputs = {"x": (-1, 3, 8, 8), "mask": (1, 4)}
    golden = span_of([(batch, 3, 8, 8) for batch in batches])
    check_profile(profile, inputs, {"x": golden, "mask": span_of([(1, 4)])}, dla=dla, where="net")


@pytest.mark.parametrize(
    "text",
    ["", "x", "x=", f"={SPAN}", "x=1", "x=1,2", "x=1,2,3,4", "x=0,1,2", "x=1,-1,2", "x=a,b,c"],
)
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected"):
        parse_profiles([text])


@pytest.mark.parametrize("text", ["x=2,1,3", "x=1,2x2,3", "x=1x9,2x8,3x7"])
def test_shapes_have_to_grow(text: str) -> None:
    with pytest.raises(InputError, match="do not grow"):
        parse_profiles([text])


def test_an_input_has_one_profile() -> None:
    with pytest.raises(InputError, match="two profiles"):
        parse_profiles([f"x={SPAN}", f"x={SPAN}"])


def test_command_line_and_table_say_the_same() -> None:
    span = ShapeRange((1, 3, 8, 8), (4, 3, 8, 8), (8, 3, 8, 8))
    assert parse_profiles([f"a=b:0={SPAN}"]) == (("a=b:0", span),)
    assert parse_profile_table({"x": SPAN}, source="t") == (("x", span),)
    with pytest.raises(InputError, match="expected three shapes"):
        parse_profile_table({"x": 4}, source="t")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"y={SPAN}", "those are: 'x'"),
        ("mask=1x4,1x4,1x4", "no input with dynamic dimensions"),
        ("x=1x3x8,2x3x8,3x3x8", r"input 'x' is \?x3x8x8"),
        ("x=1x3x8x8,4x3x8x8,8x3x9x8", "its profile says 8x3x9x8"),
        ("x=3x3x8x8,4x3x8x8,8x3x8x8", "could not be verified"),
    ],
)
def test_a_profile_that_does_not_fit_the_network_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(parse_profiles([text]))


def test_a_dla_takes_no_shapes_that_vary() -> None:
    with pytest.raises(IncompatibleError, match="DLA takes no dynamic"):
        check(parse_profiles([f"x={SPAN}"]), dla=True)
    check(parse_profiles(["x=2x3x8x8,2x3x8x8,2x3x8x8"]), dla=True)
    check(parse_profiles([f"x={SPAN}"]))


def test_a_profile_includes_every_shape_that_was_calibrated_with() -> None:
    with pytest.raises(InputError, match="2x3x8x8 to 9x3x8x8 at input 'x'"):
        check(parse_profiles([f"x={SPAN}"]), batches=(2, 9))
    check(parse_profiles([f"x={SPAN}"]), batches=(2, 8))


def test_a_dla_takes_no_golden_samples_whose_shapes_vary() -> None:
    with pytest.raises(IncompatibleError, match="2x3x8x8 to 3x3x8x8"):
        check((), dla=True, batches=(2, 3))
    check((), batches=(2, 3))
