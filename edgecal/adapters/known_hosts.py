"""known_hosts files, read as OpenSSH reads them (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").

Why not paramiko's reader: it raises on `@revoked`, `@cert-authority` and damaged lines, knows
neither wildcards nor `!`, and keeps one key of a type per host where OpenSSH accepts several.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import io
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgecal.errors import HostKeyError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

SSH_PORT: Final = 22
_HASHED: Final = "|1|"


@dataclass(frozen=True, slots=True)
class HostKey:
    """A server's public key."""

    key_type: str
    """As the protocol names it: "ssh-ed25519"."""
    blob: bytes
    """The key as it crosses the wire, its type included."""

    @property
    def base64(self) -> str:
        """The key as known_hosts files spell it."""
        return base64.b64encode(self.blob).decode("ascii")

    @property
    def fingerprint(self) -> str:
        """What `ssh-keygen -l` prints: "SHA256:…"."""
        digest = hashlib.sha256(self.blob).digest()
        return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")

    def __str__(self) -> str:
        return f"{self.key_type} {self.fingerprint}"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKey:
    """One line of a known_hosts file: a key, and the hosts it is meant for."""

    marker: str
    """"" or "@revoked" or "@cert-authority"."""
    hosts: tuple[str, ...]
    """Names and patterns as the file spells them, hashed ones included."""
    key: HostKey
    where: str

    def is_for(self, name: str) -> bool:
        """Say whether the line speaks of `name`; one matching `!pattern` makes it silent."""
        verdicts = [
            not host.startswith("!") for host in self.hosts if _matches(host.lstrip("!"), name)
        ]
        return bool(verdicts) and all(verdicts)


@dataclass(frozen=True, slots=True)
class KnownHosts:
    """What a set of known_hosts files says, in their order."""

    lines: tuple[KnownKey, ...] = ()

    def keys(self, name: str) -> tuple[HostKey, ...]:
        """Every key that `name` (see `host_name`) may show."""
        return tuple(line.key for line in self._marked("", name))

    def revoked(self, name: str, key: HostKey) -> KnownKey | None:
        """Find the line that revokes `key`; it wins over every line that lists it."""
        return next((line for line in self._marked("@revoked", name) if line.key == key), None)

    def _marked(self, marker: str, name: str) -> list[KnownKey]:
        # certificate authorities stay unused: paramiko does not check host certificates
        return [line for line in self.lines if line.marker == marker and line.is_for(name)]


def host_name(host: str, port: int) -> str:
    """Spell a server as known_hosts files do: `host`, or `[host]:port` for another port than 22."""
    return host.lower() if port == SSH_PORT else f"[{host.lower()}]:{port}"


def load_host_keys(paths: Iterable[Path]) -> KnownHosts:
    """Read known_hosts files; absent ones hold nothing, damaged lines are skipped as OpenSSH does.

    Raises
    ------
    InputError
        If a file is there but cannot be read.
    """
    lines: list[KnownKey] = []
    for path in paths:
        for number, line in enumerate(_read(path).split(b"\n"), start=1):
            known = _parse_line(line, where=f"{path}:{number}")
            if known is not None:
                lines.append(known)
    return KnownHosts(tuple(lines))


def append_host_key(path: Path, host: str, port: int, key: HostKey, *, replace: bool) -> None:
    """Add a host's key to a known_hosts file; every other line keeps its bytes.

    Parameters
    ----------
    replace
        Take the host's other keys out (not those listed by a wildcard, as `ssh-keygen -R`).

    Raises
    ------
    HostKeyError
        If the file revokes the key, or lists another one for the host and `replace` is not set.
    InputError
        If the file cannot be read or written.
    """
    path = path.expanduser().resolve()  # a link to the file stays a link
    name = host_name(host, port)
    known = load_host_keys([path])
    revoked = known.revoked(name, key)
    if revoked is not None:
        raise HostKeyError(
            f"the key {key} of {name} is revoked",
            where=revoked.where,
            remedy="find out why it was revoked; give the target a new host key",
        )
    others = [other for other in known.keys(name) if other != key]
    if others and not replace:
        raise HostKeyError(
            f"{name} is known by another key, {others[0]}, not by {key}",
            where=str(path),
            remedy="make sure that the new key is the target's own, then replace the old one",
        )
    if not others and key in known.keys(name):
        return
    new_line = f"{name} {key.key_type} {key.base64}\n".encode()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise InputError(  # /dev/null, as some ssh_configs have it, is not ours to replace
                "not a regular file, so no host key can be kept in it",
                where=str(path),
                remedy="name another file by UserKnownHostsFile in ssh_config",
            )
        if others:
            _rewrite(path, _without(_read(path), name) + new_line)
        else:
            _append(path, new_line)
    except OSError as error:
        raise InputError(
            f"cannot write the host key: {error.strerror}",
            where=str(path),
            remedy="check the permissions and the space of that folder",
        ) from error


def _read(path: Path) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        raise InputError(
            f"cannot read the known hosts: {error.strerror}",
            where=str(path),
            remedy="check the permissions of this file",
        ) from error


def _parse_line(line: bytes, *, where: str) -> KnownKey | None:
    fields = line.decode("utf-8", "surrogateescape").split()
    marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
    if len(fields) < 3 or fields[0].startswith("#"):
        return None
    hosts, key_type, text = fields[:3]
    try:
        blob = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    if blob[4 : 4 + len(key_type)] != os.fsencode(key_type):
        return None
    return KnownKey(
        marker=marker, hosts=tuple(hosts.split(",")), key=HostKey(key_type, blob), where=where
    )


def _matches(pattern: str, name: str) -> bool:
    if pattern.startswith(_HASHED):
        return _hash_matches(pattern, name)
    # not fnmatch: it would read the brackets of "[host]:port" as a set of letters
    regex = re.escape(pattern.lower()).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(regex, name) is not None


def _hash_matches(pattern: str, name: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part) for part in pattern[len(_HASHED) :].split("|"))
    except ValueError:  # binascii.Error is one
        return False
    return hmac.compare_digest(hmac.digest(salt, name.encode(), "sha1"), digest)


def _without(data: bytes, name: str) -> bytes:
    """Take a host out of a file: its own lines go, lines it shares lose its name only."""
    kept: list[bytes] = []
    for line in io.BytesIO(data):
        known = _parse_line(line, where="")
        if known is None or known.marker:
            kept.append(line)
            continue
        hosts = [host for host in known.hosts if not _is_exactly(host, name)]
        if len(hosts) == len(known.hosts):
            kept.append(line)
        elif hosts:
            old, new = ",".join(known.hosts), ",".join(hosts)
            kept.append(line.replace(os.fsencode(old), os.fsencode(new), 1))
    if kept and not kept[-1].endswith(b"\n"):
        kept[-1] += b"\n"
    return b"".join(kept)


def _is_exactly(host: str, name: str) -> bool:
    return host.lower() == name or (host.startswith(_HASHED) and _hash_matches(host, name))


def _append(path: Path, line: bytes) -> None:
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "rb+") as file:
        if file.seek(0, os.SEEK_END) > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = b"\n" + line
        file.write(line)


def _rewrite(path: Path, data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            shutil.copymode(path, file.name)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
