"""ssh_config(5), the user's and the system's: what applies to one server."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

import paramiko
from paramiko.ssh_exception import ConfigParseError

from edgecal.core.inventory import ALL, Inventory
from edgecal.core.target import Target
from edgecal.errors import InputError, InventoryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SYSTEM_FOLDER: Final = Path("/etc/ssh")
_SETTING: Final = re.compile(r"\s*(?P<keyword>\w+)(?:\s*=\s*|\s+)(?P<value>.+)")
_HOST_MAGIC: Final = re.compile(r"[*?]|^!")
_INCLUDE_DEPTH: Final = 16  # as OpenSSH's
# A name that reads as an option or as shell syntax never reaches a ProxyCommand (OpenSSH, ssh.c)
_UNSAFE: Final = re.compile(r"^-|[\s'\"`$;&<>|(){}]")


def read_ssh_config(*, user: str | None, port: int | None) -> paramiko.SSHConfig:
    """Read the user's and the system's ssh_config, below the settings that are given here.

    Why not fabric's reader: it follows no `Include`, and a `ProxyCommand` would not see the given
    user and port in `%r` and `%p`.

    Raises
    ------
    InputError
        If a file cannot be read or parsed.
    """
    given = "".join(
        f"{keyword} {value}\n" for keyword, value in (("User", user), ("Port", port)) if value
    )
    config = paramiko.SSHConfig()
    config.parse(io.StringIO(given))
    for path in (Path.home() / ".ssh/config", SYSTEM_FOLDER / "ssh_config"):
        _parse_into(config, path)
    return config


def known_hosts_files(settings: Mapping[str, str]) -> tuple[list[Path], list[Path]]:
    """Name the user's and the system's known_hosts files by the settings of one server."""
    home = Path.home() / ".ssh"
    return (
        _files(settings.get("userknownhostsfile"), home / "known_hosts", home / "known_hosts2"),
        _files(
            settings.get("globalknownhostsfile"),
            SYSTEM_FOLDER / "ssh_known_hosts",
            SYSTEM_FOLDER / "ssh_known_hosts2",
        ),
    )


def jump_hosts(settings: Mapping[str, str]) -> list[str]:
    """List the ProxyJump of one server as `[user@]host[:port]`, in the order they are visited."""
    jump = settings.get("proxyjump", "none")
    if jump.lower() == "none":
        return []
    return [hop.strip().removeprefix("ssh://") for hop in jump.split(",")]


def check_name(text: str, *, where: str) -> None:
    """Refuse a host or user name that could be taken for something else.

    Raises
    ------
    InputError
        If it starts with `-` or holds white space or shell syntax.
    """
    if _UNSAFE.search(text) or not text.isprintable():
        raise InputError(
            f"expected the name of a host or user, found {text!r}",
            where=where,
            remedy="correct the inventory; options for SSH belong into ~/.ssh/config",
        )


def _parse_into(config: paramiko.SSHConfig, path: Path) -> None:
    if not path.is_file():
        return
    try:
        config.parse(io.StringIO("\n".join(_lines(path, path.parent, depth=0))))
    except (ConfigParseError, OSError, ValueError) as error:
        raise InputError(
            f"cannot read this ssh_config: {error}",
            where=str(path),
            remedy="correct it; 'ssh -G HOST' says what OpenSSH makes of it",
        ) from error


def _files(value: str | None, *default: Path) -> list[Path]:
    if value is None:
        return list(default)
    words = [word.replace("%d", str(Path.home())) for word in shlex.split(value)]
    return [Path(word).expanduser() for word in words if word.lower() != "none"]


def _glob(pattern: Path) -> list[Path]:
    return sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))


def _lines(path: Path, base: Path, *, depth: int) -> Iterator[str]:
    """Yield the lines of a file with those of the files it includes in their place."""
    block = "Host *"
    for line in path.read_text("utf-8", "surrogateescape").split("\n"):
        setting = _SETTING.fullmatch(line)
        keyword = setting["keyword"].lower() if setting else ""
        if keyword in {"host", "match"}:
            block = line
        if setting is None or keyword != "include":
            yield line
        elif depth < _INCLUDE_DEPTH:
            for pattern in shlex.split(setting["value"]):
                for found in _glob(base / Path(pattern).expanduser()):
                    yield from _lines(found, base, depth=depth + 1)
            yield block  # the included file may have opened a block of its own


def list_hosts(file: Path) -> Inventory:
    """List the hosts of an ssh_config; names that its patterns match may be used besides.

    How to reach them is for the user's own ssh_config to say, whenever a connection is opened. Of
    another file only address, user, port, key and known_hosts are taken.

    Raises
    ------
    InputError
        If the file cannot be read or parsed.
    InventoryError
        If it is not the user's own and says more than can be taken from it.
    """
    own = file.resolve() in {
        one.resolve() for one in (Path.home() / ".ssh/config", SYSTEM_FOLDER / "ssh_config")
    }
    try:
        lines = list(_lines(file, file.parent, depth=0))
        if not own:
            _refuse_what_cannot_be_taken(file)
        config = paramiko.SSHConfig()
        config.parse(io.StringIO("\n".join(lines)))
        hosts = [words for line in lines if (words := _host_line(line))]
        names = dict.fromkeys(
            word for words in hosts for word in words if not _HOST_MAGIC.search(word)
        )
        targets = {
            name: Target(name=name, host=name) if own else _resolved(name, config.lookup(name))
            for name in names
        }
    except (ConfigParseError, OSError, ValueError) as error:
        raise InputError(
            f"cannot read this ssh_config: {error}", where=str(file), remedy="correct it"
        ) from error
    return Inventory(
        targets=targets,
        groups={ALL: tuple(targets)},
        patterns=tuple(words for words in dict.fromkeys(hosts) if "*" not in words) if own else (),
    )


def _host_line(line: str) -> tuple[str, ...]:
    setting = _SETTING.fullmatch(line)
    if setting is None or setting["keyword"].lower() != "host":
        return ()
    return tuple(shlex.split(setting["value"], comments=True))


def _resolved(name: str, settings: Mapping[str, str | list[str]]) -> Target:
    def said(keyword: str) -> str | None:
        value = settings.get(keyword)
        value = value[0] if isinstance(value, list) else value
        return value.split()[0] if value and keyword == "userknownhostsfile" else value

    port = said("port")
    return Target(
        name=name,
        host=said("hostname") or name,
        user=said("user"),
        port=int(port) if port else None,
        identity_file=said("identityfile"),
        known_hosts=said("userknownhostsfile"),
    )


def _refuse_what_cannot_be_taken(file: Path) -> None:
    """Refuse a file that runs programs to be understood, or leads over other hosts."""
    for number, line in enumerate(file.read_text("utf-8", "surrogateescape").split("\n"), start=1):
        setting = _SETTING.fullmatch(line)
        keyword = setting["keyword"].lower() if setting else ""
        if keyword in {"match", "include", "proxyjump", "proxycommand"}:
            raise InventoryError(
                f"{keyword!r} counts in the user's own ssh_config only",
                where=f"{file}:{number}",
                remedy=f"write 'Include {file}' into ~/.ssh/config, and pass --inventory "
                "~/.ssh/config",
            )
