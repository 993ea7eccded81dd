"""`edgecal demo`: the whole job, with either SSH server, as a newcomer runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgecal.adapters.loopback import start_loopback
from edgecal.cli import app
from edgecal.cli.wiring import remote

if TYPE_CHECKING:
    from edgecal.adapters.loopback import LoopbackServer

CHECKOUT = Path(__file__).resolve().parents[2]


def demo(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    home = folder / "home"
    home.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "edgecal", "demo", *words],
        cwd=folder,
        env={**os.environ, "HOME": str(home), "PYTHONPATH": str(CHECKOUT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def check(document: dict[str, Any]) -> None:
    assert document["schema"] == "edgecal.demo/1"
    assert document["samples"] == 1000
    assert document["fp32_top1"] > 0.9
    assert document["int8_top1"] > document["fp32_top1"] - 0.01
    assert document["seconds"] < 60
    assert Path(document["bundle"], "manifest.json").is_file()
    assert Path(document["engine"]).is_file()


def test_the_demo_runs_twice_and_leaves_known_hosts_alone(tmp_path: Path) -> None:
    for _ in range(2):
        done = demo(tmp_path, "--json")
        assert done.returncode == 0, done.stderr
        check(json.loads(done.stdout))
    assert not (tmp_path / "home" / ".ssh").exists()
    releases = tmp_path / "edgecal-demo" / "target" / "models" / "fashion" / "releases"
    assert len(list(releases.iterdir())) == 2


def test_the_demo_needs_no_sshd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def in_process(folder: Path) -> LoopbackServer:
        return start_loopback(folder, prefer="in-process")

    monkeypatch.setattr(remote, "loopback", in_process)
    with pytest.raises(SystemExit) as end:
        app.main(["demo", "--dir", str(tmp_path / "demo"), "--json"])
    assert end.value.code in {0, None}
    document = json.loads(capsys.readouterr().out)
    check(document)
    assert document["ssh"] == "in-process"


def test_the_demo_does_not_spread_into_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("precious")
    done = demo(tmp_path, "--dir", str(mine))
    assert done.returncode == 2
    assert "not empty" in done.stderr
    assert sorted(mine.iterdir()) == [mine / "thesis.txt"]
