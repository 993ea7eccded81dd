"""What a row of the fault table needs: controllers, a copy of a prepared device, breakpoints."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgecal.adapters.bundle import read_bundle
from edgecal.adapters.signed_bundles import sign_bundle
from tests.bundles import make_bundles, record_trtexec
from tests.faults.controller import STOP
from tests.signing import Authority, Etc, authority
from tests.users import NOBODY

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgecal.adapters.bundle import Bundle
    from edgecal.adapters.loopback import LoopbackServer

CHECKOUT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
NAME = "net-8.5"
TRIAL = frozenset({"start-trial", "health", "passed", "lock-confirm"})
"""Places by which a push comes only where the target has a health command."""
_DEADLINE_S = 60.0
_POLL_S = 0.005
_SMALL, _FEW = 4 << 20, 400
"""Bytes and files of a small disk."""


class Controllers:
    """A process that forks controllers, see `tests/faults/controller.py`."""

    def __init__(self, module: str = "tests.faults.controller") -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=CHECKOUT,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # forks best without threads
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout
        assert self._process.stdout.readline() == "ready\n"

    def start(self, answers: Path, **job: object) -> Controller:
        """Fork one."""
        answers.mkdir()
        assert self._process.stdin
        with self._lock:
            self._process.stdin.write(json.dumps({**job, "answers": str(answers)}) + "\n")
            self._process.stdin.flush()
        return Controller(answers)

    def close(self) -> None:
        """End."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


@dataclass(frozen=True)
class Outcome:
    """How a push ended, in the words of the table."""

    state: str
    code: str
    exit_code: int
    said: str


class Controller:
    """One `edgecal push` that runs or ran."""

    def __init__(self, answers: Path) -> None:
        self._answers = answers

    @property
    def pid(self) -> int:
        """Its process, once it is there."""
        wait_until(lambda: _text(self._answers / "pid") != "", "a controller")
        return int(_text(self._answers / "pid"))

    @property
    def ended(self) -> bool:
        """Whether it did."""
        return (self._answers / "status").exists()

    def kill(self) -> None:
        """Kill it as nothing can be killed more."""
        os.kill(self.pid, signal.SIGKILL)

    def status(self) -> int:
        """Wait for its end; gives its exit code, or which signal ended it as a negative number."""
        wait_until(lambda: self.ended, "the controller's end")
        return int(_text(self._answers / "status"))

    def outcome(self) -> Outcome:
        """Wait for its end, and read what it said."""
        code = self.status()
        if code < 0:
            return Outcome("-", "-", code, "")
        document = json.loads(_text(self._answers / "out") or "{}")
        (report,) = document.get("targets", [{"state": "?", "error": document.get("error")}])
        error = report["error"]
        said = f"{error['what']}\n  try: {error['remedy']}" if error else ""
        err = _text(self._answers / "err")
        assert "Traceback" not in err, err
        return Outcome(report["state"], error["code"] if error else "-", code, said)


class Breakpoint:
    """Where everything stops once, until it is told to go on."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        folder.chmod(0o777)
        for name in ("reached", "go"):
            os.mkfifo(folder / name)
            (folder / name).chmod(0o666)
        (folder / "token").mkdir()
        self.folder = folder
        # both ends: nobody waits for the other side to open it
        self._reached = os.open(folder / "reached", os.O_RDWR | os.O_NONBLOCK)
        self._go = os.open(folder / "go", os.O_RDWR | os.O_NONBLOCK)

    def wait(self, controller: Controller) -> int | None:
        """Give the process that stopped here; `None` if the push ended without coming by."""
        limit = time.monotonic() + _DEADLINE_S
        while time.monotonic() < limit:
            ready, _, _ = select.select([self._reached], [], [], 0.02)
            if ready:
                return int(os.read(self._reached, 100))
            if controller.ended:
                return None
        raise AssertionError("nothing stops here, and nothing ends")

    def cut(self) -> None:
        """Have a local transport lose its connection."""
        (self.folder / "cut").touch()

    def go(self, word: str = "go") -> None:
        """Let what stopped go on."""
        os.write(self._go, f"{word}\n".encode())

    def close(self) -> None:
        """Let everybody pass from now on."""
        with contextlib.suppress(FileNotFoundError):
            (self.folder / "token").rmdir()
        (self.folder / "cut").unlink(missing_ok=True)
        for descriptor in (self._reached, self._go):
            os.close(descriptor)


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What all rows share."""

    folder: Path
    controllers: Controllers
    bundles: dict[str, Bundle]
    key: Authority
    prepared: Path
    """A device's folder with the old release active."""
    mounts: bool
    """Whether this user may mount a small disk."""

    @property
    def clock(self) -> Path:
        """The file that says how late it is on targets behind an sshd."""
        return self.folder / "clock"

    @property
    def user(self) -> int | None:
        """Whom devices of this machine run as: permissions bind everybody but root."""
        return NOBODY if os.geteuid() == 0 else None


def make_workshop(folder: Path) -> Workshop:
    """Make bundles and a device that has the old one."""
    original = make_bundles(folder / "made", "8.5.2", name="net")[0]
    key = authority(folder, "release")
    bundles = {"unsigned": original}
    for name, counter, signer, targets in (
        ("old", 1, key, ()),
        ("new", 2, key, ("cam*",)),
        ("foreign", 2, authority(folder, "foreign"), ()),
    ):
        path = folder / f"{name}.edgecal"
        shutil.copytree(original.path, path)
        sign_bundle(path, key=signer.key, passphrase=bytes, counter=counter, targets=targets)
        bundles[name] = read_bundle(path)
    bundles["tampered"] = _tampered(folder / "tampered.edgecal", bundles["new"])
    programs = folder / "bin"
    programs.mkdir()
    record_trtexec(folder / "strict", programs, original)
    workshop = Workshop(
        folder=folder,
        controllers=Controllers(),
        bundles=bundles,
        key=key,
        prepared=folder / "prepared",
        mounts=_may_mount(folder / "disk"),
    )
    with contextlib.closing(Bench(workshop, workshop.prepared, empty=True)) as first:
        outcome = first.push("old").outcome()
        assert outcome.state == "active", outcome
        first.settle()
    return workshop


def _tampered(path: Path, new: Bundle) -> Bundle:
    """Change a signed manifest, as somebody would who would like another cache to be used."""
    shutil.copytree(new.path, path)
    manifest = path / "manifest.json"
    text = manifest.read_text()
    assert text.count('"counter": 2') == 1
    manifest.write_text(text.replace('"counter": 2', '"counter": 3'))
    return read_bundle(path)


def mount(*words: str) -> None:
    """Mount something."""
    subprocess.run(["mount", *words], capture_output=True, check=True)


def _may_mount(folder: Path) -> bool:
    folder.mkdir()
    try:
        mount("-t", "tmpfs", "-o", "size=64k", "none", str(folder))
    except (OSError, subprocess.CalledProcessError):
        return False
    subprocess.run(["umount", str(folder)], check=True)
    return True


class Bench:
    """One device in a folder of its own, and one operator's desk before it."""

    def __init__(
        self,
        workshop: Workshop,
        folder: Path,
        *,
        place: str = "",
        server: LoopbackServer | None = None,
        small: bool = False,
        empty: bool = False,
    ) -> None:
        self.workshop = workshop
        self.folder = folder
        self.place = place
        self.server = server
        self.pushes = 0
        self.is_bound = False  # to itself, so that it can be made read-only
        self.targets_clock: Path | None = None
        self.controllers_clock: Path | None = None
        folder.mkdir()
        folder.chmod(0o777)
        self.root = folder / "root"
        self.bin = folder / "bin"
        if server is None:
            shutil.copytree(workshop.folder / "bin", self.bin)
        else:  # whose sessions have it on their PATH
            self.bin = workshop.folder / "bin"
        if small:
            self.root.mkdir()
            options = f"size={_SMALL},nr_inodes={_FEW},mode=777"
            mount("-t", "tmpfs", "-o", options, "none", str(self.root))
        if not empty:
            self._copy_device()
        self.etc = Etc(folder / "etc")
        self.etc.trust(workshop.key.public)
        self.etc.policy("require_signature=yes", "name=cam7")
        self.breakpoint = Breakpoint(folder / "break")
        if place.startswith("trtexec-"):
            condition = '[ "$engine" ]' if place == "trtexec-build" else '[ "$loads" ]'
            text = f"! {condition} || {STOP.format(self.breakpoint.folder)}\n"
            (self.bin / "breakpoint").write_text(text)
        self.old = "" if empty else (self.model / "current").resolve().name
        self._write_project()

    @property
    def model(self) -> Path:
        """The model's folder on the device."""
        return self.root / "models" / NAME

    def _copy_device(self) -> None:
        source = self.workshop.prepared / "root"
        command = ["cp", "-aT", "--no-preserve=ownership", str(source), str(self.root)]
        subprocess.run(command, check=True)
        self.own()

    def own(self) -> None:
        """Give the device's files to its user, while its processes may make and delete some."""
        user = self.workshop.user
        if self.server is None and user is not None:
            os.lchown(self.root, user, user)
            for folder, folders, files in os.walk(self.root):
                for name in (*folders, *files):
                    with contextlib.suppress(FileNotFoundError):
                        os.lchown(Path(folder, name), user, user)

    def _write_project(self) -> None:
        server = self.server
        keys: dict[str, object] = {"host": "127.0.0.1"}
        if server is not None:
            keys = {
                "host": server.host,
                "port": server.port,
                "user": server.user,
                "identity_file": str(server.identity_file),
                "known_hosts": str(server.known_hosts),
            }
        # no Python there: that the probe looks for TensorRT in it is the longest part of a push
        keys |= {"root": str(self.root), "python": "/bin/false"}
        if self.place in TRIAL:
            keys |= {"health": ["true"], "soak_s": 1}
        lines = ["[targets.bench]", *(f"{key} = {json.dumps(one)}" for key, one in keys.items())]
        (self.folder / "edgecal.toml").write_text("\n".join(lines))

    def push(self, bundle: str = "new", *words: str, stops: bool = False) -> Controller:
        """Start a push; it stops at this row's place if it is to."""
        self.pushes += 1
        environment = None
        if self.server is None:
            path = f"{self.bin}:{os.environ['PATH']}"
            environment = {"PATH": path, "HOME": str(self.folder), **self._time()}
        return self.workshop.controllers.start(
            self.folder / f"push {self.pushes}",
            folder=str(self.folder),
            argv=[
                "push",
                str(self.workshop.bundles[bundle].path),
                *("--target", "bench", "--json", *words),
            ],
            etc=str(self.etc.folder),
            breakpoint=str(self.breakpoint.folder) if stops else "",
            place=self.place if stops else "",
            environment=environment,
            user=self.workshop.user if self.server is None else None,
            clock=str(self.controllers_clock or ""),
        )

    def _time(self) -> dict[str, str]:
        """Give the variables that make the device's clock jump; none where it does not."""
        return {} if self.targets_clock is None else fake_time(self.targets_clock)

    def processes(self) -> list[int]:
        """List what runs on the device."""
        word = os.fsencode(self.root)
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                folder = (entry / "cwd").readlink()
                if word in (entry / "cmdline").read_bytes() or folder.is_relative_to(self.root):
                    found.append(int(entry.name))
        return found

    def check(self) -> str:
        """See that what is active is whole and was verified; say which release that is."""
        current = self.model / "current"
        assert current.is_symlink()
        releases = {path.name: path for path in (self.model / "releases").iterdir()}
        kinds = {}
        for name in {current.resolve().name, self.old}:
            release = releases[name]
            record = json.loads((release / "build.json").read_text())
            engine = (release / record["engine"]["file"]).read_bytes()
            assert record["engine"]["digest"] == f"sha256:{hashlib.sha256(engine).hexdigest()}"
            assert record["verification"]["passed"] is True
            assert record["release"] == name
            kinds[name] = (record["bundle"]["counter"], record["options"]["fp16"])
        assert kinds[self.old] == (1, True)
        known = {(1, True): "old", (2, True): "new", (2, False): "other"}
        return known[kinds[current.resolve().name]]

    def settle(self) -> None:
        """Wait until nothing runs on the device any more."""
        wait_until(lambda: not self.processes(), "the device's peace")

    def close(self) -> None:
        """Leave nothing running or mounted."""
        self.breakpoint.close()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.server is not None:
            (self.bin / "breakpoint").write_text("")
        while os.path.ismount(self.root):
            subprocess.run(["umount", "-l", str(self.root)], check=True)


def fake_time(file: Path) -> dict[str, str]:
    """Give the variables by which Debian's faketime tells the time that a file says."""
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


def wait_until(claim: Callable[[], bool], what: str) -> None:
    """Wait for something to come true."""
    limit = time.monotonic() + _DEADLINE_S
    while not claim():
        assert time.monotonic() < limit, f"waited in vain for {what}"
        time.sleep(_POLL_S)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
