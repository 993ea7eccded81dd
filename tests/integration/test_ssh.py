from __future__ import annotations

import contextlib
import hmac
import io
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import b64encode
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecal.adapters.loopback import LoopbackServer, start_loopback
from edgecal.adapters.ssh import SshTransport, connect, fetch_host_key, known_as
from edgecal.core.target import Target
from edgecal.errors import (
    CommandError,
    ConnectError,
    HostKeyError,
    InputError,
    TargetError,
    TransferError,
)
from tests.strategies import RAN, shell_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

    TargetOf = Callable[[LoopbackServer], Target]
    StartSshd = Callable[[Path], LoopbackServer]

BIG = os.urandom(5 << 20)
NASTY = (
    "",
    " ",
    "two words",
    "it's",
    'say "so"',
    "$(touch /tmp/no) `id` $HOME ${IFS}",
    "line\nbreak\r\n",
    "tab\tand \\ back\\\\slash",
    "* ? [a-z] ~ ! # ; & | < > ( ) { }",
    "-n",
    "Grüße 漢字 🚀",
    os.fsdecode(b"not \xff utf-8"),
)


@pytest.fixture(scope="module", params=["sshd", "in-process"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LoopbackServer]:
    if request.param == "sshd":
        yield request.getfixturevalue("sshd")
        return
    with start_loopback(tmp_path_factory.mktemp("in-process"), prefer="in-process") as server:
        yield server


@pytest.fixture(scope="module")
def transport(server: LoopbackServer, target_of: TargetOf) -> Iterator[SshTransport]:
    with contextlib.closing(connect(target_of(server))) as transport:
        yield transport


@pytest.fixture
def own_server(
    request: pytest.FixtureRequest, start_sshd: StartSshd, tmp_path: Path
) -> Iterator[LoopbackServer]:
    """A server that a test may kill."""
    if getattr(request, "param", "sshd") == "sshd":
        server = start_sshd(tmp_path / "own")
    else:
        server = start_loopback(tmp_path / "own", prefer="in-process")
    with server:
        yield server


@pytest.fixture
def ssh_folder(home: Path) -> Iterator[Path]:
    """`~/.ssh`, for one test."""
    folder = home / ".ssh"
    folder.mkdir(mode=0o700)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def sshd_with(sshd: LoopbackServer, tmp_path: Path) -> Iterator[Callable[..., LoopbackServer]]:
    """Another sshd on the same keys, with settings that come first."""
    with contextlib.ExitStack() as stack:

        def start(*settings: str) -> LoopbackServer:
            port = free_port()
            config = (sshd.identity_file.parent / "sshd_config").read_text()
            config = config.replace(f"Port {sshd.port}", f"Port {port}")
            path = tmp_path / "sshd_config"
            path.write_text("\n".join([*settings, config]))
            binary = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin:/usr/bin")
            assert binary is not None
            process = subprocess.Popen([binary, "-D", "-e", "-f", path], stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            wait_for_port(port)
            known_hosts = tmp_path / "known_hosts"
            known_hosts.write_text(sshd.known_hosts.read_text().replace(str(sshd.port), str(port)))
            return replace(sshd, port=port, known_hosts=known_hosts)

        yield start


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(port: int) -> None:
    for _ in range(500):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.01)
    pytest.fail("the server does not listen")


def write_key(path: Path, private: PrivateKeyTypes, passphrase: bytes | None = None) -> Path:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase)
    path.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, encryption
        )
    )
    path.chmod(0o600)
    return path


@contextlib.contextmanager
def no_new_threads() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(1)  # a timer that was stopped needs a moment to end
        assert not thread.is_alive(), thread


def refusal(target: Target, timeout_s: float = 5) -> ConnectError:
    """Why a connection is refused; nothing of the attempt may stay behind."""
    with no_new_threads(), pytest.raises(ConnectError) as caught:
        connect(target, timeout_s=timeout_s).close()
    assert caught.value.__cause__ is not None or isinstance(caught.value, HostKeyError)
    return caught.value


# What every server has to do


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_a_command_returns_its_exit_status(transport: SshTransport, status: int) -> None:
    assert transport.run(["sh", "-c", f"exit {status}"], timeout_s=10).exit_status == status


def test_output_and_errors_are_kept_apart(transport: SshTransport) -> None:
    result = transport.run(["sh", "-c", "echo out; echo err >&2"], timeout_s=10)
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")


def test_arguments_arrive_as_they_were_given(transport: SshTransport) -> None:
    result = transport.run(["printf", "%s\\0", *NASTY], timeout_s=10)
    assert result.stdout.split(b"\0")[:-1] == [os.fsencode(word) for word in NASTY]


@settings(max_examples=60, deadline=None)
@given(words=st.lists(shell_words(), min_size=1, max_size=6))
def test_any_words_arrive_as_they_are(transport: SshTransport, words: list[str]) -> None:
    result = transport.run(["printf", "%s\\0", *words], timeout_s=10)
    assert result.stdout.split(b"\0")[:-1] == [os.fsencode(word) for word in words]
    # taken away in passing: it would lie in the home folder of whoever runs the tests
    left = transport.run(["sh", "-c", f"[ ! -e {RAN} ] || {{ rm {RAN}; exit 9; }}"], timeout_s=10)
    assert left.exit_status == 0, "a word was run"


def test_input_and_output_of_megabytes_flow_at_once(transport: SshTransport) -> None:
    assert transport.run(["cat"], stdin=BIG, timeout_s=20).stdout == BIG


def test_errors_of_megabytes_do_not_block_the_input(transport: SshTransport) -> None:
    result = transport.run(
        ["sh", "-c", "head -c 5000000 /dev/zero >&2; cat"], stdin=BIG, timeout_s=20
    )
    assert (len(result.stderr), result.stdout) == (5_000_000, BIG)


def test_a_command_has_no_terminal(transport: SshTransport) -> None:
    assert transport.run(["sh", "-c", "test -t 0 || test -t 1"], timeout_s=10).exit_status == 1


def test_a_command_that_a_signal_ends_has_failed(transport: SshTransport) -> None:
    result = transport.run(["sh", "-c", "kill -9 $$"], timeout_s=10)
    assert result.exit_status in {137, 255}  # 137 where a shell was in between


def test_a_command_that_is_not_there_is_the_shells_to_report(transport: SshTransport) -> None:
    result = transport.run(["no-such-command"], timeout_s=10)
    assert (result.exit_status, b"not found" in result.stderr) == (127, True)


def test_a_slow_command_is_given_up_and_the_connection_stays(transport: SshTransport) -> None:
    began = time.monotonic()
    with pytest.raises(CommandError, match=r"not ended within 0.3 s") as caught:
        transport.run(["sleep", "5"], timeout_s=0.3)
    assert time.monotonic() - began < 2
    assert caught.value.where == "bench"
    assert transport.run(["echo", "still here"], timeout_s=10).stdout == b"still here\n"


def test_a_command_that_ends_before_its_input_tells_why(transport: SshTransport) -> None:
    complain = ["sh", "-c", "head -c 1000 >/dev/null; echo disk full >&2; exit 7"]
    result = transport.send(complain, io.BytesIO(BIG * 4), timeout_s=10)
    assert (result.exit_status, result.stderr) == (7, b"disk full\n")


def test_a_command_that_reads_no_more_is_a_failed_transfer(transport: SshTransport) -> None:
    with pytest.raises(TransferError, match=r"taken nothing for 0.5 s"):
        transport.send(["sleep", "5"], io.BytesIO(BIG * 4), timeout_s=0.5)
    assert transport.run(["true"], timeout_s=10).exit_status == 0


def test_a_slow_transfer_goes_on_as_long_as_it_moves(transport: SshTransport) -> None:
    slow = ["sh", "-c", "for i in 1 2 3 4 5; do head -c 1048576; sleep 0.2; done | wc -c"]
    result = transport.send(slow, io.BytesIO(BIG), timeout_s=0.8)
    assert result.stdout.split() == [b"5242880"]


def test_a_slow_source_is_not_the_targets_fault(transport: SshTransport) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            time.sleep(0.7)
            return super().read(size)

    assert transport.send(["cat"], Slow(b"late"), timeout_s=0.1).stdout == b"late"


def test_a_stream_is_sent_from_its_offset(transport: SshTransport) -> None:
    moved: list[int] = []
    result = transport.send(
        ["cat"], io.BytesIO(BIG), offset=1_000_000, timeout_s=10, progress=moved.append
    )
    assert result.stdout == BIG[1_000_000:]
    assert sum(moved) == len(BIG) - 1_000_000


def test_progress_may_stop_a_transfer(transport: SshTransport) -> None:
    def stop(_count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transport.send(["cat"], io.BytesIO(BIG), timeout_s=10, progress=stop)
    assert transport.run(["true"], timeout_s=10).exit_status == 0


def test_every_byte_that_goes_out_is_counted(transport: SshTransport) -> None:
    before = transport.bytes_sent
    transport.run(["wc", "-c"], stdin=b"12345", timeout_s=10)
    transport.send(["wc", "-c"], io.BytesIO(BIG), offset=len(BIG) - 7, timeout_s=10)
    assert transport.bytes_sent - before == 2 * len("wc -c") + 5 + 7


def test_a_detached_process_holds_nothing_up_and_outlives_the_connection(
    server: LoopbackServer, target_of: TargetOf
) -> None:
    began = time.monotonic()
    with contextlib.closing(connect(target_of(server))) as transport:
        detach = "setsid sleep 20 </dev/null >/dev/null 2>&1 & echo $!"
        pid = int(transport.run(["sh", "-c", detach], timeout_s=10).stdout)
    assert time.monotonic() - began < 5
    os.kill(pid, 0)
    os.kill(pid, signal.SIGKILL)


def test_a_closed_connection_stays_closed(server: LoopbackServer, target_of: TargetOf) -> None:
    with no_new_threads():
        transport = connect(target_of(server))
        transport.close()
        transport.close()
        with pytest.raises(ConnectError, match="connection was lost"):
            transport.run(["true"], timeout_s=5)


@pytest.mark.parametrize("own_server", ["sshd", "in-process"], indirect=True)
def test_a_server_that_dies_fails_the_transfer(
    own_server: LoopbackServer, target_of: TargetOf
) -> None:
    sent = 0

    def die(count: int) -> None:
        nonlocal sent
        sent += count
        if sent > 1 << 20:
            own_server.close()

    with contextlib.closing(connect(target_of(own_server))) as transport:
        with pytest.raises(TransferError, match="lost"):
            transport.send(["cat"], io.BytesIO(BIG * 4), timeout_s=10, progress=die)
        with pytest.raises(ConnectError, match="lost"):
            transport.run(["true"], timeout_s=5)


@pytest.mark.parametrize("own_server", ["sshd", "in-process"], indirect=True)
def test_a_server_that_dies_loses_the_command(
    own_server: LoopbackServer, target_of: TargetOf
) -> None:
    killer = threading.Timer(0.2, own_server.close)
    with contextlib.closing(connect(target_of(own_server))) as transport:
        killer.start()
        with pytest.raises(ConnectError, match="lost while 'sleep' ran"):
            transport.run(["sleep", "5"], timeout_s=10)
    killer.join()


@contextlib.contextmanager
def dying_line(server: LoopbackServer, target: Target) -> Iterator[tuple[Target, threading.Event]]:
    """A relay for one connection; it moves nothing once the event is set, and closes nothing."""
    dead = threading.Event()

    def pump(source: socket.socket, sink: socket.socket) -> None:
        source.settimeout(0.05)
        while not dead.is_set():
            with contextlib.suppress(TimeoutError):
                sink.sendall(source.recv(1 << 16))

    def serve() -> None:
        near = stack.enter_context(listener.accept()[0])
        far = stack.enter_context(socket.create_connection((server.host, server.port)))
        for pair in ((near, far), (far, near)):
            thread = threading.Thread(target=pump, args=pair)
            thread.start()
            stack.callback(thread.join)

    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((server.host, 0)))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # soon full
        port = listener.getsockname()[1]
        known_hosts = server.known_hosts.with_name("dying_line")
        known_hosts.write_text(server.known_hosts.read_text().replace(str(server.port), str(port)))
        thread = threading.Thread(target=serve)
        thread.start()
        yield replace(target, port=port, known_hosts=str(known_hosts)), dead
        dead.set()
        thread.join()


def test_a_transfer_over_a_dead_line_is_cut(server: LoopbackServer, target_of: TargetOf) -> None:
    """With every buffer full, paramiko itself would wait for ever."""
    with (
        dying_line(server, target_of(server)) as (target, dead),
        contextlib.closing(connect(target)) as transport,
    ):
        began = time.monotonic()
        with pytest.raises(TransferError, match="taken nothing"):
            transport.send(
                ["cat"], io.BytesIO(BIG * 8), timeout_s=0.5, progress=lambda _: dead.set()
            )
        assert 1.4 < time.monotonic() - began < 4  # not by the window, by the cut after it


def test_a_command_over_a_dead_line_is_given_up(
    server: LoopbackServer, target_of: TargetOf
) -> None:
    with (
        dying_line(server, target_of(server)) as (target, dead),
        contextlib.closing(connect(target)) as transport,
    ):
        dead.set()
        with pytest.raises(CommandError, match="not ended"):
            transport.run(["true"], timeout_s=0.5)


# Host keys


def fingerprint(server: LoopbackServer) -> str:
    return fetch_host_key(
        Target(name="any", host=server.host, port=server.port), timeout_s=5
    ).fingerprint


def test_an_unknown_host_key_is_refused(
    sshd: LoopbackServer, target_of: TargetOf, tmp_path: Path
) -> None:
    target = replace(target_of(sshd), known_hosts=str(tmp_path / "none"))
    error = refusal(target)
    assert isinstance(error, HostKeyError)
    assert f"shows ssh-ed25519 {fingerprint(sshd)}" in error.what
    assert "edgecal trust bench" in error.remedy


def test_a_changed_host_key_is_refused_with_both_fingerprints(
    sshd: LoopbackServer, target_of: TargetOf, own_server: LoopbackServer, tmp_path: Path
) -> None:
    known_hosts = tmp_path / "known_hosts"
    other = own_server.known_hosts.read_text().replace(str(own_server.port), str(sshd.port))
    known_hosts.write_text(other)
    error = refusal(replace(target_of(sshd), known_hosts=str(known_hosts)))
    assert isinstance(error, HostKeyError)
    assert "has changed" in error.what
    assert fingerprint(sshd) in error.what
    assert fingerprint(own_server) in error.what
    assert "verify" in error.remedy
    assert "edgecal trust bench --replace" in error.remedy
    known_hosts.write_text(other + sshd.known_hosts.read_text())
    connect(replace(target_of(sshd), known_hosts=str(known_hosts))).close()


def test_a_revoked_host_key_is_refused_although_it_is_listed(
    sshd: LoopbackServer, target_of: TargetOf, tmp_path: Path
) -> None:
    listed = sshd.known_hosts.read_text()
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(listed + "@revoked * " + listed.split(" ", 1)[1])
    error = refusal(replace(target_of(sshd), known_hosts=str(known_hosts)))
    assert isinstance(error, HostKeyError)
    assert f"revoked by {known_hosts}:2" in error.what


def test_a_hashed_known_hosts_file_serves(
    sshd: LoopbackServer, target_of: TargetOf, tmp_path: Path
) -> None:
    salt = os.urandom(20)
    digest = hmac.digest(salt, f"[127.0.0.1]:{sshd.port}".encode(), "sha1")
    name = f"|1|{b64encode(salt).decode()}|{b64encode(digest).decode()}"
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(f"{name} {sshd.known_hosts.read_text().split(' ', 1)[1]}")
    connect(replace(target_of(sshd), known_hosts=str(known_hosts))).close()


def test_the_key_type_that_is_known_is_the_one_asked_for(
    sshd_with: Callable[..., LoopbackServer], target_of: TargetOf, tmp_path: Path
) -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    server = sshd_with(f"HostKey {write_key(tmp_path / 'rsa', private)}")
    public = private.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    server.known_hosts.write_text(f"[127.0.0.1]:{server.port} {public.decode()}\n")
    connect(target_of(server)).close()
    assert fetch_host_key(target_of(server)).key_type == "ssh-ed25519"


def test_fetching_a_host_key_logs_nobody_in(sshd: LoopbackServer, home: Path) -> None:
    target = Target(name="bench", host=sshd.host, port=sshd.port, user="nobody-at-all")
    key = fetch_host_key(target, timeout_s=5)
    assert f"{key.key_type} {key.base64}" in sshd.known_hosts.read_text()
    known = known_as(target)
    assert (known.host, known.port) == ("127.0.0.1", sshd.port)
    assert known.file == home / ".ssh" / "known_hosts"


# What goes wrong on the way


def test_a_key_that_is_not_let_in_is_told_how_to_get_in(
    sshd: LoopbackServer, target_of: TargetOf, tmp_path: Path
) -> None:
    stranger = write_key(tmp_path / "stranger", Ed25519PrivateKey.generate())
    error = refusal(replace(target_of(sshd), identity_file=str(stranger)))
    assert f"ssh-copy-id -p {sshd.port} {sshd.user}@127.0.0.1" in error.remedy


def test_no_key_at_all_is_told_the_same(sshd: LoopbackServer, target_of: TargetOf) -> None:
    assert "ssh-copy-id" in refusal(replace(target_of(sshd), identity_file=None)).remedy


def test_a_locked_key_is_for_the_agent(
    sshd: LoopbackServer, target_of: TargetOf, tmp_path: Path
) -> None:
    locked = write_key(tmp_path / "locked", Ed25519PrivateKey.generate(), b"secret")
    error = refusal(replace(target_of(sshd), identity_file=str(locked)))
    assert f"ssh-add {locked}" in error.remedy
    assert "secret" not in str(error)


def test_a_missing_key_file_is_named(sshd: LoopbackServer, target_of: TargetOf) -> None:
    with pytest.raises(InputError, match="no key /no/such/key"):
        connect(replace(target_of(sshd), identity_file="/no/such/key"))


def test_a_closed_port_refuses(sshd: LoopbackServer, target_of: TargetOf) -> None:
    error = refusal(replace(target_of(sshd), port=free_port()))
    assert "refuses connections" in error.what


@pytest.mark.parametrize(
    ("host", "hint"), [("xavier.local", "avahi-daemon"), ("xavier.lab", "HostName")]
)
def test_an_unknown_name_says_where_names_come_from(
    monkeypatch: pytest.MonkeyPatch, host: str, hint: str
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = refusal(Target(name="bench", host=host))
    assert error.what == f"no address found for '{host}'"
    assert hint in error.remedy


def test_a_server_that_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = Target(name="bench", host="127.0.0.1", port=silent.getsockname()[1])
        began = time.monotonic()
        error = refusal(target, timeout_s=0.5)
        assert time.monotonic() - began < 2
    assert "no SSH server answered" in error.what
    assert "up to 0.5 s" in error.what


@pytest.mark.parametrize(
    ("greeting", "words"),
    [
        (b"", "no SSH server answered"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no SSH server answered"),
        (b"SSH-1.5-old\r\n", "share no algorithm"),
        (b"SSH-2.0-rude\r\n", "broke off while keys"),
    ],
)
def test_a_server_that_hangs_up_is_understood(greeting: bytes, words: str) -> None:
    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(greeting)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        target = Target(name="bench", host="127.0.0.1", port=listener.getsockname()[1])
        try:
            assert words in refusal(target, timeout_s=2).what
        finally:
            thread.join()


def test_an_sshd_too_old_for_this_machine_is_called_so(
    sshd_with: Callable[..., LoopbackServer], target_of: TargetOf
) -> None:
    server = sshd_with("KexAlgorithms diffie-hellman-group14-sha1")
    assert "share no algorithm" in refusal(target_of(server)).what


def test_an_sshd_without_gcm_serves_too(
    sshd_with: Callable[..., LoopbackServer], target_of: TargetOf
) -> None:
    server = sshd_with("Ciphers aes128-ctr")
    with contextlib.closing(connect(target_of(server))) as transport:
        assert transport.run(["echo", "here"], timeout_s=10).stdout == b"here\n"


def test_gcm_is_used_where_it_is_offered(transport: SshTransport) -> None:
    assert "gcm" in repr(transport._transport)


@pytest.mark.parametrize("name", ["-oProxyCommand=touch /tmp/no", "a b", "$(id)", "x;y", "a\nb"])
def test_a_name_that_is_none_goes_nowhere(name: str) -> None:
    with pytest.raises(InputError, match="expected the name"):
        connect(Target(name="bench", host=name))
    with pytest.raises(InputError, match="expected the name"):
        connect(Target(name="bench", host="127.0.0.1", user=name))


# ssh_config


def write_config(folder: Path, text: str, known_hosts: str = "") -> None:
    (folder / "config").write_text(text)
    (folder / "known_hosts").write_text(known_hosts)


def host_block(alias: str, server: LoopbackServer, *more: str) -> str:
    lines = [
        f"Host {alias}",
        "HostName 127.0.0.1",
        f"Port {server.port}",
        f"User {server.user}",
        f'IdentityFile "{server.identity_file}"',
        "IdentityFile ~/.ssh/not_there",
        *more,
    ]
    return "\n  ".join(lines) + "\n"


def test_an_alias_is_reached_through_its_gateway(
    sshd: LoopbackServer, own_server: LoopbackServer, ssh_folder: Path
) -> None:
    write_config(
        ssh_folder,
        "ConnectTimeout 7\n"
        + host_block("bastion", own_server)
        + host_block("xavier", sshd, "ProxyJump bastion"),
        own_server.known_hosts.read_text() + sshd.known_hosts.read_text(),
    )
    target = Target(name="xavier", host="xavier")
    with no_new_threads(), contextlib.closing(connect(target)) as transport:
        assert len(transport._route) == 2
        client = transport.run(["sh", "-c", "echo $SSH_CONNECTION"], timeout_s=10).stdout
        assert client.split()[3] == str(sshd.port).encode()
        assert transport.run(["cat"], stdin=BIG, timeout_s=20).stdout == BIG
    assert f"]:{sshd.port} {fetch_host_key(target).key_type}" in sshd.known_hosts.read_text()


def test_gateways_are_visited_in_the_order_they_are_named(
    sshd: LoopbackServer, own_server: LoopbackServer, ssh_folder: Path
) -> None:
    write_config(
        ssh_folder,
        host_block("first", sshd)
        + host_block("second", own_server)
        + host_block("xavier", sshd, "ProxyJump first,second")
        + "Host *\n  ProxyJump first\n",
        own_server.known_hosts.read_text() + sshd.known_hosts.read_text(),
    )
    with contextlib.closing(connect(Target(name="xavier", host="xavier"))) as transport:
        assert [hop.name for hop in transport._route] == ["first", "second", "xavier"]
        assert transport.run(["true"], timeout_s=10).exit_status == 0


def test_a_gateway_must_be_known_too(
    sshd: LoopbackServer, own_server: LoopbackServer, ssh_folder: Path
) -> None:
    write_config(
        ssh_folder,
        host_block("bastion", own_server, "StrictHostKeyChecking no")
        + host_block("xavier", sshd, "ProxyJump bastion"),
        sshd.known_hosts.read_text(),
    )
    error = refusal(Target(name="xavier", host="xavier"))
    assert isinstance(error, HostKeyError)
    assert error.where == "bastion"
    assert "edgecal trust bastion" in error.remedy


def test_a_gateway_that_cannot_reach_the_target_says_so(
    sshd: LoopbackServer, ssh_folder: Path
) -> None:
    write_config(
        ssh_folder,
        host_block("bastion", sshd)
        + f"Host xavier\n  HostName 127.0.0.1\n  Port {free_port()}\n  ProxyJump bastion\n",
        sshd.known_hosts.read_text(),
    )
    error = refusal(Target(name="xavier", host="xavier"))
    assert "bastion cannot reach 127.0.0.1" in error.what


def test_a_gateway_that_forwards_nothing_says_so(
    sshd_with: Callable[..., LoopbackServer], ssh_folder: Path
) -> None:
    server = sshd_with("AllowTcpForwarding no")
    write_config(
        ssh_folder,
        host_block("bastion", server) + "Host xavier\n  ProxyJump bastion\n",
        server.known_hosts.read_text(),
    )
    error = refusal(Target(name="xavier", host="xavier"))
    assert "bastion does not forward" in error.what


RELAY = """
import socket, sys, threading
far = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def back():
    while data := far.recv(65536):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
threading.Thread(target=back, daemon=True).start()
while data := sys.stdin.buffer.raw.read(65536):
    far.sendall(data)
"""


def test_a_proxy_command_is_run_with_the_port_that_was_asked_for(
    sshd: LoopbackServer, target_of: TargetOf, ssh_folder: Path
) -> None:
    relay = ssh_folder / "relay.py"
    relay.write_text(RELAY)
    command = f"ProxyCommand {shlex.quote(sys.executable)} {relay} %h %p"
    write_config(ssh_folder, f"Host *\n  {command}\n")
    with contextlib.closing(connect(target_of(sshd))) as transport:
        assert transport.run(["cat"], stdin=BIG, timeout_s=20).stdout == BIG
        process = transport._route[0]._process
    assert process is not None
    assert process.returncode is not None


@pytest.mark.parametrize("command", ["false", "/no/such/program %h"])
def test_a_proxy_command_that_fails_is_named(
    command: str, sshd: LoopbackServer, target_of: TargetOf, ssh_folder: Path
) -> None:
    write_config(ssh_folder, f"Host *\n  ProxyCommand {command}\n")
    assert command.split(maxsplit=1)[0] in refusal(target_of(sshd)).what


def test_the_known_hosts_files_of_ssh_config_are_read(
    sshd: LoopbackServer, ssh_folder: Path
) -> None:
    write_config(ssh_folder, host_block("xavier", sshd, 'UserKnownHostsFile "~/.ssh/a" ~/.ssh/b'))
    (ssh_folder / "b").write_text(sshd.known_hosts.read_text())
    target = Target(name="xavier", host="xavier")
    connect(target).close()
    assert known_as(target).file == ssh_folder / "a"


def test_a_host_key_alias_is_the_name_that_is_known(sshd: LoopbackServer, ssh_folder: Path) -> None:
    write_config(
        ssh_folder,
        host_block("xavier", sshd, "HostKeyAlias Jetson-7"),
        "jetson-7 " + sshd.known_hosts.read_text().split(" ", 1)[1],
    )
    target = Target(name="xavier", host="xavier")
    connect(target).close()
    assert (known_as(target).host, known_as(target).port) == ("Jetson-7", 22)


def test_strict_checking_cannot_be_switched_off(sshd: LoopbackServer, ssh_folder: Path) -> None:
    write_config(
        ssh_folder,
        host_block("xavier", sshd, "StrictHostKeyChecking no", "UserKnownHostsFile /dev/null"),
    )
    assert isinstance(refusal(Target(name="xavier", host="xavier")), HostKeyError)


def test_included_files_count(sshd: LoopbackServer, ssh_folder: Path) -> None:
    (ssh_folder / "config.d").mkdir()
    (ssh_folder / "config.d" / "fleet").write_text(host_block("xavier", sshd))
    write_config(
        ssh_folder,
        "Include config.d/*\nUser nobody-at-all\nHost orin\n  HostName 10.0.0.1\n",
        sshd.known_hosts.read_text(),
    )
    connect(Target(name="xavier", host="xavier")).close()


def test_a_target_overrides_ssh_config(
    sshd: LoopbackServer, target_of: TargetOf, ssh_folder: Path
) -> None:
    write_config(ssh_folder, "Host *\n  User nobody-at-all\n  Port 1\n  IdentityFile ~/none\n")
    connect(target_of(sshd)).close()


@pytest.mark.parametrize("text", ["Host xavier\n  Port many\n", "Host\n", 'Host "xavier\n'])
def test_a_damaged_ssh_config_is_the_users_to_mend(ssh_folder: Path, text: str) -> None:
    write_config(ssh_folder, text)
    with pytest.raises(InputError, match="ssh -G"):
        connect(Target(name="xavier", host="xavier"))


def test_a_connection_counts_as_a_failed_target_in_every_case() -> None:
    assert all(issubclass(kind, TargetError) for kind in (ConnectError, HostKeyError))
