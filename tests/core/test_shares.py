"""Shares of folders and labels: counted where they differ, told where they are lopsided."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.findings import Severity
from edgecal.core.shares import describe_shares, judge_shares, shares_of_folders


def said(groups: dict[str, int]) -> list[str]:
    findings = list(judge_shares(groups, source="photos"))
    assert all(one.rule == "lopsided-data" for one in findings)
    assert all(one.severity is Severity.WARNING for one in findings)
    return [one.message for one in findings]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"day": 81, "night": 19}, "day 81 (81 %) of 100 samples"),
        ({"day": 100, "dusk": 99, "night": 1}, "hardly any of night 1 (0.5 %)"),
        (
            {"day": 995, "night": 5},
            "day 995 (99.5 %) of 1000 samples; hardly any of night 5 (0.5 %)",
        ),
    ],
)
def test_one_group_that_is_nearly_all_or_nearly_nothing_is_told(
    groups: dict[str, int], message: str
) -> None:
    assert said(groups) == [message]


def test_many_small_groups_are_named_in_part() -> None:
    groups = {"a": 5000, "b": 5000, **{f"c{number}": 1 for number in range(9)}}
    assert said(groups)[0].endswith("c4 1 (0.01 %) and 4 more")


@pytest.mark.parametrize(
    "groups",
    [
        {},
        {"day": 5},
        {"day": 80, "night": 20},
        {"day": 99, "dusk": 99, "night": 2},
        {f"{number:04}": 1 for number in range(1000)},
    ],
)
def test_shares_as_they_may_be_are_not_told(groups: dict[str, int]) -> None:
    assert said(groups) == []


@pytest.mark.parametrize(
    ("folders", "groups"),
    [
        ({}, {}),
        ({"": 5}, {".": 5}),
        ({"": 1, "a": 2, "a/b": 3}, {"a": 5, ".": 1}),
        ({"x/night/1": 2, "x/night/2": 2, "x/day": 1}, {"x/night": 4, "x/day": 1}),
        ({"x/y": 3}, {"x/y": 3}),
        ({"ab/c": 1, "ad/c": 2}, {"ad": 2, "ab": 1}),
        ({"x": 1, "x/a": 1, "x/b": 3}, {"x/b": 3, "x": 1, "x/a": 1}),
    ],
)
def test_folders_are_told_apart_where_they_first_differ(
    folders: dict[str, int], groups: dict[str, int]
) -> None:
    assert list(shares_of_folders(folders).items()) == list(groups.items())


@given(st.dictionaries(st.text("ab/", max_size=8), st.integers(1, 99), max_size=12))
def test_no_sample_is_lost_in_counting(folders: dict[str, int]) -> None:
    assert sum(shares_of_folders(folders).values()) == sum(folders.values())


def test_shares_are_described_for_people() -> None:
    assert describe_shares({"night": 12, "rain": 8}) == "night 12 (60 %), rain 8 (40 %)"
    assert describe_shares({f"{n}": 1 for n in range(10)}).endswith("and 2 more")
