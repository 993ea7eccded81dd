from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import paramiko  # noqa: TID253 - the server is asked for what edgecal never asks
import pytest

from edgecal.adapters import loopback
from edgecal.adapters.known_hosts import load_host_keys
from edgecal.adapters.loopback import LoopbackServer, start_loopback
from edgecal.adapters.ssh import connect
from edgecal.errors import ConnectError, DependencyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgecal.core.target import Target

    TargetOf = Callable[[LoopbackServer], Target]

STRANGE = {"EDGECAL_A": "two words", "EDGECAL_B": 'a "b" \\ $HOME `id` #c %d', "EDGECAL_C": ""}


@pytest.fixture(params=["sshd", "in-process"])
def kind(request: pytest.FixtureRequest) -> Literal["sshd", "in-process"]:
    if request.param == "sshd":
        request.getfixturevalue("sshd")  # skips where there is none
        return "sshd"
    return "in-process"


@pytest.fixture
def server(
    kind: Literal["sshd", "in-process"], home: Path, tmp_path: Path
) -> Iterator[LoopbackServer]:
    folder = tmp_path / 'a folder, 100% "odd"'
    with start_loopback(folder, prefer=kind, environment={"HOME": str(home), **STRANGE}) as server:
        yield server


@pytest.fixture
def in_process(tmp_path: Path) -> Iterator[LoopbackServer]:
    with start_loopback(tmp_path / "server", prefer="in-process") as server:
        yield server


def test_it_says_what_it_is(server: LoopbackServer, kind: str) -> None:
    assert server.kind == kind
    assert bool(server.reason) == (kind == "in-process")
    assert server.host == "127.0.0.1"


def test_commands_see_the_environment(server: LoopbackServer, target_of: TargetOf) -> None:
    with contextlib.closing(connect(target_of(server))) as transport:
        said = transport.run(["sh", "-c", 'printf "%s|" "$@"', "-", "x"], timeout_s=10)
        assert said.stdout == b"x|"
        for name, value in STRANGE.items():
            result = transport.run(["printenv", name], timeout_s=10)
            assert (result.exit_status, result.stdout.decode()) == (0, value + "\n")


def test_commands_see_a_fresh_login_and_nothing_of_ours(
    server: LoopbackServer, target_of: TargetOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGECAL_SECRET", "ours")
    with contextlib.closing(connect(target_of(server))) as transport:
        seen = dict(
            line.split("=", 1)
            for line in transport.run(["env"], timeout_s=10).stdout.decode().splitlines()
        )
    assert "EDGECAL_SECRET" not in seen
    assert seen["USER"] == server.user
    assert "/usr/bin" in seen["PATH"]


def test_its_files_are_private_and_the_users_own_are_left_alone(
    server: LoopbackServer, home: Path
) -> None:
    folder = server.identity_file.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(server.identity_file.stat().st_mode) == 0o600
    assert server.known_hosts.parent == folder
    assert len(load_host_keys([server.known_hosts]).keys(f"[127.0.0.1]:{server.port}")) == 1
    assert not (home / ".ssh").exists()


def test_it_listens_on_one_address_only(server: LoopbackServer) -> None:
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", server.port))


def test_nobody_else_gets_in(server: LoopbackServer, target_of: TargetOf, tmp_path: Path) -> None:
    other = loopback._make_key(tmp_path / "other")
    with pytest.raises(ConnectError, match="refuses the login"):
        connect(replace(target_of(server), identity_file=str(other)))
    with pytest.raises(ConnectError, match="refuses the login"):
        connect(replace(target_of(server), user="nobody-at-all"))


def test_many_connections_work_at_once(server: LoopbackServer, target_of: TargetOf) -> None:
    def echo(number: int) -> bytes:
        with contextlib.closing(connect(target_of(server))) as transport:
            word = str(number).encode() * 50_000
            return transport.run(["cat"], stdin=word, timeout_s=20).stdout[:2]

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(echo, range(10, 34))) == [str(n).encode() for n in range(10, 34)]


def test_a_closed_server_is_gone(server: LoopbackServer, target_of: TargetOf) -> None:
    with contextlib.closing(connect(target_of(server))):
        server.close()
        server.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((server.host, server.port))


def test_a_folder_can_be_used_again(
    kind: Literal["sshd", "in-process"], tmp_path: Path, target_of: TargetOf
) -> None:
    for _ in range(2):
        with start_loopback(tmp_path, prefer=kind) as server:
            connect(target_of(server)).close()


def test_without_sshd_the_in_process_server_steps_in(
    tmp_path: Path, target_of: TargetOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with start_loopback(tmp_path) as server:
        assert (server.kind, server.reason) == ("in-process", "sshd is not installed")
        connect(target_of(server)).close()
    with pytest.raises(DependencyError, match="openssh-server"):
        start_loopback(tmp_path, prefer="sshd")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'no such option' >&2; exit 1", "ended at once: no such option"),
        ("exec sleep 30", "does not listen after 0.3 s"),
    ],
)
def test_an_sshd_that_does_not_come_up_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    broken = tmp_path / "bin" / "sshd"
    broken.parent.mkdir()
    broken.write_text(f"#!/bin/sh\n{script}\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(broken.parent), prepend=os.pathsep)
    monkeypatch.setattr(loopback, "_START_TIMEOUT_S", 0.3)
    with start_loopback(tmp_path / "server") as server:
        assert server.kind == "in-process"
        assert reason in server.reason


def test_a_port_that_was_taken_meanwhile_is_tried_no_longer(
    sshd: LoopbackServer, tmp_path: Path, target_of: TargetOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = iter([sshd.port])
    choose = loopback._free_port
    monkeypatch.setattr(loopback, "_free_port", lambda: next(ports, None) or choose())
    with start_loopback(tmp_path, prefer="sshd") as server:
        assert server.port != sshd.port
        connect(target_of(server)).close()


def test_the_in_process_server_offers_commands_only(in_process: LoopbackServer) -> None:
    key = paramiko.Ed25519Key.from_private_key_file(str(in_process.identity_file))
    with contextlib.closing(
        paramiko.Transport(socket.create_connection((in_process.host, in_process.port)))
    ) as client:
        client.start_client(timeout=5)
        with pytest.raises(paramiko.BadAuthenticationType):
            client.auth_password(in_process.user, "password")
        stranger = paramiko.RSAKey.generate(2048)
        with pytest.raises(paramiko.AuthenticationException):
            client.auth_publickey(in_process.user, stranger)
        client.auth_publickey(in_process.user, key)
        for request in (paramiko.Channel.invoke_shell, paramiko.Channel.get_pty):
            with pytest.raises(paramiko.SSHException):
                request(client.open_session(timeout=5))
        with pytest.raises(paramiko.SSHException):
            client.open_sftp_client()
        with pytest.raises(paramiko.ChannelException):
            client.open_channel("direct-tcpip", ("127.0.0.1", 22), ("", 0), timeout=5)
        with pytest.raises(paramiko.SSHException):
            client.request_port_forward("127.0.0.1", 0)


def test_the_in_process_server_ends_with_its_commands_and_threads(
    tmp_path: Path, target_of: TargetOf
) -> None:
    before = set(threading.enumerate())
    with start_loopback(tmp_path, prefer="in-process") as server:
        transport = connect(target_of(server))
        killer = threading.Timer(0.2, server.close)
        killer.start()
        began = time.monotonic()
        with pytest.raises(ConnectError, match="lost"):
            transport.run(["sleep", "20"], timeout_s=10)
        killer.join()
        transport.close()
    assert time.monotonic() - began < 3
    assert set(threading.enumerate()) <= before


def test_quick_commands_are_never_taken_for_refused(
    in_process: LoopbackServer, target_of: TargetOf
) -> None:
    with contextlib.closing(connect(target_of(in_process))) as transport:
        for _ in range(100):
            assert transport.run(["true"], timeout_s=10).exit_status == 0
