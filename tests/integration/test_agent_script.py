"""The two shell scripts of a target, run by a real shell on a real disk, and all their failures."""

import hashlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecal.adapters.scripts import AGENT_PARTS, load_scripts
from tests.strategies import RAN, shell_words

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("setsid") is None,
    reason="needs Linux and setsid, as a target has them",
)

SCRIPTS = Path(__file__).parents[2] / "edgecal" / "target_scripts"
RECEIVE = (SCRIPTS / "receive.sh").read_text(encoding="utf-8")
AGENT = load_scripts().agent.encode()
NAME = "resnet50.v1_a-b"
RELEASE = "0123456789abcdef"
OTHER = "fedcba9876543210"
ENGINE = b"engine of "
BUILD = b'{"builder": "trtexec"}\n'
RECORD = '{"by": "o\'hara \\"x\\" $(id)"}'
UNCHANGED: Mapping[str, str] = {}
BUSY = (
    r"busy lock=(?P<lock>\S+) pid=\d+ start=\d+ work=(?P<work>\S+) age=(?P<age>\d+) "
    r"release=(?P<release>\S+) owner=(?P<owner>.*)\n"
)
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Answer:
    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def fields(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.text.splitlines())


@dataclass(frozen=True)
class Target:
    root: Path
    shell: tuple[str, ...] = ("sh",)
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def blobs(self) -> Path:
        return self.root / "blobs" / "sha256"

    @property
    def model(self) -> Path:
        return self.root / "models" / NAME

    @property
    def job(self) -> Path:
        return self.model / "jobs" / RELEASE

    @property
    def lock(self) -> Path:
        return self.model / "lock"

    def command(self, *arguments: str) -> list[str]:
        agent = self.blobs / sha256(AGENT)
        return [*self.shell, str(agent), str(self.root), *arguments]

    def call(
        self, *arguments: str, stdin: bytes = b"", environment: Mapping[str, str] = UNCHANGED
    ) -> Answer:
        return finish(self.begin(*arguments, environment=environment), stdin)

    def begin(
        self, *arguments: str, environment: Mapping[str, str] = UNCHANGED
    ) -> "subprocess.Popen[bytes]":
        return begin(self.command(*arguments), {**self.environment, **environment})

    def receive(
        self, data: bytes, *, digest: str = "", offset: int = 0, size: int | None = None
    ) -> Answer:
        process = self.begin_receive(
            digest or sha256(data), offset, len(data) + offset if size is None else size
        )
        return finish(process, data)

    def begin_receive(self, digest: str, offset: int, size: int) -> "subprocess.Popen[bytes]":
        arguments = ["edgecal", str(self.root), digest, str(offset), str(size)]
        return begin([*self.shell, "-c", RECEIVE, *arguments], self.environment)

    def start(
        self,
        *argv: str,
        release: str = RELEASE,
        links: Sequence[str] = (),
        before: Sequence[str] = (),
        after: Sequence[str] = (),
        seconds: int = 0,
    ) -> Answer:
        numbers = map(str, (seconds, len(links), len(before), len(after)))
        words = (*numbers, *links, *before, *after, *argv)
        return self.call("start", NAME, release, "ann @ host", *words)

    def wait(self, release: str = RELEASE, offset: int = 0, seconds: int = 10) -> tuple[str, bytes]:
        answer = self.call("wait", NAME, release, str(offset), str(seconds))
        assert answer.code == 0, answer
        header, _, log = answer.out.partition(b"\n")
        return header.decode(), log

    def state(self, release: str = RELEASE) -> dict[str, str]:
        answer = self.call("state", NAME, release)
        assert answer.code == 0, answer
        return answer.fields

    def build(self, release: str = RELEASE) -> None:
        engine = (ENGINE + release.encode()).decode()
        started = self.start(
            "sh", "-c", 'echo building; printf %s "$1" >model.engine', "sh", engine, release=release
        )
        assert started.text == "started\n", started
        header, _ = self.wait(release)
        assert header.startswith("job=done status=0 "), header

    def install(self, release: str = RELEASE, environment: Mapping[str, str] = UNCHANGED) -> Answer:
        arguments = ("install", NAME, release, sha256(BUILD))
        return self.call(*arguments, stdin=BUILD, environment=environment)

    def release(self, release: str = RELEASE) -> None:
        self.build(release)
        assert self.install(release) == Answer(0, b"", "")

    def activate(self, release: str, expected: str = "") -> Answer:
        digest = sha256(ENGINE + release.encode())
        arguments = (NAME, release, expected, "model.engine", digest, RECORD, "")
        return self.call("activate", *arguments)

    def current(self) -> str:
        link = self.model / "current"
        if not link.is_symlink():
            return ""
        release = link.resolve().name
        assert (link / "model.engine").read_bytes() == ENGINE + release.encode()
        assert (link / "build.json").is_file()
        return release


def begin(command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )


def finish(process: "subprocess.Popen[bytes]", stdin: bytes = b"") -> Answer:
    try:
        out, err = process.communicate(stdin, timeout=25)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return Answer(process.returncode, out, err.decode())


def start_time(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2].split()[19]


def is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(") ")[2][0] not in "ZX"


def until(path: Path, *, seconds: float = 10) -> str:
    """Wait for a file that a job writes, and give its text."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if path.is_file() and path.read_text(encoding="utf-8").endswith("\n"):
            return path.read_text(encoding="utf-8").strip()
        time.sleep(0.01)
    pytest.fail(f"{path} was not written in {seconds} s")


def until_dead(pid: int) -> None:
    deadline = time.monotonic() + 5
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} lives on"
        time.sleep(0.01)


def supervisor(target: Target) -> int:
    return int(target.state()["lock_pid"])


def lock_record(
    *, boot: str | None = None, pid: int, start: str | None = None, release: str = RELEASE
) -> str:
    boot = BOOT_ID.read_text(encoding="ascii").strip() if boot is None else boot
    return f"{boot} {pid} {start_time(pid) if start is None else start} build {release} bob b\n"


def dead_lock() -> str:
    """Give the record of a process that was, in this boot."""
    with subprocess.Popen(["true"]) as process:
        start = start_time(process.pid)
    return lock_record(pid=process.pid, start=start)


def stop_everything(target: Target) -> None:
    for job in (target.root / "models").glob("*/jobs/*"):
        target.call("cancel", job.parents[1].name, job.name)


def set_up(target: Target) -> Target:
    answer = target.receive(AGENT)
    assert answer == Answer(0, b"", "")
    return target


def wrappers(folder: Path, tools: Sequence[str], body: str) -> dict[str, str]:
    """Put tools of the same names before the real ones: `body` has the real one's path in $real."""
    folder.mkdir()
    for tool in tools:
        script = folder / tool
        script.write_text(f"#!/bin/sh\nreal={shutil.which(tool)} tool={tool}\n{body}\n")
        script.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    made = set_up(Target(tmp_path / "o'hara's \"root\" $HOME"))
    yield made
    stop_everything(made)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Target]:
    """A target whose disk holds 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "small disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "edgecal-test", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"mounting a small disk: {mounted.stderr.strip()}")
    made = Target(disk / "root")
    try:
        yield set_up(made)
        stop_everything(made)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


# --- receive.sh ---------------------------------------------------------------------------------


def test_a_file_is_stored_by_its_digest_readable_and_unwritable(target: Target) -> None:
    data = bytes(range(256)) * 1000
    assert target.receive(data) == Answer(0, b"", "")
    blob = target.blobs / sha256(data)
    assert blob.read_bytes() == data
    assert stat.S_IMODE(blob.stat().st_mode) == 0o444
    assert not list(target.blobs.glob("*.part"))


def test_an_empty_file_is_stored(target: Target) -> None:
    assert target.receive(b"").code == 0
    assert (target.blobs / sha256(b"")).read_bytes() == b""


def test_a_stored_file_is_not_read_again(target: Target) -> None:
    target.receive(b"data")
    process = target.begin_receive(sha256(b"data"), 0, 4)
    assert process.wait(10) == 0  # though stdin is still open
    finish(process)


def test_a_stored_file_that_lost_its_end_is_replaced(target: Target) -> None:
    target.receive(b"data")
    blob = target.blobs / sha256(b"data")
    blob.chmod(0o644)
    blob.write_bytes(b"da")
    assert target.receive(b"data").code == 0
    assert blob.read_bytes() == b"data"


def test_a_cut_transfer_goes_on_where_it_ended(target: Target) -> None:
    data = os.urandom(300_000)
    digest = sha256(data)
    cut = target.receive(data[:100_001], digest=digest, size=len(data))
    assert (cut.code, cut.text) == (13, "part=100001\n")
    assert target.call("have", digest).text == f"part {digest} 100001\n"
    again = target.receive(data[100_001:200_000], digest=digest, offset=100_001, size=len(data))
    assert (again.code, again.text) == (13, "part=200000\n")
    assert target.receive(data[200_000:], digest=digest, offset=200_000).code == 0
    assert (target.blobs / digest).read_bytes() == data


def test_a_transfer_that_begins_anew_forgets_the_part(target: Target) -> None:
    digest = sha256(b"whole")
    target.receive(b"xyz", digest=digest, size=5)
    assert target.receive(b"whole").code == 0


@pytest.mark.parametrize("offset", [1, 4, 9])
def test_a_transfer_from_another_offset_is_told_the_right_one(target: Target, offset: int) -> None:
    digest = sha256(b"whole file")
    target.receive(b"who", digest=digest, size=10)
    answer = target.receive(b"whole file"[offset:], digest=digest, offset=offset)
    assert (answer.code, answer.text) == (11, "part=3\n")
    assert (target.blobs / f"{digest}.part").read_bytes() == b"who"


@pytest.mark.parametrize("data", [b"wrong file", b"whole file and more"])
def test_a_transfer_with_another_digest_is_thrown_away(target: Target, data: bytes) -> None:
    digest = sha256(b"whole file")
    answer = target.receive(data, digest=digest, size=10)
    assert answer.code == 10
    assert sha256(data) in answer.err
    assert target.call("have", digest).text == f"none {digest}\n"
    assert not (target.blobs / f"{digest}.part").exists()


def test_a_receiver_that_hung_and_wakes_up_damages_nothing(target: Target) -> None:
    data = os.urandom(400_000)
    digest = sha256(data)
    hung = target.begin_receive(digest, 0, len(data))
    assert hung.stdin
    hung.stdin.write(data[:100_000])
    hung.stdin.flush()
    part = target.blobs / f"{digest}.part"
    while not part.is_file() or part.stat().st_size < 100_000:
        time.sleep(0.01)
    newer = target.begin_receive(digest, 100_000, len(data))
    assert newer.stdin
    newer.stdin.write(data[100_000:250_000])
    newer.stdin.flush()
    while part.stat().st_size < 250_000:
        time.sleep(0.01)
    hung.stdin.write(data[100_000:200_000])
    assert finish(newer, data[250_000:]).code == 0
    assert finish(hung, data[200_000:]).code == 0
    assert (target.blobs / digest).read_bytes() == data


def test_a_receiver_that_hung_does_not_disturb_one_that_begins_anew(target: Target) -> None:
    data = os.urandom(200_000)
    digest = sha256(data)
    hung = target.begin_receive(digest, 0, len(data))
    assert hung.stdin
    hung.stdin.write(data[:100_000])
    hung.stdin.flush()
    part = target.blobs / f"{digest}.part"
    while not part.is_file() or part.stat().st_size < 100_000:
        time.sleep(0.01)
    newer = target.begin_receive(digest, 0, len(data))
    assert newer.stdin
    newer.stdin.write(data[:50_000])
    newer.stdin.flush()
    while not part.is_file() or part.stat().st_size != 50_000:
        time.sleep(0.01)
    late = finish(hung, data[100_000:])
    assert (late.code, late.text) == (13, "part=50000\n")
    assert finish(newer, data[50_000:]).code == 0
    assert (target.blobs / digest).read_bytes() == data


@pytest.mark.parametrize(
    "arguments",
    [
        ("relative", "0" * 64, "0", "1"),
        ("/root", "0" * 63, "0", "1"),
        ("/root", "A" * 64, "0", "1"),
        ("/root", "../" + "0" * 61, "0", "1"),
        ("/root", "0" * 64, "-1", "1"),
        ("/root", "0" * 64, "0", ""),
        ("/root", "0" * 64, "0"),
    ],
)
def test_wrong_arguments_are_refused_by_the_receiver(arguments: tuple[str, ...]) -> None:
    answer = finish(begin(["sh", "-c", RECEIVE, "edgecal", *arguments], {}))
    assert answer.code == 64
    assert answer.err.startswith("edgecal: expected ")


def test_a_full_disk_stops_a_transfer_that_goes_on_when_there_is_room(full_disk: Target) -> None:
    data = os.urandom(900_000)
    ballast = full_disk.root / "ballast"
    ballast.write_bytes(bytes(300_000))
    stopped = full_disk.receive(data)
    assert stopped.code == 12
    assert "No space left on device" in stopped.err
    kept = (full_disk.blobs / f"{sha256(data)}.part").read_bytes()
    assert kept
    assert data.startswith(kept)
    ballast.unlink()
    rest = full_disk.receive(data[len(kept) :], digest=sha256(data), offset=len(kept))
    assert rest.code == 0, rest
    assert (full_disk.blobs / sha256(data)).read_bytes() == data


# --- agent.sh: arguments ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "é", "x" * 65, "a\n", "$(id)", "*"])
def test_a_name_that_is_no_model_name_is_refused(target: Target, name: str) -> None:
    answer = target.call("state", name, RELEASE)
    assert answer.code == 64
    assert "expected a model name" in answer.err


@pytest.mark.parametrize("name", ["...", "-rf", "a..b", "x" * 64])
def test_an_odd_model_name_goes_all_the_way(target: Target, name: str) -> None:
    target.receive(b"blob")
    arguments = (
        "0",
        "1",
        "0",
        "0",
        f"-in=it={sha256(b'blob')}",
        "cp",
        "--",
        "-in=it",
        "model.engine",
    )
    assert target.call("start", name, RELEASE, "ann", *arguments).text == "started\n"
    assert target.call("wait", name, RELEASE, "0", "10").text.startswith("job=done status=0 ")
    assert target.call("install", name, RELEASE, sha256(BUILD), stdin=BUILD).code == 0
    activation = (name, RELEASE, "", "model.engine", sha256(b"blob"), RECORD, "")
    assert target.call("activate", *activation).text == f"active {RELEASE}\n"
    assert (target.root / "models" / name / "current" / "model.engine").read_bytes() == b"blob"
    assert f"model={name}\ncurrent={RELEASE}\n" in target.call("models").text


@pytest.mark.parametrize(
    "release", ["", "0" * 15, "0" * 17, "0123456789ABCDEF", "../../../../../.."]
)
def test_a_release_that_is_none_is_refused(target: Target, release: str) -> None:
    answer = target.call("state", NAME, release)
    assert answer.code == 64
    assert "expected a release" in answer.err


@pytest.mark.parametrize(
    "link",
    [
        "",
        "/etc/x",
        "..",
        "../x",
        "a/../../x",
        "a/..",
        "a//b",
        "./a",
        "a/",
        "a\nb",
        "log",
        "argv/x",
        "status",
        "build.json",
    ],
)
def test_a_link_that_leaves_the_job_or_hides_its_files_is_refused(
    target: Target, link: str
) -> None:
    target.receive(b"blob")
    answer = target.start("true", links=[f"{link}={sha256(b'blob')}"])
    assert answer.code == 64
    assert not target.model.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("explode",),
        ("supervise",),
        ("have", "0" * 63),
        ("state", NAME),
        ("models", NAME),
        ("start", NAME, RELEASE, "ann", "0", "0", "0", "0"),
        ("start", NAME, RELEASE, "ann", "0", "1", "0", "0", "true"),
        ("start", NAME, RELEASE, "ann", "0", "0", "1", "0", "true"),
        ("start", NAME, RELEASE, "ann", "0", "-1", "0", "0", "true"),
        ("start", NAME, RELEASE, "ann\nbob", "0", "0", "0", "0", "true"),
        ("start", NAME, RELEASE, "", "0", "0", "0", "0", "true"),
        ("start", NAME, RELEASE, "ann", "0", "1", "0", "0", "a=0", "true"),
        ("want", NAME, RELEASE),
        ("want", NAME, RELEASE, "ann", "0"),
        ("prune", "plan"),
        ("prune", "erase", ""),
        ("prune", "plan", "", "releases", NAME, ""),
        ("prune", "plan", "", "current", NAME, "", RELEASE),
        ("break", NAME, "current", "1", "1"),
        ("break", NAME, "lock", "1", "-1"),
        ("trial_state", NAME, RELEASE, "31"),
        ("confirm", NAME, RELEASE, "a\nb"),
        ("wait", NAME, RELEASE, "0", "31"),
        ("wait", NAME, RELEASE, "x", "1"),
        ("wait", NAME, RELEASE, "08", "1"),
        ("install", NAME, RELEASE, "0"),
        ("activate", NAME, RELEASE, "x", "model.engine", "0" * 64, RECORD, ""),
        ("activate", NAME, RELEASE, "", "a/b", "0" * 64, RECORD, ""),
        ("activate", NAME, RELEASE, "", "model.engine", "0" * 63, RECORD, ""),
        ("activate", NAME, RELEASE, "", "model.engine", "0" * 64, RECORD + "\n" + RECORD, ""),
        ("activate", NAME, RELEASE, "", "model.engine", "0" * 64, RECORD, "", "", "1", RECORD),
    ],
)
def test_wrong_arguments_are_refused_by_the_agent(
    target: Target, arguments: tuple[str, ...]
) -> None:
    answer = target.call(*arguments)
    assert answer.code == 64
    assert answer.err.startswith("edgecal: ")
    assert answer.out == b""
    assert not (target.root / "models").exists()


# --- agent.sh: what is there --------------------------------------------------------------------


def test_have_says_of_every_digest_what_is_there(target: Target) -> None:
    digests = [sha256(b"full"), sha256(b"cut"), sha256(b"none")]
    target.receive(b"full")
    target.receive(b"c", digest=digests[1], size=3)
    expected = f"full {digests[0]}\npart {digests[1]} 1\nnone {digests[2]}\n"
    assert target.call("have", *digests).text == expected
    assert target.call("have").text == ""


def test_a_model_nobody_knows_has_an_empty_state_and_leaves_no_trace(target: Target) -> None:
    assert target.state() == {
        "current": "",
        "release": "absent",
        "job": "none",
        "log_bytes": "0",
        "lock": "free",
        "lock_owner": "",
        "lock_pid": "",
    }
    assert target.wait() == ("job=none status=- log_bytes=0", b"")
    assert target.call("cancel", NAME, RELEASE).text == "none\n"
    assert target.call("models").text == ""
    assert target.install().code == 25
    assert target.activate(RELEASE).code == 24
    assert not (target.root / "models").exists()


# --- agent.sh: builds ---------------------------------------------------------------------------


def test_a_build_goes_from_start_to_an_active_release(target: Target) -> None:
    target.receive(b"onnx")
    target.receive(b"weights")
    links = [f"model.onnx={sha256(b'onnx')}", f"weights/it's/a.bin={sha256(b'weights')}"]
    script = 'echo out; echo err >&2; cat model.onnx "weights/it\'s/a.bin" >model.engine'
    assert target.start("sh", "-c", script, links=links) == Answer(0, b"started\n", "")
    header, log = target.wait()
    assert (header, log) == ("job=done status=0 log_bytes=8", b"out\nerr\n")
    assert (target.job / "argv").read_text() == f"sh\n-c\n{script}\n"
    assert (target.job / "owner").read_text() == "ann @ host\n"
    state = target.state()
    assert (state["job"], state["status"], state["release"]) == ("done", "0", "absent")
    assert state["lock"] == "free"
    assert target.install() == Answer(0, b"", "")
    ready = target.model / "releases" / RELEASE
    found = sorted(str(path.relative_to(ready)) for path in ready.rglob("*"))
    links_found = ["model.onnx", "weights", "weights/it's", "weights/it's/a.bin"]
    assert found == ["build.json", "build.log.gz", "model.engine", *links_found]
    for link, data in (("model.onnx", b"onnx"), ("weights/it's/a.bin", b"weights")):
        assert not (ready / link).readlink().is_absolute()
        assert (ready / link).read_bytes() == data
    zipped = subprocess.run(
        ["gzip", "-dc", ready / "build.log.gz"], capture_output=True, check=True
    )
    assert zipped.stdout == b"out\nerr\n"
    assert target.state()["release"] == "ready"
    digest = sha256(b"onnxweights")
    before = int(time.time())
    answer = target.call("activate", NAME, RELEASE, "", "model.engine", digest, RECORD, "")
    assert answer == Answer(0, f"active {RELEASE}\n".encode(), "")
    assert (target.model / "current").readlink() == Path("releases", RELEASE)
    when, _, record = (target.model / "activations").read_text().partition(" ")
    assert before <= int(when) <= time.time()
    assert record == RECORD + "\n"
    assert target.state()["current"] == RELEASE
    active = f"model={NAME}\ncurrent={RELEASE}\ntrial=none\nrelease={RELEASE}\n"
    expected = f"{active}activation={when} {RECORD}\n"
    assert target.call("models").text == expected
    names = {path.name for path in target.model.iterdir()}
    assert names == {"activations", "current", "jobs", "not-now", "releases"}


def test_other_users_can_read_what_was_built(target: Target) -> None:
    previous = os.umask(0o077)
    try:
        target.release()
    finally:
        os.umask(previous)
    for path in (target.model / "releases" / RELEASE).rglob("*"):
        assert path.stat().st_mode & stat.S_IROTH, path
    for folder in ("", "releases", f"releases/{RELEASE}"):
        assert stat.S_IMODE((target.model / folder).stat().st_mode) == 0o755


def test_start_lets_go_of_its_channel_while_the_build_runs(target: Target) -> None:
    before = time.monotonic()
    assert target.start("sleep", "60").text == "started\n"  # its pipes are read to their end
    assert time.monotonic() - before < 5
    assert target.state()["job"] == "running"
    assert target.start("sleep", "60").text == "running\n"
    state = target.state()
    assert (state["lock"], state["lock_owner"]) == ("held", "ann @ host")
    assert f"job={RELEASE} running - ann @ host\n" in target.call("models").text


def test_a_build_is_its_own_session_niced_and_the_first_victim(target: Target) -> None:
    script = "nice; cat /proc/self/oom_score_adj; cat /proc/$$/stat; cat; pwd"
    target.start("sh", "-c", script)
    header, log = target.wait()
    nice, score, process, folder = log.decode().splitlines()
    assert header.startswith("job=done status=0")
    assert (nice, score) == (str(min(19, os.nice(0) + 10)), "1000")
    session = int(process.rpartition(") ")[2].split()[3])
    assert session != os.getsid(0)
    assert Path(folder) == target.job.resolve()


def test_the_command_gets_exactly_its_arguments(target: Target) -> None:
    nasty = [
        "",
        " ",
        "a'b",
        'c"d',
        f"$(touch {RAN})",
        "`id`",
        "*",
        "~",
        "-n",
        "--",
        "\\n\\",
        "é\t",
        "e\nf",
    ]
    script = "import json, sys; json.dump(sys.argv[1:], open('seen', 'w'))"
    target.start(sys.executable, "-c", script, *nasty)
    header, log = target.wait()
    assert (header, log) == ("job=done status=0 log_bytes=0", b"")
    assert json.loads((target.job / "seen").read_text()) == nasty
    assert (target.job / "argv").read_text() == "\n".join(
        [sys.executable, "-c", script, *nasty, ""]
    )
    assert not (target.job / RAN).exists()


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(words=st.lists(shell_words(), min_size=1, max_size=4))
def test_any_words_reach_the_command_as_they_are(target: Target, words: list[str]) -> None:
    script = "import json, sys; json.dump(sys.argv[1:], open('seen', 'w'))"
    target.start(sys.executable, "-S", "-c", script, *words)
    assert target.wait()[0].startswith("job=done status=0 ")
    assert json.loads((target.job / "seen").read_text()) == words
    assert not list(target.root.rglob(RAN))


@pytest.mark.parametrize("word", ["drop_lock", "exit", "no-such-program", "eval"])
def test_the_command_is_a_program_and_never_a_word_of_the_shell(target: Target, word: str) -> None:
    target.start(word, "3")
    header, log = target.wait()
    assert re.match("job=done status=12[67] ", header)  # 126: a folder of PATH is not ours to read
    assert word.encode() in log


@pytest.mark.parametrize(
    ("script", "status"), [("exit 7", 7), ("kill -9 $$", 137), ("kill -11 $$", 139)]
)
def test_the_status_tells_how_the_command_ended(target: Target, script: str, status: int) -> None:
    target.start("sh", "-c", script)
    assert target.wait()[0].startswith(f"job=done status={status} ")
    assert target.state()["status"] == str(status)
    assert target.install().code == 25


def test_a_build_that_failed_is_cleared_and_started_again(target: Target) -> None:
    target.start("sh", "-c", "echo old >junk; exit 1")
    target.wait()
    target.build()
    assert not (target.job / "junk").exists()


def test_a_missing_blob_is_named_and_nothing_starts(target: Target) -> None:
    answer = target.start("true", links=[f"a=b={sha256(b'never sent')}"])
    assert answer.code == 21
    assert sha256(b"never sent") in answer.err
    assert "(a=b)" in answer.err
    assert not target.model.exists()


def test_a_rotten_blob_fails_the_build_and_leaves_the_store(target: Target) -> None:
    target.receive(b"sound")
    target.receive(b"onnx")
    sound, rotten = sha256(b"sound"), sha256(b"onnx")
    (target.blobs / rotten).chmod(0o644)
    (target.blobs / rotten).write_bytes(b"onnX")
    target.start("touch", "ran", links=[f"s={sound}", f"model.onnx={rotten}"])
    header, log = target.wait()
    assert header.startswith("job=done status=21 ")
    assert rotten.encode() in log
    assert not (target.job / "ran").exists()
    assert target.call("have", sound, rotten).text == f"full {sound}\nnone {rotten}\n"


def test_the_log_comes_in_pieces_and_whole(target: Target) -> None:
    target.start("head", "-c", "2500000", "/dev/zero")
    mebibyte = 1 << 20
    header, _ = target.wait()
    assert header == f"job=done status=0 log_bytes={mebibyte}"
    offset, sizes = 0, []
    while piece := target.wait(offset=offset)[1]:
        offset += len(piece)
        sizes.append(len(piece))
    assert sizes == [mebibyte, mebibyte, 2_500_000 - 2 * mebibyte]
    assert target.wait(offset=2_500_001) == ("job=done status=0 log_bytes=2500000", b"")


def test_wait_returns_what_there_is_when_its_time_is_over(target: Target) -> None:
    target.start("sh", "-c", "printf 'ab\\ncd'; sleep 60")
    before = time.monotonic()
    header, log = target.wait(seconds=1)
    assert 1 <= time.monotonic() - before < 4
    assert (header, log) == ("job=running status=- log_bytes=5", b"ab\ncd")
    assert target.wait(offset=3, seconds=0) == ("job=running status=- log_bytes=5", b"cd")


def test_wait_returns_as_soon_as_the_build_has_ended(target: Target) -> None:
    target.start("sleep", "0.5")
    before = time.monotonic()
    assert target.wait(seconds=30)[0].startswith("job=done status=0 ")
    assert time.monotonic() - before < 5


def test_wait_returns_as_soon_as_the_supervisor_is_gone(target: Target) -> None:
    target.start("sleep", "60")
    process = target.begin("wait", NAME, RELEASE, "0", "30")
    os.kill(supervisor(target), signal.SIGKILL)
    assert finish(process).text == "job=lost status=- log_bytes=0\n"


# --- agent.sh: locks ----------------------------------------------------------------------------


def start_many(
    target: Target, releases: Sequence[str], environment: Mapping[str, str] = UNCHANGED
) -> list[Answer]:
    processes = [
        target.begin(*start, environment=environment)
        for i, release in enumerate(releases)
        for start in [("start", NAME, release, f"owner {i}", *"0000", "sleep", "60")]
    ]
    return [finish(process) for process in processes]


def test_of_ten_starts_at_once_one_wins_and_nine_find_it_running(target: Target) -> None:
    answers = [answer.text for answer in start_many(target, [RELEASE] * 10)]
    assert sorted(answers) == ["running\n"] * 9 + ["started\n"]


def test_of_ten_starts_of_different_releases_one_wins(target: Target) -> None:
    releases = [f"{i:016x}" for i in range(10)]
    answers = start_many(target, releases)
    [winner] = [i for i, answer in enumerate(answers) if answer.text == "started\n"]
    for i, answer in enumerate(answers):
        if i != winner:
            assert answer.code == 20
            found = re.fullmatch(BUSY, answer.text)
            assert found
            assert (found["lock"], found["work"]) == ("lock", "build")
            assert (found["release"], found["owner"]) == (releases[winner], f"owner {winner}")
            assert 0 <= int(found["age"]) < 60
    assert [path.name for path in (target.model / "jobs").iterdir()] == [releases[winner]]


@pytest.mark.parametrize("slow", ["", "rm", "ln"])
def test_a_dead_lock_is_broken_once_however_many_try(
    target: Target, tmp_path: Path, slow: str
) -> None:
    # A random pause before each `rm` or `ln` tears the steps of ten processes apart.
    body = 'case "$*" in *lock*) sleep 0.$(($$ % 4)) ;; esac; exec "$real" "$@"'
    environment = wrappers(tmp_path / "bin", [slow] if slow else [], body)
    target.model.mkdir(parents=True)
    for _ in range(2):
        target.lock.write_text(dead_lock())
        answers = start_many(target, [f"{i:016x}" for i in range(10)], environment)
        assert sorted(answer.code for answer in answers) == [0] + [20] * 9
        [winner] = [i for i, answer in enumerate(answers) if answer.code == 0]
        assert target.call("cancel", NAME, f"{winner:016x}").text == "cancelled\n"
    assert not list(target.model.glob("lock*"))


def test_a_breaker_that_died_is_replaced(target: Target) -> None:
    target.model.mkdir(parents=True)
    first, second, third = dead_lock(), dead_lock(), dead_lock()
    target.lock.write_text(first)
    for dead, claimer in ((first, second), (second, third)):
        name = f"lock.break.{sha256(dead.rstrip().encode())}"
        (target.model / name).write_text(claimer)
    target.build()


def test_a_dead_lock_is_left_to_the_living_process_that_claimed_it(target: Target) -> None:
    target.model.mkdir(parents=True)
    dead = dead_lock()
    target.lock.write_text(dead)
    claim = target.model / f"lock.break.{sha256(dead.rstrip().encode())}"
    claim.write_text(lock_record(pid=os.getpid()))
    process = target.begin("start", NAME, RELEASE, "ann", *"0000", "true")
    time.sleep(0.5)
    assert target.lock.read_text() == dead
    claim.unlink()
    assert finish(process).text == "started\n"
    target.wait()


@pytest.mark.parametrize("record", ["", "\n", "garbage\n", "\0" * 60, "a b c d e f", "* * * * *\n"])
def test_a_lock_torn_by_a_power_loss_holds_nobody_up(target: Target, record: str) -> None:
    target.model.mkdir(parents=True)
    target.lock.write_text(record)
    assert target.state()["lock"] == "free"
    target.build()


def test_a_lock_from_before_a_reboot_is_free_and_its_job_lost(target: Target) -> None:
    target.job.mkdir(parents=True)
    (target.job / "log").write_text("half a lo")
    boot = "00000000-0000-0000-0000-000000000000"
    target.lock.write_text(lock_record(boot=boot, pid=os.getpid()))
    state = target.state()
    assert (state["job"], state["lock"], state["log_bytes"]) == ("lost", "free", "9")
    assert target.wait(seconds=30) == ("job=lost status=- log_bytes=9", b"half a lo")
    assert target.call("cancel", NAME, RELEASE).text == "none\n"
    assert target.call("models").text.endswith(f"job={RELEASE} lost - \n")
    target.build()


def test_a_lock_whose_pid_is_another_process_by_now_is_free(target: Target) -> None:
    target.job.mkdir(parents=True)
    target.lock.write_text(lock_record(pid=os.getpid(), start="1"))
    assert (target.state()["job"], target.state()["lock"]) == ("lost", "free")
    assert target.call("cancel", NAME, RELEASE).text == "none\n"
    target.build()


def test_a_lock_of_a_living_process_is_busy_whatever_its_name(
    target: Target, tmp_path: Path
) -> None:
    target.release()
    program = tmp_path / "x) R 1 (\n)y"
    shutil.copy(shutil.which("sleep") or "sleep", program)
    with subprocess.Popen([program, "60"]) as process:
        while "x) R 1 (" not in Path(f"/proc/{process.pid}/comm").read_text():
            time.sleep(0.01)
        target.lock.write_text(lock_record(pid=process.pid, release=OTHER))
        answer = target.start("true")
        found = re.fullmatch(BUSY, answer.text)
        assert found
        assert (answer.code, found["release"], found["owner"]) == (20, OTHER, "bob b")
        state = target.state()
        assert (state["lock"], state["lock_owner"]) == ("held", "bob b")
        assert state["lock_pid"] == str(process.pid)
        # a build of another release is no obstacle to going back
        assert target.activate(RELEASE).text == f"active {RELEASE}\n"
        process.kill()
        process.wait()
    target.build(OTHER)


def test_a_zombie_holds_no_lock(target: Target) -> None:
    target.model.mkdir(parents=True)
    process = subprocess.Popen(["sleep", "60"])
    target.lock.write_text(lock_record(pid=process.pid))
    assert target.state()["lock"] == "held"
    process.kill()
    while is_alive(process.pid):
        time.sleep(0.01)
    assert target.state()["lock"] == "free"
    process.wait()


def test_leftovers_of_dead_processes_are_swept_up(target: Target) -> None:
    target.model.mkdir(parents=True)
    dead = dead_lock().split()[1]
    for name in (f"new.lock.{dead}", f"new.document.{dead}", f"new.document.{os.getpid()}"):
        (target.model / name).touch()
    target.build()
    names = {path.name for path in target.model.glob("new.*")}
    assert names == {f"new.document.{os.getpid()}"}


def test_a_killed_supervisor_leaves_a_lost_job_that_starts_again(target: Target) -> None:
    target.start("sh", "-c", "echo $$ >pid; while :; do sleep 0.1; touch engine; done")
    command = int(until(target.job / "pid"))
    os.kill(supervisor(target), signal.SIGKILL)
    assert target.wait(seconds=5)[0].startswith("job=lost status=- ")
    assert is_alive(command)
    assert target.state()["lock"] == "free"
    target.build()
    until_dead(command)  # else it would write into its successor's directory
    assert not (target.job / "engine").exists()


def test_cancel_ends_what_a_killed_supervisor_left(target: Target) -> None:
    target.start("sh", "-c", "echo $$ >pid; exec sleep 60")
    command = int(until(target.job / "pid"))
    os.kill(supervisor(target), signal.SIGKILL)
    assert target.wait(seconds=5)[0].startswith("job=lost ")
    assert is_alive(command)
    assert target.call("cancel", NAME, RELEASE) == Answer(0, b"none\n", "")
    until_dead(command)


def test_what_is_not_of_the_dead_build_is_not_killed(target: Target) -> None:
    # A daemon whose session has the number that the dead supervisor had, but not its mark.
    daemon = subprocess.Popen(
        ["sh", "-c", "sleep 60 & echo $!"], stdout=subprocess.PIPE, start_new_session=True
    )
    assert daemon.stdout
    survivor = int(daemon.stdout.readline())
    start = start_time(daemon.pid) if is_alive(daemon.pid) else "5"
    daemon.wait()
    daemon.stdout.close()
    target.model.mkdir(parents=True)
    target.lock.write_text(lock_record(pid=daemon.pid, start=start))
    target.build()
    assert is_alive(survivor)
    os.kill(survivor, signal.SIGKILL)


# --- agent.sh: cancel ---------------------------------------------------------------------------


def test_cancel_ends_supervisor_and_command_with_status_143(target: Target) -> None:
    target.start("sh", "-c", "echo $$ >pid; sleep 60; echo not reached")
    command, leader = int(until(target.job / "pid")), supervisor(target)
    before = time.monotonic()
    assert target.call("cancel", NAME, RELEASE) == Answer(0, b"cancelled\n", "")
    assert time.monotonic() - before < 4
    until_dead(command)
    until_dead(leader)
    state = target.state()
    assert (state["job"], state["status"], state["lock"]) == ("done", "143", "free")
    assert target.call("cancel", NAME, RELEASE).text == "none\n"
    assert target.install().code == 25


def test_cancel_kills_a_command_that_ignores_it(target: Target, tmp_path: Path) -> None:
    sooner = wrappers(tmp_path / "bin", ["sleep"], 'exec "$real" 0.01')
    target.start("sh", "-c", "trap '' TERM; echo $$ >pid; while :; do sleep 0.2; done")
    command = int(until(target.job / "pid"))
    assert target.call("cancel", NAME, RELEASE, environment=sooner).text == "cancelled\n"
    until_dead(command)
    assert target.state()["status"] == "143"


def test_cancel_of_a_command_that_ends_well_all_the_same_is_no_success(target: Target) -> None:
    target.start("sh", "-c", "trap 'exit 0' TERM; echo $$ >pid; while :; do sleep 0.1; done")
    until(target.job / "pid")
    assert target.call("cancel", NAME, RELEASE).text == "cancelled\n"
    assert target.state()["status"] == "143"


def test_a_signal_to_the_supervisor_alone_ends_the_command_too(target: Target) -> None:
    target.start("sh", "-c", "echo $$ >pid; exec sleep 60")
    command = int(until(target.job / "pid"))
    os.kill(supervisor(target), signal.SIGTERM)
    assert target.wait()[0].startswith("job=done status=143 ")
    until_dead(command)


def test_cancel_while_the_blobs_are_checked_blames_no_blob(target: Target, tmp_path: Path) -> None:
    target.receive(b"onnx")
    environment = wrappers(tmp_path / "bin", ["sha256sum"], 'sleep 60; exec "$real" "$@"')
    start = ("start", NAME, RELEASE, "ann", *"0100", f"a={sha256(b'onnx')}", "touch", "ran")
    assert target.call(*start, environment=environment).text == "started\n"
    assert target.call("cancel", NAME, RELEASE).text == "cancelled\n"
    assert target.state()["status"] == "143"
    assert not (target.job / "ran").exists()
    assert target.call("have", sha256(b"onnx")).text.startswith("full ")


def test_a_cancel_that_comes_too_late_does_not_lose_the_status(
    target: Target, tmp_path: Path
) -> None:
    environment = wrappers(tmp_path / "bin", ["mv"], 'echo >"$MARK"; sleep 0.5; exec "$real" "$@"')
    environment["MARK"] = str(tmp_path / "mark")
    start = ("start", NAME, RELEASE, "ann", *"0000", "true")
    assert target.call(*start, environment=environment).text == "started\n"
    until(tmp_path / "mark")
    assert target.call("cancel", NAME, RELEASE).text == "cancelled\n"
    assert target.state()["status"] == "0"


# --- agent.sh: install, activate ----------------------------------------------------------------


def test_a_document_that_arrives_cut_is_not_installed(target: Target) -> None:
    target.build()
    cut = target.call("install", NAME, RELEASE, sha256(BUILD), stdin=BUILD[:-5])
    assert cut.code == 13
    assert not (target.job / "build.json").exists()
    assert not list(target.model.glob("new.*"))
    assert target.state()["job"] == "done"
    assert target.install().code == 0


def test_an_install_that_hangs_on_its_stdin_holds_no_lock(target: Target) -> None:
    target.build()
    hung = target.begin("install", NAME, RELEASE, sha256(BUILD))
    while not list(target.model.glob("new.document.*")):
        time.sleep(0.01)
    assert target.install().code == 0
    assert finish(hung, BUILD).code == 25  # the job is installed already
    assert not list(target.model.glob("new.*"))


def test_a_release_that_is_not_active_is_replaced(target: Target) -> None:
    target.release()
    (target.model / "releases" / RELEASE / "old").touch()
    target.release()
    assert not (target.model / "releases" / RELEASE / "old").exists()
    assert [path.name for path in (target.model / "releases").iterdir()] == [RELEASE]


def test_an_active_release_is_not_replaced(target: Target) -> None:
    target.release()
    target.activate(RELEASE)
    target.build()
    answer = target.install()
    assert (answer.code, "is active" in answer.err) == (23, True)
    assert target.current() == RELEASE
    assert target.state()["job"] == "done"


def test_without_gzip_the_log_stays_as_it_is(target: Target, tmp_path: Path) -> None:
    target.build()
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "cat", "sha256sum", "sync", "mv", "rm", "find", "ln", "id", "readlink"):
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    assert target.install(environment={"PATH": str(tools)}) == Answer(0, b"", "")
    ready = target.model / "releases" / RELEASE
    assert (ready / "log").read_text() == "building\n"
    assert not (ready / "build.log.gz").exists()


def test_activation_compares_before_it_swaps(target: Target) -> None:
    target.release()
    target.release(OTHER)
    early = target.activate(RELEASE, OTHER)
    assert (early.code, early.text) == (22, "current=\n")
    assert target.activate(RELEASE).code == 0
    late = target.activate(OTHER)
    assert (late.code, late.text) == (22, f"current={RELEASE}\n")
    assert target.current() == RELEASE
    assert target.activate(OTHER, RELEASE).code == 0
    assert target.activate(RELEASE, OTHER).code == 0
    assert len((target.model / "activations").read_text().splitlines()) == 3


def test_an_engine_that_changed_is_not_activated(target: Target) -> None:
    target.release()
    ready = target.model / "releases" / RELEASE
    (ready / "model.engine").write_bytes(b"other")
    assert target.activate(RELEASE).code == 24
    (ready / "model.engine").unlink()
    assert target.activate(RELEASE).code == 24
    (ready / "model.engine").write_bytes(ENGINE + RELEASE.encode())
    (ready / "build.json").unlink()
    assert target.activate(RELEASE).code == 24
    assert not (target.model / "current").is_symlink()
    assert not (target.model / "activations").exists()


def test_a_current_that_is_no_link_is_left_alone(target: Target) -> None:
    target.release()
    (target.model / "current").mkdir()
    answer = target.activate(RELEASE)
    assert (answer.code, "is no link" in answer.err) == (12, True)
    assert not (target.model / "activations").exists()


@pytest.mark.parametrize("tail", ["17 {half", "17 {half\0\0\0"])
def test_half_a_line_of_a_power_loss_stays_alone(target: Target, tail: str) -> None:
    target.release()
    history = target.model / "activations"
    history.write_text("1 {}\n" + tail)
    shown = [line for line in target.call("models").out.split(b"\n") if b"activation=" in line]
    assert shown == [b"activation=1 {}", b"activation=" + tail.encode()]
    target.activate(RELEASE)
    lines = history.read_text().split("\n")
    assert lines[:2] == ["1 {}", tail]
    assert re.fullmatch(r"\d+ " + re.escape(RECORD), lines[2])
    assert lines[3:] == [""]


KILL = """
count=$(($(cat "$COUNTER") + 1))
echo "$count" >"$COUNTER"
if [ "$count" -eq "$KILL_AT" ]; then
    [ "$KILL_WHEN" = before ] || "$real" "$@"
    kill -9 "$(cat "$AGENT_PID")"
    exit 1
fi
exec "$real" "$@"
"""
TOOLS = ("mv", "sync", "ln", "rm", "date", "sha256sum", "readlink", "tail", "gzip", "find", "cat")


def killed_at(
    target: Target, tools: Mapping[str, str], folder: Path, step: int, when: str, *call: str
) -> Answer:
    """Run an operation whose shell is killed at the given call of any of its tools."""
    counter, pid = folder / "counter", folder / "pid"
    counter.write_text("0\n")
    environment = {
        **tools,
        "COUNTER": str(counter),
        "AGENT_PID": str(pid),
        "KILL_AT": str(step),
        "KILL_WHEN": when,
    }
    command = ["sh", "-c", 'echo $$ >"$AGENT_PID"; exec "$@"', "sh", *target.command(*call)]
    return finish(begin(command, environment), BUILD)


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_activation_killed_anywhere_leaves_a_whole_engine_active(
    target: Target, tmp_path: Path, when: str
) -> None:
    target.release()
    target.release(OTHER)
    assert target.activate(RELEASE).code == 0
    tools = wrappers(tmp_path / "bin", [tool for tool in TOOLS if tool != "cat"], KILL)
    steps = 0
    while True:
        steps += 1
        was = target.current()
        wanted = OTHER if was == RELEASE else RELEASE
        engine = sha256(ENGINE + wanted.encode())
        (target.model / "switch.lock").write_text(
            dead_lock()
        )  # so that breaking it is cut short too
        call = ("activate", NAME, wanted, was, "model.engine", engine, RECORD, "")
        answer = killed_at(target, tools, tmp_path, steps, when, *call)
        if answer.code == 0:
            break
        assert answer.code == -signal.SIGKILL, answer
        assert target.current() in {was, wanted}
        if target.current() == was:
            assert target.activate(wanted, was).text == f"active {wanted}\n"
        else:
            assert target.activate(was, wanted).text == f"active {was}\n"
    assert steps > 12
    assert {path.name for path in target.model.iterdir() if "new" in path.name} == set()
    for line in (target.model / "activations").read_text().splitlines():
        assert line.endswith(RECORD)


def test_an_installation_killed_anywhere_can_be_repeated(target: Target, tmp_path: Path) -> None:
    tools = wrappers(tmp_path / "bin", TOOLS, KILL.replace('$(cat "$C', '$(/bin/cat "$C'))
    steps = 0
    code = -1
    while code:
        steps += 1
        if target.state()["job"] == "none":
            target.build()
        call = ("install", NAME, RELEASE, sha256(BUILD))
        code = killed_at(target, tools, tmp_path, steps, "before", *call).code
        assert code in {0, -signal.SIGKILL}
        state = target.state()
        assert state["job"] == "done" or state["release"] == "ready"
        if state["job"] == "done":
            assert target.install().code == 0
    assert steps > 12
    assert target.activate(RELEASE).code == 0
    assert target.current() == RELEASE


# --- a full disk --------------------------------------------------------------------------------


def fill(target: Target) -> Path:
    ballast = target.root / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return ballast


def test_a_build_that_fills_the_disk_still_leaves_its_status(full_disk: Target) -> None:
    full_disk.start("sh", "-c", "cat /dev/zero >model.engine || exit 9")
    header, _ = full_disk.wait()
    assert header.startswith("job=done status=9 ")
    full_disk.build()


def test_a_full_disk_refuses_new_work_and_leaves_the_old_active(full_disk: Target) -> None:
    full_disk.release()
    full_disk.release(OTHER)
    full_disk.activate(RELEASE)
    ballast = fill(full_disk)
    for answer in (full_disk.activate(OTHER, RELEASE), full_disk.start("true")):
        assert answer.code == 12
        assert answer.err.startswith(("edgecal: cannot", "sh: ")) or "rror" in answer.err
    assert full_disk.current() == RELEASE
    assert not list(full_disk.model.glob("lock*"))
    ballast.unlink()
    assert full_disk.activate(OTHER, RELEASE).code == 0
    assert full_disk.current() == OTHER


# --- shells -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", [("dash",), ("bash", "--posix"), ("busybox", "sh")])
def test_another_shell_does_the_same(tmp_path: Path, shell: tuple[str, ...]) -> None:
    program = shutil.which(shell[0])
    if program is None:
        pytest.skip(f"{shell[0]} is not here")
    called = textwrap.dedent(f"""\
        #!/bin/sh
        exec {program} {" ".join(shell[1:])} "$@"
        """)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").write_text(called)
    (tmp_path / "bin" / "sh").chmod(0o755)
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    target = set_up(Target(tmp_path / "o'hara's root", shell=shell, environment=environment))
    target.release()
    target.lock.write_text(dead_lock())
    assert target.activate(RELEASE).text == f"active {RELEASE}\n"
    target.lock.write_text("")
    target.start("sh", "-c", "echo $$ >pid; sleep 60", release=OTHER)
    until(target.model / "jobs" / OTHER / "pid")
    assert target.activate(RELEASE, RELEASE).code == 0
    assert target.start("true").code == 20
    assert target.call("cancel", NAME, OTHER).text == "cancelled\n"
    assert target.wait(OTHER)[0].startswith("job=done status=143 ")
    assert target.current() == RELEASE
    assert f"job={OTHER} done 143 ann @ host\n" in target.call("models").text


@pytest.mark.parametrize("script", ["agent", "receive"])
def test_the_scripts_are_clean_for_shellcheck(script: str) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not here")
    text = {"agent": AGENT, "receive": RECEIVE.encode()}[script]
    checked = subprocess.run(["shellcheck", "-"], input=text, capture_output=True, check=False)
    assert checked.stdout == b""


def test_every_part_of_the_agent_is_in_it() -> None:
    parts = {path.stem for path in (SCRIPTS / "agent").iterdir()}
    assert parts == set(AGENT_PARTS)
