"""Where a passphrase comes from: never from the command line, which everybody can see in `ps`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from edgecal.errors import InputError

VARIABLE: Final = "EDGECAL_PASSPHRASE"

PassphraseFileOption = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        metavar="FILE",
        help="First line is the key's passphrase.",
        show_default=f"${VARIABLE}, else asked for",
    ),
]


def given_passphrase(file: Path | None) -> bytes | None:
    """Read the passphrase from a file, else from the environment; `None` if neither has one.

    Raises
    ------
    InputError
        If the file cannot be read or has none.
    """
    if file is None:
        return os.fsencode(os.environ.get(VARIABLE, "")) or None
    try:
        with file.open("rb") as stream:
            line = stream.readline(4096).rstrip(b"\r\n")
    except OSError as error:
        raise InputError(
            f"cannot read the passphrase: {error.strerror}",
            where=str(file),
            remedy="check the path",
        ) from error
    if not line:
        raise InputError(
            "the first line holds no passphrase", where=str(file), remedy="write it there"
        )
    return line


def ask_passphrase(what: str) -> bytes:
    """Ask at the terminal, unseen; without one read a line from stdin.

    Raises
    ------
    InputError
        If none is given.
    """
    if sys.stdin.isatty():
        import getpass

        line = getpass.getpass(f"{what}: ", stream=sys.stderr)
    else:
        line = sys.stdin.readline().rstrip("\r\n")
    if not line:
        raise InputError(
            "no passphrase was given, so nothing was done",
            remedy=f"answer at the terminal, or use --passphrase-file or ${VARIABLE}",
        )
    return line.encode("utf-8", "surrogateescape")
