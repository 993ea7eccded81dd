"""The checkpoint of an unfinished pass, in a file beside the bundle that is to be written."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from edgecal.adapters.whole_files import sync_folder
from edgecal.core.checkpoint import ANEW, parse_checkpoint, serialize_checkpoint
from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgecal.core.checkpoint import Checkpoint


def checkpoint_path(bundle: Path) -> Path:
    """Name the file, `NAME.edgecal.checkpoint`, where a user finds it and may delete it."""
    return bundle.with_name(f"{bundle.name}.checkpoint")


class CheckpointFile:
    """A checkpoint on disk: whole or not there, whenever the process ends.

    Parameters
    ----------
    path
        Its folder is made when there is something to keep.
    warn
        Hears, once, why a checkpoint cannot be kept; the pass goes on.
    """

    def __init__(self, path: Path, *, warn: Callable[[str], object] = lambda _text: None) -> None:
        self._path = path
        self._aside = path.with_name(f".{path.name}.new")
        self._warn = warn
        self._warned = False

    @property
    def where(self) -> str:
        """Say what users call it."""
        return str(self._path)

    def exists(self) -> bool:
        """Tell whether one was left behind."""
        return os.path.lexists(self._path)

    def load(self) -> Checkpoint | None:
        """Read it; nothing if there is none.

        Raises
        ------
        InputError
            If it cannot be read, or is damaged.
        """
        try:
            if not stat.S_ISREG(self._path.stat().st_mode):  # a pipe would be waited for
                raise OSError(None, "it is no regular file")
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(
                f"cannot read the checkpoint: {error.strerror or error}",
                where=self.where,
                remedy=f"check its permissions, or {ANEW}",
            ) from error
        return parse_checkpoint(data, source=self.where)

    def save(self, checkpoint: Checkpoint) -> bool:
        """Put this one in the place of the last one; tell whether that could be done."""
        data = serialize_checkpoint(checkpoint)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with self._aside.open("wb") as out:
                    out.write(data)
                    out.flush()
                    os.fsync(out.fileno())
                self._aside.replace(self._path)
            except BaseException:
                with contextlib.suppress(OSError):
                    self._aside.unlink()
                raise
            sync_folder(self._path.parent)
        except OSError as error:
            if not self._warned:
                self._warned = True
                self._warn(
                    f"no checkpoint can be kept in {self.where} ({error.strerror or error}): the "
                    "pass goes on, but if it is stopped it starts at the first sample again"
                )
            return False
        return True

    def remove(self) -> None:
        """Delete it, as there is nothing left to go on with."""
        for file in (self._path, self._aside):
            with contextlib.suppress(OSError):
                file.unlink()
