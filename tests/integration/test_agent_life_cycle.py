"""The agent around a build and after it: commands, time limits, trials, pruning, power loss."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.integration.test_agent_script import (
    AGENT,
    BUSY,
    ENGINE,
    NAME,
    OTHER,
    RECEIVE,
    RECORD,
    RELEASE,
    Answer,
    Target,
    begin,
    finish,
    is_alive,
    lock_record,
    set_up,
    sha256,
    stop_everything,
    until,
    until_dead,
    wrappers,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("setsid") is None or shutil.which("flock") is None,
    reason="needs Linux, setsid and flock, as a target has them",
)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    made = set_up(Target(tmp_path / "o'hara's \"root\" $HOME"))
    yield made
    stop_everything(made)


def eventually(claim: Callable[[], bool], *, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


# --- around a build -----------------------------------------------------------------------------


def test_a_build_does_not_begin_if_what_comes_before_it_fails(target: Target) -> None:
    after = ["touch", "after the build"]
    target.start("touch", "built", before=["sh", "-c", "exit 3"], after=after)
    header, log = target.wait()
    assert header.startswith("job=done status=3 ")
    assert log == b"edgecal: pre_build ended with status 3, so nothing was built\n"
    assert not (target.job / "built").exists()
    assert (target.job / "after the build").exists()


@pytest.mark.parametrize(("end", "status"), [("true", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_the_command_after_the_build_runs_however_that_ended(
    target: Target, end: str, status: int
) -> None:
    target.start("sh", "-c", end, after=["sh", "-c", 'echo "$1" >said', "sh", "it's over; $(id)"])
    assert target.wait()[0].startswith(f"job=done status={status} ")
    assert (target.job / "said").read_text() == "it's over; $(id)\n"


def test_it_runs_after_a_cancel_too_and_the_application_it_starts_lives_on(target: Target) -> None:
    build = "sleep 60 & echo $! >child; echo $$ >pid; wait"
    application = "setsid sleep 60 & echo $! >application"
    target.start("sh", "-c", build, after=["sh", "-c", application])
    pids = [int(until(target.job / name)) for name in ("pid", "child")]
    before = time.monotonic()
    assert target.call("cancel", NAME, RELEASE).text == "cancelled\n"
    assert time.monotonic() - before < 8
    for pid in pids:
        until_dead(pid)
    survivor = int(until(target.job / "application"))
    assert is_alive(survivor)
    status = subprocess.run(
        ["grep", "SigIgn", f"/proc/{survivor}/status"], capture_output=True, text=True, check=True
    )
    assert int(status.stdout.split()[1], 16) & (1 << (signal.SIGTERM - 1)) == 0
    os.kill(survivor, signal.SIGKILL)
    assert target.state()["status"] == "143"


def test_a_failure_of_the_command_after_the_build_is_said_and_changes_no_status(
    target: Target,
) -> None:
    target.start("true", after=["sh", "-c", "exit 5"])
    header, log = target.wait()
    assert header.startswith("job=done status=0 ")
    assert log == b"edgecal: post_build ended with status 5\n"


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "])
def test_the_target_itself_ends_a_build_that_takes_too_long(
    target: Target, tmp_path: Path, trap: str
) -> None:
    # the grace before SIGKILL is ten seconds: less for this test
    body = 'shift 2; exec "$real" -k 1 "$@"'
    environment = wrappers(tmp_path / "bin", ["timeout"], body)
    words = (*"1000", "sh", "-c", f"{trap}echo $$ >pid; while :; do sleep 0.1; done")
    target.call("start", NAME, RELEASE, "ann", *words, environment=environment)
    header, log = target.wait()
    assert header.startswith("job=done status=124 ")
    assert log.endswith(b"edgecal: the build took longer than 1 s and was ended\n")
    until_dead(int((target.job / "pid").read_text()))


# --- locks --------------------------------------------------------------------------------------


def test_a_lock_tells_its_owner_and_its_age_by_the_uptime(target: Target) -> None:
    target.start("sleep", "60")
    time.sleep(1.1)
    answer = target.start("true", release=OTHER)
    found = re.fullmatch(BUSY, answer.text)
    assert found
    assert (answer.code, found["owner"], found["work"]) == (20, "ann @ host", "build")
    assert 1 <= int(found["age"]) < 30


def test_breaking_a_lock_ends_exactly_the_holder_that_was_named(target: Target) -> None:
    target.start("sh", "-c", "echo $$ >pid; exec sleep 60")
    command = int(until(target.job / "pid"))
    holder = target.lock.read_text().split()
    assert target.call("break", NAME, "lock", holder[1], "1").text == "none\n"
    assert is_alive(command)
    assert target.call("break", NAME, "lock", *holder[1:3]).text == "cancelled\n"
    until_dead(command)
    assert target.call("break", NAME, "lock", *holder[1:3]).text == "none\n"
    assert target.start("true", release=OTHER).text == "started\n"


def test_a_lock_of_moments_that_hangs_is_broken_by_ending_its_process(target: Target) -> None:
    target.release()
    with subprocess.Popen(["sleep", "60"]) as process:
        lock = target.model / "switch.lock"
        lock.write_text(lock_record(pid=process.pid).replace("build", "activate"))
        answer = target.activate(RELEASE)
        found = re.fullmatch(BUSY, answer.text)
        assert found
        assert (answer.code, found["lock"]) == (20, "switch.lock")
        holder = lock.read_text().split()
        assert target.call("break", NAME, "switch.lock", *holder[1:3]).text == "cancelled\n"
        assert process.wait(5) == -signal.SIGKILL
    assert target.activate(RELEASE).code == 0


# --- not now ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [fcntl.LOCK_SH, fcntl.LOCK_EX])
def test_an_application_puts_an_activation_off_and_its_end_lets_go(
    target: Target, kind: int
) -> None:
    target.release()
    holder = (target.model / "not-now").open()  # reading is all it takes
    fcntl.flock(holder, kind)
    answer = target.activate(RELEASE)
    assert (answer.code, "holds" in answer.err) == (26, True)
    assert not (target.model / "activations").exists()
    assert target.current() == ""
    digest = sha256(ENGINE + RELEASE.encode())
    forced = target.call("activate", NAME, RELEASE, "", "model.engine", digest, RECORD, "now")
    assert forced.code == 0
    holder.close()
    assert target.activate(RELEASE, RELEASE).code == 0


def test_the_list_of_models_says_what_may_change_at_any_moment(target: Target) -> None:
    target.release()
    lock = target.model / "switch.lock"
    with subprocess.Popen(["sleep", "60"]) as process:
        lock.write_text(lock_record(pid=process.pid).replace("build", "activate"))
        assert "\nswitching=activate\n" in target.call("models").text
        process.kill()
    assert "switching" not in target.call("models").text, "its process is gone"


# --- nothing is active any more -----------------------------------------------------------------


def test_a_release_is_deactivated_if_it_is_still_the_active_one(target: Target) -> None:
    target.release()
    target.release(OTHER)
    assert target.call("deactivate", NAME, RELEASE, RECORD).text == "current=\n"
    assert target.activate(OTHER).code == 0
    refused = target.call("deactivate", NAME, RELEASE, RECORD)
    assert (refused.code, refused.text) == (22, f"current={OTHER}\n")
    assert target.current() == OTHER
    assert target.call("deactivate", NAME, OTHER, '{"action": "deactivate"}').code == 0
    assert target.current() == ""
    assert (target.model / "activations").read_text().endswith(' {"action": "deactivate"}\n')
    assert target.call("deactivate", NAME, OTHER, RECORD).code == 22
    assert target.activate(OTHER).code == 0


def test_an_application_puts_a_deactivation_off(target: Target) -> None:
    target.release()
    assert target.activate(RELEASE).code == 0
    with (target.model / "not-now").open() as holder:
        fcntl.flock(holder, fcntl.LOCK_SH)
        assert target.call("deactivate", NAME, RELEASE, RECORD).code == 26
    assert target.current() == RELEASE


# --- trials -------------------------------------------------------------------------------------

BACK = json.dumps({"action": "rollback", "release": "x"})


def try_out(
    target: Target, *health: str, back: str = "", soak: int = 1, release: str = RELEASE
) -> Answer:
    digest = sha256(ENGINE + release.encode())
    words = (NAME, release, back, "model.engine", digest, RECORD, "", back, str(soak), BACK)
    return target.call("activate", *words, *health)


def trial(target: Target, release: str = RELEASE, seconds: int = 10) -> dict[str, str]:
    return target.call("trial_state", NAME, release, str(seconds)).fields


def test_a_first_release_that_is_not_healthy_leaves_nothing_active(target: Target) -> None:
    target.release()
    assert try_out(target, "sh", "-c", "echo ill; exit 9").text == f"active {RELEASE}\n"
    assert trial(target)["trial"] == "failed"
    assert trial(target)["reason"] == "the health command ended with status 9"
    assert not (target.model / "current").is_symlink()
    assert (target.model / "trial.log").read_text() == "ill\n"
    last = (target.model / "activations").read_text().splitlines()[-1]
    assert json.loads(last.partition(" ")[2])["reason"] == trial(target)["reason"]


def test_a_release_that_falls_ill_during_the_soak_time_gives_way_to_the_one_before(
    target: Target, tmp_path: Path
) -> None:
    target.release(OTHER)
    target.activate(OTHER)
    target.release()
    well = tmp_path / "well"
    well.touch()
    assert try_out(target, "test", "-e", str(well), back=OTHER, soak=30).code == 0
    assert target.current() == RELEASE
    assert target.state()["trial"] == "soaking"
    well.unlink()
    assert trial(target)["trial"] == "failed"
    assert target.current() == OTHER


def test_a_release_that_passed_stays_only_if_it_is_confirmed(
    target: Target, tmp_path: Path
) -> None:
    sooner = wrappers(tmp_path / "bin", ["sleep"], 'exec "$real" 0.01')
    target = Target(target.root, environment=sooner)
    target.release(OTHER)
    target.activate(OTHER)
    target.release()
    try_out(target, "true", back=OTHER, soak=0)
    eventually(lambda: trial(target)["trial"] == "unconfirmed")
    assert target.current() == OTHER
    assert target.call("confirm", NAME, RELEASE, RECORD).code == 27
    patient = Target(target.root)
    try_out(patient, "true", back=OTHER, soak=0)
    assert trial(patient)["trial"] == "passed"
    assert patient.call("confirm", NAME, RELEASE, RECORD).code == 0
    assert patient.call("confirm", NAME, RELEASE, RECORD).code == 0  # twice is no fault
    time.sleep(1)
    assert (patient.current(), trial(patient)["trial"]) == (RELEASE, "confirmed")


def test_an_operator_who_rolls_back_during_a_trial_is_not_overruled(target: Target) -> None:
    target.release(OTHER)
    target.activate(OTHER)
    target.release()
    try_out(target, "sh", "-c", "sleep 1; exit 1", back=OTHER)
    assert target.activate(OTHER, RELEASE).code == 0
    assert target.activate(RELEASE, OTHER).code == 0  # and back again, without a trial
    time.sleep(1.5)
    assert target.current() == RELEASE
    assert trial(target)["trial"] == "none"


def test_a_trial_that_ends_late_does_not_touch_the_one_that_took_its_place(
    target: Target, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    waits = f"until [ -e '{go}' ]; do sleep 0.05; done\n"
    late = AGENT.replace(b": step passed\n", waits.encode())
    assert late != AGENT
    target.receive(late)
    target.release()
    digest = sha256(ENGINE + RELEASE.encode())
    words = (NAME, RELEASE, "", "model.engine", digest, RECORD, "", "", "0", BACK, "true")
    agent = ["sh", str(target.blobs / sha256(late)), str(target.root)]
    assert finish(begin([*agent, "activate", *words], {})).code == 0
    pid = int((target.model / "trial").read_text().split()[1])
    again = (NAME, RELEASE, RELEASE, "model.engine", digest, RECORD, "", "", "0", BACK, "true")
    assert target.call("activate", *again).code == 0
    assert trial(target)["trial"] == "passed"
    assert target.call("confirm", NAME, RELEASE, RECORD).code == 0
    go.touch()
    until_dead(pid)
    assert trial(target)["trial"] == "confirmed"


def test_a_trial_whose_process_was_killed_is_lost_and_can_be_held_again(target: Target) -> None:
    target.release()
    try_out(target, "true", soak=60)
    pid = int((target.model / "trial").read_text().split()[1])
    os.kill(pid, signal.SIGKILL)
    until_dead(pid)
    assert target.state()["trial"] == "lost"
    assert target.current() == RELEASE
    assert target.call("confirm", NAME, RELEASE, RECORD).code == 27
    digest = sha256(ENGINE + RELEASE.encode())
    words = (NAME, RELEASE, RELEASE, "model.engine", digest, RECORD, "", "", "0", BACK, "true")
    assert target.call("activate", *words).code == 0
    assert trial(target)["trial"] == "passed"
    assert target.call("confirm", NAME, RELEASE, RECORD).code == 0


# --- pruning ------------------------------------------------------------------------------------


def store(target: Target, data: bytes) -> str:
    assert target.receive(data).code == 0
    return sha256(data)


def prune(target: Target, *words: str, mode: str = "remove", force: str = "") -> Answer:
    return target.call("prune", mode, force, *words)


def test_blobs_that_nothing_refers_to_go_and_the_others_stay(target: Target) -> None:
    used, linked, loose = (store(target, data) for data in (b"used", b"linked", b"loose"))
    target.receive(b"pa", digest=sha256(b"part"), size=4)
    target.start(
        "sh", "-c", "printf 'engine of 0123456789abcdef' >model.engine", links=[f"a={used}"]
    )
    target.wait()
    target.install()
    target.start("sleep", "60", release=OTHER, links=[f"deep/b={linked}"])
    planned = prune(target, mode="plan")
    assert f"blob {loose} 5\n" in planned.text
    assert planned.text.endswith("freed=7\n")
    assert (target.blobs / loose).exists()
    assert prune(target).text == planned.text
    assert {path.name for path in target.blobs.iterdir()} == {used, linked, sha256(AGENT)}
    assert prune(target).text == "freed=0\n"


def test_a_removed_release_takes_along_what_only_it_needed(target: Target) -> None:
    blob = store(target, b"network")
    target.start(
        "sh", "-c", "printf 'engine of 0123456789abcdef' >model.engine", links=[f"a={blob}"]
    )
    target.wait()
    target.install()
    words = ("releases", NAME, "", RELEASE)
    planned = prune(target, *words, mode="plan").text
    assert planned.startswith(f"releases {NAME} {RELEASE} ")
    assert f"blob {blob} 7\n" in planned
    assert prune(target, *words).text == planned
    assert list((target.model / "releases").iterdir()) == []
    assert not (target.blobs / blob).exists()


def test_what_is_active_or_being_built_or_wanted_is_kept(target: Target) -> None:
    target.release()
    target.activate(RELEASE)
    target.start("sleep", "60", release=OTHER)
    words = ("releases", NAME, RELEASE, RELEASE, "jobs", NAME, RELEASE, OTHER)
    answer = prune(target, *words, force="now")
    assert answer.text == f"kept {NAME} {RELEASE}\nkept {NAME} {OTHER}\nfreed=0\n"
    target.call("cancel", NAME, OTHER)
    blob = store(target, b"wanted")
    assert target.call("want", NAME, OTHER, "ann", blob).text == f"full {blob}\n"
    assert prune(target, *words[4:]).text == f"kept {NAME} {OTHER}\nfreed=0\n"
    assert f"blob {blob} 6\n" in prune(target, *words[4:], force="now").text
    assert target.current() == RELEASE


def test_what_an_earlier_boot_or_a_push_of_long_ago_wanted_is_not_kept(target: Target) -> None:
    blob = store(target, b"wanted")
    target.call("want", NAME, RELEASE, "ann", blob)
    [record] = (target.root / "wanted").iterdir()
    first, _, rest = record.read_text().partition("\n")
    record.write_text(f"{'0' * 36} {first.split(' ', 1)[1]}\n{rest}")
    assert prune(target).text == f"blob {blob} 6\nfreed=6\n"
    assert not record.exists()


def test_a_plan_that_was_overtaken_is_refused(target: Target) -> None:
    target.release()
    target.release(OTHER)
    target.activate(OTHER)
    answer = prune(target, "releases", NAME, RELEASE, OTHER)
    assert (answer.code, answer.text) == (22, f"current={OTHER}\n")
    assert target.current() == OTHER


def test_pruning_waits_for_nobody_who_is_gone_and_for_everybody_else(target: Target) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        lock = target.root / "store.lock"
        lock.write_text(lock_record(pid=process.pid).replace("build", "prune"))
        for answer in (prune(target), target.call("want", NAME, RELEASE, "ann", "0" * 64)):
            found = re.fullmatch(BUSY, answer.text)
            assert found
            assert (answer.code, found["lock"]) == (20, "store.lock")
        process.kill()
        process.wait()
    assert prune(target).code == 0


# --- named steps, and power loss ----------------------------------------------------------------

STEPS = sorted(set(re.findall(rb"^ *: step ([a-z-]+)$", AGENT, re.MULTILINE)))


def cut(target: Target, step: str, *call: str, stdin: bytes = b"") -> Answer:
    """Run an operation of an agent that dies at a named step."""
    text = AGENT.replace(f": step {step}\n".encode(), b'kill -9 "$$"\n')
    assert text != AGENT
    assert target.receive(text).code == 0
    agent = target.blobs / sha256(text)
    return finish(begin(["sh", str(agent), str(target.root), *call], {}), stdin)


def test_every_step_has_a_name_of_its_own() -> None:
    assert AGENT.count(b": step ") == len(STEPS) + 1  # the comment that explains them
    assert len(STEPS) > 25


@pytest.mark.parametrize("step", ["rename-gone", "remove-folders", "remove-blob", "lock-prune"])
def test_a_prune_cut_at_any_step_is_finished_by_the_next(target: Target, step: str) -> None:
    target.release()
    target.release(OTHER)
    target.activate(OTHER)
    blob = store(target, b"loose")
    words = ("prune", "remove", "", "releases", NAME, OTHER, RELEASE)
    assert cut(target, step, *words).code == -signal.SIGKILL
    assert target.current() == OTHER
    listed = f"release={RELEASE}\n" in target.call("models").text
    assert listed == (step in {"lock-prune", "rename-gone"})
    assert prune(target, *words[3:]).code == 0
    assert target.current() == OTHER
    assert not (target.blobs / blob).exists()
    assert [path.name for path in (target.model / "releases").iterdir()] == [OTHER]


@pytest.fixture
def strace() -> str:
    program = shutil.which("strace")
    works = program and subprocess.run(
        [program, "-o", "/dev/null", "true"], capture_output=True, check=False
    )
    if not works or works.returncode != 0:
        if os.environ.get("EDGECAL_REQUIRE_STRACE") == "1":
            pytest.fail("strace is not here, or may not trace")
        pytest.skip("needs strace, and the right to trace")
    assert program
    return program


def traced(strace: str, folder: Path, command: list[str], stdin: bytes = b"") -> list[str]:
    """Give the names, in order: `sync PATH` and `rename FROM TO`, by their last two parts."""
    log = folder / "trace"
    calls = "trace=fsync,fdatasync,rename,renameat,renameat2"
    line = [strace, "-f", "-y", "-s", "4096", "-e", calls, "-o", str(log), *command]
    answer = finish(begin(line, {}), stdin)
    assert answer.code == 0, answer
    seen = []
    for text in log.read_text().splitlines():
        if "= 0" not in text:
            continue
        if match := re.search(r"f(?:data)?sync\(\d+<(.*)>\)", text):
            seen.append(f"sync {short(match[1])}")
        elif "rename" in text:
            names = re.findall(r'"((?:[^"\\]|\\.)*)"', text)
            seen.append(f"rename {short(names[0])} {short(names[1])}")
    return seen


def short(path: str) -> str:
    return "/".join(re.sub(r"\.\d+$", ".PID", path).split("/")[-2:])


def test_each_rename_comes_after_the_sync_of_what_it_renames(
    target: Target, tmp_path: Path, strace: str
) -> None:
    data = b"network"
    digest = sha256(data)
    receive = ["sh", "-c", RECEIVE, "edgecal", str(target.root), digest, "0", str(len(data))]
    seen = traced(strace, tmp_path, receive, data)
    part, blob = f"sha256/{digest}.part", f"sha256/{digest}"
    assert seen.index(f"sync {part}") < seen.index(f"rename {part} {blob}")
    assert seen.index(f"rename {part} {blob}") < seen.index("sync blobs/sha256")

    target.build()
    document = b'{"builder": "trtexec"}\n'
    install = target.command("install", NAME, RELEASE, sha256(document))
    seen = traced(strace, tmp_path, install, document)
    new, record = f"{NAME}/new.document.PID", f"{RELEASE}/build.json"
    moved = f"rename jobs/{RELEASE} releases/{RELEASE}"
    order = [f"sync {new}", f"rename {new} {record}", f"sync {RELEASE}/model.engine", moved]
    assert [seen.index(one) for one in order] == sorted(seen.index(one) for one in order)
    assert f"sync {NAME}/releases" in seen[seen.index(moved) :]

    engine = sha256(ENGINE + RELEASE.encode())
    words = ("activate", NAME, RELEASE, "", "model.engine", engine, RECORD, "")
    seen = traced(strace, tmp_path, target.command(*words))
    swap = f"rename {NAME}/current.new {NAME}/current"
    place = seen.index(swap)
    assert f"sync {NAME}/activations" in seen[:place]
    assert seen[place - 1].startswith("sync models/")  # the link itself lies in that folder
    assert seen[place + 1].startswith("sync models/")
