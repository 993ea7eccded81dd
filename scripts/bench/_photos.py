"""Photographs out of packages, as the networks want them.

For calibration: those of GCompris (Debian's `gcompris-qt-data`), packed as WebP in Qt resource
files. To compare with: 20 photographs of ImageNet that foolbox carries, whose class is in each
file's name; no calibrator sees them. They are looked at here and never passed on.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
from _networks import SIDE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_ACTIVITIES: Final = ("erase", "explore_farm_animals", "explore_monuments", "explore_world_animals")
_WEBP: Final = re.compile(rb"RIFF(....)WEBP", re.DOTALL)
_SMALLEST: Final = 380
"""Photographs are larger than drawings and buttons, on the shorter side."""

_MEAN: Final = np.asarray((0.485, 0.456, 0.406), np.float32)
_DEVIATION: Final = np.asarray((0.229, 0.224, 0.225), np.float32)

Photo = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def calibration_photos(folder: Path) -> list[Photo]:
    """Read the photographs in a folder of Qt resource files, in a seeded order."""
    found: list[Photo] = []
    for name in _ACTIVITIES:
        data = (folder / f"{name}.rcc").read_bytes()
        for match in _WEBP.finditer(data):
            size = 8 + int.from_bytes(match[1], "little")
            coded = np.frombuffer(data[match.start() : match.start() + size], np.uint8)
            photo = cv2.imdecode(coded, cv2.IMREAD_UNCHANGED)
            if photo is not None and photo.shape[2:] == (3,) and min(photo.shape[:2]) >= _SMALLEST:
                found.append(photo.astype(np.uint8))
    return [found[place] for place in np.random.default_rng(0).permutation(len(found))]


def labelled_photos(folder: Path) -> tuple[list[Photo], list[int]]:
    """Read foolbox's photographs and their classes."""
    paths = sorted(folder.glob("imagenet_*.jpg"))
    photos = [cv2.imread(str(path), cv2.IMREAD_COLOR) for path in paths]
    if any(one is None for one in photos):
        raise SystemExit(f"{folder}: not every photograph can be read")
    labels = [int(path.stem.rpartition("_")[2]) for path in paths]
    return [np.asarray(one, np.uint8) for one in photos], labels


def endless(photos: list[Photo]) -> Iterator[NDArray[np.float32]]:
    """Yield every photograph as networks want it; then, for ever, random parts of them."""
    for photo in photos:
        yield prepared(photo)
    seed = np.random.default_rng(1)
    while True:
        photo = photos[int(seed.integers(len(photos)))]
        side = int(min(photo.shape[:2]) * seed.uniform(0.5, 1))
        top, left = (int(seed.integers(size - side + 1)) for size in photo.shape[:2])
        yield _normalised(photo[top : top + side, left : left + side])


def prepared(photo: Photo) -> NDArray[np.float32]:
    """Scale the shorter side to 256 and take the middle, as evaluations on ImageNet do."""
    height, width = photo.shape[:2]
    side = min(height, width) * SIDE // 256
    top, left = (height - side) // 2, (width - side) // 2
    return _normalised(photo[top : top + side, left : left + side])


def _normalised(part: Photo) -> NDArray[np.float32]:
    pixels = cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    colors = (pixels[:, :, ::-1].astype(np.float32) / 255 - _MEAN) / _DEVIATION
    return np.ascontiguousarray(colors.transpose(2, 0, 1), np.float32)
