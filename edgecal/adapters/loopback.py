"""A throw-away SSH server on 127.0.0.1, for `edgecal demo` and for tests.

OpenSSH's own sshd where there is one, else a server made of paramiko in this process. Either lets
in one freshly made key, and leaves the user's own SSH files alone.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgecal.adapters.known_hosts import HostKey, append_host_key
from edgecal.adapters.ssh import connect
from edgecal.adapters.ssh_server import InProcessServer
from edgecal.core.target import Target
from edgecal.errors import DependencyError, TargetError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

HOST: Final = "127.0.0.1"
Kind = Literal["sshd", "in-process"]

_SSHD_FOLDERS: Final = ("/usr/sbin", "/usr/local/sbin", "/sbin")
_PRIVILEGE_SEPARATION: Final = Path("/run/sshd")  # sshd run by root wants it; systemd makes it
_START_TRIES: Final = 5
_START_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.02
_STOP_TIMEOUT_S: Final = 5.0


@dataclass(slots=True, kw_only=True)
class LoopbackServer:
    """A running server, and what a client needs to log in; a context manager that stops it."""

    host: str
    port: int
    user: str
    identity_file: Path
    known_hosts: Path
    kind: Kind
    reason: str
    """Why it is not sshd; empty if it is."""
    _stop: Callable[[], None] = field(repr=False)

    def close(self) -> None:
        """Stop the server and cut its connections; safe to call twice."""
        self._stop()

    def __enter__(self) -> LoopbackServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _NoSshdError(Exception):
    """sshd is not installed, or does not come up."""


@dataclass(frozen=True, slots=True)
class _Keys:
    """Fresh keys in a folder: the server's, and the one it lets in."""

    folder: Path
    host_key: Path
    user_key: Path

    def known_hosts(self, port: int) -> Path:
        """Write what a client has to know of the server."""
        key_type, text = self.host_key.with_suffix(".pub").read_text("ascii").split()[:2]
        path = self.folder / "known_hosts"
        path.unlink(missing_ok=True)
        append_host_key(path, HOST, port, HostKey(key_type, base64.b64decode(text)), replace=False)
        return path


def start_loopback(
    folder: Path,
    *,
    prefer: Literal["auto", "sshd", "in-process"] = "auto",
    environment: Mapping[str, str] | None = None,
) -> LoopbackServer:
    """Start a server whose files lie in `folder`, logging in the user who runs this.

    Parameters
    ----------
    prefer
        "auto" takes sshd, and the in-process server if sshd does not work here.
    environment
        Set for every command, beside what a fresh login has.

    Raises
    ------
    DependencyError
        If `prefer` is "sshd" and sshd is absent or does not come up.
    """
    folder = folder.resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys = _Keys(folder, _make_key(folder / "host_key"), _make_key(folder / "user_key"))
    reason = "the in-process server was asked for"
    if prefer != "in-process":
        try:
            return _start_sshd(keys, environment or {})
        except _NoSshdError as error:
            if prefer == "sshd":
                raise DependencyError(
                    f"no SSH server on this machine: {error}",
                    remedy="install OpenSSH's server (Debian, Ubuntu: openssh-server)",
                ) from error
            reason = str(error)
    server = InProcessServer(
        host_key=keys.host_key,
        user_key=keys.user_key.with_suffix(".pub"),
        environment=environment or {},
    )
    return LoopbackServer(
        host=HOST,
        port=server.port,
        user=_login().pw_name,
        identity_file=keys.user_key,
        known_hosts=keys.known_hosts(server.port),
        kind="in-process",
        reason=reason,
        _stop=server.close,
    )


def _login() -> pwd.struct_passwd:
    return pwd.getpwuid(os.getuid())


def _make_key(path: Path) -> Path:
    """Write an ed25519 key pair, as ssh-keygen would."""
    private = Ed25519PrivateKey.generate()
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(
            private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.OpenSSH,
                serialization.NoEncryption(),
            )
        )
    public = private.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    path.with_suffix(".pub").write_bytes(public + b"\n")
    return path


def _start_sshd(keys: _Keys, environment: Mapping[str, str]) -> LoopbackServer:
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SSHD_FOLDERS])
    sshd = shutil.which("sshd", path=search)
    if sshd is None:
        raise _NoSshdError("sshd is not installed")
    if os.getuid() == 0:
        _PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    for _ in range(_START_TRIES):  # somebody may take the port between our choice and sshd's
        port = _free_port()
        config = keys.folder / "sshd_config"
        config.write_text(_sshd_config(keys, port, environment), encoding="utf-8")
        log = keys.folder / "sshd.log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [sshd, "-D", "-e", "-f", str(config)], stdin=subprocess.DEVNULL, stderr=stderr
            )
        server = LoopbackServer(
            host=HOST,
            port=port,
            user=_login().pw_name,
            identity_file=keys.user_key,
            known_hosts=keys.known_hosts(port),
            kind="sshd",
            reason="",
            _stop=functools.partial(_stop_sshd, process),
        )
        try:
            _wait_for_login(server, process)
        except _NoSshdError as error:
            said = log.read_text("utf-8", "replace").strip()  # before it speaks of its own end
            server.close()
            if "Address already in use" not in said:
                raise _NoSshdError(
                    f"{error}: {said.splitlines()[-1] if said else 'no word'}"
                ) from error
        except BaseException:
            server.close()
            raise
        else:
            return server
    raise _NoSshdError("no free port found")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _sshd_config(keys: _Keys, port: int, environment: Mapping[str, str]) -> str:
    authorized = str(keys.user_key.with_suffix(".pub")).replace("%", "%%")
    lines = [
        f"ListenAddress {HOST}",
        f"Port {port}",
        f"HostKey {_quoted(str(keys.host_key))}",
        f"PidFile {_quoted(str(keys.folder / 'sshd.pid'))}",
        f"AuthorizedKeysFile {_quoted(authorized)}",
        f"AllowUsers {_login().pw_name}",
        "AuthenticationMethods publickey",
        "PasswordAuthentication no",
        "PermitRootLogin prohibit-password",
        "UsePAM no",
        "StrictModes no",  # the folder may lie in /tmp
        "UseDNS no",
        "PrintMotd no",
        "PrintLastLog no",
        "PermitTTY no",
        "PermitUserRC no",
        "X11Forwarding no",
        "AllowAgentForwarding no",
        "AllowTcpForwarding local",  # it may be a gateway to another one
        "MaxStartups 500",
        "MaxSessions 500",
    ]
    if environment:  # only the first SetEnv counts
        lines.append("SetEnv " + " ".join(_quoted(f"{k}={v}") for k, v in environment.items()))
    return "\n".join(lines) + "\n"


def _quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _wait_for_login(server: LoopbackServer, process: subprocess.Popen[bytes]) -> None:
    """Log in and run a command: a locked account or a strange shell shows only there."""
    end = time.monotonic() + _START_TIMEOUT_S
    while not _listens(server.port):
        if process.poll() is not None:
            raise _NoSshdError("sshd has ended at once")
        if time.monotonic() > end:
            raise _NoSshdError(f"sshd does not listen after {_START_TIMEOUT_S:g} s")
        time.sleep(_POLL_S)
    target = Target(
        name="loopback",
        host=server.host,
        user=server.user,
        port=server.port,
        identity_file=str(server.identity_file),
        known_hosts=str(server.known_hosts),
    )
    try:
        with contextlib.closing(connect(target, timeout_s=_START_TIMEOUT_S)) as transport:
            status = transport.run(["true"], timeout_s=_START_TIMEOUT_S).exit_status
    except TargetError as error:
        raise _NoSshdError(f"sshd lets nobody in ({error.what})") from error
    if status != 0:
        raise _NoSshdError(f"the login shell of {server.user} runs no commands")


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
        return True
    return False


def _stop_sshd(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    connections = _children(process.pid)  # each is a session of its own: none ends with sshd
    process.terminate()
    for pid in connections:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGTERM)
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _children(pid: int) -> list[int]:
    """List the direct children of a process, where /proc tells them."""
    children = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # "pid (name) state ppid …", and the name may hold anything
            parent = stat.read_bytes().rpartition(b")")[2].split()[1]
            if int(parent) == pid:
                children.append(int(stat.parent.name))
    return children
