from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.findings import Severity
from edgecal.core.graph import TensorInfo
from edgecal.core.preprocess import Preprocess, assume_preprocess, parse_preprocess
from edgecal.errors import InputError

sizes = st.tuples(st.integers(1, 4096), st.integers(1, 4096))
numbers = st.floats(-1e6, 1e6)


def settings() -> st.SearchStrategy[Preprocess]:
    def build(color: Any, *, per_channel: bool, **rest: Any) -> Preprocess:  # noqa: ANN401 - drawn
        count = {"rgb": 3, "bgr": 3, "gray": 1}[color] if per_channel else 1
        means = tuple(rest.pop("means")[:count])
        return Preprocess(color=color, mean=means, scale=means, **rest)

    return st.builds(
        build,
        color=st.sampled_from(["rgb", "bgr", "gray"]),
        per_channel=st.booleans(),
        means=st.lists(numbers, min_size=3, max_size=3),
        resize=st.none() | sizes,
        crop=st.none() | sizes,
        fill=numbers,
        fit=st.sampled_from(["stretch", "shorter", "letterbox"]),
        layout=st.sampled_from(["nchw", "nhwc"]),
        dtype=st.sampled_from(["float32", "uint8"]),
    )


@given(settings())
def test_what_the_manifest_records_reads_back_as_the_same_settings(value: Preprocess) -> None:
    assert parse_preprocess(value.to_json(), source="manifest") == value


def test_a_command_line_spells_numbers_and_sizes_as_text() -> None:
    table = {"resize": "256x320", "crop": "224", "mean": "123.7,116.3,103.5", "scale": "0.017"}
    value = parse_preprocess(table, source="--resize")
    assert value.resize == (256, 320)
    assert value.crop == (224, 224)
    assert value.mean == (123.7, 116.3, 103.5)
    assert value.scale == (0.017,)


def test_what_is_not_said_stays_as_in_the_base() -> None:
    base = Preprocess(resize=(8, 8), color="gray")
    assert parse_preprocess({"fill": 0}, source="x", base=base) == Preprocess(
        resize=(8, 8), color="gray", fill=0.0
    )


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"colour": "rgb"}, "unknown setting 'colour'"),
        ({"color": "RGB"}, "one of rgb, bgr, gray"),
        ({"layout": ["nchw"]}, "one of nchw, nhwc"),
        ({"resize": [224.5, 224]}, "height and width"),
        ({"resize": [0, 224]}, "height and width"),
        ({"resize": [1, 2, 3]}, "height and width"),
        ({"resize": "big"}, "height and width"),
        ({"crop": True}, "height and width"),
        ({"mean": []}, "a number, or one per channel"),
        ({"mean": "grey"}, "a number, or one per channel"),
        ({"mean": None}, "a number, or one per channel"),
        ({"mean": 10**400}, "a number, or one per channel"),
        ({"mean": [1, 2]}, "2 numbers"),
        ({"color": "gray", "scale": [1, 2, 3]}, "'gray' 1 channels"),
    ],
)
def test_a_setting_that_does_not_fit_is_named(table: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_preprocess(table, source="preprocess.toml")
    assert words in caught.value.what
    assert caught.value.where == "preprocess.toml"


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 3, 224, 320), Preprocess(resize=(224, 320))),
        ((None, 1, 28, 28), Preprocess(resize=(28, 28), color="gray")),
        ((1, 224, 320, 3), Preprocess(resize=(224, 320), layout="nhwc")),
        ((None, 3, None, None), Preprocess()),
        (None, Preprocess()),
    ],
)
def test_what_is_assumed_follows_the_input_and_is_said(
    shape: tuple[int | None, ...] | None, expected: Preprocess
) -> None:
    value, finding = assume_preprocess([TensorInfo(name="images", dtype="float32", shape=shape)])
    assert value.resize == expected.resize
    assert (value.color, value.layout) == (expected.color, expected.layout)
    assert value.scale == (1 / 255,)
    assert finding.severity is Severity.WARNING
    assert finding.subject == "images"
