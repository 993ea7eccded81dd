"""`edgecal rollout` over devices without a network: what it shows, exits with and leaves behind."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING, Any

import pytest

from edgecal.adapters import ssh
from edgecal.cli import app
from tests.fleets import CHECKOUT, Fleet, Supplies, make_supplies, start_fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.fleets import Device

ALL = ("--on", "site-a | site-b")
ONE = ("--on", "cam-01")
TWO = ("--on", "site-a")


@pytest.fixture(scope="module")
def supplies(tmp_path_factory: pytest.TempPathFactory) -> Supplies:
    return make_supplies(tmp_path_factory.mktemp("supplies"))


@pytest.fixture
def fleet(tmp_path: Path, supplies: Supplies, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """Four devices; `edgecal` runs in this process, where their inventory lies."""
    with start_fleet(tmp_path, 4, real=False, supplies=supplies) as made:
        monkeypatch.chdir(made.folder)
        monkeypatch.setenv("XDG_STATE_HOME", str(made.folder / "state"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(made.folder / "cache"))
        monkeypatch.setattr("sys.stdin", io.StringIO())
        monkeypatch.setattr(ssh, "connect", made.connect)
        yield made


class Desk:
    """Runs commands in this process and hears what they say."""

    def __init__(self, fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
        self.fleet = fleet
        self._capsys = capsys
        self.out = self.err = ""

    @property
    def bundle(self) -> str:
        return str(self.fleet.supplies.old.path)

    def run(self, *words: str) -> int:
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            app.main(["rollout", *words])
        self.out, self.err = self._capsys.readouterr()
        assert isinstance(end.value.code, int | None)
        return end.value.code or 0

    def ask(self, *words: str) -> tuple[int, dict[str, Any]]:
        code = self.run(*words, "--json")
        document: dict[str, Any] = json.loads(self.out)
        return code, document

    def phases(self, name: str) -> dict[str, str]:
        _, document = self.ask("status", name)
        return {one["target"]: one["phase"] for one in document["targets"]}

    def until(self, name: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Look at a rollout until something is true of it."""
        limit = time.monotonic() + 60
        while time.monotonic() < limit:
            code, document = self.ask("status", name)
            if code == 0 and holds(document):
                return document
            time.sleep(0.05)
        raise AssertionError(document)


@pytest.fixture
def desk(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(fleet, capsys)


def spoil_trtexec(device: Device) -> None:
    (device.folder / "bin" / "trtexec").unlink()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--on EXPR"),
        ((*ALL, "--waves", "10%,5%"), "--waves"),
        ((*ALL, "--waves", "1,2"), "reach 2 of 4"),
        ((*ALL, "--success", "lots"), "--success"),
        ((*ALL, "--failures", "101%"), "--failures"),
        ((*ALL, "--missing", "0"), "--missing"),
        ((*ALL, "--soak", "90"), "--soak"),
        ((*ALL, "--pause-after", "9"), "--pause-after"),
        ((*ALL, "--deadline", "soon"), "--deadline"),
        ((*ALL, "--in-flight", "0"), "--in-flight"),
        ((*ALL, "--tries", "0"), "--tries"),
        ((*ALL, "--name", "../x"), "--name"),
        ((*ALL, "--as", "a b"), "--as"),
        ((*ALL, "--limit-rate", "fast"), "--limit-rate"),
        ((*ALL, "--hook", "'"), "--hook"),
        ((*ALL, "--journal", "mysql://x"), "mysql"),
        ((*ALL, "--on-failure", "pray"), "--on-failure"),
        (("--on", "nobody"), "nobody"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_exit_2_and_names_the_option(
    desk: Desk, words: tuple[str, ...], said: str
) -> None:
    assert desk.run("start", desk.bundle, *words, "--yes") == 2
    assert said in " ".join(desk.err.split())
    assert desk.run("list") == 0
    assert "net" not in desk.out
    assert not any(desk.fleet.builds(name) for name in desk.fleet.names)


def test_a_bundle_that_is_none_is_exit_2(desk: Desk) -> None:
    assert desk.run("plan", "nothing.edgecal", *ALL) == 2
    assert desk.run("plan", *ALL) == 2
    assert "no bundle was given" in desk.err


def test_lines_and_the_document_cannot_share_stdout(desk: Desk) -> None:
    code, document = desk.ask("start", desk.bundle, *ALL, "--yes", "--events", "-")
    assert code == 2
    assert document["error"]["where"] == "--events -"


@pytest.mark.parametrize(
    "words", [("status",), ("resume", "x"), ("pause", "x"), ("promote", "x"), ("halt", "x", "-y")]
)
def test_a_rollout_that_does_not_exist_is_exit_2(desk: Desk, words: tuple[str, ...]) -> None:
    assert desk.run(*words) == 2
    assert "there is no rollout" in desk.err


def test_retry_wants_to_know_whom(desk: Desk) -> None:
    assert desk.run("retry", "x") == 2
    assert "--unreached" in desk.err
    assert desk.run("retry", "x", "--failed") == 2
    assert "there is no rollout" in desk.err


def test_a_plan_shows_who_goes_when_and_changes_nothing(desk: Desk) -> None:
    spoil_trtexec(desk.fleet.devices["cam-02"])
    desk.fleet.stop("cam-03")
    assert desk.run("plan", desk.bundle, *ALL) == 0
    shown = " ".join(desk.out.split())
    assert "3 devices in 3 waves" in shown
    assert "refused, and in no wave: 1 device builder-" in shown
    assert "not known yet: 1 device" in shown
    code, document = desk.ask("plan", desk.bundle, *ALL, "--waves", "1,100%", "--name", "n")
    assert code == 0
    assert (document["schema"], document["id"], document["state"]) == (
        "edgecal.rollout/1",
        "n",
        "planned",
    )
    assert [wave["targets"] for wave in document["waves"]] == [["cam-01"], ["cam-03", "cam-04"]]
    found = {one["target"]: one for one in document["targets"]}
    assert found["cam-01"]["bytes_to_send"] > 0
    assert found["cam-01"]["builder"] == "trtexec"
    assert (found["cam-02"]["phase"], found["cam-02"]["wave"]) == ("refused", None)
    assert found["cam-03"]["error"]["code"] == "connect"
    assert document["counts"] == {"pending": 3, "refused": 1}
    assert not any(device.root.exists() for device in desk.fleet.devices.values())


def test_nobody_left_to_roll_out_to_is_exit_3(desk: Desk) -> None:
    for device in desk.fleet.devices.values():
        spoil_trtexec(device)
    code, document = desk.ask("plan", desk.bundle, *ALL)
    assert code == 3
    assert "all 4 targets are refused" in document["error"]["what"]
    assert desk.run("start", desk.bundle, *ALL, "--yes") == 3


def test_without_a_yes_nothing_begins(desk: Desk) -> None:
    assert desk.run("start", desk.bundle, *ALL, "--quiet") == 2
    assert "4 devices in 3 waves" in desk.err
    assert "no answer was given" in desk.err
    assert desk.run("list") == 0
    assert "net" not in desk.out


def test_a_rollout_goes_through_its_waves_and_finishes(desk: Desk) -> None:
    code, document = desk.ask("start", desk.bundle, *ALL, "--yes", "--name", "one", "-v")
    assert code == 0
    assert document["state"] == "finished"
    assert [wave["state"] for wave in document["waves"]] == ["passed"] * 3
    assert document["counts"]["active"] == 4
    assert {one["phase"] for one in document["targets"]} == {"active"}
    assert "wave 3 of 3 has passed: 2 of 2 succeeded" in desk.err
    assert "cam-01 build trtexec" in desk.err
    releases = {desk.fleet.active(name) for name in desk.fleet.names}
    assert releases == {document["targets"][0]["release"]}
    assert desk.run("start", desk.bundle, *ALL, "--yes", "--name", "one") == 2
    assert "there is a rollout 'one' already" in desk.err
    assert desk.run("resume", "one") == 2
    assert "it is finished" in desk.err
    assert desk.run("halt", "one", "-y") == 2
    assert desk.run("promote", "one") == 2
    assert desk.run("start", desk.bundle, *ALL, "-yq", "--name", "two") == 0
    assert "kept" in desk.out
    assert desk.err == ""
    _, listed = desk.ask("list")
    assert [one["id"] for one in listed["rollouts"]] == ["two", "one"]
    assert listed["rollouts"][1]["digest"] == document["digest"]


def test_lines_for_programs_go_where_they_were_asked_for(desk: Desk) -> None:
    words = ("--events", "-", "--metrics", "m.prom", "--hook", "sh -c 'cat >>heard'")
    assert desk.run("start", desk.bundle, *ALL, "--yes", *words) == 0
    kinds = [json.loads(line)["kind"] for line in desk.out.splitlines()]
    assert kinds[:2] == ["planned", "wave-started"]
    assert kinds[-1] == "finished"
    assert "finished" in desk.err
    assert (desk.fleet.folder / "m.prom").read_text().count("cam") == 0
    assert '"finished"' in (desk.fleet.folder / "heard").read_text()


def test_a_gate_halts_it_with_exit_5_and_the_rest_is_untouched(desk: Desk) -> None:
    desk.fleet.spoil("cam-02", "build")
    assert desk.run("start", desk.bundle, *ALL, "--yes", "--name", "x", "--failures", "1") == 5
    assert "failed in wave 2 of 3: 1 of 1 devices reached have failed" in desk.out
    assert "no implementation for conv1" in desk.out
    assert "edgecal rollout retry x --failed" in desk.out
    assert desk.phases("x") == {
        "cam-01": "active",
        "cam-02": "failed",
        "cam-03": "pending",
        "cam-04": "pending",
    }
    code, document = desk.ask("status")
    assert code == 0
    assert document["reason"] == "1 of 1 devices reached have failed"
    assert desk.run("status", "--follow") == 5
    desk.fleet.mend("cam-02", "build")
    assert desk.run("retry", "x", "--unreached") == 2
    code, document = desk.ask("retry", "x", "--failed")
    assert (code, document["retried"]) == (0, ["cam-02"])
    assert desk.run("status") == 0
    assert "nobody drives it: edgecal rollout resume x" in desk.out
    assert desk.run("resume", "x") == 0
    assert set(desk.phases("x").values()) == {"active"}
    assert desk.fleet.builds("cam-01") == 1


def test_failures_within_the_gates_are_exit_4_and_named(desk: Desk) -> None:
    desk.fleet.spoil("cam-03", "build")
    desk.fleet.stop("cam-04")
    words = ("--success", "40%", "--failures", "3", "--deadline", "0", "--waves", "2,100%")
    assert desk.run("start", desk.bundle, *ALL, "--yes", "--name", "x", *words) == 5
    assert "0 of 2 succeeded" in desk.out
    desk.fleet.start("cam-04")
    desk.run("retry", "x", "--unreached")
    assert desk.run("resume", "x") == 4
    assert "failed cam-03" in desk.out
    assert "edgecal rollout retry x --failed\n" in desk.out
    assert desk.run("status", "--follow", "-q") == 4


def test_a_failed_wave_is_taken_back(desk: Desk) -> None:
    desk.fleet.spoil("cam-04", "build")
    words = ("--waves", "2,100%", "--failures", "1", "--on-failure", "rollback", "--in-flight", "1")
    code, document = desk.ask("start", desk.bundle, *ALL, "--yes", "--name", "x", *words)
    assert code == 5
    assert {one["target"]: one["phase"] for one in document["targets"]} == {
        "cam-01": "active",
        "cam-02": "active",
        "cam-03": "rolled-back",
        "cam-04": "failed",
    }
    assert desk.fleet.active("cam-03") is None
    desk.fleet.mend("cam-04", "build")
    _, document = desk.ask("retry", "x", "--failed")
    assert document["retried"] == ["cam-04", "cam-03"]
    assert desk.run("resume", "x") == 0


def test_a_journal_that_was_changed_is_exit_2(desk: Desk) -> None:
    assert desk.run("start", desk.bundle, *ALL, "--yes", "--name", "x") == 0
    code, document = desk.ask("status", "x", "--verify")
    assert (code, document["whole"]) == (0, True)
    place = desk.fleet.folder / "state" / "edgecal" / "rollouts.sqlite"
    with contextlib.closing(sqlite3.connect(place)) as base, base:
        base.execute(
            "UPDATE edgecal_rollout_entries SET text = replace(text, 'push-activated', "
            "'push-failed') WHERE position = 4"
        )
    for words in (("status", "x", "--verify"), ("status", "x"), ("resume", "x")):
        assert desk.run(*words) == 2
        assert "entry 4 is not the one that was written there" in desk.err


def test_bundles_are_found_again_by_their_digests(desk: Desk) -> None:
    desk.fleet.spoil("cam-01", "build")
    moved = desk.fleet.folder / "net.edgecal"
    subprocess.run(["cp", "-r", desk.bundle, moved], check=True)
    words = (*ALL, "--yes", "--name", "x", "--failures", "1", "--waves", "100%")
    assert desk.run("start", str(moved), *words) == 5
    desk.fleet.mend("cam-01", "build")
    desk.run("retry", "x", "--failed")
    moved.rename(desk.fleet.folder / "moved.edgecal")
    assert desk.run("resume", "x") == 2
    assert desk.run("resume", "x", str(desk.fleet.supplies.new.path)) == 2
    assert "not among those given" in desk.err
    assert desk.run("resume", "x", "moved.edgecal") == 0


def test_what_the_project_says_holds_where_the_command_does_not(desk: Desk) -> None:
    (desk.fleet.folder / "edgecal.toml").write_text(
        '[rollout]\nwaves = "100%"\nsoak = "5m"\nfailures = "3"\nmissing = "50%"\n'
        'pause_after = "1"\non_failure = "rollback"\ndeadline = "2h"\nin_flight = 7\n'
    )
    said = ("--soak", "0", "--missing", "never", "--waves", "1,100%", "--tries", "2")
    _, mixed = desk.ask("plan", desk.bundle, *ALL, *said)
    _, silent = desk.ask("plan", desk.bundle, *ALL)
    assert [len(one["waves"]) for one in (silent, mixed)] == [1, 2]
    kept = {
        "success": "90%",
        "failures": "3",
        "on_failure": "rollback",
        "pause_after": [1],
        "in_flight": 7,
        "deadline": "2h",
    }
    assert silent["policy"] == {**kept, "soak": "5m", "missing": "50%", "tries": 4}
    assert mixed["policy"] == {**kept, "soak": "0", "missing": "never", "tries": 2}


def test_a_device_that_left_the_inventory_is_not_touched_any_more(desk: Desk) -> None:
    desk.fleet.spoil("cam-01", "build")
    assert desk.run("start", desk.bundle, *TWO, "--yes", "--name", "x", "--failures", "1") == 5
    desk.fleet.mend("cam-01", "build")
    text = desk.fleet.toml.read_text().replace('"cam-02"', '"cam-03"')
    start = text.index("[targets.cam-02]")
    desk.fleet.toml.write_text(text[:start] + text[text.index("[targets.cam-03]") :])
    assert desk.run("retry", "x", "--failed") == 0
    assert desk.run("resume", "x") == 5
    assert "cam-02: it is not in the inventory any more" in desk.out
    assert desk.fleet.active("cam-01") is not None
    assert not desk.fleet.devices["cam-02"].root.exists()


def test_looking_on_may_end_before_the_rollout_does(desk: Desk) -> None:
    words = (*ONE, "--yes", "--name", "x", "--waves", "100%")
    desk.fleet.spoil("cam-01", "build")
    assert desk.run("start", desk.bundle, *words) == 5
    assert desk.run("retry", "x", "--failed") == 0
    with desk.fleet.begin("rollout", "status", "--follow") as process:
        assert process.stderr is not None
        assert "nobody drives it" in process.stderr.readline()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "x  wave 1 of 1, 0 of 1 done; nobody drives it" in out
    assert "stopping" not in err


def test_others_see_it_pause_it_promote_it_and_cannot_drive_it_too(desk: Desk) -> None:
    words = (*TWO, "--yes", "--name", "x", "--waves", "1,100%", "--pause-after", "1")
    with desk.fleet.begin("rollout", "start", desk.bundle, *words) as process:
        document = desk.until("x", lambda one: one["state"] == "held")
        assert f"process {process.pid}" in document["driver"]
        assert desk.run("status", "x") == 0
        assert "held after wave 1 of 2: edgecal rollout promote x" in desk.out
        assert desk.run("resume", "x") == 2
        assert "another controller drives this rollout" in desk.err
        assert desk.run("pause", "x") == 0
        assert "hears of it within a second or two" in desk.out
        assert desk.run("promote", "x") == 2
        assert desk.run("resume", "x") == 0
        assert "x resumed" in desk.out
        desk.until("x", lambda one: one["state"] == "held")
        assert desk.phases("x")["cam-02"] == "pending"
        assert desk.run("promote", "x") == 0
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "x  finished" in out
    assert "waits for a person: edgecal rollout promote x" in err


def test_a_halt_ends_it_within_seconds_and_for_good(desk: Desk) -> None:
    desk.fleet.spoil("cam-01", "hang")
    words = (*ONE, "--yes", "--name", "x", "--waves", "100%")
    with desk.fleet.begin("rollout", "start", desk.bundle, *words) as process:
        desk.until("x", lambda _one: desk.fleet.builds("cam-01") == 1)
        assert desk.run("halt", "x") == 2
        assert "halt x for good: 0 devices run the release" in desk.err
        begun = time.monotonic()
        assert desk.run("halt", "x", "--yes") == 0
        out, err = process.communicate(timeout=60)
        assert time.monotonic() - begun < 20
    assert process.returncode == 5, err
    assert "halted in wave 1 of 1: by " in out
    assert desk.run("resume", "x") == 2
    assert desk.run("retry", "x", "--failed") == 2
    assert desk.fleet.active("cam-01") is None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_leaves_a_rollout_that_goes_on(
    desk: Desk, number: signal.Signals, code: int
) -> None:
    desk.fleet.spoil("cam-01", "hang")
    words = (*ONE, "--yes", "--name", "x", "--waves", "100%", "--json")
    with desk.fleet.begin("rollout", "start", desk.bundle, *words) as process:
        desk.until("x", lambda _one: desk.fleet.builds("cam-01") == 1)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "stopping where nothing is half-done" in err
    assert json.loads(out)["state"] == "running"
    desk.fleet.mend("cam-01", "hang")
    assert desk.run("status") == 0
    assert "nobody drives it: edgecal rollout resume x" in desk.out
    assert desk.run("resume", "x") == 0
    assert desk.fleet.builds("cam-01") == 1


def test_on_a_terminal_there_is_a_table_and_it_goes_away(desk: Desk) -> None:
    desk.fleet.spoil("cam-02", "build")
    desk.fleet.slow("cam-01", 1.0)
    words = ("start", desk.bundle, *TWO, "--name", "x", "--waves", "100%", "--success", "50%")
    seen = on_terminal(desk.fleet, "rollout", *words, columns=80, rows=24, types=b"y\n")
    assert "do it? [y/N]" in seen
    table = [line for line in seen.split("\r\n") if "cam-01" in line and "building" in line]
    assert table
    assert max(map(len, table)) < 80
    assert "x  wave 1 of 1, 0 of 2 done" in seen
    assert "failed: the build failed with status 1" in seen
    last = seen[seen.rindex("x  finished") :]
    assert "building" not in last
    assert "edgecal rollout retry x --failed" in last


def on_terminal(fleet: Fleet, *words: str, columns: int, rows: int, types: bytes) -> str:
    """Run a command on a terminal of some size; gives what it wrote, without colours."""
    inner, outer = pty.openpty()
    fcntl.ioctl(outer, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    program = [sys.executable, "-m", "tests.fleets", str(fleet.folder.parent), *words]
    environment = {
        **{key: value for key, value in os.environ.items() if key not in {"COLUMNS", "LINES"}},
        "HOME": str(fleet.folder),
        "PYTHONPATH": str(CHECKOUT),
        "TERM": "xterm-256color",
    }
    with subprocess.Popen(
        program, cwd=fleet.folder, env=environment, stdin=outer, stdout=outer, stderr=outer
    ) as process:
        os.close(outer)
        os.write(inner, types)
        said = b""
        with contextlib.suppress(OSError):  # EIO: everybody has closed it
            while piece := os.read(inner, 65536):
                said += piece
    os.close(inner)
    assert process.returncode == 4
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said.decode())
