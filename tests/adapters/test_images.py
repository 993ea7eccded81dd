"""Pictures to network inputs: every form in which they come, and none that is only half there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import cv2  # noqa: TID253 - the pictures are made with it
import numpy as np
import numpy.typing as npt
import pytest

from edgecal.adapters.images import apply_preprocess, is_image, load_image
from edgecal.core.preprocess import Preprocess
from edgecal.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = npt.NDArray[Any]


def picture(height: int = 6, width: int = 8) -> Array:
    """A picture in which every pixel says where it is: rows in blue, columns in red."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 10, rows * 0 + 100, columns * 10], axis=2).astype(np.uint8)


def encode(image: Array, suffix: str = ".png", options: Sequence[int] = ()) -> bytes:
    done, data = cv2.imencode(suffix, image, list(options))
    assert done
    return data.tobytes()


def load(data: bytes, settings: Preprocess | None = None) -> Array:
    return load_image(data, settings or Preprocess(), source="p.png")


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """Put in the tag that cameras write when they are held upright."""
    tiff = b"MM\x00\x2a\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01"
    tiff += orientation.to_bytes(2, "big") + b"\x00\x00\x00\x00\x00\x00"
    body = b"Exif\x00\x00" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + jpeg[2:]


def test_colours_come_in_the_order_that_was_asked_for() -> None:
    image = picture()
    rgb = load(encode(image), Preprocess(color="rgb"))
    bgr = load(encode(image), Preprocess(color="bgr"))
    assert rgb.shape == (3, 6, 8)
    assert rgb.dtype == np.float32
    assert np.array_equal(rgb[0], image[:, :, 2])
    assert np.array_equal(rgb[2], image[:, :, 0])
    assert np.array_equal(bgr, rgb[::-1])


def test_grey_has_one_channel_whether_the_file_is_grey_or_not() -> None:
    image = picture()
    grey = load(encode(image), Preprocess(color="gray"))
    expected = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    assert grey.shape == (1, 6, 8)
    assert np.abs(grey[0] - expected).max() <= 1
    assert np.array_equal(load(encode(expected), Preprocess(color="gray"))[0], expected)
    assert np.array_equal(load(encode(expected))[1], expected)


def test_layout_mean_and_scale_are_applied_channel_by_channel() -> None:
    settings = Preprocess(mean=(1.0, 2.0, 3.0), scale=(0.5, 0.25, 2.0), layout="nhwc")
    image = picture()
    have = load(encode(image), settings)
    want = (image[:, :, ::-1].astype(np.float32) - [1, 2, 3]) * [0.5, 0.25, 2.0]
    assert have.shape == (6, 8, 3)
    assert np.allclose(have, want)
    assert have.flags.c_contiguous


def test_whole_pixels_stay_whole() -> None:
    have = load(encode(picture()), Preprocess(dtype="uint8"))
    assert have.dtype == np.uint8
    assert np.array_equal(have[0], picture()[:, :, 2])


def test_pixels_that_do_not_fit_whole_numbers_are_refused_rather_than_wrapped() -> None:
    for settings in (
        Preprocess(dtype="uint8", mean=(50.0,)),
        Preprocess(dtype="uint8", scale=(0.3,)),
    ):
        with pytest.raises(DatasetError, match="do not fit uint8"):
            load(encode(picture()), settings)


def test_16_bit_and_transparent_pictures_become_ordinary_ones() -> None:
    image = picture()
    deep = encode((image.astype(np.uint16) << 8) | image)
    assert np.abs(load(deep) - load(encode(image))).max() <= 1
    grey = (np.arange(48, dtype=np.uint16) * 256).reshape(6, 8)
    assert np.array_equal(load(encode(grey), Preprocess(color="gray"))[0], grey >> 8)
    alpha = encode(np.dstack([image, np.full((6, 8), 40, np.uint8)]))
    assert np.array_equal(load(alpha), load(encode(image)))


def test_a_photo_taken_upright_is_turned_as_its_exif_says() -> None:
    jpeg = encode(cv2.resize(picture(), (64, 48)), ".jpg", [cv2.IMWRITE_JPEG_QUALITY, 100])
    plain = load(jpeg)
    turned = load(with_orientation(jpeg, 6))
    assert plain.shape == (3, 48, 64)
    assert turned.shape == (3, 64, 48)
    assert np.array_equal(turned, np.rot90(plain, -1, axes=(1, 2)))
    grey = load(with_orientation(jpeg, 6), Preprocess(color="gray"))
    assert grey.shape == (1, 64, 48)


@pytest.mark.parametrize(
    ("fit", "shape"),
    [("stretch", (3, 10, 12)), ("shorter", (3, 10, 13)), ("letterbox", (3, 10, 12))],
)
def test_resizing_fits_as_told(
    fit: Literal["stretch", "shorter", "letterbox"], shape: tuple[int, ...]
) -> None:
    assert load(encode(picture()), Preprocess(resize=(10, 12), fit=fit)).shape == shape


@pytest.mark.parametrize("resize", [(30, 12), (3, 12), (6, 8), (1, 1), (5, 5)])
@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_a_letterbox_keeps_the_proportions_and_fills_the_rest(
    resize: tuple[int, int], color: Literal["rgb", "gray"]
) -> None:
    white = np.full((6, 8, 3), 255, np.uint8)
    have = load(encode(white), Preprocess(resize=resize, fit="letterbox", fill=7, color=color))
    assert have.shape[1:] == resize
    assert set(np.unique(have)) <= {7.0, 255.0}
    ratio = min(resize[0] / 6, resize[1] / 8)
    inside = (have[0] == 255).sum()
    assert inside == max(1, round(6 * ratio)) * max(1, round(8 * ratio))
    top, bottom = have[0, 0], have[0, -1]
    assert abs(int((top == 7).sum()) - int((bottom == 7).sum())) <= resize[1]


def test_the_crop_is_the_middle() -> None:
    image = picture(7, 9)
    have = load(encode(image), Preprocess(crop=(3, 5)))
    assert np.array_equal(have[0], image[2:5, 2:7, 2])


def test_the_usual_resize_and_crop_of_classifiers_gives_the_network_s_size() -> None:
    for height, width in ((500, 333), (333, 500), (256, 256), (20, 3000)):
        image = np.zeros((height, width, 3), np.uint8)
        settings = Preprocess(resize=(256, 256), fit="shorter", crop=(224, 224))
        assert apply_preprocess(image, settings, source="p").shape == (3, 224, 224)


def test_a_picture_smaller_than_the_crop_is_refused() -> None:
    with pytest.raises(DatasetError, match="6x8 is smaller than the crop of 7x7") as caught:
        load(encode(picture()), Preprocess(crop=(7, 7)))
    assert caught.value.where == "p.png"


JPEG = (".jpg", ())
PROGRESSIVE = (".jpg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1))


@pytest.mark.parametrize(
    ("suffix", "options"),
    [(".png", ()), JPEG, PROGRESSIVE, (".bmp", ()), (".webp", ()), (".tiff", ()), (".ppm", ())],
)
def test_a_picture_that_was_cut_off_anywhere_is_refused(
    suffix: str, options: Sequence[int]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    data = encode(image, suffix, options)
    load(data)
    for share in (0.05, 0.4, 0.8, 0.95, 0.99):
        with pytest.raises(DatasetError, match="cannot decode the image") as caught:
            load(data[: int(len(data) * share)])
        assert caught.value.where == "p.png"
    with pytest.raises(DatasetError):
        load(data[:-1])


def test_a_photo_cut_off_behind_its_thumbnail_is_refused() -> None:
    thumbnail = encode(picture(), ".jpg")
    photo = encode(np.random.default_rng(0).integers(0, 256, (30, 30, 3), np.uint8), ".jpg")
    body = b"Exif\x00\x00" + thumbnail
    segment = b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body
    whole = photo[:2] + segment + photo[2:]
    load(whole)
    with pytest.raises(DatasetError):
        load(whole[: len(segment) + 900])


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_what_phones_append_to_a_picture_does_no_harm(suffix: str) -> None:
    data = encode(picture(), suffix)
    film = b"ftypmp42" + bytes(20_000)
    assert np.array_equal(load(data + film), load(data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"this is text\n" * 100,
        b"\xff\xd8",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"BM",
    ],
)
def test_what_is_no_picture_is_refused_and_not_on_stderr(
    data: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DatasetError, match=f"{len(data)} bytes"):
        load(data)
    assert capfd.readouterr() == ("", "")


def test_pictures_are_known_by_their_names() -> None:
    good = ["a.png", "b.JPG", "c.Jpeg", "d.bmp", "e.webp", "f.TIF", "g.tiff", "h.ppm", "i.pgm"]
    assert all(is_image(name) for name in good)
    bad = [".a.png", "._a.jpg", "a.txt", "png", "a.png.part", "a.npy", "a.gif", ""]
    assert not any(is_image(name) for name in bad)


def cmyk_jpeg(inks: tuple[int, int, int, int]) -> bytes:
    """One colour in four inks, 8 x 8 pixels, as Adobe's programs store it: 255 is no ink.

    OpenCV cannot write such files. Every difference of the lowest frequency has a code of four
    bits for its length, and the end of a block is one zero bit.
    """

    def segment(marker: int, body: bytes) -> bytes:
        return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body

    lengths = bytes([0, 0, 0, 12] + [0] * 12)
    bits = ""
    for ink in inks:
        level = (ink - 128) * 8
        size = abs(level).bit_length()
        bits += f"{size:04b}"
        if size:
            bits += f"{level if level > 0 else level + (1 << size) - 1:0{size}b}"
        bits += "0"
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    frame = b"\x08" + (8).to_bytes(2, "big") * 2 + b"\x04"
    frame += b"".join(bytes([one, 0x11, 0]) for one in range(1, 5))
    select = b"\x04" + b"".join(bytes([one, 0]) for one in range(1, 5)) + b"\x00\x3f\x00"
    return (
        b"\xff\xd8"
        + segment(0xEE, b"Adobe\x00\x64\x00\x00\x00\x00\x00")
        + segment(0xDB, b"\x00" + b"\x01" * 64)
        + segment(0xC0, frame)
        + segment(0xC4, b"\x00" + lengths + bytes(range(12)))
        + segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\x00")
        + segment(0xDA, select)
        + scan
        + b"\xff\xd9"
    )


@pytest.mark.parametrize(
    ("inks", "colour"),
    [
        ((255, 255, 255, 255), (255, 255, 255)),
        ((255, 0, 0, 255), (255, 0, 0)),
        ((0, 255, 0, 255), (0, 255, 0)),
        ((255, 255, 255, 0), (0, 0, 0)),
        ((255, 128, 255, 200), (200, 100, 200)),
    ],
)
def test_a_jpeg_in_four_inks_has_the_colours_that_would_be_printed(
    inks: tuple[int, int, int, int], colour: tuple[int, int, int]
) -> None:
    have = load(cmyk_jpeg(inks))
    assert have.shape == (3, 8, 8)
    assert np.abs(have.reshape(3, -1).T - colour).max() <= 3
    assert load(cmyk_jpeg(inks), Preprocess(color="gray")).shape == (1, 8, 8)


def test_every_orientation_a_camera_writes_is_honoured() -> None:
    image = cv2.resize(picture(), (64, 48))
    plain = encode(image, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, 100])
    seen = {orientation: load(with_orientation(plain, orientation)) for orientation in range(1, 9)}
    assert np.array_equal(seen[3], seen[1][:, ::-1, ::-1])
    assert np.array_equal(seen[8], np.rot90(seen[1], 1, axes=(1, 2)))
    assert np.array_equal(seen[2], seen[1][:, :, ::-1])
