"""A process that forks controllers: each runs `edgecal` once, in a real process that can be killed.

Imports everything once, for that would take longer than a push. One line of JSON on stdin is one
controller; its process id comes to `pid` in the job's folder, its wait status to `status`, what it
says to `out` and `err`. A place at which it shall stop is named by the command it is about to give
to the target, see `operation`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from edgecal.adapters.scripts import load_scripts
from edgecal.cli.app import main
from edgecal.cli.wiring import remote
from edgecal.core.manifest import digest_of
from edgecal.errors import CommandError, ConnectError, TransferError
from edgecal.ports import CommandResult
from tests.signing import Etc

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgecal.core.target import Target
    from edgecal.ports import Scripts, Transport
    from edgecal.workflows.world import World

_POLL_S = 0.02
ONE_TIME = "[ ! -d '{0}/token' ] || ! rmdir '{0}/token' 2>/dev/null || "
STOP = ONE_TIME + "{{ echo \"$$\" >'{0}/reached'; read -r go <'{0}/go'; }}"
"""Shell text that stops once, while the folder has a token: says its pid, waits for a line."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One controller."""

    folder: Path
    """Where it runs; edgecal.toml lies there."""
    argv: list[str]
    etc: str
    """What is /etc/edgecal on its target."""
    breakpoint: str
    """Folder of the breakpoint; empty for none."""
    place: str
    """Where to stop: `before COMMAND`, or the name of a place in a script of the target."""
    environment: dict[str, str] | None
    """Of the commands, on this machine; over SSH if there is none."""
    user: int | None
    """As whom they run here."""
    clock: str
    """File that says how far this controller's clock is off, as `+20y`; empty: it is right.

    Debian's faketime is for targets: under it Python 3.11 cannot sleep, for it asks for an absolute
    monotonic time. A controller's wall clock has one door.
    """


def operation(argv: Sequence[str], scripts: Scripts) -> str:
    """Name what a command is for."""
    if argv[:2] == ("sh", "-s"):
        return "probe"
    if argv[:2] == ("sh", "-c"):
        if argv[2] == scripts.receive:
            agent = digest_of(scripts.agent.encode()).removeprefix("sha256:")
            return "agent" if argv[5] == agent else "upload"
        if argv[2] == scripts.verify:
            return {"check": "signature"}.get(argv[5], argv[5])
        return "verify" if argv[2] == scripts.run else "digest"
    return argv[3] if argv[0] == "sh" else {"cat": "record"}.get(argv[0], argv[0])


def with_breakpoint(scripts: Scripts, place: str, folder: str) -> Scripts:
    """Put the breakpoint into the script that has the place."""
    stop = STOP.format(folder)
    places = {
        "receive-write": ("receive", 'dd of="$part"', stop + "\n"),
        "receive-rename": ("receive", "{ chmod 0444", stop + "\n"),
        "judge": ("verify", "    required=$1 origin=$2", stop + "\n"),
        "keep-counter": ("verify", '    read_last "$1"\n    [ "$2" -gt', stop + "\n"),
        "run-engine": ("run", '"$@" >verify.log', stop + "\n"),
    }
    if place == "before agent":
        return replace(scripts, agent=f"{scripts.agent}# not the one that is there\n")
    if place.startswith(("before ", "trtexec")):
        return scripts
    name, text, new = places.get(place, ("agent", f": step {place}\n", ""))
    before = getattr(scripts, name)
    assert before.count(text) == 1, place
    after = before.replace(text, f"{new or stop + chr(10)}{text}")
    return replace(scripts, **{name: after})


class LocalTransport:
    """Runs commands here, until somebody writes `cut`: then they go on, and nobody hears them."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.bytes_sent = 0

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float) -> CommandResult:
        """Run one command to its end."""
        self.check()
        self.bytes_sent += sum(map(len, argv)) + len(stdin)
        # a file: `communicate` forgets what is left of its input when it runs out of time
        with tempfile.TemporaryFile() as file:
            file.write(stdin)
            file.seek(0)
            process = subprocess.Popen(
                [*self._limit(), *argv],
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._job.environment,
                cwd="/",
                start_new_session=True,
                user=self._job.user,
                group=self._job.user,
                extra_groups=None if self._job.user is None else [],
            )
        for _ in range(int(timeout_s / _POLL_S)):
            try:
                out, err = process.communicate(timeout=_POLL_S)
            except subprocess.TimeoutExpired:
                self.check()
            else:
                status = process.returncode if process.returncode >= 0 else 255  # as over SSH
                return CommandResult(exit_status=status, stdout=out, stderr=err)
        raise CommandError("timed out", where="bench", remedy="wait longer")

    def _limit(self) -> list[str]:
        """Let no file grow any more, which is what there is of a full disk without mounting one."""
        if not self._job.breakpoint or not Path(self._job.breakpoint, "limited").exists():
            return []
        return ["sh", "-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh"]

    def check(self) -> None:
        """Find out that the connection was cut."""
        if self._job.breakpoint and Path(self._job.breakpoint, "cut").exists():
            raise ConnectError("the connection was cut", where="bench", remedy="push again")

    def send(
        self,
        argv: Sequence[str],
        stream: BinaryIO,
        *,
        offset: int = 0,
        timeout_s: float,
        progress: Callable[[int], None] | None = None,
    ) -> CommandResult:
        """Run one command with the stream's rest as its input."""
        stream.seek(offset)
        data = stream.read()
        if progress is not None:
            progress(len(data))
        try:
            return self.run(argv, stdin=data, timeout_s=timeout_s)
        except ConnectError as error:  # as over SSH
            raise TransferError(error.what, where=error.where, remedy=error.remedy) from error

    def close(self) -> None:
        """Have nothing to do."""


class Stopping:
    """A transport that stops before one command, and damages its input if it is told to."""

    def __init__(self, inner: Transport, job: Job, scripts: Scripts) -> None:
        self._inner = inner
        self._job = job
        self._scripts = scripts

    @property
    def bytes_sent(self) -> int:
        """Count as the transport inside does."""
        return self._inner.bytes_sent

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float) -> CommandResult:
        """Run one command to its end."""
        word = self._stop(argv)
        return self._inner.run(argv, stdin=_damage(stdin, word), timeout_s=timeout_s)

    def send(
        self,
        argv: Sequence[str],
        stream: BinaryIO,
        *,
        offset: int = 0,
        timeout_s: float,
        progress: Callable[[int], None] | None = None,
    ) -> CommandResult:
        """Run one command with the stream's rest as its input."""
        word = self._stop(argv)
        if word != "go":
            stream = io.BytesIO(_damage(stream.read(), word))
            stream.seek(offset)
        return self._inner.send(argv, stream, offset=offset, timeout_s=timeout_s, progress=progress)

    def close(self) -> None:
        """End the connection."""
        self._inner.close()

    def _stop(self, argv: Sequence[str]) -> str:
        return stop(self._job, operation(tuple(argv), self._scripts))


def stop(job: Job, what: str) -> str:
    """Stop here if this is the place; give what the test said then."""
    folder = Path(job.breakpoint)
    if not job.breakpoint or job.place != f"before {what}":
        return "go"
    try:
        (folder / "token").rmdir()
    except FileNotFoundError:
        return "go"
    (folder / "reached").write_text(f"{os.getpid()}\n")
    with (folder / "go").open() as go:
        return go.readline().strip()


def _damage(data: bytes, word: str) -> bytes:
    if word == "corrupt":
        return data[:-1] + bytes([data[-1] ^ 1])
    return data[: len(data) // 2] if word == "half" else data


def control(job: Job) -> None:
    """Be the controller: `edgecal` itself, with its target where the job says."""
    scripts = load_scripts()
    if job.breakpoint:
        scripts = with_breakpoint(scripts, job.place, job.breakpoint)
    scripts = Etc(Path(job.etc)).scripts(scripts)
    made = remote.world

    def world(**settings: Any) -> World:  # noqa: ANN401 - handed on as they are
        plain = made(**settings)

        def connect(target: Target) -> Stopping:
            stop(job, "connect")
            inner: Transport
            if job.environment is None:
                inner = plain.connect(target)
            else:
                inner = LocalTransport(job)
                inner.check()
            return Stopping(inner, job, scripts)

        def now() -> datetime:
            years = int(Path(job.clock).read_text().removesuffix("y")) if job.clock else 0
            return plain.now() + timedelta(days=365 * years)

        return replace(plain, connect=connect, scripts=scripts, now=now)

    remote.world = world
    os.chdir(job.folder)
    main(job.argv)


def serve(be: Callable[[dict[str, Any]], object]) -> None:
    """Fork a controller for each line of stdin, which `be` then is."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        _fork_controller(json.loads(line), be)


def _fork_controller(words: dict[str, Any], be: Callable[[dict[str, Any]], object]) -> None:
    """Fork somebody who forks the controller and waits for it."""
    if os.fork():
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    place = Path(words.pop("answers"))
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        code: object = 1
        try:
            be(words)
            code = 0
        except SystemExit as end:
            code = end.code
        except BaseException:  # noqa: BLE001 - told, and the process ends here
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code if isinstance(code, int) else 0)
    (place / "pid").write_text(str(pid))
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    (place / "status.new").write_text(str(status))
    (place / "status.new").rename(place / "status")
    os._exit(0)


def _import_everything() -> None:
    """Push what is not there: what a command imports, it imports on its way."""
    for name in ("edgecal.adapters.bundle", "edgecal.adapters.ssh"):
        importlib.import_module(name)
    hidden = io.StringIO()
    with (
        contextlib.redirect_stdout(hidden),
        contextlib.redirect_stderr(hidden),
        contextlib.suppress(SystemExit),
    ):
        main(["push", "nowhere", "--target", "nobody", "--json"])


if __name__ == "__main__":
    _import_everything()
    serve(lambda words: control(Job(**{**words, "folder": Path(words["folder"])})))
