"""The temporary folder where TensorRT's worker finds its job and batches and leaves its table."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Make a folder that goes away, whatever is in it by then."""
    try:
        made = tempfile.TemporaryDirectory(prefix="edgecal-trt-", ignore_cleanup_errors=True)
    except OSError as error:
        raise _no_disk(Path(tempfile.gettempdir()), error) from error
    with made as folder:
        path = Path(folder).resolve()
        yield path


@contextlib.contextmanager
def disk_trouble(folder: Path) -> Iterator[None]:
    """Tell a disk that is full, or may not be written, as what it is.

    Raises
    ------
    InputError
        In place of an `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise _no_disk(folder, error) from error


def _no_disk(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"cannot write batches for TensorRT: {error.strerror or error}",
        where=str(folder),
        remedy="free some space, or set TMPDIR to another disk",
    )
