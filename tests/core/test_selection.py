from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.expressions import (
    And,
    Expression,
    Fact,
    Not,
    Or,
    Selection,
    Word,
    parse_selection,
)
from edgecal.core.inventory import GroupEntry, Inventory, TargetEntry, resolve
from edgecal.core.selection import Choice, select
from edgecal.core.target import TargetFacts
from edgecal.core.versions import parse_tensorrt
from edgecal.errors import InventoryError

if TYPE_CHECKING:
    from collections.abc import Mapping

FLEET = resolve(
    [
        TargetEntry(name="a-1", where="", groups=("site-a", "canary"), variables={"line": 3}),
        TargetEntry(name="a-2", where="", groups=("site-a",), variables={"line": 4}),
        TargetEntry(name="b-1", where="", groups=("site-b",)),
        TargetEntry(name="b 2", where="", groups=("site-b",)),
        TargetEntry(name="new", where=""),
    ],
    [GroupEntry(name=name, where="") for name in ("site-a", "site-b", "canary", "spare")],
)
BARE = TargetFacts(root="/root", is_jetson=True)
FACTS = {
    "a-1": replace(BARE, tensorrt=parse_tensorrt("8.5.2.2"), module="orin-nx-16gb"),
    "a-2": replace(BARE, tensorrt=parse_tensorrt("8.6.1"), module="orin-nano-8gb", jetpack="5.1.2"),
    "b-1": replace(BARE, tensorrt=parse_tensorrt("10.3.0.30"), jetpack="6.1", dla_cores=2),
    "b 2": replace(BARE, is_jetson=False, tensorrt=parse_tensorrt("8.5.10")),
}


def choose(text: str, facts: Mapping[str, TargetFacts] = FACTS) -> Choice:
    return select(parse_selection(text), FLEET, facts)


def hits(text: str) -> tuple[str, ...]:
    return choose(text).hits


@pytest.mark.parametrize(
    ("text", "words", "caret"),
    [
        ("", "found the end", 0),
        ("a-1 &", "found the end", 5),
        ("a-1 b-1", "expected '&' or '|', found 'b-1'", 4),
        ("(a-1 | b-1", "expected ')'", 10),
        ("a-1)", "expected '&' or '|', found ')'", 3),
        ("& a-1", "found '&'", 0),
        ("line=", "expected a value", 5),
        ("=3", "found '='", 0),
        ("line==3", "found '='", 5),
        ("a-1 & 'b", "a quote ' that is not closed", 6),
        ("a-1]", "a stray ']'", 3),
        ("a-1 & c-9", "nothing in the inventory is 'c-9'", 6),
        ("!canry", "did you mean 'canary'?", 1),
        ("a-1 | c-*", "nothing in the inventory matches 'c-*'", 6),
        ('"a-*"', "nothing in the inventory is 'a-*'", 0),
        ("a-1 & tensort=8.5", "unknown fact 'tensort'; known are arch, builder", 6),
        ("tensorrt=new", "expected a TensorRT version, found 'new'", 9),
    ],
)
def test_a_mistake_is_shown_in_the_expression(text: str, words: str, caret: int) -> None:
    with pytest.raises(InventoryError) as error:
        choose(text)
    what, shown, mark = error.value.what.split("\n")
    assert words in what
    assert shown[4:] == text
    assert mark == " " * (4 + caret) + "^"


def test_expressions_of_any_depth_and_length_end_in_an_error_not_in_a_crash() -> None:
    for text in ("(" * 5_000, "!" * 9_000 + "a-1", "a-1 & " * 5_000):
        with pytest.raises(InventoryError):
            parse_selection(text)
    assert hits("!" * 98 + "a-1") == ("a-1",)
    with pytest.raises(InventoryError) as error:
        choose(f"{'a-1 | ' * 1_000} nobody")
    assert max(len(line) for line in error.value.what.split("\n")) < 100


def test_five_thousand_targets_are_chosen_from_in_no_time() -> None:
    entries = [
        TargetEntry(name=f"orin-{n}", where="", groups=("even",) if n % 2 == 0 else ())
        for n in range(5_000)
    ]
    fleet = resolve(entries, [GroupEntry(name="even", where="")])
    facts = {one.name: FACTS["a-1"] for one in entries}
    wanted = parse_selection("(orin-1* | even) & !orin-?00 & tensorrt=8.5 & module=orin-*")
    began = time.monotonic()
    assert len(select(wanted, fleet, facts).hits) == 3_047
    assert time.monotonic() - began < 5


def test_names_globs_and_groups_hit_in_the_order_of_the_inventory() -> None:
    assert hits("new | a-1") == ("a-1", "new")
    assert hits("?-[1]") == ("a-1", "b-1")
    assert hits("?-[!1]") == ("a-2",)
    assert hits("site-*") == ("a-1", "a-2", "b-1", "b 2")
    assert hits("site-a & !canary") == ("a-2",)
    assert hits("'b 2'") == ("b 2",)
    assert hits("all") == tuple(FLEET.targets)
    assert hits("spare") == ()  # a group that is there, and empty


def test_not_binds_closer_than_and_and_that_closer_than_or() -> None:
    assert hits("a-1 | b-1 & site-a") == ("a-1",)
    assert hits("(a-1 | b-1) & site-b") == ("b-1",)
    assert hits("!site-a & site-b | new") == ("b-1", "b 2", "new")
    assert hits("!(site-a | site-b)") == ("new",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tensorrt=8.5", ("a-1", "b 2")),
        ("tensorrt=8.5.2", ("a-1",)),
        ("tensorrt=8502", ("a-1",)),
        ("tensorrt=8.5.2-1+cuda11.4", ("a-1",)),
        ("tensorrt=8.5.1", ()),
        ("tensorrt=8", ("a-1", "a-2", "b 2")),
        ("tensorrt=1", ()),  # not the beginning of 10.3
        ("tensorrt=8.*", ("a-1", "a-2", "b 2")),
        ("tensorrt = 10.3", ("b-1",)),
        ("module=orin-*", ("a-1", "a-2")),
        ("module=ORIN-NX-16GB", ("a-1",)),
        ("jetpack=5.1", ("a-2",)),
        ("dla_cores=2", ("b-1",)),
        ("jetson=no", ("b 2",)),
        ("line=3", ("a-1",)),
        ("!line=3 & site-a", ("a-2",)),
        ("!line=3 & new", ("new",)),  # who has no such variable is known not to match
        ("site-a & !canary & tensorrt=8.6 & module=orin-*", ("a-2",)),
    ],
)
def test_facts_are_compared_as_they_are_meant(text: str, expected: tuple[str, ...]) -> None:
    assert hits(text) == expected


def test_who_is_unknown_is_neither_hit_nor_hit_by_the_opposite() -> None:
    assert choose("tensorrt=8.5").undecided == {"new": ("tensorrt",)}
    assert choose("!tensorrt=8.5").undecided == {"new": ("tensorrt",)}
    assert "new" not in hits("!tensorrt=8.5")
    found = choose("module=orin-* & jetpack=5.1")
    assert found.hits == ("a-2",)
    assert found.undecided == {
        "a-1": ("jetpack",),
        "b 2": ("jetpack", "module"),
        "new": ("jetpack", "module"),
    }
    # what does not hang on the fact is decided
    assert not choose("tensorrt=8.5 & site-a", {}).hits
    assert set(choose("tensorrt=8.5 & site-a", {}).undecided) == {"a-1", "a-2"}
    assert choose("tensorrt=8.5 | new", {"a-1": BARE}).hits == ("new",)


NAMES = st.sampled_from(["a-1", "a-2", "b-1", "new", "site-a", "canary", "a-*", "all", "?-1"])
LEAVES = st.builds(Word, NAMES) | st.builds(
    Fact,
    st.sampled_from(["tensorrt", "jetpack", "module", "line"]),
    st.builds(Word, st.sampled_from(["8.5", "5.1", "8.*", "3"])),
)
PARTS = st.recursive(
    LEAVES | st.builds(Word, st.just("b 2"), st.just(True)),  # noqa: FBT003 - in quotes
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(And, st.lists(inner, min_size=2, max_size=3).map(tuple))
        | st.builds(Or, st.lists(inner, min_size=2, max_size=3).map(tuple))
    ),
    max_leaves=12,
)


def of(expression: Expression) -> Choice:
    return select(Selection(text=str(expression), expression=expression), FLEET, FACTS)


@given(PARTS)
def test_what_is_printed_reads_as_the_same(expression: Expression) -> None:
    assert parse_selection(str(expression)).expression == expression


@given(st.text(alphabet="ab-*[]!&|()='\" 1", max_size=20))
def test_any_text_is_read_or_refused_as_input(text: str) -> None:
    try:
        read = parse_selection(text)
    except InventoryError:
        return
    assert parse_selection(str(read.expression)).expression == read.expression


@given(PARTS, PARTS)
def test_the_laws_of_de_morgan_hold_for_the_undecided_too(a: Expression, b: Expression) -> None:
    assert of(Not(And((a, b)))) == of(Or((Not(a), Not(b))))
    assert of(Not(Or((a, b)))) == of(And((Not(a), Not(b))))
    assert of(Not(Not(a))) == of(a)


@given(PARTS)
def test_everyone_is_hit_or_hit_by_the_opposite_or_undecided(expression: Expression) -> None:
    yes, no = of(expression), of(Not(expression))
    assert sorted([*yes.hits, *no.hits, *yes.undecided]) == sorted(FLEET.targets)


@given(PARTS)
def test_to_learn_more_never_takes_a_hit_back(expression: Expression) -> None:
    text = str(expression)
    fewer = choose(text, {name: FACTS[name] for name in ("a-1", "b-1")})
    assert set(fewer.hits) <= set(choose(text).hits)


def test_patterns_admit_names_that_are_written_and_no_others() -> None:
    known = Inventory(patterns=(("orin-*", "!orin-9"),))
    wanted = parse_selection("orin-1 | orin-9")
    assert wanted.names() == ("orin-1", "orin-9")
    admitted = known.admitting(wanted.names())
    assert list(admitted.targets) == ["orin-1"]
    with pytest.raises(InventoryError, match="orin-9"):
        select(wanted, admitted, {})
