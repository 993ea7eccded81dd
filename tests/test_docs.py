"""The README tells the truth: its console blocks run, and every other edgecal line is one."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer

from edgecal import errors
from edgecal.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).resolve().parent.parent
README = (CHECKOUT / "README.md").read_text("utf-8")
BLOCK = re.compile(r"^ *```(?P<kind>\w*)\n(?P<body>.*?)^ *```$", re.DOTALL | re.MULTILINE)


def blocks(kind: str) -> list[str]:
    return [match["body"] for match in BLOCK.finditer(README) if match["kind"] == kind]


def console_steps() -> list[tuple[str, str]]:
    """Every `$ command` of the console blocks with the output that follows it."""
    steps = []
    for block in blocks("console"):
        for part in block.split("$ ")[1:]:
            command, _, output = part.partition("\n")
            steps.append((command, output))
    return steps


def shape(text: str) -> list[str]:
    """A text without what differs from run to run: numbers, ids, times, units, paths, blanks."""
    # what a slow machine says beside the rest, for people who wait
    text = re.sub(r"(?m)^\s*(sent \S+ \S+ of .*|building for .*|[a-z ]+: \d+ of \d+)\n", "", text)
    text = re.sub(r"/\S*/(?=edgecal-demo)", "PATH/", text)
    text = re.sub(r"\b[0-9a-f]{16}\b", "RELEASE", text)
    text = re.sub(r"\S+@127\.0\.0\.1", "USER@HOST", text)
    text = re.sub(r"reached \S+ \(\S+\)", "reached HOST", text)
    text = re.sub(r"\d[\d.:TZ-]*", "N", text)
    text = re.sub(r"\b[kM]?B\b", "B", text)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(CHECKOUT), "COLUMNS": "100"}


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The demo's folder while its target is up, and what the demo said."""
    folder = tmp_path_factory.mktemp("tour")
    log = folder / "demo.log"
    with log.open("w") as out:
        demo = subprocess.Popen(
            [sys.executable, "-m", "edgecal", "demo", "--serve"],
            cwd=folder,
            env=environment(),
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        limit = time.monotonic() + 90
        while "press Ctrl-C" not in log.read_text():
            assert demo.poll() is None, log.read_text()
            assert time.monotonic() < limit, log.read_text()
            time.sleep(0.1)
        yield folder / "edgecal-demo", log.read_text()
    finally:
        demo.send_signal(signal.SIGINT)
        demo.wait(timeout=20)


def test_the_demo_says_what_the_readme_shows(tour: tuple[Path, str]) -> None:
    command, expected = console_steps()[0]
    assert command == "edgecal demo"
    said = tour[1].partition("the target stays up")[0]
    served_by = re.compile(r"served by .*")
    assert shape(served_by.sub("", said)) == shape(served_by.sub("", expected))


def test_the_tour_runs_as_the_readme_shows_it(tour: tuple[Path, str]) -> None:
    steps = console_steps()[1:]
    assert len(steps) >= 4
    for command, expected in steps:
        words = shlex.split(command)
        assert words[0] == "edgecal"
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=tour[0],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        assert shape(done.stdout) == shape(expected), command


def edgecal_lines() -> list[str]:
    found = [line for block in blocks("sh") for line in block.splitlines()]
    found += re.findall(r"`(edgecal [^`]+)`", README)
    return [line.strip() for line in found if line.strip().startswith("edgecal ")]


@pytest.mark.parametrize("line", edgecal_lines())
def test_every_edgecal_line_is_one_that_the_parser_accepts(line: str) -> None:
    _, name, *words = shlex.split(line)
    command: Any = typer.main.get_command(app)
    while name in getattr(command, "commands", ()):
        command = command.commands[name]
        if not words:  # a bare name in running text means the command, not a call of it
            return
        if hasattr(command, "commands"):
            name, *words = words
    assert not hasattr(command, "commands"), f"there is no {name}"
    if words:
        command.make_context(name, words).close()


def test_the_set_up_commands_exist() -> None:
    first = blocks("sh")[0]
    for word in re.findall(r"scripts/\w+", first):
        assert os.access(CHECKOUT / word, os.X_OK)


def test_every_exit_code_of_an_error_stands_in_the_readme() -> None:
    codes = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.EdgecalError)
    }
    named = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    assert codes - {1} <= named
