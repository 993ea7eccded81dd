"""Where pictures come from: what holds them gives them by name, in a fixed order."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edgecal.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


class Picture(Protocol):
    """A picture that can be read, in any thread."""

    @property
    def name(self) -> str:
        """What it is called among the others, with `/` between folders."""
        ...

    @property
    def where(self) -> str:
        """Where it lies, for messages."""
        ...

    @property
    def label(self) -> str | None:
        """What the user says it shows, if anything."""
        ...

    def read(self) -> bytes:
        """Read the encoded picture; `DatasetError` if that cannot be."""
        ...


class PictureSource(Protocol):
    """Pictures in a fixed order."""

    @property
    def where(self) -> str:
        """Name it in messages."""
        ...

    @property
    def files(self) -> Sequence[Path]:
        """Name every file that the pictures depend on."""
        ...

    def __len__(self) -> int:
        """Count the pictures; 0 where nobody knows before the end."""
        ...

    def __iter__(self) -> Iterator[Picture]:
        """Give them from the first one on."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFile:
    """A picture in a file of its own."""

    path: Path
    name: str
    where: str
    label: str | None = None

    def read(self) -> bytes:
        """Read the file."""
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):  # a pipe would be waited for
                raise OSError(errno.EINVAL, "it is no regular file")
            return self.path.read_bytes()
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
            reason = error.strerror if isinstance(error, OSError) else error
            raise DatasetError(
                f"cannot read the image: {reason}",
                where=self.where,
                remedy="check that it is there, and its permissions, or pass --skip-unreadable",
            ) from error


def name_below(path: Path, folder: Path) -> str:
    """Name a file by its path below a folder, or by its whole path if it lies elsewhere."""
    # a name need not be text; what goes into a manifest must
    base = os.path.normpath(folder)
    whole = os.path.normpath(path)
    inside = base == "." and not whole.startswith(("/", ".."))
    if not inside and whole.startswith(os.path.join(base, "")):  # noqa: PTH118 - "/" ends in one
        whole = whole[len(os.path.join(base, "")) :]  # noqa: PTH118 - likewise
    return os.fsencode(whole).decode("utf-8", "backslashreplace")


def folder_of(name: str) -> str:
    """Give the folder of a picture's name; empty at the top."""
    return posixpath.dirname(name)
