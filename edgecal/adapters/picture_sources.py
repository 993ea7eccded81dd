"""Opens what holds pictures, by what its name says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgecal.adapters.archives import TAR_SUFFIXES, ImageArchive
from edgecal.adapters.image_lists import (
    CSV_SUFFIX,
    LIST_SUFFIXES,
    images_by_pattern,
    images_in_csv,
    images_in_folder,
    images_in_list,
    is_pattern,
    raise_unlistable,
)

if TYPE_CHECKING:
    from edgecal.adapters.pictures import PictureSource


def open_pictures(spec: str) -> PictureSource | None:
    """Open what holds pictures: a folder, a list, a CSV file, a pattern or an archive."""
    path = Path(spec)
    try:
        if path.is_dir():
            return images_in_folder(path)
    except OSError as error:  # a folder above it may not be entered
        raise_unlistable(error)
    if is_pattern(spec) and not os.path.lexists(path):
        return images_by_pattern(spec)
    if path.name.lower().endswith(TAR_SUFFIXES):
        return ImageArchive(path)
    suffix = path.suffix.lower()
    if suffix == CSV_SUFFIX:
        return images_in_csv(path)
    if suffix in LIST_SUFFIXES:
        return images_in_list(path)
    return None
