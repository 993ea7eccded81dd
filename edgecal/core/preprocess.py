"""How a picture becomes an input of the network, as data that goes into the manifest."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args

from edgecal.core.findings import Finding, Severity
from edgecal.core.presets import PRESETS
from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgecal.core.graph import TensorInfo

Color = Literal["rgb", "bgr", "gray"]
Layout = Literal["nchw", "nhwc"]
Dtype = Literal["float32", "uint8"]
Fit = Literal["stretch", "shorter", "letterbox"]

N = TypeVar("N", int, float)

_IMAGE_RANK: Final = 4
_CHANNELS: Final[Mapping[str, int]] = {"rgb": 3, "bgr": 3, "gray": 1}
_REMEDY: Final = (
    'write for example: resize = [256, 256], crop = [224, 224], color = "rgb", '
    'mean = [123.7, 116.3, 103.5], scale = [0.0171, 0.0175, 0.0174], layout = "nchw"'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """Decode, resize, crop, order colours, subtract mean, multiply by scale, lay out, in turn.

    Pixels count from 0 to 255; `mean` is in those units and `scale` is what a difference of one
    is worth to the network. One number serves all channels, else one per channel in `color` order.
    """

    resize: tuple[int, int] | None = None
    """Height and width in pixels; `None` keeps the picture's own."""
    fit: Fit = "stretch"
    """`shorter`: the shorter side gets `resize`; `letterbox`: the longer, the rest is filled."""
    fill: float = 114.0
    """Pixel value of a letterbox's bars."""
    crop: tuple[int, int] | None = None
    """Height and width in pixels, cut from the middle."""
    color: Color = "rgb"
    mean: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    layout: Layout = "nchw"
    dtype: Dtype = "float32"
    preset: str | None = None
    """Where the settings began; the others stand beside it, resolved."""
    values_said: bool = field(default=False, compare=False)
    """Whether mean, scale or preset was given, be it as it is by default; no setting itself."""

    @property
    def channels(self) -> int:
        """Count the colour channels."""
        return _CHANNELS[self.color]

    def to_json(self) -> dict[str, object]:
        """Give every setting, defaults too, as the manifest records them."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name in SETTINGS
            if (value := getattr(self, name)) is not None
        }


SETTINGS: Final = tuple(one.name for one in fields(Preprocess) if one.compare)
_OF_VALUES: Final = frozenset({"preset", "mean", "scale"})


def parse_preprocess(
    table: Mapping[str, Any], *, source: str, base: Preprocess | None = None
) -> Preprocess:
    """Read settings from a TOML table or a command line; the others stay as in `base`.

    A `preset` among them takes the place of `base`. What a preset leaves to the network, the size
    and the layout, `fit_to_network` fills in.

    Raises
    ------
    InputError
        If a setting is unknown or its value does not fit.
    """
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in SETTINGS:
            raise InputError(
                f"unknown setting {key!r}; known are {', '.join(sorted(SETTINGS))}",
                where=source,
                remedy=_REMEDY,
            )
        values[key] = _parse_value(key, value, source)
    if "preset" in values:
        settings: dict[str, Any] = dict(PRESETS[values["preset"]].settings)
        base = parse_preprocess(settings, source=source)
    base = base or Preprocess()
    said = base.values_said or not _OF_VALUES.isdisjoint(values)
    result = replace(base, **values, values_said=said)
    for key in ("mean", "scale"):
        count = len(getattr(result, key))
        if count not in {1, result.channels}:
            raise InputError(
                f"{key} has {count} numbers, and color {result.color!r} {result.channels} channels",
                where=source,
                remedy=_REMEDY,
            )
    return result


def fit_to_network(settings: Preprocess, inputs: Sequence[TensorInfo]) -> Preprocess:
    """Give settings that began with a preset the size and the layout of the network.

    Settings without a preset stay as they are: they are taken by their word.

    Raises
    ------
    InputError
        If no preset fits this network: it takes grey pictures, or whole pixels.
    """
    if settings.preset is None or len(inputs) != 1:
        return settings
    preset, tensor = PRESETS[settings.preset], inputs[0]
    layout, channels, size = _picture_shape(inputs)
    found = None
    if channels not in {None, settings.channels}:
        found = f"{channels} channel{'' if channels == 1 else 's'}"
    elif tensor.dtype not in {"float32", "float16"}:
        found = tensor.dtype
    if found is not None:
        raise InputError(
            f"preset {settings.preset!r} makes {settings.channels} channels of float32, and input "
            f"{tensor.name!r} takes {found}",
            where="--preset",
            remedy="leave the preset out, and say --color, --mean and --scale",
        )
    size = size or preset.size
    crop, resize = settings.crop, settings.resize
    if preset.crop_share is None:
        resize = resize or (None if crop else size)
    else:
        crop = crop or size
        if crop is not None and resize is None:
            height, width = (round(side / preset.crop_share) for side in crop)
            resize = (height, width)
    return replace(settings, resize=resize, crop=crop, layout=layout)


def _picture_shape(
    inputs: Sequence[TensorInfo],
) -> tuple[Layout, int | None, tuple[int, int] | None]:
    """Read layout, channels, height and width from an input's shape, as far as they stand there."""
    shape = (inputs[0].shape or ()) if len(inputs) == 1 else ()
    if len(shape) != _IMAGE_RANK:
        return "nchw", None, None
    layout: Layout = "nhwc" if shape[1] not in {1, 3} and shape[3] in {1, 3} else "nchw"
    channels = shape[1] if layout == "nchw" else shape[3]
    height, width = shape[2:] if layout == "nchw" else shape[1:3]
    return layout, channels, (height, width) if height and width else None


def assume_preprocess(inputs: Sequence[TensorInfo]) -> tuple[Preprocess, Finding]:
    """Guess from the input's shape, and say so: a wrong guess makes a wrong cache."""
    layout, channels, size = _picture_shape(inputs)
    color: Color = "gray" if channels == 1 else "rgb"
    whole = inputs[0].dtype == "uint8"
    settings = Preprocess(
        color=color,
        layout=layout,
        resize=size,
        scale=(1.0,) if whole else (1 / 255,),
        dtype="uint8" if whole else "float32",
    )
    return settings, Finding(
        rule="preprocess-assumed",
        severity=Severity.WARNING,
        subject=inputs[0].name,
        message=f"no preprocessing was given; assumed {color}, {layout}, "
        f"{f'{size[0]}x{size[1]}' if size else 'no resizing'}, "
        f"pixels {'as they are' if whole else '/ 255'}",
        remedy="say how the application prepares pictures: --preset imagenet or another, "
        "--preprocess FILE.toml, or --mean and --scale",
    )


def judge_values(settings: Preprocess, inputs: Sequence[TensorInfo]) -> tuple[Finding, ...]:
    """Say that pixels go in as they are, if nobody has spoken of it: few networks want that."""
    if settings.values_said or not all(one.dtype.startswith("float") for one in inputs):
        return ()
    return (
        Finding(
            rule="pixels-as-they-are",
            severity=Severity.WARNING,
            subject=", ".join(one.name for one in inputs),
            message="neither mean nor scale nor preset was given, so pixels go in from 0 to 255",
            remedy=f"do what the application does: --scale {1 / 255:.8f} for 0 to 1, --preset "
            "imagenet or another; --scale 1 if this is right",
        ),
    )


def _parse_value(key: str, value: object, source: str) -> object:
    remedy = _REMEDY
    choices = {"color": Color, "layout": Layout, "dtype": Dtype, "fit": Fit}
    if key in choices:
        allowed = get_args(choices[key])
        if value in allowed:
            return value
        expected = f"one of {', '.join(allowed)}"
    elif key == "preset":
        if isinstance(value, str) and value in PRESETS:
            return value
        expected = f"one of {', '.join(PRESETS)}"
        remedy = "use one of these, or give --color, --mean, --scale and --resize without a preset"
    elif key in {"resize", "crop"}:
        size = _numbers(value, "x", int)
        if 1 <= len(size) <= 2 and all(one > 0 for one in size):
            return (size[0], size[-1])
        expected = "height and width in pixels, like [224, 224] or 224x224"
    else:
        numbers = _numbers(value, ",", float)
        if numbers and all(map(math.isfinite, numbers)):
            return numbers[0] if key == "fill" else numbers
        expected = "a number, or one per channel"
    raise InputError(f"{key} wants {expected}, found {value!r}", where=source, remedy=remedy)


def _numbers(value: object, separator: str, kind: type[N]) -> tuple[N, ...]:
    """Read a number, a list of them, or a command line's spelling; nothing if it is none."""
    parts: Any = value.split(separator) if isinstance(value, str) else value
    several: list[Any] = parts if isinstance(parts, list) else [parts]
    if not all(isinstance(one, str | int | kind) and not isinstance(one, bool) for one in several):
        return ()
    try:
        return tuple(kind(one) for one in several)
    except (ValueError, OverflowError):
        return ()
