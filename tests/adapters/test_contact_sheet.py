"""The contact sheet: pixels come back as they were, whatever order and layout the network takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2  # noqa: TID253 - sheets are looked at with it
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.adapters.contact_sheet import (
    TILES,
    Tile,
    channel_summary,
    draw_contact_sheet,
    pixels_of,
)
from edgecal.adapters.datasets import open_dataset
from edgecal.adapters.images import apply_preprocess
from edgecal.adapters.picture_samples import Images
from edgecal.core.graph import TensorInfo
from edgecal.core.preprocess import Preprocess
from edgecal.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

    from edgecal.core.preprocess import Color, Layout

ANY = (TensorInfo(name="image", dtype="float32", shape=None),)


def random_image(channels: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (12, 16, channels), np.uint8)


def look(sheet: bytes) -> npt.NDArray[Any]:
    image = cv2.imdecode(np.frombuffer(sheet, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


def draw(folder: Path, count: int, color: tuple[int, int, int] = (255, 0, 0)) -> Path:
    """Pictures of one colour, in BGR."""
    folder.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(".png", np.full((30, 30, 3), color, np.uint8))
    assert done
    for number in range(count):
        (folder / f"{number:02}.png").write_bytes(data.tobytes())
    return folder


def opened(spec: Path, settings: Preprocess | None = None, *, skip: bool = False) -> Images:
    dataset = open_dataset(str(spec), ANY, preprocess=settings, skip_unreadable=skip)
    assert isinstance(dataset, Images)
    return dataset


def test_a_broken_picture_stops_the_sheet_unless_it_may_be_passed_over(tmp_path: Path) -> None:
    draw(tmp_path, 3)
    (tmp_path / "00.png").write_bytes(b"")
    with pytest.raises(DatasetError) as caught:
        opened(tmp_path).contact_sheet()
    assert caught.value.where == str(tmp_path / "00.png")
    assert look(opened(tmp_path, skip=True).contact_sheet()).shape[2] == 3


def test_without_any_picture_that_can_be_read_there_is_no_sheet(tmp_path: Path) -> None:
    draw(tmp_path, 1)
    (tmp_path / "00.png").write_bytes(b"")
    with pytest.raises(DatasetError, match="no picture that could be shown"):
        opened(tmp_path, skip=True).contact_sheet()


@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@given(
    mean=st.lists(st.floats(-300, 300), min_size=3, max_size=3),
    scale=st.lists(st.floats(0.001, 10), min_size=3, max_size=3),
)
def test_taking_mean_and_scale_back_gives_the_pixels_in_the_right_order(
    color: Color, layout: Layout, mean: list[float], scale: list[float]
) -> None:
    channels = 1 if color == "gray" else 3
    settings = Preprocess(
        color=color, layout=layout, mean=tuple(mean[:channels]), scale=tuple(scale[:channels])
    )
    image = random_image(channels)
    fed = apply_preprocess(image, settings, source="x")
    want = {"rgb": image[:, :, ::-1], "bgr": image, "gray": np.repeat(image, 3, axis=2)}
    assert np.array_equal(pixels_of(fed, settings), want[color])


def test_half_precision_and_whole_pixels_come_back_too() -> None:
    image = random_image(3)
    fed = apply_preprocess(image, Preprocess(dtype="uint8"), source="x")
    assert np.array_equal(pixels_of(fed, Preprocess(dtype="uint8")), image[:, :, ::-1])
    settings = Preprocess(scale=(1 / 255,))
    half = apply_preprocess(image, settings, source="x").astype(np.float16)
    assert np.array_equal(pixels_of(half, settings), image[:, :, ::-1])


def test_a_channel_that_the_scale_wipes_out_is_shown_as_its_mean() -> None:
    settings = Preprocess(mean=(10.0, 20.0, 30.0), scale=(1.0, 0.0, 1.0))
    image = random_image(3)
    pixels = pixels_of(apply_preprocess(image, settings, source="x"), settings)
    assert np.all(pixels[:, :, 1] == 20)
    assert np.array_equal(pixels[:, :, 2], image[:, :, 0])


def test_a_wrong_order_of_channels_in_the_decoder_would_be_seen(tmp_path: Path) -> None:
    for color in ("rgb", "bgr"):
        settings = Preprocess(color=color)
        sheet = look(opened(draw(tmp_path / color, 1, (255, 0, 0)), settings).contact_sheet())
        blue = np.all(sheet == (255, 0, 0), axis=2).sum()
        assert blue > 200 * 200
        assert not np.all(sheet == (0, 0, 255), axis=2).any()


def test_a_sheet_shows_twenty_and_grows_with_what_there_is(tmp_path: Path) -> None:
    heights = [
        look(opened(draw(tmp_path / f"{count}", count)).contact_sheet()).shape[0]
        for count in (1, 5, 6, 20, 30)
    ]
    assert heights[0] == heights[1] < heights[2] < heights[3] == heights[4]
    assert TILES == 20


def test_pictures_of_any_size_and_names_of_any_letters_fit(tmp_path: Path) -> None:
    tiles = [
        Tile(name="\u5915\u713c\u3051 \U0001f307\x1b[2J.png", group="caf\xe9", values=shape)
        for shape in (np.zeros((3, 1, 1)), np.zeros((3, 2000, 3)), np.zeros((3, 5, 900)))
    ]
    tiles.append(Tile(name="n" * 5000, group="g" * 5000, values=np.zeros((3, 240, 240))))
    sheet = draw_contact_sheet(tiles, Preprocess(), source=str(tmp_path) * 20, total=0)
    assert look(sheet).shape[1] < 3000


def test_the_summary_gives_each_channel_as_the_network_gets_it() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[:, :, 0] = [[0, 100], [100, 200]]
    tiles = [Tile(name="a", group="", values=image.transpose(2, 0, 1)) for _ in range(2)]
    summary = channel_summary(tiles, Preprocess())
    assert summary == "R mean 100 std 70.7, G mean 0 std 0, B mean 0 std 0"
    grey = [Tile(name="a", group="", values=np.full((1, 2, 2), 3.0))]
    assert channel_summary(grey, Preprocess(color="gray")) == "grey mean 3 std 0"
