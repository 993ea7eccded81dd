from __future__ import annotations

import time
from typing import Any

import pytest

from edgecal.core.inventory import GroupEntry, Inventory, TargetEntry, matches_host_line, resolve
from edgecal.core.project import parse_project
from edgecal.core.toml_lines import find_lines
from edgecal.errors import InventoryError


def read(groups: dict[str, Any], targets: dict[str, Any]) -> Inventory:
    return parse_project({"groups": groups, "targets": targets}, source="/f/fleet.toml").inventory


@pytest.mark.parametrize(
    ("groups", "targets", "words"),
    [
        ({"g": {"rooot": "/x"}}, {}, "unknown key 'rooot'"),
        ({"g": {"host": "x"}}, {}, "unknown key 'host'"),
        ({"g": {"targets": "a"}}, {"a": {}}, "list of names"),
        ({"g": {"targets": ["b"]}}, {"a": {}}, "the target 'b', which is not there"),
        ({"g": {"targets": ["b-*"]}}, {"a": {}}, "the target 'b-*', which is not there"),
        ({"g": {"children": ["h"]}}, {"a": {}}, "the group 'h', which is not there"),
        ({}, {"a": {"groups": ["canray"]}}, "the group 'canray', which is not there"),
        ({"g": {"children": ["g"]}}, {}, "'g' is below itself"),
        ({"g": {"children": ["h"]}, "h": {"children": ["g"]}}, {}, "is below itself"),
        ({"g": {"children": ["all"]}}, {}, "'all' is below itself"),
        ({"all": {"children": ["g"]}, "g": {}}, {}, "leave"),
        ({"a": {}}, {"a": {}}, "a target and a group"),
        ({"g": {"vars": {"tensorrt": "8.5"}}}, {}, "called like a fact"),
        ({"g": {"vars": {"x": [1]}}}, {}, "wants a text, a number"),
        ({"g": {"vars": 3}}, {}, "vars wants a table"),
        ({"g": 3}, {}, "expected a table"),
        (
            {"g": {"targets": ["a"], "root": "/g"}, "h": {"targets": ["a"], "root": "/h"}},
            {"a": {}},
            "differ in 'root'",
        ),
    ],
)
def test_what_does_not_hold_is_refused(
    groups: dict[str, Any], targets: dict[str, Any], words: str
) -> None:
    with pytest.raises(InventoryError) as error:
        read(groups, targets)
    assert words in str(error.value)
    assert error.value.where.startswith("/f/fleet.toml")


def test_the_nearest_word_counts() -> None:
    known = read(
        {
            "all": {"user": "nvidia", "root": "/all", "vars": {"level": 0, "zone": "x"}},
            "site": {"children": ["lab"], "root": "/site", "dla": 0, "vars": {"level": 1}},
            "lab": {"targets": ["a-*"], "dla": 1},
        },
        {
            "a-1": {"host": "10.0.0.1", "root": "/own"},
            "a-2": {},
            "b": {"groups": ["site"]},
            "c": {},
        },
    )
    one, two, b, c = known.targets.values()
    assert (one.host, one.user, one.root, one.dla) == ("10.0.0.1", "nvidia", "/own", 1)
    assert (two.host, two.root, two.dla) == ("a-2", "/site", 1)
    assert (b.root, b.dla) == ("/site", 0)
    assert (c.root, c.dla) == ("/all", None)
    assert known.variables["a-2"] == {"level": 1, "zone": "x"}
    assert known.variables["c"] == {"level": 0, "zone": "x"}
    assert known.groups == {
        "all": ("a-1", "a-2", "b", "c"),
        "site": ("a-1", "a-2", "b"),
        "lab": ("a-1", "a-2"),
    }
    assert known.memberships()["a-2"] == ("site", "lab")


def test_a_target_settles_what_its_groups_differ_in_and_so_does_agreement() -> None:
    groups = {"g": {"targets": ["a"], "root": "/g"}, "h": {"targets": ["a"], "root": "/h"}}
    assert read(groups, {"a": {"root": "/a"}}).targets["a"].root == "/a"
    groups["h"]["root"] = "/g"
    assert read(groups, {"a": {}}).targets["a"].root == "/g"


def test_commands_are_inherited_and_taken_away_with_the_rest() -> None:
    known = read({"g": {"targets": ["a"], "exec": ["docker", "exec", "app"]}}, {"a": {}})
    assert known.targets["a"].exec == ("docker", "exec", "app")
    assert known.commands() == ("exec",)
    assert known.without_commands().targets["a"].exec == ()


def test_thousands_of_targets_in_a_long_chain_of_groups_take_no_time() -> None:
    groups = [
        GroupEntry(name=f"g{n}", where="", children=(f"g{n + 1}",) if n < 300 else ())
        for n in range(301)
    ]
    targets = [TargetEntry(name=f"t{n}", where="", groups=("g300",)) for n in range(2_000)]
    began = time.monotonic()
    known = resolve(targets, groups)
    assert len(known.groups["g0"]) == 2_000
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("name", "line"),
    [("orin-1", "orin-*"), ("orin-1", "nano orin-? !orin-2"), ("orin-[1]", "orin-[1]")],
)
def test_a_host_line_applies_to_what_one_of_its_patterns_matches(name: str, line: str) -> None:
    assert matches_host_line(name, line.split())


@pytest.mark.parametrize(
    ("name", "line"),
    [("orin-1", "orin-* !orin-1"), ("orin-1", "!orin-2"), ("orin-1", "orin-[1]")],
)
def test_a_host_line_applies_to_nothing_else(name: str, line: str) -> None:
    assert not matches_host_line(name, line.split())


TEXT = '''# first
[groups."site a"]   # a comment [no.table]
targets = [
  "a", # ] "
  "b",
]
root = """
[not.a.table]
key = 1
"""
vars.line = 3

[ targets . b ]
host = 'x = "y"'
exec = [["a"], {q = 1}]
"dl\\"a" = 0
[[list]]
x = \'\'\'
y = 2\'\'\'
z = 3'''


def test_tables_and_keys_are_located() -> None:
    assert find_lines(TEXT) == {
        ("groups",): 2,
        ("groups", "site a"): 2,
        ("groups", "site a", "targets"): 3,
        ("groups", "site a", "root"): 7,
        ("groups", "site a", "vars"): 11,
        ("groups", "site a", "vars", "line"): 11,
        ("targets",): 13,
        ("targets", "b"): 13,
        ("targets", "b", "host"): 14,
        ("targets", "b", "exec"): 15,
        ("targets", "b", 'dl"a'): 16,
        ("list",): 17,
        ("list", "x"): 18,
        ("list", "z"): 20,
    }


def test_a_long_text_is_located_in_no_time() -> None:
    text = "".join(f'[targets.t{n}]\nhost = "h"\n' for n in range(20_000))
    began = time.monotonic()
    assert find_lines(text)["targets", "t19999", "host"] == 40_000
    find_lines('x = "' + "a" * 300_000)
    find_lines("x = [" * 50_000)
    assert time.monotonic() - began < 5
