"""`edgecal fleet` and `--on` without a network: what they show, and what they refuse."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from edgecal.cli import app
from edgecal.cli.wiring import machine, remote
from edgecal.core.selection import FACT_NAMES

GOLDEN = Path(__file__).parents[1] / "golden" / "probes"
FLEET = """
[groups.all]
user = "nvidia"
vars = { password = "secret" }

[groups.site-a]
targets = ["xavier-*"]
root = "/data/edgecal"

[groups.canary]

[targets.xavier-1]
groups = ["canary"]
[targets.xavier-2]
[targets.xavier-3]
[targets.lab]
host = "127.0.0.1"
port = 1
"""


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        app.main(list(words))
    return end.value.code if isinstance(end.value.code, int) else 0


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    run(*words, "--json")
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an inventory, and a user who remembers some of its targets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "fleet.toml").write_text(FLEET)
    memory = remote.facts_cache()
    for name, answer in (
        ("xavier-1", "agx-xavier-jetpack-5.1.2"),
        ("xavier-2", "agx-xavier-jetpack-4.5"),
        ("xavier-3", "agx-xavier-jetpack-5.1.2"),
    ):
        text = (GOLDEN / f"{answer}.txt").read_text()
        memory.store(name, text, machine.now() - timedelta(days=1), address=f"nvidia@{name}")
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("probe",),
        ("prune",),
        ("push", "net.edgecal"),
        ("status", "--inventory", "fleet.toml"),
    ],
)
def test_somebody_must_be_named(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 2
    assert "--on EXPR" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("on", "words"),
    [
        ("canray", "did you mean 'canary'?"),
        ("site-a &", "found the end"),
        ("canary & !canary", "hits none of 4 targets"),
        ("modul=x", "unknown fact 'modul'"),
    ],
)
@pytest.mark.parametrize(
    "command", [("status",), ("prune",), ("push", "x"), ("probe",), ("audit", "--offline")]
)
def test_a_wrong_expression_ends_the_command_before_it_acts(
    command: tuple[str, ...], on: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command, "--on", on) == 2
    assert words in capsys.readouterr().err


def test_the_list_shows_targets_and_their_groups_but_no_variables(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("fleet", "list") == 0
    shown = capsys.readouterr().out
    assert "xavier-1  nvidia@xavier-1     site-a, canary" in shown
    assert shown.endswith("4 targets\n")
    assert run("fleet", "show", "xavier-1") == 0
    shown += capsys.readouterr().out
    assert "/data/edgecal" in shown
    assert "password" in shown
    assert "secret" not in shown
    assert "secret" not in json.dumps(ask(capsys, "fleet", "list"))
    assert "secret" not in json.dumps(ask(capsys, "fleet", "show", "lab"))


def test_facts_are_what_targets_last_said_and_who_never_answered_is_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = ask(capsys, "fleet", "list", "--on", "tensorrt=8.5", "--offline")
    assert document["schema"] == "edgecal.fleet/1"
    assert [one["target"] for one in document["targets"]] == ["xavier-1", "xavier-3"]
    assert document["undecided"] == [{"target": "lab", "facts": ["tensorrt"], "error": None}]
    document = ask(capsys, "fleet", "list", "--on", "!tensorrt=8.5")  # lab is asked, and not there
    assert [one["target"] for one in document["targets"]] == ["xavier-2"]
    assert document["undecided"][0]["error"]["code"] == "connect"
    assert run("fleet", "list", "--on", "!tensorrt=8.5", "--offline") == 0
    heard = capsys.readouterr()
    assert "left out, for tensorrt is not known of them: lab" in heard.err
    assert heard.out.endswith("1 of 4 targets\n")


def test_the_help_names_every_fact(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fleet", "list", "--help") == 0
    words = capsys.readouterr().out.replace(",", " ").split()
    assert set(FACT_NAMES) <= set(words)


def test_settings_for_work_in_a_fleet_toml_are_said_not_to_count(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (desk / "fleet.toml").write_text("[push]\ndla = 1\n[targets.a]\n")
    assert run("fleet", "list") == 0
    assert "only [targets] and [groups] of it count" in capsys.readouterr().err


def test_what_is_hit_is_said_before_anything_happens(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("probe", "--cached", "--on", "site-a & !canary") == 0
    heard = capsys.readouterr()
    assert heard.err.startswith("--on hits 2 of 4: xavier-2, xavier-3\n")
    assert "xavier-2\n" in heard.out
    document = ask(capsys, "probe", "--cached", "--on", "site-a & !canary")
    assert [one["target"] for one in document["targets"]] == ["xavier-2", "xavier-3"]
    assert document["targets"][0]["facts"]["tensorrt"].startswith("7.1")
    # who names one target gets one answer
    assert ask(capsys, "probe", "--cached", "--target", "xavier-2")["target"] == "xavier-2"
    document = ask(capsys, "audit", "--offline", "--on", "site-a & tensorrt=8.5")
    assert [one["target"] for one in document["targets"]] == ["xavier-1", "xavier-3"]


def test_names_and_an_expression_add_up_and_nobody_is_meant_twice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("--target", "xavier-3", "--target", "xavier-3", "--on", "site-a & !xavier-2")
    document = ask(capsys, "probe", "--cached", *words)
    assert [one["target"] for one in document["targets"]] == ["xavier-3", "xavier-1"]


def test_the_nearest_inventory_counts_and_settings_come_from_the_project(
    desk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    below = desk / "below"
    below.mkdir()
    (below / "edgecal.toml").write_text('[push]\nbundle = "later.edgecal"\n')
    monkeypatch.chdir(below)
    assert ask(capsys, "fleet", "list")["source"] == str(desk / "fleet.toml")
    assert run("audit", "--offline", "--on", "canary") in {0, 3}
    assert "later.edgecal, which [push] names" in capsys.readouterr().err
    (below / "edgecal.toml").write_text("[targets.other]\n")
    document = ask(capsys, "fleet", "list")
    assert [one["target"] for one in document["targets"]] == ["other"]
    assert ask(capsys, "probe", "--cached", "--target", "other")["error"]["code"] == "input"
    (desk / "hosts.json").write_text('{"g": {"hosts": ["h1"]}, "all": {"children": ["g"]}}')
    document = ask(capsys, "fleet", "list", "--inventory", "../hosts.json", "--on", "g")
    assert [one["target"] for one in document["targets"]] == ["h1"]
    assert run("fleet", "show", "xavier-1") == 2
    assert "edgecal fleet list" in capsys.readouterr().err
