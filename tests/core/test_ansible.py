from __future__ import annotations

from typing import Any

import pytest

from edgecal.core.ansible import parse_ansible
from edgecal.core.target import Target
from edgecal.errors import InventoryError

# In the form of `ansible-inventory --list` of ansible-core 2.15 and later
LISTED: dict[str, Any] = {
    "_meta": {
        "hostvars": {
            "xavier-1": {
                "ansible_host": "10.0.0.11",
                "ansible_port": 2222,
                "ansible_ssh_private_key_file": "keys/fleet",
                "ansible_user": "nvidia",
                "ansible_become_pass": "secret",
                "edgecal_root": "/data/edgecal",
                "edgecal_dla": 0,
                "line": 3,
                "rack": {"__ansible_unsafe": "r{{1}}"},
                "nested": {"not": "kept"},
            },
            "xavier-2": {"ansible_ssh_host": "10.0.0.12", "ansible_port": "22"},
            "localhost": {"ansible_connection": "local"},
        },
        "profile": "inventory_legacy",
    },
    "all": {"children": ["ungrouped", "site_a", "canary"]},
    "canary": {"hosts": ["xavier-1"]},
    "site_a": {"children": ["lab"], "hosts": ["orin-1"]},
    "lab": {"hosts": ["xavier-1", "xavier-2"]},
    "ungrouped": {"hosts": ["localhost"]},
}


def test_a_listed_inventory_is_read() -> None:
    said: list[str] = []
    known = parse_ansible(LISTED, source="/f/hosts.json", warn=said.append)
    assert set(known.targets) == {"xavier-1", "xavier-2", "orin-1"}
    assert known.targets["xavier-1"] == Target(
        name="xavier-1",
        host="10.0.0.11",
        port=2222,
        user="nvidia",
        identity_file="/f/keys/fleet",
        root="/data/edgecal",
        dla=0,
    )
    assert known.targets["xavier-2"] == Target(name="xavier-2", host="10.0.0.12", port=22)
    assert known.targets["orin-1"] == Target(name="orin-1", host="orin-1")
    assert set(known.groups["site_a"]) == {"orin-1", "xavier-1", "xavier-2"}
    assert known.groups["ungrouped"] == ()
    assert known.variables["xavier-1"] == {"line": 3, "rack": "r{{1}}"}
    assert said == [
        "/f/hosts.json: localhost is left out, for Ansible reaches it otherwise than by SSH"
    ]


def test_groups_are_merged_as_ansible_merges_them() -> None:
    document: dict[str, Any] = {
        "all": {"children": ["a", "b"], "vars": {"edgecal_root": "/all", "ansible_user": "u"}},
        "a": {"hosts": ["x"], "vars": {"edgecal_root": "/a", "edgecal_dla": 1}},
        "b": {"children": ["deep"], "hosts": ["x", "y"], "vars": {"edgecal_root": "/b"}},
        "deep": ["y"],
    }
    known = parse_ansible(document, source="hosts")
    assert (known.targets["x"].root, known.targets["x"].dla) == ("/b", 1)  # the later by name
    assert known.targets["x"].user == "u"
    document["a"]["vars"]["ansible_group_priority"] = 10
    assert parse_ansible(document, source="hosts").targets["x"].root == "/a"
    assert known.groups["deep"] == ("y",)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "an object of groups"),
        ({"a": 3}, "expected an object"),
        ({"a": {"hosts": "x"}}, "a list of names"),
        ({"a": {"hosts": [""]}}, "a list of names"),
        ({"a": {"hosts": {"x": {}}}}, "a list of names"),
        ({"_meta": []}, "an object"),
        ({"_meta": {"hostvars": {"x": []}}}, "hostvars['x']"),
        ({"_meta": {"hostvars": {"x": {"ansible_host": "{{ ip }}"}}}}, "a template"),
        ({"_meta": {"hostvars": {"x": {"ansible_host": {"__ansible_vault": "$"}}}}}, "encrypted"),
        ({"_meta": {"hostvars": {"x": {"ansible_port": "ssh"}}}}, "port wants a count"),
        ({"_meta": {"hostvars": {"x": {"edgecal_rooot": "/"}}}}, "unknown key 'rooot'"),
        ({"_meta": {"hostvars": {"x": {"edgecal_exec": "sh -c evil"}}}}, "list of words"),
        ({"a": {"children": ["b"]}, "b": {"children": ["a"]}}, "below themselves"),
    ],
)
def test_what_is_no_inventory_is_refused(document: object, words: str) -> None:
    with pytest.raises(InventoryError) as error:
        parse_ansible(document, source="hosts")
    assert words in str(error.value)
    assert error.value.where.startswith("hosts")
