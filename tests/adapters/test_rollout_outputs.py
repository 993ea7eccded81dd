"""Lines, commands and figures of a rollout, on real files, pipes and processes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgecal.adapters.aside import Aside
from edgecal.adapters.rollout_outputs import Hooks, Lines, open_figures, open_lines
from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

FIGURES = "# HELP edgecal_rollout_info x\n# TYPE edgecal_rollout_info gauge\n"
HEAR = {"EDGECAL_EVENT": "push-started"}


def eventually(true: Callable[[], bool]) -> None:
    for _ in range(500):
        if true():
            return
        time.sleep(0.01)
    pytest.fail("it never came to that")


# lines


@pytest.mark.parametrize("content", [b"# notes\n", b"\x89PNG"])
def test_lines_are_not_appended_to_something_else(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "notes"
    file.write_bytes(content)
    with pytest.raises(InputError, match="holds no lines of JSON"):
        open_lines(file, warn=pytest.fail)
    assert file.read_bytes() == content


def test_lines_need_a_place(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "missing/x", tmp_path / "pipe"):
        with pytest.raises(InputError, match="cannot write events") as caught:
            open_lines(path, warn=pytest.fail)
        assert caught.value.where == str(path)


def test_a_closed_pipe_is_said_once_and_ends_nothing() -> None:
    there, here = os.pipe()
    heard: list[str] = []
    lines = Lines(os.fdopen(here, "wb", buffering=0), "events", warn=heard.append, close=True)
    lines.put("{}")
    assert os.read(there, 100) == b"{}\n"
    os.close(there)
    for _ in range(5):
        lines.put("{}")
    lines.close()
    assert len(heard) == 1
    assert "lines are lost" in heard[0]
    assert "Broken pipe" in heard[0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said_once_and_ends_nothing() -> None:
    heard: list[str] = []
    lines = open_lines(Path("/dev/full"), warn=heard.append)
    for _ in range(5):
        lines.put("{}")
    lines.close()
    assert len(heard) == 1
    assert "No space left" in heard[0]


def test_a_reader_that_hangs_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecal.adapters.rollout_outputs._DRAIN_S", 0.5)
    there, here = os.pipe()
    heard: list[str] = []
    stream = os.fdopen(here, "wb", buffering=0)
    lines = Lines(stream, "events", warn=heard.append, close=True)
    began = time.monotonic()
    for _ in range(100):
        lines.put("x" * 10_000)
    assert time.monotonic() - began < 0.5
    lines.close()
    assert time.monotonic() - began < 2
    assert "nobody took the last" in heard[0]
    os.close(there)
    eventually(lambda: len(heard) == 2)  # the thread is free again: broken pipe
    stream.close()


def test_half_a_line_is_ended_before_the_next() -> None:
    class Disk:
        """Takes five bytes, then is full once."""

        def __init__(self) -> None:
            self.data = b""
            self.full = False

        def write(self, data: memoryview) -> int:
            if len(self.data) == 5 and not self.full:
                self.full = True
                raise OSError(28, "No space left on device")
            taken = bytes(data[: 5 if not self.full else None])
            self.data += taken
            return len(taken)

        def flush(self) -> None:
            pass

    disk = Disk()
    heard: list[str] = []
    lines = Lines(disk, "events", warn=heard.append, close=False)  # type: ignore[arg-type]
    lines.put('{"a": 1}')
    lines.put('{"b": 2}')
    lines.close()
    assert disk.data == b'{"a":\n{"b": 2}\n'
    assert len(heard) == 1


def test_lines_are_appended_and_there_at_once(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text('{"of": "the last rollout"}\n')
    lines = open_lines(file, warn=pytest.fail)
    lines.put("{}")
    eventually(lambda: file.read_text() == '{"of": "the last rollout"}\n{}\n')
    lines.put("{}")
    lines.close()
    assert file.read_text() == '{"of": "the last rollout"}\n{}\n{}\n'


WRITER = """
import sys, time
from edgecal.adapters.rollout_outputs import stdout_lines
print("before")
lines = stdout_lines(warn=lambda text: print(text, file=sys.stderr))
for _ in range(50):
    lines.put("{}")
    time.sleep(0.01)
lines.close()
print("the end", file=sys.stderr)
"""


def test_a_reader_of_stdout_that_leaves_ends_nothing() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert [process.stdout.readline() for _ in range(3)] == ["before\n", "{}\n", "{}\n"]
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 0, said
    assert said.splitlines() == [
        "standard output: lines are lost: [Errno 32] Broken pipe",
        "the end",
    ]


# commands


def script(folder: Path, text: str) -> list[str]:
    file = folder / "hook.py"
    file.write_text(text)
    return [sys.executable, "-I", str(file)]


def test_a_command_that_is_not_there_is_said_once_with_how_often(tmp_path: Path) -> None:
    heard: list[str] = []
    hooks = Hooks([str(tmp_path / "missing")], warn=heard.append)
    for _ in range(3):
        hooks.put("{}\n", HEAR)
    hooks.close()
    assert len(heard) == 2
    assert "told of push-started, cannot be run" in heard[0]
    assert "failed 3 times" in heard[1]


def test_what_a_failing_command_said_is_told(tmp_path: Path) -> None:
    heard: list[str] = []
    hooks = Hooks(script(tmp_path, "import sys; sys.exit('no \\udcff way')"), warn=heard.append)
    hooks.put("{}\n", HEAR)
    hooks.close()
    assert len(heard) == 1
    assert "ended with status 1: no" in heard[0]


def test_a_command_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    heard: list[str] = []
    hooks = Hooks(
        ["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/child; sleep 60"],
        warn=heard.append,
        timeout_s=0.5,
    )
    began = time.monotonic()
    hooks.put("{}\n", HEAR)
    hooks.put("{}\n", HEAR)
    assert time.monotonic() - began < 0.5
    hooks.close()
    assert time.monotonic() - began < 5
    assert "has not ended within 0.5 s" in heard[0]
    child = int((tmp_path / "child").read_text())
    eventually(lambda: not alive(child))


def alive(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def test_too_many_commands_are_not_waited_for(tmp_path: Path) -> None:
    heard: list[str] = []
    hooks = Hooks(
        ["sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 60"],
        warn=heard.append,
        timeout_s=60,
        drain_s=0.3,
    )
    for _ in range(4):
        hooks.put("{}\n", HEAR)
    eventually((tmp_path / "pid").exists)
    began = time.monotonic()
    hooks.close()
    assert time.monotonic() - began < 2
    assert "too slow: 4 events were not told" in heard[0]
    eventually(lambda: not alive(int((tmp_path / "pid").read_text())))


def test_a_command_that_reads_nothing_and_leaves_a_child_holds_nothing_up(tmp_path: Path) -> None:
    hooks = Hooks(["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/child"], warn=pytest.fail)
    began = time.monotonic()
    hooks.put("x" * 1_000_000, HEAR)
    hooks.close()
    assert time.monotonic() - began < 9
    os.kill(int((tmp_path / "child").read_text()), 9)


def test_commands_run_in_order_one_at_a_time(tmp_path: Path) -> None:
    hooks = Hooks(
        ["sh", "-c", 'echo "begin $EDGECAL_EVENT" >> log; cat >> log; echo end >> log'],
        warn=pytest.fail,
    )
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        for number in range(8):
            hooks.put(f"text {number}\n", {"EDGECAL_EVENT": f"kind-{number} $(x)"})
        hooks.close()
    finally:
        os.chdir(here)
    expected = "".join(f"begin kind-{n} $(x)\ntext {n}\nend\n" for n in range(8))
    assert (tmp_path / "log").read_text() == expected


# figures


def test_figures_replace_nothing_but_figures(tmp_path: Path) -> None:
    file = tmp_path / "x.prom"
    file.write_text("node_cpu 1\n")
    with pytest.raises(InputError, match="holds no figures of a rollout"):
        open_figures(file, warn=pytest.fail)
    assert file.read_text() == "node_cpu 1\n"


def test_figures_need_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing, or may not be written"):
        open_figures(tmp_path / "missing/x.prom", warn=pytest.fail)
    with pytest.raises(InputError, match="it is no file"):
        open_figures(tmp_path, warn=pytest.fail)


def test_a_folder_that_goes_away_is_said_once(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    heard: list[str] = []
    figures = open_figures(folder / "x.prom", warn=heard.append)
    folder.rmdir()
    for number in range(3):
        figures.put(f"{FIGURES}{number}\n")
    figures.close()
    assert len(heard) == 1
    assert "the figures are not kept up" in heard[0]


def test_a_name_that_no_collector_reads_is_said(tmp_path: Path) -> None:
    heard: list[str] = []
    open_figures(tmp_path / "x.txt", warn=heard.append).close()
    assert "*.prom only" in heard[0]


def test_figures_are_always_whole_and_readable_for_everybody(tmp_path: Path) -> None:
    file = tmp_path / "x.prom"
    left = tmp_path / f".x.prom.{os.getpid()}.tmp"
    left.write_text("half of")
    figures = open_figures(file, warn=pytest.fail)
    seen = set()
    for number in range(200):
        figures.put(f"{FIGURES}{number}\n" * 200)
        if file.exists():
            seen.add(file.read_text().count("\n"))
    figures.close()
    assert seen <= {600}
    assert file.read_text() == f"{FIGURES}199\n" * 200
    assert [one.name for one in tmp_path.iterdir()] == ["x.prom"]
    assert stat.S_IMODE(file.stat().st_mode) & 0o044 == 0o044
    open_figures(file, warn=pytest.fail).close()  # the next rollout goes on with it


# the thread


def test_what_is_aside_is_done_in_order_and_to_the_end() -> None:
    done: list[int] = []
    aside: Aside[int] = Aside(done.append, drain_s=10)
    for number in range(1000):
        aside.put(number)
    assert aside.close() == 0
    assert done == list(range(1000))
