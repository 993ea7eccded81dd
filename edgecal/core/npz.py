"""The .npz files of a bundle: bytes to arrays, never to pickled objects."""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecal.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

_DAMAGES = (ValueError, KeyError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What numpy and zipfile raise for bytes that are not what they should be."""


_LEVEL = 4
"""Of zlib: on pictures it takes a quarter of the time that NumPy's 6 does, for 5 % more bytes."""


class ArrayWriter:
    """An .npz file in the making; the same arrays in the same order give the same bytes."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._file = zipfile.ZipFile(self._buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL)

    def add(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write arrays after those that are there."""
        for name, value in arrays.items():
            with self._file.open(f"{name}.npy", "w", force_zip64=True) as out:
                np.lib.format.write_array(out, value, allow_pickle=False)

    def finish(self) -> bytes:
        """Give the whole file; nothing can be added to it any more."""
        self.close()
        return self._buffer.getvalue()

    def close(self) -> None:
        """End the file, or leave it: one that is only forgotten complains as it goes."""
        self._file.close()


def write_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Make an .npz file."""
    writer = ArrayWriter()
    writer.add(arrays)
    return writer.finish()


def read_arrays(data: bytes, *, source: str) -> dict[str, npt.NDArray[Any]]:
    """Read every array of an .npz file.

    Raises
    ------
    BundleError
        If it is none, or damaged.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            if not file.namelist():
                raise zipfile.BadZipFile("it holds no array")
            # not numpy's own reader: it parses what it reads before zipfile has checked it
            return {
                name.removesuffix(".npy"): np.load(io.BytesIO(file.read(name)), allow_pickle=False)
                for name in file.namelist()
            }
    except _DAMAGES as error:
        raise BundleError(
            f"cannot read it: {error}",
            where=source,
            remedy="the bundle is damaged; copy it again or calibrate again",
        ) from error
