"""Pictures to network inputs, by OpenCV."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from edgecal.core.similarity import SIDE, look_of
from edgecal.errors import DatasetError

if TYPE_CHECKING:
    from edgecal.core.preprocess import Color, Preprocess
    from edgecal.core.similarity import Look

_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

_PNG_END: Final = b"IEND\xaeB`\x82"
"""The last chunk's type and checksum."""

_JPEG_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
"""Not a zero, which stands for the value ff in a scan; nor a restart or a fill byte."""

Array = npt.NDArray[Any]


def is_image(name: str) -> bool:
    """Tell by its suffix whether a file is meant to be a picture; hidden files are not."""
    return name.lower().endswith(_SUFFIXES) and not name.startswith(".")


def load_image(data: bytes, preprocess: Preprocess, *, source: str) -> Array:
    """Decode a picture and make of it what the network wants.

    Returns
    -------
    ndarray
        Of `preprocess.dtype`; shape (channels, height, width) or (height, width, channels).

    Raises
    ------
    DatasetError
        If the picture cannot be decoded whole, or is smaller than the crop.
    """
    image = decode_image(data, preprocess.color, source=source)
    return apply_preprocess(image, preprocess, source=source)


def apply_preprocess(image: Array, preprocess: Preprocess, *, source: str) -> Array:
    """Resize, crop, normalize and lay out a decoded picture.

    Parameters
    ----------
    image : ndarray of uint8, shape (height, width, channels), in `preprocess.color` order
    """
    if preprocess.resize is not None:
        image = _resize(image, preprocess)
    if preprocess.crop is not None:
        image = _crop(image, preprocess.crop, source)
    values = image.astype(np.float32)
    if preprocess.mean != (0.0,):
        values -= np.asarray(preprocess.mean, np.float32)
    if preprocess.scale != (1.0,):
        values *= np.asarray(preprocess.scale, np.float32)
    if preprocess.layout == "nchw":
        values = values.transpose(2, 0, 1)
    with np.errstate(invalid="ignore"):
        laid_out = np.ascontiguousarray(values, dtype=np.dtype(preprocess.dtype))
    if laid_out.dtype.kind != "f" and not np.array_equal(laid_out, values):
        raise DatasetError(
            f"pixels after mean and scale do not fit {laid_out.dtype}: they lie between "
            f"{values.min():g} and {values.max():g}",
            where=source,
            remedy="leave mean and scale out for a network that takes whole pixels",
        )
    return laid_out


def decode_image(data: bytes, color: Color, *, source: str) -> Array:
    """Decode a picture whole, as every viewer shows it, to 8 bits a channel.

    OpenCV turns it as its EXIF orientation says, keeps the upper 8 of 16 bits, drops transparency
    (the colours below it stay), and makes one colour space of grey, CMYK (with Adobe's inverted
    inks, as JPEG files have them) and RGB; colour profiles are not applied.

    Returns
    -------
    ndarray of uint8, shape (height, width, channels)

    Raises
    ------
    DatasetError
        If it is no picture, or not all of it is there.
    """
    cv2 = _opencv()
    image: Array | None = None
    if data and _is_whole(data):
        try:
            flag = cv2.IMREAD_GRAYSCALE if color == "gray" else cv2.IMREAD_COLOR
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
        except cv2.error:
            image = None
    if image is None:
        raise DatasetError(
            f"cannot decode the image: {len(data)} bytes that are no picture, or one of a kind "
            "that OpenCV does not read, or only part of one",
            where=source,
            remedy="replace or remove the file, or pass --skip-unreadable",
        )
    if color == "gray":
        return image[:, :, np.newaxis]
    return image[:, :, ::-1] if color == "rgb" else image


def look_at(image: Array, color: Color) -> Look | None:
    """Draw a decoded picture together to what it looks like from afar."""
    cv2 = _opencv()
    small = cv2.resize(np.ascontiguousarray(image), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    if color == "rgb":
        small = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    elif color == "bgr":
        small = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    return look_of(small)


@cache
def _opencv() -> Any:
    """Load OpenCV, which takes memory, once there is a picture: arrays do without."""
    import cv2  # noqa: PLC0415 - see above

    # what cannot be decoded is an error of ours; OpenCV would write to stderr as well
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


def _is_whole(data: bytes) -> bool:
    """Tell whether a JPEG or PNG has its end: OpenCV silently fills what is missing with grey."""
    if data.startswith(b"\xff\xd8"):
        return _has_jpeg_end(data)
    if data.startswith(b"\x89PNG"):
        return _PNG_END in data
    return True


def _has_jpeg_end(data: bytes) -> bool:
    """Walk from marker to marker: a thumbnail inside has an end too, and phones append films."""
    position = 2
    while (marker := _JPEG_MARKER.search(data, position)) is not None:
        if marker[0] == b"\xff\xd9":
            return True
        size = int.from_bytes(data[marker.end() : marker.end() + 2], "big")
        position = marker.end() + max(2, size)
    return False


def _resize(image: Array, preprocess: Preprocess) -> Array:
    if preprocess.resize is None:
        return image
    height, width = preprocess.resize
    have_height, have_width = image.shape[:2]
    if preprocess.fit == "shorter":
        ratio = max(height / have_height, width / have_width)
        size = (round(have_width * ratio), round(have_height * ratio))
    elif preprocess.fit == "letterbox":
        ratio = min(height / have_height, width / have_width)
        size = (max(1, round(have_width * ratio)), max(1, round(have_height * ratio)))
    else:
        size = (width, height)
    if size != (have_width, have_height):
        cv2 = _opencv()
        shrinking = size[0] < have_width or size[1] < have_height
        how = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
        image = cv2.resize(image, size, interpolation=how).reshape(size[1], size[0], -1)
    if preprocess.fit == "letterbox":
        canvas = np.full((height, width, image.shape[2]), preprocess.fill, image.dtype)
        top, left = (height - size[1]) // 2, (width - size[0]) // 2
        canvas[top : top + size[1], left : left + size[0]] = image
        return canvas
    return image


def _crop(image: Array, crop: tuple[int, int], source: str) -> Array:
    height, width = crop
    if image.shape[0] < height or image.shape[1] < width:
        raise DatasetError(
            f"the picture of {image.shape[0]}x{image.shape[1]} is smaller than the crop "
            f"of {height}x{width}",
            where=source,
            remedy="set resize to at least the crop's size",
        )
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]
