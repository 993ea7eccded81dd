"""The one door: what becomes which exit code, and what is said where."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgecal.cli import app
from edgecal.cli.push import max_exit_code
from edgecal.cli.wiring import remote
from edgecal.errors import ConnectError

CHECKOUT = Path(__file__).resolve().parents[2]


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        app.main(list(words))
    return end.value.code if isinstance(end.value.code, int) else 0


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(remote, "world", fail)


def test_a_wrong_command_line_is_exit_2_and_a_document_where_one_was_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("probe", "--json") == 2
    heard = capsys.readouterr()
    assert json.loads(heard.out)["error"]["code"] == "usage"
    assert "--target" in heard.err
    assert run("nonsense") == 2
    assert capsys.readouterr().out == ""


def test_an_error_has_three_parts_and_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, ConnectError("no route [to] host", where="xavier", remedy="plug it in"))
    assert run("probe", "--target", "xavier", "--json") == 4
    heard = capsys.readouterr()
    assert json.loads(heard.out) == {
        "schema": "edgecal.error/1",
        "exit_code": 4,
        "error": {
            "code": "connect",
            "what": "no route [to] host",
            "where": "xavier",
            "remedy": "plug it in",
        },
    }
    assert heard.err == "error xavier: no route [to] host\n  try: plug it in\n"


def test_a_bug_is_exit_1_in_one_sentence_with_the_traceback_in_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, ZeroDivisionError("our fault"))
    assert run("probe", "--target", "xavier") == 1
    heard = capsys.readouterr().err
    assert "Traceback" not in heard
    assert "ZeroDivisionError: our fault" in heard
    log = Path(heard.split("report it with ")[1].split(",")[0])
    assert "Traceback" in log.read_text()
    log.unlink()


def test_an_interrupt_is_exit_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    assert run("probe", "--target", "xavier", "--json") == 130
    assert json.loads(capsys.readouterr().out)["exit_code"] == 130


def test_an_interrupt_while_modules_load_is_exit_130_without_a_traceback() -> None:
    code = (
        "import sys, edgecal.__main__ as entry\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'edgecal.cli.app': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "entry.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_help_shows_every_command_and_the_version_is_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("--help") == 0
    shown = capsys.readouterr().out
    names = ("demo", "calibrate", "batches", "cache", "push", "probe", "status", "rollback")
    for name in (*names, "trust"):
        assert name in shown
        assert run(name, "--help") == 0
        assert f"edgecal {name}" in capsys.readouterr().out
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("edgecal ")


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = f"{sys.executable} -m edgecal push --help | head -c 1"
    done = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("codes", "expected"),
    [([0, 0], 0), ([0, 3], 3), ([3, 4], 4), ([4, 1, 3], 1), ([1, 130], 130), ([], 0)],
)
def test_of_several_targets_the_worst_exit_code_wins(codes: list[int], expected: int) -> None:
    assert max_exit_code(codes) == expected


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_what_is_told_to_end_lets_go_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    code: int,
) -> None:
    let_go = []

    def wait() -> None:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            let_go.append(number)
            raise

    monkeypatch.setattr(remote, "world", wait)
    assert run("probe", "--target", "xavier", "--json") == code
    heard = capsys.readouterr()
    assert json.loads(heard.out)["exit_code"] == code
    assert "nothing half-done" in heard.err
    assert let_go == [number]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_process_that_is_not_to_hear_sigterm_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, ConnectError("no route", where="xavier", remedy="plug it in"))
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert run("probe", "--target", "xavier") == 4
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("targets", "list"), "stdout: cannot write the result: No space left on device"),
        (("targets", "list", "--json"), "stdout: cannot write the result: No space left on device"),
        (("cache", "show", "nowhere.cache", "--json"), "nowhere.cache: cannot read the file"),
    ],
)
def test_a_full_disk_behind_stdout_is_no_bug_of_ours(
    words: tuple[str, ...], said: str, unbuffered: str
) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "edgecal", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error {said}")
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
