"""A picture of what the network will see: prepared samples, turned back to pixels, side by side."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgecal.core.preprocess import Preprocess

TILES: Final = 20
"""Samples that a sheet shows: five in a row, four rows."""

_COLUMNS: Final = 5
_SIDE: Final = 240
"""Pixels of a tile's longer side, whatever the picture has."""
_SEEN: Final = 2
"""Grown as much or more, a picture shows its pixels."""
_GAP: Final = 16
_LINE: Final = 18
_CAPTION_LINES: Final = 3
_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
_PAPER: Final = (250, 250, 250)
_FRAME: Final = (190, 190, 190)
_BLACK: Final = (30, 30, 30)
_GREY: Final = (110, 110, 110)
_CHANNELS: Final = {"rgb": ("R", "G", "B"), "bgr": ("B", "G", "R"), "gray": ("grey",)}

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One sample as the network gets it, without the batch axis."""

    name: str
    group: str
    """Its label, else its folder; empty where it has neither."""
    values: Array


def draw_contact_sheet(
    tiles: Sequence[Tile], preprocess: Preprocess, *, source: str, total: int
) -> bytes:
    """Draw samples with name, group and range of values, and sum the channels up above them.

    Mean and scale are taken back, so colours are right exactly if the settings fit the decoder:
    a network that wants BGR and is said to get RGB still sees right colours here, in the wrong
    order of channels, which is why the order stands in the heading.

    Parameters
    ----------
    total : int
        Samples of the data; 0 where nobody knows.

    Returns
    -------
    bytes
        A PNG file.
    """
    columns = min(_COLUMNS, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    lines = _heading(tiles, preprocess, source, total)
    top = _GAP + _LINE * len(lines) + _GAP
    step_x, step_y = _SIDE + _GAP, _SIDE + _LINE * _CAPTION_LINES + _GAP
    width = max(
        _GAP + columns * step_x,
        2 * _GAP + max(_width(line, _scale_of(number)) for number, line in enumerate(lines)),
    )
    sheet = np.full((top + rows * step_y, width, 3), _PAPER, np.uint8)
    for number, line in enumerate(lines):
        at = (_GAP, _GAP + _LINE * number + 12)
        _write(sheet, line, at, color=_GREY if number else _BLACK, scale=_scale_of(number))
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        _draw_tile(sheet, tile, preprocess, _GAP + column * step_x, top + row * step_y)
    _done, data = cv2.imencode(".png", sheet)
    return data.tobytes()


def pixels_of(values: Array, preprocess: Preprocess) -> Array:
    """Take mean and scale back.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3), in BGR as OpenCV draws
    """
    planes = _channels_last(values, preprocess)
    scale = np.asarray(preprocess.scale, np.float64)
    mean = np.asarray(preprocess.mean, np.float64)
    # a scale of zero leaves nothing of the picture
    pixels = np.where(scale == 0, 0, planes / np.where(scale == 0, 1, scale)) + mean
    whole = np.clip(np.rint(np.nan_to_num(pixels)), 0, 255).astype(np.uint8)
    if preprocess.color == "gray":
        return np.repeat(whole, 3, axis=2)
    return np.ascontiguousarray(whole[:, :, ::-1] if preprocess.color == "rgb" else whole)


def _channels_last(values: Array, preprocess: Preprocess) -> npt.NDArray[np.float64]:
    wide = values.astype(np.float64)
    return wide.transpose(1, 2, 0) if preprocess.layout == "nchw" else wide


def _heading(
    tiles: Sequence[Tile], preprocess: Preprocess, source: str, total: int
) -> tuple[str, ...]:
    shapes = {"x".join(str(size) for size in tile.values.shape) for tile in tiles}
    of = f", of {total} pictures" if total else ""
    sizes = f"resize {_size(preprocess.resize)}" if preprocess.resize else "not resized"
    if preprocess.resize:
        sizes += f" ({preprocess.fit})"
    if preprocess.crop:
        sizes += f", crop {_size(preprocess.crop)}"
    preset = f", preset {preprocess.preset}" if preprocess.preset else ""
    fed = f"{', '.join(sorted(shapes)[:3])} {tiles[0].values.dtype}"
    order = f"{preprocess.layout}, channels in the order {preprocess.color}"
    return (
        f"{_elide(source, 70)}: what the network sees",
        f"first {len(tiles)} samples{of}; {fed}, {order}{preset}",
        f"{sizes}; minus {_numbers(preprocess.mean)}, times {_numbers(preprocess.scale)}",
        "values that the network gets: " + channel_summary(tiles, preprocess),
    )


def channel_summary(tiles: Sequence[Tile], preprocess: Preprocess) -> str:
    """Give mean and standard deviation of each channel over these samples, as they are fed.

    Of normalized pictures they lie near 0 and 1.
    """
    count, sums, squares = 0, np.zeros(1), np.zeros(1)
    for tile in tiles:
        flat = _channels_last(tile.values, preprocess).reshape(-1, preprocess.channels)
        count += len(flat)
        sums = sums + flat.sum(axis=0)
        squares = squares + np.square(flat).sum(axis=0)
    means = sums / count
    deviations = np.sqrt(np.maximum(squares / count - np.square(means), 0))
    return ", ".join(
        f"{name} mean {mean:.3g} std {deviation:.3g}"
        for name, mean, deviation in zip(
            _CHANNELS[preprocess.color], means, deviations, strict=True
        )
    )


def _draw_tile(sheet: Array, tile: Tile, preprocess: Preprocess, left: int, top: int) -> None:
    image = _fitted(pixels_of(tile.values, preprocess))
    height, width = image.shape[:2]
    y = top + _SIDE - height
    sheet[y : y + height, left : left + width] = image
    cv2.rectangle(sheet, (left - 1, y - 1), (left + width, y + height), _FRAME, 1)
    name = _fit_text(tile.name)
    captions = [
        (name, _BLACK),
        (f"{tile.values.min():.4g} to {tile.values.max():.4g}", _GREY),
    ]
    if not name.startswith(tile.group):  # a folder stands before the name already
        captions.append((_fit_text(tile.group), _GREY))
    for number, (text, color) in enumerate(captions):
        _write(sheet, text, (left, top + _SIDE + _LINE * number + 16), color=color)


def _fitted(image: Array) -> Array:
    """Make a picture as large as a tile allows: smoothly, unless its pixels are to be seen."""
    height, width = image.shape[:2]
    ratio = _SIDE / max(height, width)
    how = cv2.INTER_AREA if ratio <= 1 else cv2.INTER_LINEAR
    if ratio >= _SEEN:
        how = cv2.INTER_NEAREST
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    return cv2.resize(image, size, interpolation=how)


def _scale_of(line: int) -> float:
    return 0.4 if line else 0.5


def _width(text: str, scale: float = 0.4) -> int:
    return int(cv2.getTextSize(_plain(text), _FONT, scale, 1)[0][0])


def _write(
    sheet: Array, text: str, at: tuple[int, int], *, color: Sequence[int], scale: float = 0.4
) -> None:
    cv2.putText(sheet, _plain(text), at, _FONT, scale, color, 1, cv2.LINE_AA)


def _plain(text: str) -> str:
    """Spell what OpenCV's font has no letters for."""
    spelled = text.encode("ascii", "backslashreplace").decode()
    return "".join(letter if letter.isprintable() else "?" for letter in spelled)


def _fit_text(text: str) -> str:
    """Shorten a name to the width of a tile; its end tells files apart."""
    if _width(text) <= _SIDE:
        return text
    text = text[-_SIDE:]
    while text and _width(f"...{text}") > _SIDE:
        text = text[1:]
    return f"...{text}"


def _elide(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"...{text[3 - longest :]}"


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
