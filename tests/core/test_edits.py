from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.cache import (
    CalibrationCache,
    Entry,
    Header,
    parse_cache,
    serialize_cache,
)
from edgecal.core.edits import Edits, edit_cache, near_misses, parse_assignment
from edgecal.core.usable import amax_of, is_usable
from edgecal.errors import InputError
from tests.strategies import caches, tensor_names

ONE = "3c010a14"  # amax 1.000244


def cache(**bits: str) -> CalibrationCache:
    return of({name.replace("_", "/"): value for name, value in bits.items()})


def of(bits: dict[str, str]) -> CalibrationCache:
    return CalibrationCache(
        header=Header(code=8502, algorithm="EntropyCalibration2"),
        entries=tuple(Entry(name, value) for name, value in bits.items()),
    )


def edited(before: CalibrationCache, edits: Edits) -> dict[str, str]:
    after, _ = edit_cache(before, edits, source="a.cache")
    return {entry.tensor: entry.bits for entry in after.entries}


@pytest.mark.parametrize(
    "text", ["conv1", "=4", "conv1=", "conv1=zero", "conv1=0", "conv1=-1", "conv1=nan", "a=inf"]
)
def test_an_assignment_without_a_name_or_a_positive_number_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_assignment(text, option="--set")
    assert caught.value.where == "--set"


def test_an_assignment_is_split_at_the_last_equals_sign() -> None:
    assert parse_assignment("a=b==1e-3", option="--set") == ("a=b=", 1e-3)


@pytest.mark.parametrize(
    "edits",
    [
        Edits(ranges=(("con1", 1.0),)),
        Edits(scales=(("con1", 1.0),)),
        Edits(factors=(("con1", 1.0),)),
        Edits(dropped=("con1",)),
    ],
)
def test_a_name_that_fits_nothing_is_refused_with_its_near_misses(edits: Edits) -> None:
    with pytest.raises(InputError, match="near misses: 'conv1'") as caught:
        edit_cache(cache(conv1=ONE, pool=ONE), edits, source="a.cache")
    assert caught.value.where == "a.cache"


def test_a_glob_that_fits_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="no tensor of the cache fits 'z\\*'"):
        edit_cache(cache(conv1=ONE), Edits(dropped=("z*",)), source="a.cache")


@pytest.mark.parametrize(
    "edits",
    [
        Edits(ranges=(("conv1", 1e-40),)),
        Edits(ranges=(("conv1", 1e300),)),
        Edits(scales=(("conv1", 1e-39),)),
        Edits(factors=(("conv1", 1e-37),)),
        Edits(factors=(("conv1", 1e300),)),
        Edits(floor_amax=1e-39),
        Edits(added=(("new", 1e-39),)),
    ],
)
def test_no_scale_is_written_that_tensorrt_would_have_to_guess_about(edits: Edits) -> None:
    with pytest.raises(InputError):
        edit_cache(cache(conv1=ONE, zero="0"), edits, source="a.cache")


def test_two_values_for_one_tensor_are_refused_and_the_same_twice_is_not() -> None:
    before = cache(conv1=ONE)
    for twice in (
        Edits(ranges=(("conv1", 1.0), ("conv1", 2.0))),
        Edits(ranges=(("c*", 1.0), ("*1", 2.0))),
        Edits(ranges=(("conv1", 1.0),), scales=(("conv1", 1.0),)),
        Edits(factors=(("c*", 1.5), ("*1", 2.0))),
    ):
        with pytest.raises(InputError, match="two values"):
            edit_cache(before, twice, source="a.cache")
    assert edited(before, Edits(ranges=(("conv1", 127.0),), scales=(("conv1", 1.0),))) == {
        "conv1": "3f800000"
    }


@pytest.mark.parametrize("flip", [False, True])
def test_an_exact_name_outweighs_a_glob_whichever_comes_first(*, flip: bool) -> None:
    ranges = (("conv*", 127.0), ("conv1", 254.0))
    found = edited(cache(conv1=ONE, conv2=ONE), Edits(ranges=ranges[::-1] if flip else ranges))
    assert found == {"conv1": "40000000", "conv2": "3f800000"}


def test_a_name_full_of_signs_means_itself() -> None:
    name = "(Unnamed Layer* 8) [Constant]_output"
    before = of({name: ONE, "(Unnamed Layer* 88) C_output": ONE})
    assert list(edited(before, Edits(dropped=(name,)))) == ["(Unnamed Layer* 88) C_output"]
    assert list(edited(before, Edits(dropped=("(Unnamed*",)))) == []


def test_setting_outweighs_multiplying() -> None:
    edits = Edits(ranges=(("a", 127.0),), factors=(("*", 2.0),))
    assert edited(cache(a="3f800000", b="3f800000"), edits) == {"a": "3f800000", "b": "40000000"}


def test_a_glob_multiplies_usable_scales_only_and_a_name_must_be_one() -> None:
    before = cache(a="3f800000", zero="0", inf="7f800000", nan="7fc00000")
    assert edited(before, Edits(factors=(("*", 2.0),))) == {
        "a": "40000000",
        "zero": "0",
        "inf": "7f800000",
        "nan": "7fc00000",
    }
    with pytest.raises(InputError, match="cannot be multiplied"):
        edit_cache(before, Edits(factors=(("inf", 2.0),)), source="a.cache")


def test_zero_and_denormal_scales_are_raised_to_the_smallest_usable_one() -> None:
    before = cache(
        a="40000000", zero="0", minus="80000000", tiny="7fffff", b="3f800000", i="7f800000"
    )
    after, changes = edit_cache(before, Edits(floor_zero=True), source="a.cache")
    assert [entry.bits for entry in after.entries] == [
        "40000000",
        "3f800000",
        "3f800000",
        "3f800000",
        "3f800000",
        "7f800000",
    ]
    assert {(one.name, one.rule) for one in changes} == {
        ("zero", "floor-zero"),
        ("minus", "floor-zero"),
        ("tiny", "floor-zero"),
    }
    assert changes[0].source == "the smallest scale, of b"
    assert edited(before, Edits(floor_amax=254.0))["zero"] == "40000000"


def test_without_a_usable_scale_the_floor_must_be_said() -> None:
    with pytest.raises(InputError, match="no scale of the cache is usable") as caught:
        edit_cache(cache(zero="0"), Edits(floor_zero=True), source="a.cache")
    assert "--floor-amax" in caught.value.remedy


def test_a_new_tensor_is_added_at_the_end_and_only_if_it_is_new() -> None:
    after, changes = edit_cache(cache(a=ONE), Edits(added=(("b", 127.0),)), source="a.cache")
    assert (
        serialize_cache(after) == f"TRT-8502-EntropyCalibration2\na: {ONE}\nb: 3f800000\n".encode()
    )
    assert (changes[0].before, changes[0].after) == (None, "3f800000")
    for name in ("a", "two\nlines", ""):
        with pytest.raises(InputError):
            edit_cache(cache(a=ONE), Edits(added=((name, 1.0),)), source="a.cache")
    with pytest.raises(InputError, match="already"):
        edit_cache(cache(a=ONE), Edits(added=(("b", 1.0), ("b", 1.0))), source="a.cache")


def test_changes_tell_both_values_in_the_order_of_the_file() -> None:
    before = of({"a": ONE, "b": "03c010a14"[1:], "c": ONE})
    edits = Edits(ranges=(("c", 127.0),), dropped=("a",), scales=(("b", 1.0),))
    _, changes = edit_cache(before, edits, source="a.cache")
    assert [(one.name, one.before, one.after, one.rule) for one in changes] == [
        ("a", ONE, None, "drop"),
        ("b", "3c010a14", "3f800000", "set-scale"),
        ("c", ONE, "3f800000", "set"),
    ]
    assert changes[2].source == "--set c=127.0"


def test_the_same_value_again_is_no_change_and_stays_spelled_as_it_was() -> None:
    before = of({"a": "0f800000"})
    edits = Edits(scales=(("a", before.entries[0].scale),))
    assert edit_cache(before, edits, source="a.cache") == (before, ())


def test_near_misses_of_long_names_are_not_looked_for() -> None:
    assert near_misses("a" * 10_000, ["a" * 10_000 + "b"] * 10_000) == ""


@given(caches(), st.data())
def test_what_is_not_named_keeps_its_bytes_and_its_place(
    before: CalibrationCache, data: st.DataObject
) -> None:
    names = [entry.tensor for entry in before.entries]
    chosen = data.draw(st.sets(st.sampled_from(names)) if names else st.just(set()))
    amax = data.draw(st.floats(1e-30, 1e30))
    edits = Edits(ranges=tuple((name, amax) for name in sorted(chosen)))
    after, changes = edit_cache(before, edits, source="a.cache")
    lines = zip(
        serialize_cache(before).split(b"\n"), serialize_cache(after).split(b"\n"), strict=True
    )
    for entry, (old, new) in zip((None, *before.entries, None), lines, strict=True):
        if entry is None or entry.tensor not in chosen:
            assert old == new
    assert {one.name for one in changes} <= chosen
    for entry in after.entries:
        if entry.tensor in chosen:
            assert math.isclose(amax_of(entry), amax, rel_tol=1e-6)
    assert parse_cache(serialize_cache(after)) == after


@given(caches(), tensor_names())
def test_every_name_of_a_cache_can_be_dropped_by_that_name_alone(
    rest: CalibrationCache, name: str
) -> None:
    entries = {one.tensor: one for one in rest.entries}
    with_it = CalibrationCache(
        header=rest.header, entries=tuple({**entries, name: Entry(name, "0")}.values())
    )
    after, _ = edit_cache(with_it, Edits(dropped=(name,)), source="a.cache")
    assert [one.tensor for one in after.entries] == [one for one in entries if one != name]


@given(caches(), st.floats(1e-3, 1e3))
def test_after_the_floor_no_scale_is_zero(before: CalibrationCache, amax: float) -> None:
    after, changes = edit_cache(before, Edits(floor_amax=amax), source="a.cache")
    assert not [one for one in after.entries if int(one.bits, 16) & 0x7FFFFFFF < 0x00800000]
    touched = {one.name for one in changes}
    for old, new in zip(before.entries, after.entries, strict=True):
        assert (new == old) is (old.tensor not in touched)
        assert old == new or is_usable(new)
