"""Who holds something that only one process may: told so that others know whether it still runs."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """One process, so that others can tell whether it still runs."""

    host: str
    system: str
    """Boot id and process namespace; empty where the system tells neither."""
    pid: int
    started: str

    @property
    def text(self) -> str:
        """Spell it for the database."""
        return "\n".join((self.host, self.system, str(self.pid), self.started))

    def __str__(self) -> str:
        """Spell it for people."""
        return f"process {self.pid} on {self.host}"

    def gone(self) -> bool:
        """Tell whether it has certainly ended: only a process beside ours can be known to."""
        if not self.system or self.system != this_process().system:
            return False
        started = _started(self.pid)
        if started:
            return started != self.started
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # somebody else's, and /proc may be hiding it (hidepid)
            return False
        return True  # a zombie of ours


def this_process() -> Holder:
    """Describe this process."""
    system = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        system = f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    pid = os.getpid()
    return Holder(host=socket.gethostname(), system=system, pid=pid, started=_started(pid))


def _started(pid: int) -> str:
    """Give a process's start time in ticks since boot; empty if it has ended or is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "surrogateescape")
    except OSError:
        return ""
    # the name in parentheses may hold anything, parentheses too
    state, *rest = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else rest[18]


def read_holder(text: str) -> Holder:
    """Read what `Holder.text` spells."""
    try:
        host, system, pid, started = text.split("\n")
        return Holder(host=host, system=system, pid=int(pid), started=started)
    except ValueError:  # a row that was meddled with: only its time tells
        return Holder(host=repr(text[:60]), system="", pid=0, started="")
