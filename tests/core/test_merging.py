from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.cache import CalibrationCache, Entry, Header
from edgecal.core.merging import Merged, OnConflict, Part, merge_caches
from edgecal.errors import IncompatibleError
from tests.strategies import scale_bits

HEADER = Header(code=8502, algorithm="EntropyCalibration2")
SMALL, LARGE = "3c010a14", "40000000"


def part(source: str, bits: dict[str, str], header: Header = HEADER) -> Part:
    entries = tuple(Entry(name, value) for name, value in bits.items())
    return Part(source=source, cache=CalibrationCache(header=header, entries=entries))


def parts() -> st.SearchStrategy[Part]:
    names = st.sampled_from(["a", "b", "a: b", "(Unnamed Layer* 8) [Constant]_output", "ü"])
    return st.dictionaries(names, scale_bits(), max_size=5).map(lambda bits: part("x", bits))


def merged(given_parts: list[Part], how: OnConflict) -> dict[str, str]:
    return bits_of(merge_caches(given_parts, how))


def bits_of(found: Merged) -> dict[str, str]:
    return {entry.tensor: entry.bits for entry in found.cache.entries}


def test_different_scales_are_refused_with_both_named() -> None:
    both = [part("a.cache", {"x": SMALL, "y": SMALL}), part("b.cache", {"x": LARGE, "y": SMALL})]
    with pytest.raises(IncompatibleError, match=r"1\.00024 in a\.cache, amax 254 in b") as caught:
        merge_caches(both, OnConflict.ERROR)
    assert [one.subject for one in caught.value.findings] == ["x"]
    assert "--on-conflict" in caught.value.remedy


def test_many_conflicts_are_counted_in_words_and_listed_in_findings() -> None:
    both = [
        part(name, {f"t{i}": bits for i in range(20)})
        for name, bits in (("a", SMALL), ("b", LARGE))
    ]
    with pytest.raises(IncompatibleError, match=r"20 tensors .* and 15 more") as caught:
        merge_caches(both, OnConflict.ERROR)
    assert len(caught.value.findings) == 20


@pytest.mark.parametrize(
    "header",
    [
        Header(code=8601, algorithm="EntropyCalibration2"),
        Header(code=100300, algorithm="EntropyCalibration2"),
        Header(code=8502, algorithm="MinMaxCalibration"),
    ],
)
def test_headers_that_do_not_agree_are_refused(header: Header) -> None:
    with pytest.raises(IncompatibleError, match="its header says") as caught:
        merge_caches([part("a", {}), part("b", {}, header)], OnConflict.MAX)
    assert caught.value.where == "b"
    assert "restamp" in caught.value.remedy


def test_another_patch_is_no_hindrance_and_the_first_header_stays() -> None:
    other = part("b", {"x": SMALL}, replace(HEADER, code=8503))
    assert merge_caches([part("a", {}), other], OnConflict.ERROR).cache.header == HEADER


def test_one_value_in_two_spellings_is_no_conflict_and_the_first_stays() -> None:
    found = merge_caches([part("a", {"x": "0000001"}), part("b", {"x": "1"})], OnConflict.ERROR)
    assert bits_of(found) == {"x": "0000001"}
    assert (found.changes, found.conflicts) == ((), ())


@pytest.mark.parametrize(
    ("how", "bits"),
    [
        (OnConflict.FIRST, SMALL),
        (OnConflict.LAST, "3f800000"),
        (OnConflict.MAX, LARGE),
        (OnConflict.MIN, SMALL),
    ],
)
def test_which_scale_counts(how: OnConflict, bits: str) -> None:
    three = [part("a", {"x": SMALL}), part("b", {"x": LARGE}), part("c", {"x": "3f800000"})]
    found = merge_caches(three, how)
    assert bits_of(found) == {"x": bits}
    assert found.conflicts == ("x",)


@pytest.mark.parametrize("how", [OnConflict.MAX, OnConflict.MIN])
@pytest.mark.parametrize("odd", ["0", "7f800000", "7fc00000", "ffc00000", "bf800000", "1"])
def test_a_usable_scale_outweighs_one_that_is_not(how: OnConflict, odd: str) -> None:
    for pair in ([odd, SMALL], [SMALL, odd]):
        assert merged([part("p", {"x": bits}) for bits in pair], how) == {"x": SMALL}


def test_the_first_order_comes_first_and_changes_say_where_values_come_from() -> None:
    found = merge_caches(
        [
            part("a", {"z": SMALL, "y": SMALL}),
            part("b", {"n": SMALL, "y": LARGE}),
            part("c", {"z": SMALL, "m": SMALL}),
        ],
        OnConflict.MAX,
    )
    assert list(bits_of(found)) == ["z", "y", "n", "m"]
    assert [(one.name, one.before, one.after, one.rule, one.source) for one in found.changes] == [
        ("y", SMALL, LARGE, "max", "b"),
        ("n", None, SMALL, "added", "b"),
        ("m", None, SMALL, "added", "c"),
    ]


@pytest.mark.parametrize("how", [OnConflict.FIRST, OnConflict.LAST, OnConflict.MAX, OnConflict.MIN])
@given(a=parts(), b=parts(), c=parts())
def test_merging_is_associative(how: OnConflict, a: Part, b: Part, c: Part) -> None:
    left = Part(source="x", cache=merge_caches([a, b], how).cache)
    right = Part(source="x", cache=merge_caches([b, c], how).cache)
    results = [merge_caches(one, how).cache for one in ([left, c], [a, right], [a, b, c])]
    # by value: a scale that comes back is spelled as the first part spells it
    values = [{one.tensor: int(one.bits, 16) for one in cache.entries} for cache in results]
    assert values[0] == values[1] == values[2]


@given(parts(), parts())
def test_everything_is_in_and_untouched_entries_are_the_first_ones(a: Part, b: Part) -> None:
    found = merge_caches([a, b], OnConflict.MAX)
    names = {one.tensor for one in (*a.cache.entries, *b.cache.entries)}
    assert {one.tensor for one in found.cache.entries} == names
    changed = {one.name for one in found.changes}
    kept = [one for one in a.cache.entries if one.tensor not in changed]
    assert set(kept) <= set(found.cache.entries)


@given(parts())
def test_merging_with_itself_changes_nothing(a: Part) -> None:
    for how in OnConflict:
        found = merge_caches([a, a], how)
        assert (found.cache, found.changes, found.conflicts) == (a.cache, (), ())
