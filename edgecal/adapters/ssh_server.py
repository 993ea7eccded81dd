"""A small SSH server inside this process: lets in one key, runs commands by `sh -c`, no more."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import paramiko
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED,
    OPEN_SUCCEEDED,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LOOPBACK: Final = "127.0.0.1"
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_POLL_S: Final = 0.1
_JOIN_S: Final = 2.0
_CHUNK_BYTES: Final = 1 << 16


class InProcessServer:
    """Listens on a free port of 127.0.0.1 from the moment it is made until `close`.

    Parameters
    ----------
    host_key
        The server's private ed25519 key.
    user_key
        The one public key that may log in, as the user who runs this.
    environment
        Set for every command, beside what a fresh login has.
    """

    def __init__(self, *, host_key: Path, user_key: Path, environment: Mapping[str, str]) -> None:
        login = pwd.getpwuid(os.getuid())
        self._host_key = paramiko.Ed25519Key.from_private_key_file(str(host_key))
        self._user = login.pw_name
        self._user_key = user_key.read_text("ascii").split()[1]
        self._commands = _Commands(
            home=login.pw_dir if Path(login.pw_dir).is_dir() else "/",
            environment={
                "HOME": login.pw_dir,
                "USER": login.pw_name,
                "LOGNAME": login.pw_name,
                "SHELL": "/bin/sh",
                "PATH": _PATH,
                **environment,
            },
        )
        self._connections: list[paramiko.Transport] = []
        self._closing = threading.Event()
        self._listener = socket.create_server((_LOOPBACK, 0), backlog=128)
        self._listener.settimeout(_POLL_S)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._listen, name="edgecal-sshd", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening, cut every connection, kill what still runs in their sessions."""
        self._closing.set()
        self._thread.join()
        for connection in self._connections:
            _cut(connection)
        self._commands.kill()

    def _listen(self) -> None:
        with self._listener:
            while not self._closing.is_set():
                with contextlib.suppress(TimeoutError):
                    self._serve(self._listener.accept()[0])

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = paramiko.Transport(client)
        connection.add_server_key(self._host_key)
        session = _Session(self._user, self._user_key, self._commands)
        connection.start_server(event=threading.Event(), server=session)  # does not wait
        self._connections = [old for old in self._connections if old.is_alive()]
        self._connections.append(connection)


def _cut(connection: paramiko.Transport) -> None:
    connection.close()
    connection.join(_JOIN_S)
    connection.packetizer.complete_handshake()  # stops a timer that paramiko may leave


class _Session(paramiko.ServerInterface):
    """What one connection may do; everything not named here is refused."""

    def __init__(self, user: str, user_key: str, commands: _Commands) -> None:
        self._user = user
        self._user_key = user_key
        self._commands = commands

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        welcome = username == self._user and key.get_base64() == self._user_key
        return AUTH_SUCCESSFUL if welcome else AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        if kind == "session":
            return OPEN_SUCCEEDED
        return OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self._commands.start(channel, command)
        return True


class _Commands:
    """The commands that run now, each on a channel."""

    def __init__(self, *, home: str, environment: Mapping[str, str]) -> None:
        self._home = home
        self._environment = environment
        self._lock = threading.Lock()
        self._running: dict[threading.Thread, subprocess.Popen[bytes]] = {}

    def start(self, channel: paramiko.Channel, command: bytes) -> None:
        """Run a command beside the others."""
        process = subprocess.Popen(
            [b"/bin/sh", b"-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self._home,
            env=self._environment,
            start_new_session=True,
        )
        thread = threading.Thread(target=self._attend, args=(channel, process), daemon=True)
        with self._lock:
            self._running[thread] = process
        thread.start()

    def kill(self) -> None:
        """End every command with its process group; what left that (`setsid`) goes on."""
        with self._lock:
            running = dict(self._running)
        for thread, process in running.items():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            thread.join(_JOIN_S)

    def _attend(self, channel: paramiko.Channel, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None  # noqa: S101 - pipes were asked for
        assert process.stdout is not None  # noqa: S101 - likewise
        assert process.stderr is not None  # noqa: S101 - likewise
        feed = _thread(_feed, channel, process.stdin)
        drains = (
            _thread(_drain, process.stdout, channel.sendall),
            _thread(_drain, process.stderr, channel.sendall_stderr),
        )
        for drain in drains:
            drain.join()
        status = process.wait()
        transport = channel.get_transport()
        # The reply to the exec request is sent by paramiko after `start` has returned; a channel
        # that is closed before it would look refused. The client's answer to this comes after.
        transport.global_request("sync@edgecal")
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            if status >= 0:  # as in OpenSSH, a command that a signal ended has none
                channel.send_exit_status(status)
            channel.close()
        feed.join()
        with self._lock:
            del self._running[threading.current_thread()]


def _feed(channel: paramiko.Channel, stdin: IO[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError), stdin:
        while data := channel.recv(_CHUNK_BYTES):
            stdin.write(data)
            stdin.flush()


def _drain(output: IO[bytes], send: Callable[[bytes], object]) -> None:
    with output, contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        while data := os.read(output.fileno(), _CHUNK_BYTES):
            send(data)


def _thread(work: Callable[..., None], *args: object) -> threading.Thread:
    thread = threading.Thread(target=work, args=args, daemon=True)
    thread.start()
    return thread
