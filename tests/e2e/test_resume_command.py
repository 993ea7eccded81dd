"""`edgecal calibrate --resume` after real signals to real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgecal.cli import app
from tests.networks import save, vector_net

CHECKOUT = Path(__file__).resolve().parents[2]

GENERATOR = """
import time
import numpy as np

def samples():
    rng = np.random.default_rng(0)
    for number in range(100):
        time.sleep(0.005)
        yield (rng.standard_normal(4) * (1 + number / 20)).astype(np.float32)
"""
OFTEN = """
import sys
from edgecal.workflows.resume import Keeper
Keeper.__init__.__kwdefaults__["every_s"] = float(sys.argv.pop(1))
from edgecal.cli.app import main
main()
"""
"""The command, but it keeps its work oftener than twice a minute."""

WORDS = ("net.onnx", "--data", "gen:samples", "--tensorrt", "8.5", "--algorithm", "entropy2")
BITS = ("histograms.npz", "calibration.cache", "golden.npz")


@dataclass
class Desk:
    """A working directory, and processes in it."""

    folder: Path
    capture: pytest.CaptureFixture[str]

    @property
    def kept(self) -> Path:
        return self.folder / "net.edgecal.checkpoint"

    def start(self, *words: str, every_s: float = 30) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                *(sys.executable, "-W", "error", "-c", OFTEN, str(every_s)),
                *("calibrate", *WORDS, "-o", "net.edgecal", *words),
            ],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, process: subprocess.Popen[str], code: int) -> tuple[str, str]:
        out, err = process.communicate(timeout=60)
        assert "Traceback" not in err
        assert process.returncode == code, err
        return out, err

    def run(self, *words: str) -> tuple[object, str, str]:
        """Run the command in this process."""
        self.capture.readouterr()
        with pytest.raises(SystemExit) as end:
            app.main(["calibrate", *words])
        said = self.capture.readouterr()
        return end.value.code or 0, said.out, said.err

    def refused(self, *words: str) -> dict[str, Any]:
        code, out, _ = self.run(*words, "--json")
        assert code == 2
        error: dict[str, Any] = json.loads(out)["error"]
        return error

    def bits(self, name: str) -> list[bytes]:
        return [(self.folder / name / file).read_bytes() for file in BITS]

    def names(self) -> list[str]:
        return sorted(one.name for one in self.folder.iterdir() if "edgecal" in one.name)


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Desk:
    save(vector_net(), tmp_path / "net.onnx")
    (tmp_path / "gen.py").write_text(GENERATOR)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "gen", raising=False)
    return Desk(tmp_path, capsys)


@pytest.fixture
def stopped(desk: Desk) -> Desk:
    """One whose pass was killed."""
    process = desk.start(every_s=0.05)
    _wait_for(desk.kept, process)
    process.kill()
    process.communicate()
    return desk


def _wait_for(file: Path, process: subprocess.Popen[str], *, after_ns: int = 0) -> None:
    deadline = time.monotonic() + 60
    while not (file.exists() and file.stat().st_mtime_ns > after_ns):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_pass_of_another_network_or_batch_size_is_refused(stopped: Desk) -> None:
    before = stopped.kept.read_bytes()
    words = (*WORDS, "-o", "net.edgecal", "--resume")
    error = stopped.refused(*words, "--batch-size", "2")
    assert error["what"] == "the unfinished pass has another batch size: 1, and now it is 2"
    assert error["where"] == "net.edgecal.checkpoint"
    proto = vector_net()
    proto.doc_string = "another"
    save(proto, stopped.folder / "net.onnx")
    assert "another network: sha256:" in stopped.refused(*words)["what"]
    save(vector_net(), stopped.folder / "net.onnx")
    (stopped.folder / "gen.py").write_text(GENERATOR.replace("(1 + ", "(2 + "))
    error = stopped.refused(*words)
    assert "a content" in error["what"]
    assert "leave out --resume" in error["remedy"]
    assert stopped.kept.read_bytes() == before
    assert stopped.names() == ["net.edgecal.checkpoint"]


def test_a_checkpoint_that_is_cut_off_is_refused_and_replaced_without_resume(
    stopped: Desk,
) -> None:
    stopped.kept.write_bytes(stopped.kept.read_bytes()[:-1])
    error = stopped.refused(*WORDS, "-o", "net.edgecal", "--resume")
    assert error["what"].startswith("the checkpoint is damaged, or is none")
    assert error["where"] == "net.edgecal.checkpoint"
    code, _, err = stopped.run(*WORDS, "-o", "net.edgecal")
    assert code == 0
    assert "an unfinished pass is kept in net.edgecal.checkpoint" in err
    assert stopped.names() == ["net.edgecal"]


def test_what_makes_no_pass_cannot_be_resumed(desk: Desk) -> None:
    error = desk.refused("--from", "net.edgecal", "--resume", "-o", "other.edgecal")
    assert "--resume belongs to a pass over data" in error["what"]


def test_an_interrupt_keeps_what_was_measured_and_resume_ends_with_the_same_bits(
    desk: Desk,
) -> None:
    code, _, _ = desk.run(*WORDS, "-o", "whole.edgecal", "--workers", "1")
    assert code == 0
    process = desk.start(every_s=0.05)
    _wait_for(desk.kept, process)
    process.send_signal(signal.SIGINT)
    _, err = desk.finish(process, 130)
    kept = "what was measured is kept in net.edgecal.checkpoint; the same command with --resume"
    assert kept in err
    assert "interrupted" in err
    assert desk.names() == ["net.edgecal.checkpoint", "whole.edgecal"]
    _, err = desk.finish(desk.start("--resume", "--workers", "7"), 0)
    assert "going on from net.edgecal.checkpoint: " in err
    assert desk.names() == ["net.edgecal", "whole.edgecal"]
    assert desk.bits("net.edgecal") == desk.bits("whole.edgecal")


def test_kills_at_any_moment_leave_a_whole_checkpoint_and_the_same_bits(desk: Desk) -> None:
    code, _, _ = desk.run(*WORDS, "-o", "whole.edgecal")
    assert code == 0
    for number, pause_s in enumerate((0.0, 0.003, 0.02)):
        last_ns = desk.kept.stat().st_mtime_ns if desk.kept.exists() else 0
        process = desk.start("--resume", "--workers", str(1 + number), every_s=0.0001)
        _wait_for(desk.kept, process, after_ns=last_ns)
        time.sleep(pause_s)
        process.kill()
        process.communicate()
    assert set(desk.names()) <= {
        *("net.edgecal.checkpoint", ".net.edgecal.checkpoint.new", "whole.edgecal"),
    }
    desk.finish(desk.start("--resume"), 0)
    assert desk.names() == ["net.edgecal", "whole.edgecal"]
    assert desk.bits("net.edgecal") == desk.bits("whole.edgecal")


def test_resume_without_anything_to_resume_starts_at_the_beginning(desk: Desk) -> None:
    code, _, err = desk.run(*WORDS, "-o", "net.edgecal", "--resume")
    assert code == 0
    assert "nothing to resume: there is no net.edgecal.checkpoint" in err
    assert desk.names() == ["net.edgecal"]
