"""Presets: the numbers that their publishers give, the size that the network has."""

from __future__ import annotations

import pytest

from edgecal.core.graph import TensorInfo
from edgecal.core.preprocess import Preprocess, fit_to_network, parse_preprocess
from edgecal.core.presets import PRESETS
from edgecal.errors import InputError


def network(shape: tuple[int | None, ...] | None, dtype: str = "float32") -> list[TensorInfo]:
    return [TensorInfo(name="images", dtype=dtype, shape=shape)]


def resolved(
    name: str, shape: tuple[int | None, ...] | None = (1, 3, None, None), **more: object
) -> Preprocess:
    settings = parse_preprocess({"preset": name, **more}, source="x")
    return fit_to_network(settings, network(shape))


@pytest.mark.parametrize("name", ["resnet", "", "YOLO", 3, None, ["yolo"]])
def test_an_unknown_preset_is_refused_with_those_there_are(name: object) -> None:
    with pytest.raises(InputError) as caught:
        parse_preprocess({"preset": name}, source="--preset")
    assert "one of imagenet, yolo, ssd, caffe-bgr" in caught.value.what
    assert caught.value.where == "--preset"


@pytest.mark.parametrize(
    ("shape", "dtype", "takes"),
    [
        ((1, 1, 28, 28), "float32", "takes 1 channel"),
        ((1, 28, 28, 1), "float32", "takes 1 channel"),
        ((1, 3, 224, 224), "uint8", "takes uint8"),
        ((1, 3, 224, 224), "int64", "takes int64"),
    ],
)
def test_a_preset_that_cannot_fit_the_network_is_refused(
    shape: tuple[int, ...], dtype: str, takes: str
) -> None:
    settings = parse_preprocess({"preset": "yolo"}, source="x")
    with pytest.raises(InputError) as caught:
        fit_to_network(settings, network(shape, dtype))
    assert caught.value.what.endswith(takes)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_source_and_reads_as_settings(name: str) -> None:
    assert "/" in PRESETS[name].source
    assert resolved(name).preset == name


def test_imagenet_is_torchvision_s() -> None:
    value = resolved("imagenet", (1, 3, 224, 224))
    assert (value.resize, value.fit, value.crop) == ((256, 256), "shorter", (224, 224))
    for channel, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        for pixel in (0, 17, 255):
            want = (pixel / 255 - mean) / std
            assert (pixel - value.mean[channel]) * value.scale[channel] == pytest.approx(want)


@pytest.mark.parametrize(
    ("shape", "resize", "crop"),
    [
        ((None, 3, None, None), (256, 256), (224, 224)),
        ((None, 3, 299, 299), (342, 342), (299, 299)),  # torchvision's own pair for Inception v3
        ((None, 224, 320, 3), (256, 366), (224, 320)),
        (None, (256, 256), (224, 224)),
    ],
)
def test_sizes_of_imagenet_keep_the_usual_margin_around_the_network_s(
    shape: tuple[int | None, ...] | None, resize: tuple[int, int], crop: tuple[int, int]
) -> None:
    value = resolved("imagenet", shape)
    assert (value.resize, value.crop) == (resize, crop)


def test_yolo_fills_with_grey_and_divides_by_255() -> None:
    value = resolved("yolo")
    assert (value.resize, value.fit, value.fill) == ((640, 640), "letterbox", 114)
    assert (value.color, value.mean, value.scale) == ("rgb", (0.0,), (1 / 255,))
    assert resolved("yolo", (1, 3, 384, 672)).resize == (384, 672)


@pytest.mark.parametrize(("name", "size"), [("ssd", (300, 300)), ("caffe-bgr", None)])
def test_caffe_s_networks_take_bgr_less_its_mean(name: str, size: tuple[int, int] | None) -> None:
    value = resolved(name)
    assert (value.color, value.mean, value.scale) == ("bgr", (104, 117, 123), (1.0,))
    assert (value.resize, value.fit, value.crop) == (size, "stretch", None)
    assert resolved(name, (1, 3, 512, 512)).resize == (512, 512)


def test_the_layout_is_the_network_s() -> None:
    assert resolved("yolo", (1, 320, 320, 3)).layout == "nhwc"
    assert resolved("yolo", (1, 3, 320, 320)).layout == "nchw"


@pytest.mark.parametrize(
    ("more", "resize", "crop"),
    [
        ({"crop": 192}, (219, 219), (192, 192)),
        ({"resize": 232}, (232, 232), (224, 224)),
        ({"resize": 300, "crop": 280}, (300, 300), (280, 280)),
    ],
)
def test_what_is_said_beside_a_preset_wins(
    more: dict[str, int], resize: tuple[int, int], crop: tuple[int, int]
) -> None:
    value = resolved("imagenet", (1, 3, 224, 224), **more)
    assert (value.resize, value.crop) == (resize, crop)
    assert resolved("ssd", color="rgb", mean=[1, 2, 3]).mean == (1, 2, 3)
    assert resolved("ssd", color="rgb").color == "rgb"


def test_settings_over_a_preset_keep_the_rest_of_it() -> None:
    base = parse_preprocess({"preset": "ssd"}, source="--preset")
    value = parse_preprocess({"scale": 0.5}, source="x", base=base)
    assert (value.scale, value.mean, value.preset) == ((0.5,), (104, 117, 123), "ssd")


def test_a_preset_takes_the_place_of_what_it_is_put_over() -> None:
    base = Preprocess(color="gray", fill=7)
    assert parse_preprocess({"preset": "yolo"}, source="x", base=base).fill == 114


def test_settings_without_a_preset_are_taken_by_their_word() -> None:
    value = Preprocess(resize=(9, 9), layout="nchw")
    assert fit_to_network(value, network((1, 28, 28, 1), "uint8")) is value


@pytest.mark.parametrize("name", PRESETS)
def test_the_record_holds_resolved_numbers_and_the_name_and_reads_back_the_same(name: str) -> None:
    value = resolved(name, (1, 3, 96, 128))
    record = value.to_json()
    assert record["preset"] == name
    assert {"mean", "scale", "color", "resize"} <= set(record)
    again = parse_preprocess(record, source="manifest")
    assert again == value
    assert fit_to_network(again, network((1, 3, 96, 128))) == value
