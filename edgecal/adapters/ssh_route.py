"""The way to a server as ssh_config has it, gateways first, each opened with its host key checked.

fabric reads what ssh_config says and logs in; it accepts any host key by itself, so every server on
the way, gateways included, gets a policy of ours.
"""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import paramiko
from fabric import Config, Connection
from fabric.connection import derive_shorthand

from edgecal.adapters import ssh_errors
from edgecal.adapters.known_hosts import SSH_PORT, HostKey, KnownHosts, host_name, load_host_keys
from edgecal.adapters.ssh_config import (
    check_name,
    jump_hosts,
    known_hosts_files,
    read_ssh_config,
)
from edgecal.adapters.ssh_errors import FAILURES, Attempt
from edgecal.core.target import Target
from edgecal.errors import EdgecalError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

_CONNECT_TIMEOUT_S: Final = 15.0
_KEEPALIVE_S: Final = 15
_JOIN_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownAs:
    """Under which name a target's host key is kept, and in which file."""

    host: str
    port: int
    file: Path


def known_as(target: Target) -> KnownAs:
    """Say what `edgecal trust` has to write for a target, and where; asks nobody.

    Raises
    ------
    InputError
        If ssh_config has no file for it ("UserKnownHostsFile none"), or cannot be used.
    """
    hop = find_route(target)[-1]
    files = known_hosts_files(hop.settings)[0]
    if target.known_hosts is not None:
        files = [Path(target.known_hosts).expanduser()]
    if not files:
        raise InputError(
            "ssh_config names no file to keep its host key in",
            where=target.name,
            remedy="set known_hosts in the inventory, or UserKnownHostsFile in ~/.ssh/config",
        )
    alias = hop.settings.get("hostkeyalias")
    return KnownAs(
        host=alias or hop.connection.host,
        port=SSH_PORT if alias else hop.connection.port,
        file=files[0],
    )


@dataclass(slots=True, kw_only=True)
class Hop:
    """One server on the way to a target, or the target itself."""

    name: str
    connection: Connection
    settings: paramiko.SSHConfigDict
    known_hosts: list[Path]
    through: str
    proxy: list[str]
    """argv of its ProxyCommand; empty without one."""
    _socket: socket.socket | None = field(default=None, init=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def timeout_s(self, asked_s: float | None) -> float:
        """Prefer what was asked for, then what ssh_config says."""
        return asked_s or self.connection.connect_timeout or _CONNECT_TIMEOUT_S

    def attempt(self, timeout_s: float | None) -> Attempt:
        """Describe the connection for messages."""
        own = (Path.home() / ".ssh" / f"id_{kind}" for kind in ("rsa", "ecdsa", "ed25519"))
        return Attempt(
            name=self.name,
            user=self.connection.user,
            host=self.connection.host,
            port=self.connection.port,
            through=self.through,
            timeout_s=self.timeout_s(timeout_s),
            key_files=(
                *self.connection.connect_kwargs["key_filename"],
                *(str(path) for path in own if path.is_file()),
            ),
        )

    def open(self, policy: Policy) -> None:
        """Connect, check the host key, log in."""
        connection, timeout_s = self.connection, policy.attempt.timeout_s
        connection.client.set_missing_host_key_policy(policy)
        connection.connect_timeout = timeout_s
        connection.connect_kwargs.update(
            banner_timeout=timeout_s,
            auth_timeout=timeout_s,
            channel_timeout=timeout_s,
            transport_factory=policy.transport,
        )
        if not connection.gateway:  # else fabric opens a channel on the gateway, opened before
            connection.connect_kwargs["sock"] = self._dial(timeout_s)
        connection.open()
        connection.transport.set_keepalive(_KEEPALIVE_S)

    def cut(self) -> None:
        """Drop the line, whatever waits on it; callable from any thread."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End everything that `open` began."""
        self.cut()
        transport = self.connection.client.get_transport()
        self.connection.client.close()
        if transport is not None and transport.is_alive():
            transport.join(_JOIN_S)
        if transport is not None:
            transport.packetizer.complete_handshake()  # stops a timer that paramiko may leave
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_JOIN_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _dial(self, timeout_s: float) -> socket.socket:
        if not self.proxy:
            address = (self.connection.host, self.connection.port)
            self._socket = socket.create_connection(address, timeout=timeout_s)
            # paramiko never sets it; without it each small packet may wait 40 ms for the last one
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return self._socket
        # Why not paramiko.ProxyCommand: it spins at the end of the program's output, and never
        # waits for the program itself.
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                self.proxy, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.DEVNULL
            )
        return self._socket


class Policy(paramiko.MissingHostKeyPolicy):
    """What to make of a server's host key, before anybody logs in.

    It is asked for every server, since paramiko's client itself is given no keys.
    """

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.accepted = False
        self.key_types: frozenset[str] = frozenset()

    def transport(self, sock: socket.socket, **_options: object) -> paramiko.Transport:
        """Prefer AES-GCM, which paramiko has last, and the types of the keys that are known."""
        transport = _Transport(sock)
        security = transport.get_security_options()
        # 2.2 times as fast as the first of paramiko's own order, for a third of the CPU time
        security.ciphers = sorted(security.ciphers, key=lambda name: "gcm" not in name)
        security.key_types = sorted(
            security.key_types,
            key=lambda name: ("ssh-rsa" if name.startswith("rsa-") else name) not in self.key_types,
        )
        return transport


class _Transport(paramiko.Transport):
    """paramiko's own, but when it ends it may find its gateway gone first, and says nothing."""

    def run(self) -> None:
        """Be the thread of the connection."""
        with contextlib.suppress(*FAILURES):
            super().run()


class Strict(Policy):
    """Refuses every key that the known_hosts files do not list."""

    def __init__(self, attempt: Attempt, name: str, known: KnownHosts) -> None:
        super().__init__(attempt)
        self._name = name
        self._known = known
        self.key_types = frozenset(key.key_type for key in known.keys(name))

    def missing_host_key(
        self,
        client: paramiko.SSHClient,
        hostname: str,
        key: paramiko.PKey,
    ) -> None:
        """Compare the key with those that are known."""
        shown = HostKey(key.get_name(), key.asbytes())
        revoked = self._known.revoked(self._name, shown)
        if revoked is not None:
            raise ssh_errors.revoked_key(self.attempt, shown, revoked)
        listed = self._known.keys(self._name)
        if not listed:
            raise ssh_errors.unknown_key(self.attempt, shown)
        if shown not in listed:
            raise ssh_errors.changed_key(self.attempt, shown, listed)
        self.accepted = True


class Catch(Policy):
    """Notes the key and refuses it, so that nobody logs in."""

    key: HostKey | None = None

    def missing_host_key(
        self,
        client: paramiko.SSHClient,
        hostname: str,
        key: paramiko.PKey,
    ) -> None:
        """Keep the key and stop."""
        self.key = HostKey(key.get_name(), key.asbytes())
        raise paramiko.SSHException("the key was all that was asked for")


def login_policy(hop: Hop, timeout_s: float | None) -> Strict:
    """Check a server's key against the files that ssh_config names for it."""
    connection = hop.connection
    name = hop.settings.get("hostkeyalias") or host_name(connection.host, connection.port)
    return Strict(hop.attempt(timeout_s), name.lower(), load_host_keys(hop.known_hosts))


def open_route(route: Sequence[Hop], last: Policy, timeout_s: float | None) -> None:
    """Open the way to a target, server by server; all or nothing stays open."""
    policies = [*(login_policy(hop, timeout_s) for hop in route[:-1]), last]
    try:
        for hop, policy in zip(route, policies, strict=True):
            _open(hop, policy)
    except BaseException:
        close_route(route)
        raise


def _open(hop: Hop, policy: Policy) -> None:
    try:
        hop.open(policy)
    except EdgecalError:
        raise
    except FAILURES as error:
        transport = hop.connection.client.get_transport()
        stage: ssh_errors.Stage
        if transport is None:
            stage = "reach"
        elif not transport.remote_version:
            stage = "banner"
        elif not policy.accepted:
            stage = "keys"
        else:
            stage = "login"
        raise ssh_errors.connect_error(error, policy.attempt, stage) from error


def close_route(route: Sequence[Hop]) -> None:
    """Close the outermost server first: its socket gone, no other waits for an answer."""
    for hop in route:
        hop.close()


def find_route(target: Target) -> list[Hop]:
    """List the servers on the way to a target, the outermost first, the target last.

    Why not fabric's own gateways: they accept any host key, and visit several in reverse order.
    """
    try:
        return _way(target, end=target, beyond=frozenset())
    except (ValueError, KeyError, paramiko.SSHException) as error:
        raise InputError(
            f"ssh_config does not say how to reach {target.host!r}: {error}",
            where=target.name,
            remedy=f"'ssh -G {target.host}' says what OpenSSH makes of it",
        ) from error


def find_bastion(target: Target) -> str:
    """Name the server that every connection to a target goes through first; "" if it is direct.

    A ProxyCommand is one, too: those that differ in the target's name alone lead through the same
    server, as far as can be told from here.

    Raises
    ------
    InputError
        If ssh_config cannot be used.
    """
    first, *others = find_route(target)
    if others or first.proxy:
        host, port = first.connection.host, first.connection.port
        words = [word.replace(host, "%h").replace(str(port), "%p") for word in first.proxy]
        return shlex.join(words) if words else f"{host}:{port}"
    return ""


def _way(target: Target, *, end: Target, beyond: frozenset[str]) -> list[Hop]:
    config = _ssh_config(target)
    jumps = [_gateway(end, text) for text in jump_hosts(config.lookup(target.host))]
    beyond |= {target.host}
    if beyond.intersection(jump.host for jump in jumps):
        jumps = []  # "Host *" with a ProxyJump speaks of the gateway too
    way: list[Hop] = []
    for jump in jumps:
        # as with OpenSSH, only the first gateway may itself lie behind another one
        way = [*way, _hop(jump, way, end=end)] if way else _way(jump, end=end, beyond=beyond)
    return [*way, _hop(target, way, end=end)]


def _ssh_config(target: Target) -> paramiko.SSHConfig:
    check_name(target.host, where=target.name)  # before "Match exec" or a ProxyCommand sees it
    check_name(target.user or "", where=target.name)
    return read_ssh_config(user=target.user, port=target.port)


def _gateway(end: Target, jump: str) -> Target:
    found = derive_shorthand(jump)
    return Target(
        name=jump,
        host=found["host"],
        user=found["user"],
        port=found["port"],
        known_hosts=end.known_hosts,
    )


def _hop(target: Target, before: Sequence[Hop], *, end: Target) -> Hop:
    if target.identity_file and not Path(target.identity_file).expanduser().is_file():
        raise InputError(
            f"there is no key {target.identity_file}",
            where=target.name,
            remedy="correct identity_file, or leave it out to use your own keys and agent",
        )
    connection = Connection(
        target.host,
        # lazy: fabric's own configuration files, Python code among them, are not read
        config=Config(lazy=True, ssh_config=_ssh_config(target)),
        gateway=before[-1].connection if before else False,
        forward_agent=False,
        connect_kwargs={"key_filename": target.identity_file or []},
    )
    # ssh_config may name keys that are not there; paramiko would stop at the first of them
    keys = [Path(key).expanduser() for key in connection.connect_kwargs.get("key_filename", ())]
    connection.connect_kwargs["key_filename"] = [str(key) for key in keys if key.is_file()]
    settings = connection.ssh_config
    proxy = [] if before else shlex.split(settings.get("proxycommand") or "")
    own, everybodys = known_hosts_files(settings)
    if target.known_hosts is not None:
        own = [Path(target.known_hosts).expanduser(), *(own if target is not end else [])]
    return Hop(
        name=target.name,
        connection=connection,
        settings=settings,
        known_hosts=[*own, *everybodys],
        through=before[-1].name if before else "".join(proxy[:1]),
        proxy=proxy,
    )
