"""What went wrong on the way to a server, in plain words."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from edgecal.adapters.known_hosts import SSH_PORT
from edgecal.errors import ConnectError, HostKeyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgecal.adapters.known_hosts import HostKey, KnownKey

Stage = Literal["reach", "banner", "keys", "login"]
"""How far an attempt came before it failed."""

FAILURES: Final = (paramiko.SSHException, OSError, EOFError, ValueError)
"""What paramiko, fabric and the sockets below them raise."""

_FORWARDING_FORBIDDEN: Final = 1  # RFC 4254, 5.1: administratively prohibited


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try to reach one server, as far as a message tells it."""

    name: str
    """What the user calls the server, as `edgecal trust` takes it."""
    user: str
    host: str
    port: int
    through: str
    """The gateway or the program on the way; may be empty."""
    timeout_s: float
    key_files: tuple[str, ...]

    @property
    def address(self) -> str:
        """Where the attempt went."""
        through = f" through {self.through}" if self.through else ""
        return f"{self.host} port {self.port}{through}"


def unknown_key(attempt: Attempt, shown: HostKey) -> HostKeyError:
    """Refuse a server of which nothing is known."""
    return HostKeyError(
        f"the host key of {attempt.address} is unknown; it shows {shown}",
        where=attempt.name,
        remedy=f"compare the fingerprint with the target's, then 'edgecal trust {attempt.name}'",
    )


def changed_key(attempt: Attempt, shown: HostKey, known: Sequence[HostKey]) -> HostKeyError:
    """Refuse a server that shows another key than the one that is known."""
    same_type = [key for key in known if key.key_type == shown.key_type]
    return HostKeyError(
        f"the host key of {attempt.address} has changed: {(same_type or known)[0]} is known, "
        f"it shows {shown}; somebody may be in between, or the target was installed anew",
        where=attempt.name,
        remedy="verify the new fingerprint at the target itself, not over the network, "
        f"then 'edgecal trust {attempt.name} --replace'",
    )


def revoked_key(attempt: Attempt, shown: HostKey, line: KnownKey) -> HostKeyError:
    """Refuse a server that shows a key which must not be used any more."""
    return HostKeyError(
        f"the host key of {attempt.address}, {shown}, is revoked by {line.where}",
        where=attempt.name,
        remedy="do not use this target until its host key has been replaced",
    )


def connect_error(error: Exception, attempt: Attempt, stage: Stage) -> ConnectError:
    """Say what stopped an attempt, and what to do; the caller chains the cause."""
    explain = {"reach": _unreached, "banner": _no_banner, "keys": _no_keys, "login": _no_login}
    what, remedy = explain[stage](error, attempt)
    return ConnectError(what, where=attempt.name, remedy=remedy)


def _unreached(error: Exception, attempt: Attempt) -> tuple[str, str]:
    address = attempt.address
    if isinstance(error, socket.gaierror):
        remedy = "check the name, or give its HostName in ~/.ssh/config"
        if attempt.host.endswith(".local"):
            remedy = (
                "names in .local need mDNS: 'sudo apt install libnss-mdns' here and 'sudo apt "
                "install avahi-daemon' on the target; or use the target's IP address"
            )
        return f"no address found for {attempt.host!r}", remedy
    if isinstance(error, paramiko.ChannelException):
        what = f"{attempt.through} cannot reach {attempt.host} port {attempt.port}"
        remedy = "check that the target is on and that the gateway knows its name"
        if error.code == _FORWARDING_FORBIDDEN:
            what = f"{attempt.through} does not forward connections to {attempt.host}"
            remedy = f"allow it on {attempt.through}: AllowTcpForwarding yes in sshd_config"
        return what, remedy
    if isinstance(error, ConnectionRefusedError):
        remedy = "start sshd on the target ('sudo systemctl start ssh'), or give the right port"
        return f"{address} refuses connections", remedy
    if isinstance(error, TimeoutError) or "Timeout opening channel" in str(error):
        remedy = "check that the target is on and in this network, and the firewalls between"
        return f"no answer from {address} within {attempt.timeout_s:g} s", remedy
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"cannot reach {address}: {reason}", "check the network and ~/.ssh/config"


def _no_banner(_error: Exception, attempt: Attempt) -> tuple[str, str]:
    what = f"no SSH server answered at {attempt.address} (waited up to {attempt.timeout_s:g} s)"
    if attempt.through:
        return what, f"check that the target is on and can be reached from {attempt.through}"
    busy = "a busy sshd drops connections (MaxStartups): then open fewer of them at once"
    return what, f"check the port; {busy}"


def _no_keys(error: Exception, attempt: Attempt) -> tuple[str, str]:
    if isinstance(error, IncompatiblePeer):
        what = f"{attempt.address} and this machine share no algorithm: {_words(error)}"
        newer = "update sshd on the target (JetPack 4's, OpenSSH 7.6, is new enough)"
        return what, f"{newer}, or allow newer algorithms in its sshd_config"
    what = f"{attempt.address} broke off while keys were agreed on: {_words(error)}"
    return what, "try again; then look into the target's own log (journalctl -u ssh)"


def _no_login(error: Exception, attempt: Attempt) -> tuple[str, str]:
    if isinstance(error, OSError) and error.filename is not None:
        what = f"cannot read the key {error.filename}: {error.strerror}"
        return what, "check its permissions, or name another (IdentityFile in ~/.ssh/config)"
    login = f"{attempt.user}@{attempt.host}"
    locked = [path for path in attempt.key_files if _needs_passphrase(path)]
    if locked:
        what = f"{login} accepts no key that is open here; {', '.join(locked)} has a passphrase"
        return what, f"give it to the agent: 'ssh-add {locked[0]}'"
    port = "" if attempt.port == SSH_PORT else f"-p {attempt.port} "
    remedy = f"put your public key there: 'ssh-copy-id {port}{login}'; or give the right user"
    return f"{login} refuses the login: {_words(error)}", remedy


def _words(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__


def _needs_passphrase(path: str) -> bool:
    readers = (paramiko.RSAKey, paramiko.ECDSAKey)  # the first reads OpenSSH's format for all
    return any(_is_locked(path, reader) for reader in readers)


def _is_locked(path: str, reader: type[paramiko.PKey]) -> bool:
    try:
        reader.from_private_key_file(path)
    except paramiko.PasswordRequiredException:
        return True
    except FAILURES:
        return False
    return False
