"""Calibration data of any kind, recognised by what is said of it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgecal.adapters.array_files import ArrayFile
from edgecal.adapters.batches import BatchFiles, find_batch_files
from edgecal.adapters.generated import Generated
from edgecal.adapters.image_lists import (
    ImageFiles,
    check_present,
)
from edgecal.adapters.images import is_image
from edgecal.adapters.picture_samples import Images
from edgecal.adapters.picture_sources import open_pictures
from edgecal.core.preprocess import Preprocess
from edgecal.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgecal.core.graph import TensorInfo

_KINDS: Final = (
    "a folder, list (.txt, .csv), pattern or archive (.tar) of images, an .npy or .npz file, batch "
    "files, or module:function"
)


def open_dataset(
    spec: str,
    inputs: Sequence[TensorInfo],
    *,
    preprocess: Preprocess | None,
    skip_unreadable: bool = False,
    limit: int | None = None,
) -> Images | ArrayFile | BatchFiles | Generated:
    """Find out what `spec` names; the first of these that fits.

    1. Batch files: a folder of them without images, one of them, or the path that their names
       begin with.
    2. A folder: every image below it, sorted by relative path.
    3. A pattern with `*`, `?` or `[`, where no file has just that name: images, sorted by path.
    4. By suffix: .tar, .tar.gz, .tgz, .tar.xz archives of images, in the order of their members;
       .csv and .txt lists of images, in their order; .npy and .npz arrays.
    5. `module:function`, a Python generator.

    Raises
    ------
    DatasetError
        If it is none of these, or cannot serve a network with these inputs.
    """
    path = Path(spec)
    batches = find_batch_files(path)
    if batches:
        return BatchFiles(batches, inputs, limit=limit)
    pictures = open_pictures(spec)
    if pictures is not None:
        if isinstance(pictures, ImageFiles) and pictures.behind and not skip_unreadable:
            check_present(itertools.islice(pictures, limit))
        return Images(
            pictures,
            inputs,
            preprocess or Preprocess(),
            skip_unreadable=skip_unreadable,
            limit=limit,
        )
    if path.suffix in {".npy", ".npz"}:
        return ArrayFile(path, inputs, limit=limit)
    module, colon, function = spec.partition(":")
    if colon and all(part.isidentifier() for part in module.split(".")) and function.isidentifier():
        return Generated(module, function, inputs, limit=limit)
    if path.exists():
        raise _unknown_kind(path)
    raise DatasetError(
        "there is no such file or folder",
        where=spec,
        remedy=f"give {_KINDS}",
    )


def _unknown_kind(path: Path) -> DatasetError:
    suffix = path.suffix.lower()
    if is_image(path.name):
        remedy = "give the folder that holds the picture, or a .txt file that names it"
    elif suffix in {".zip", ".7z", ".rar", ".zst"}:
        remedy = "unpack it and give the folder, or pack it as a .tar"
    else:
        remedy = "name a list of images .txt or .csv, and an archive .tar"
    return DatasetError(f"expected {_KINDS}", where=str(path), remedy=remedy)
