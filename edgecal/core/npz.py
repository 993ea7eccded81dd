"""The .npz files of a bundle: bytes to arrays, never to pickled objects."""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecal.errors import BundleError

if TYPE_CHECKING:
    import numpy.typing as npt

_DAMAGES = (ValueError, KeyError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What numpy and zipfile raise for bytes that are not what they should be."""


def read_arrays(data: bytes, *, source: str) -> dict[str, npt.NDArray[Any]]:
    """Read every array of an .npz file.

    Raises
    ------
    BundleError
        If it is none, or damaged.
    """
    try:
        if not zipfile.is_zipfile(io.BytesIO(data)):
            raise zipfile.BadZipFile("it is no .npz file")
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except _DAMAGES as error:
        raise BundleError(
            f"cannot read it: {error}",
            where=source,
            remedy="the bundle is damaged; copy it again or calibrate again",
        ) from error
