from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgecal.adapters import inventory as adapter
from edgecal.adapters.inventory import find_inventory, read_inventory
from edgecal.core.target import Target
from edgecal.errors import InputError, InventoryError

if TYPE_CHECKING:
    from edgecal.core.project import Project

LISTED = {
    "_meta": {"hostvars": {"x1": {"ansible_host": "10.0.0.1", "edgecal_exec": ["docker", "exec"]}}},
    "all": {"children": ["ungrouped", "site_a"]},
    "site_a": {"hosts": ["x1", "x2"]},
}
HOSTS = json.dumps(LISTED)


def write(path: Path, text: str, *, mode: int = 0o644) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def read(path: Path, *, timeout_s: float = 30) -> tuple[Project, list[str]]:
    said: list[str] = []
    return read_inventory(path, warn=said.append, timeout_s=timeout_s), said


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[groups.g]\n\n[targets.a]\nhots = 'x'\n", 4, "unknown key 'hots'"),
        ("# one\n[targets.a]\nport = '22'\n", 3, "port wants a count"),
        ("[group.g]\n", 1, "unknown table [group]"),
        ("[targets.a]\n[targets.b]\ngroups = ['c']\n", 2, "the group 'c', which is not there"),
        ("[groups.a]\nchildren=['b']\n[groups.b]\nchildren=['a']\n", 3, "below itself"),
        ("[targets.a]\n[targets.a.vars]\nmodule = 'x'\n", 3, "called like a fact"),
        ("[targets.a\n", None, "line 1"),
        (f"[targets.a]\nport = {'9' * 5_000}\n", None, "cannot read"),
    ],
)
def test_a_mistake_in_a_fleet_toml_has_its_line(
    tmp_path: Path, text: str, line: int | None, words: str
) -> None:
    file = write(tmp_path / "fleet.toml", text)
    with pytest.raises(InventoryError) as error:
        read(file)
    assert words in error.value.what
    assert error.value.where.startswith(f"{file}:{line}:" if line else str(file))


@pytest.mark.parametrize("text", ["", "x", "[1]", "{", '{"a": 1}', "[" * 100_000, "{" * 100_000])
def test_what_is_no_inventory_is_refused(tmp_path: Path, text: str) -> None:
    file = write(tmp_path / "hosts", text)
    if text:
        with pytest.raises(InventoryError):
            read(file)
    else:
        assert not read(file)[0].targets
    with pytest.raises(InventoryError, match="cannot read"):
        read(tmp_path / "nowhere")
    with pytest.raises(InventoryError, match="cannot read"):
        read(tmp_path)


def test_a_file_and_a_program_of_ansible_say_the_same(tmp_path: Path) -> None:
    file = write(tmp_path / "hosts.json", HOSTS)
    script = f"#!{sys.executable}\nimport sys\nassert sys.argv[1:] == ['--list']\nprint({HOSTS!r})"
    program = write(tmp_path / "hosts.py", script, mode=0o700)
    for path in (file, program):
        known, said = read(path)
        assert known.targets["x1"] == Target(name="x1", host="10.0.0.1", exec=("docker", "exec"))
        assert known.inventory.groups["site_a"] == ("x1", "x2")
        assert said == []
        assert not known.is_ours


def test_data_is_never_run(tmp_path: Path) -> None:
    for name, text in (("hosts.json", HOSTS), ("fleet.toml", "[targets.x1]\n[targets.x2]\n")):
        known, _ = read(write(tmp_path / name, text, mode=0o755))
        assert set(known.targets) == {"x1", "x2"}


def test_a_program_that_others_could_have_written_is_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    program = write(tmp_path / "hosts", f"#!/bin/sh\ntouch {ran}\necho '{HOSTS}'", mode=0o702)
    said: list[str] = []
    with pytest.raises(InventoryError, match="another user may have written") as error:
        read_inventory(program, warn=said.append)
    assert "chmod o-w" in error.value.remedy
    assert "is not run" in said[0]
    if os.geteuid() == 0:
        program.chmod(0o755)
        os.chown(program, 12_345, 12_345)
        with pytest.raises(InventoryError, match="another user may have written"):
            read(program)
    assert not ran.exists()


def test_commands_in_a_file_that_others_may_write_are_ignored(tmp_path: Path) -> None:
    known, said = read(write(tmp_path / "hosts.json", HOSTS, mode=0o646))
    assert known.targets["x1"].exec == ()
    assert known.targets["x1"].host == "10.0.0.1"
    assert "'exec' is ignored" in said[0]
    text = '[groups.g]\nexec = ["docker", "exec", "app"]\ntargets = ["a"]\n[targets.a]\n'
    known, said = read(write(tmp_path / "fleet.toml", text, mode=0o666))
    assert known.targets["a"].exec == ()
    assert "'exec' is ignored" in said[0]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo no database >&2\nexit 3", "ended with 3: no database"),
        ("echo hello", "expected JSON"),
        ("printf '[]'", "an object of groups"),
        ("kill -9 $$", "ended with -9"),
    ],
)
def test_a_program_that_fails_says_why(tmp_path: Path, script: str, words: str) -> None:
    program = write(tmp_path / "hosts", f"#!/bin/sh\n{script}\n", mode=0o700)
    with pytest.raises(InventoryError, match=words):
        read(program)


def test_a_program_that_does_not_start_is_refused(tmp_path: Path) -> None:
    program = write(tmp_path / "hosts", "#!/no/such/interpreter\n", mode=0o700)
    with pytest.raises(InventoryError, match="does not start"):
        read(program)


def test_a_program_that_hangs_or_floods_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = tmp_path / "late"
    script = f"#!/bin/sh\n(sleep 2; touch {late}) &\nsleep 60\n"
    began = time.monotonic()
    with pytest.raises(InventoryError, match="had not ended after"):
        read(write(tmp_path / "hangs", script, mode=0o700), timeout_s=0.5)
    monkeypatch.setattr(adapter, "_LARGEST_BYTES", 1 << 20)
    with pytest.raises(InventoryError, match="more than 1 MiB"):
        read(write(tmp_path / "floods", "#!/bin/sh\nexec yes\n", mode=0o700))
    with pytest.raises(InventoryError, match="more than 1 MiB"):
        read(write(tmp_path / "long.json", " " * (2 << 20)))
    assert time.monotonic() - began < 20
    time.sleep(max(0.0, began + 3 - time.monotonic()))
    assert not late.exists()


SSH_CONFIG = """
# our Jetsons
Host xavier-1 xavier-2  # both
    HostName %h.example
    Port 2222
host = lab
    User root
Host orin-* !orin-9
    IdentityFile ~/.ssh/orin
Host *
    User nvidia
"""


def test_the_users_own_ssh_config_names_hosts_and_patterns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    write(tmp_path / ".ssh/more", "Host nano\nMatch host x\n  ProxyJump lab\n")
    known, _ = read(write(tmp_path / ".ssh/config", f"Include more\n{SSH_CONFIG}"))
    # how to reach them is asked of the same file, when a connection is opened
    assert list(known.targets.values()) == [
        Target(name=name, host=name) for name in ("nano", "xavier-1", "xavier-2", "lab")
    ]
    assert list(known.inventory.admitting(["orin-1", "orin-9", "agx"]).targets)[4:] == ["orin-1"]


def test_of_another_ssh_config_the_addresses_are_taken(tmp_path: Path) -> None:
    known, _ = read(write(tmp_path / "jetsons", SSH_CONFIG))
    assert known.targets["xavier-1"] == Target(
        name="xavier-1", host="xavier-1.example", port=2222, user="nvidia"
    )
    assert known.targets["lab"] == Target(name="lab", host="lab", user="root")
    assert known.inventory.admitting(["orin-1"]).targets.keys() == known.targets.keys()


@pytest.mark.parametrize(
    "line", ["Match exec 'touch ran'", "  ProxyCommand touch ran", "ProxyJump x", "Include more"]
)
def test_another_ssh_config_runs_nothing_and_leads_nowhere(tmp_path: Path, line: str) -> None:
    file = write(tmp_path / "jetsons", f"Host x\n{line}\n")
    with pytest.raises(InventoryError, match="own ssh_config only") as error:
        read(file)
    assert error.value.where == f"{file}:2"
    assert not Path("ran").exists()


def test_an_ssh_config_that_cannot_be_parsed_is_refused(tmp_path: Path) -> None:
    for text in ("Host 'x\n", "Host x\nnonsense\n", "Host x\n Port ssh\n"):
        with pytest.raises(InputError):
            read(write(tmp_path / "jetsons", text))


def test_the_nearest_fleet_toml_is_found(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (tmp_path / "fleet.toml").write_text("")
    assert find_inventory(below) == tmp_path / "fleet.toml"
    (tmp_path / "a" / "fleet.toml").write_text("")
    assert find_inventory(below) == tmp_path / "a" / "fleet.toml"
