"""`edgecal audit` without a network: its words, its errors, and a large fleet offline."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path

import pytest

from edgecal.cli import app
from edgecal.cli.audit import age_text
from edgecal.cli.wiring import machine, remote

GOLDEN = Path(__file__).parents[1] / "golden" / "probes"


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        app.main(list(words))
    return end.value.code if isinstance(end.value.code, int) else 0


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory and a user of whom nothing is remembered."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("COLUMNS", raising=False)
    return tmp_path


def remember(folder: Path, answers: dict[str, str]) -> None:
    """Write an inventory and what its targets last said."""
    memory = remote.facts_cache()
    lines = []
    for name, answer in answers.items():
        lines.append(f'[targets.{name}]\nhost = "{name}.local"')
        text = (GOLDEN / f"{answer}.txt").read_text()
        memory.store(name, text, machine.now() - timedelta(days=3), address=f"{name}.local")
    (folder / "fleet.toml").write_text("\n".join(lines))


def test_without_targets_it_says_where_to_write_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("audit") == 2
    assert "[targets.NAME]" in capsys.readouterr().err
    Path("edgecal.toml").write_text("[push]\n")
    assert run("audit", "--json") == 2
    heard = capsys.readouterr()
    assert json.loads(heard.out)["error"]["code"] == "inventory"
    assert run("audit", "--inventory", "nowhere.toml") == 2
    assert "nowhere.toml" in capsys.readouterr().err
    Path("bad.toml").write_text('[targets.x]\nhots = "y"\n')
    assert run("audit", "--inventory", "bad.toml") == 2
    assert "hots" in capsys.readouterr().err


def test_a_bundle_that_was_given_must_be_there_and_one_of_the_project_may_still_be_made(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    remember(desk, {"xavier": "agx-xavier-jetpack-5.1.2"})
    assert run("audit", "--inventory", "fleet.toml", "--bundle", "nowhere.edgecal") == 2
    assert "nowhere.edgecal" in capsys.readouterr().err
    inventory = (desk / "fleet.toml").read_text()
    (desk / "edgecal.toml").write_text(f'[push]\nbundle = "later.edgecal"\n{inventory}')
    assert run("audit", "--offline") == 0
    assert "later.edgecal, which [push] names, is not there" in capsys.readouterr().err


def test_a_target_that_nobody_ever_asked_is_said_to_be_unknown(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (desk / "fleet.toml").write_text("[targets.new]\n")
    assert run("audit", "--inventory", "fleet.toml", "--offline") == 0
    shown = capsys.readouterr().out
    assert "facts-unknown (new): nothing is known of this target" in shown
    assert "try: edgecal probe --target new" in shown


def test_unreachable_ones_are_listed_apart_with_what_they_last_said(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    remember(desk, {"xavier": "agx-xavier-jetpack-5.1.2"})
    text = (desk / "fleet.toml").read_text()
    text = text.replace('"xavier.local"', '"127.0.0.1"\nport = 1')
    (desk / "fleet.toml").write_text(text)
    memory = remote.facts_cache()
    answer = (GOLDEN / "agx-xavier-jetpack-5.1.2.txt").read_text()
    memory.store("xavier", answer, machine.now() - timedelta(days=3), address="127.0.0.1:1")
    assert run("audit", "--inventory", "fleet.toml") == 4
    shown = capsys.readouterr().out
    assert "    last seen 3 days ago: agx-xavier, JetPack 5.1.2, TensorRT 8.5.2" in shown
    assert "1 target in 0 groups" in shown


def test_an_outlier_and_its_group_are_told_in_words(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new, old = "agx-xavier-jetpack-5.1.2", "agx-xavier-jetpack-4.5"
    remember(desk, {"xavier-1": new, "xavier-2": new, "xavier-7": old})
    assert run("audit", "--inventory", "fleet.toml", "--offline") == 0
    shown = capsys.readouterr().out
    assert "TensorRT 8.5, JetPack 5.1 - 5.1.6: 2 targets" in shown
    assert "outlier (xavier-7): TensorRT 7.1.3" in shown
    assert "try: upgrade it to JetPack 5.1.6; or calibrate another bundle: " in shown
    assert "nvcr.io/nvidia/tensorrt:23.01-py3" in shown


def test_five_hundred_targets_are_judged_offline_within_seconds(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boards = ("agx-xavier-jetpack-5.1.2", "orin-nx-16gb-jetpack-6.2", "agx-thor-jetpack-7.0")
    remember(desk, {f"one-{number}": boards[number % 3] for number in range(500)})
    began = time.perf_counter()
    assert run("audit", "--inventory", "fleet.toml", "--offline") == 0
    assert time.perf_counter() - began < 5
    shown = capsys.readouterr().out
    assert "by what each target last said, 3 days ago at the oldest" in shown
    assert "one-0, one-3, one-6" in shown
    assert "and 159 more" in shown
    assert max(map(len, shown.splitlines())) <= 100
    assert run("audit", "--inventory", "fleet.toml", "--offline", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "edgecal.audit/1"
    assert set(document) == {"schema", "targets", "groups", "summary"}
    assert set(document["targets"][0]) >= {"target", "reachable", "facts", "findings"}
    assert len(document["targets"]) == 500


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (timedelta(seconds=5), "just now"),
        (timedelta(seconds=-5), "just now"),
        (timedelta(minutes=1), "1 minute ago"),
        (timedelta(hours=30), "1 day ago"),
        (timedelta(days=400), "400 days ago"),
    ],
)
def test_an_age_is_told_in_its_largest_unit(age: timedelta, text: str) -> None:
    now = machine.now()
    assert age_text(now - age, now) == text
