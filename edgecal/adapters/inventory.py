"""Inventories: `fleet.toml`, Ansible's JSON or a program that prints it, ssh_config."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import time
from typing import IO, TYPE_CHECKING, Final

from edgecal.adapters.project import commands_count, doubt_of, read_project
from edgecal.adapters.ssh_config import list_hosts
from edgecal.core.ansible import parse_ansible
from edgecal.core.project import Project
from edgecal.errors import InventoryError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILE_NAME: Final = "fleet.toml"
_LARGEST_BYTES: Final = 64 << 20
_TIMEOUT_S: Final = 60.0
_SSH_CONFIG: Final = re.compile(
    rb"^[ \t]*(?:Host|Match|Include)[ \t]+[^=\s]", re.IGNORECASE | re.MULTILINE
)


def find_inventory(folder: Path) -> Path | None:
    """Find the nearest `fleet.toml` from `folder` upwards."""
    for parent in (folder, *folder.parents):
        file = parent / FILE_NAME
        if os.path.isfile(file):  # noqa: PTH113 - false, not an error, where we may not look
            return file
    return None


def read_inventory(
    file: Path, *, warn: Callable[[str], object], timeout_s: float = _TIMEOUT_S
) -> Project:
    """Read an inventory; what kind it is shows in the file itself.

    A file ending in `.toml` is ours. Another one that may be executed is run with `--list`, as
    Ansible does, unless it ends in `.json`. What begins with `{` is Ansible's JSON; what has a
    `Host` line is an ssh_config.

    Parameters
    ----------
    warn
        Hears of commands and hosts that are ignored, and why.

    Raises
    ------
    InventoryError
        If it cannot be read or run, or says something unknown.
    """
    file = file.absolute()
    if file.suffix == ".toml":
        return read_project(file, warn=warn)
    try:
        is_program = file.suffix != ".json" and file.is_file() and os.access(file, os.X_OK)
        data = b"" if is_program else _read(file)
    except OSError as error:
        raise InventoryError(
            f"cannot read the inventory: {error.strerror or error}",
            where=str(file),
            remedy="correct the path, or the file's permissions",
        ) from error
    if is_program:
        doubt = doubt_of(file)
        if doubt is not None:
            warn(f"{file} is not run, for {doubt}")
            raise InventoryError(
                "the inventory is a program that another user may have written",
                where=str(file),
                remedy=doubt.partition("; ")[2] or "make a copy of it",
            )
        data = _run(file, timeout_s)
    elif not data.lstrip().startswith(b"{"):
        if _SSH_CONFIG.search(data):
            return Project(source=str(file), inventory=list_hosts(file), is_ours=False)
        return read_project(file, warn=warn)
    inventory = parse_ansible(_decode(data, file), source=str(file), warn=warn)
    if not commands_count(file, inventory.commands(), warn=warn):
        inventory = inventory.without_commands()
    return Project(source=str(file), inventory=inventory, is_ours=False)


def _read(file: Path) -> bytes:
    with file.open("rb") as stream:
        data = stream.read(_LARGEST_BYTES + 1)
    if len(data) > _LARGEST_BYTES:
        raise _too_large(file)
    return data


def _too_large(file: Path) -> InventoryError:
    return InventoryError(
        f"the inventory has more than {_LARGEST_BYTES >> 20} MiB",
        where=str(file),
        remedy="check that it is one; split it if so",
    )


def _decode(data: bytes, file: Path) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InventoryError(
            f"expected JSON, found something else: {error}",
            where=str(file),
            remedy="give what 'ansible-inventory --list' prints, and nothing around it",
        ) from error


def _run(file: Path, timeout_s: float) -> bytes:
    """Run an inventory program in a process group of its own; gives what it prints."""
    try:
        program = subprocess.Popen(
            [str(file), "--list"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise InventoryError(
            f"the inventory program does not start: {error.strerror}",
            where=str(file),
            remedy="correct its first line, or 'chmod -x' it if it is no program",
        ) from error
    try:
        with program:
            try:
                out, err = _listen(program, file, timeout_s)
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(program.pid, signal.SIGKILL)  # nobody has waited for it yet
                raise
    except subprocess.TimeoutExpired as error:
        raise InventoryError(
            f"the inventory program had not ended after {timeout_s:g} s",
            where=str(file),
            remedy=f"see what it waits for: '{file} --list'",
        ) from error
    if program.returncode:
        last = err.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise InventoryError(
            f"the inventory program ended with {program.returncode}: {last[:200]}",
            where=str(file),
            remedy=f"see what it says: '{file} --list'",
        )
    return out


def _listen(program: subprocess.Popen[bytes], file: Path, timeout_s: float) -> tuple[bytes, bytes]:
    """Read both outputs until they end, no longer and no more than is allowed."""
    limit = time.monotonic() + timeout_s
    heard: dict[IO[bytes], bytearray] = {
        pipe: bytearray() for pipe in (program.stdout, program.stderr) if pipe is not None
    }
    with selectors.DefaultSelector() as waiting:
        for pipe in heard:
            waiting.register(pipe, selectors.EVENT_READ)
        while waiting.get_map():
            left = limit - time.monotonic()
            ready = waiting.select(left) if left > 0 else []
            if not ready:
                raise subprocess.TimeoutExpired(str(file), timeout_s)
            for key, _ in ready:
                pipe = next(one for one in heard if one is key.fileobj)
                piece = os.read(key.fd, 1 << 16)
                if not piece:
                    waiting.unregister(pipe)
                heard[pipe] += piece
                if len(heard[pipe]) > _LARGEST_BYTES:
                    raise _too_large(file)
    program.wait(max(0.0, limit - time.monotonic()))
    out, err = heard.values()
    return bytes(out), bytes(err)
