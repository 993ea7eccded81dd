"""Reads the layers of a Caffe network from its prototxt, as it is deployed."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any, Final

from google.protobuf import text_format

from edgecal.adapters.protobuf_schemas import Schema
from edgecal.core.caffe_names import INPUT, CaffeLayer
from edgecal.errors import CacheFormatError

_LEGACY: Final = {
    "NONE": "",
    "ACCURACY": "Accuracy",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DROPOUT": "Dropout",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "POOLING": "Pooling",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "WINDOW_DATA": "WindowData",
    "ELTWISE": "Eltwise",
    "POWER": "Power",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "HINGE_LOSS": "HingeLoss",
    "MEMORY_DATA": "MemoryData",
    "ARGMAX": "ArgMax",
    "THRESHOLD": "Threshold",
    "DUMMY_DATA": "DummyData",
    "SLICE": "Slice",
    "MVN": "MVN",
    "ABSVAL": "AbsVal",
    "SILENCE": "Silence",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "EXP": "Exp",
    "DECONVOLUTION": "Deconvolution",
}
"""Types of `layers { }`, in the order of their numbers (BVLC/caffe, V1LayerParameter)."""

_TEST: Final = 1
_MOST_CHARACTERS: Final = 2 * 2**20
_LONGEST_LINE: Final = 20_000
_QUOTED: Final = 200

_SCHEMA: Final = Schema(
    package="edgecal.caffe",
    enums={
        "Phase": {"TRAIN": 0, "TEST": _TEST},
        "LegacyType": {name: number for number, name in enumerate(_LEGACY)},
    },
    messages={
        "Rule": [
            "optional Phase phase = 1",
            "optional int32 min_level = 2",
            "optional int32 max_level = 3",
            "repeated string stage = 4",
            "repeated string not_stage = 5",
        ],
        "Layer": [
            "optional string name = 1",
            "optional string type = 2",
            "repeated string bottom = 3",
            "repeated string top = 4",
            "repeated Rule include = 8",
            "repeated Rule exclude = 9",
        ],
        "LegacyLayer": [
            "repeated string bottom = 2",
            "repeated string top = 3",
            "optional string name = 4",
            "optional LegacyType type = 5",
            "repeated Rule include = 32",
            "repeated Rule exclude = 33",
        ],
        "Net": [
            "optional string name = 1",
            "repeated LegacyLayer layers = 2",
            "repeated string input = 3",
            "repeated Layer layer = 100",
        ],
    },
)


@cache
def _classes() -> dict[str, Any]:
    return _SCHEMA.classes()


def read_prototxt(data: bytes, *, source: str) -> tuple[CaffeLayer, ...]:
    """Read the inputs and layers in their order, without those that only training has.

    `input:` lines become `Input` layers; the old `layers { type: RELU }` is read like the new
    `layer { type: "ReLU" }`. Parameters are skipped, whatever they are.

    Raises
    ------
    CacheFormatError
        If it is no prototxt, or a layer has no name or type.
    """
    net = _classes()["Net"]()
    # comments are in any encoding; the library fails on surrogates, and takes escapes
    text = data.decode("utf-8-sig", "backslashreplace")
    _check_size(text, source)
    try:
        with warnings.catch_warnings():
            # of Python itself, where the library lets an escape pass that is none
            warnings.simplefilter("ignore", DeprecationWarning)
            text_format.Parse(text, net, allow_unknown_field=True)
    except text_format.ParseError as error:
        line = error.GetLine()
        raise CacheFormatError(
            f"expected a Caffe prototxt: {_said(error)}",
            where=source if line is None else f"{source}:{line}",
            remedy="pass the deploy.prototxt of the network",
        ) from error
    except (RecursionError, ValueError) as error:
        raise CacheFormatError(
            "expected a Caffe prototxt, found names that are no UTF-8 or a nesting without end",
            where=source,
            remedy="pass the deploy.prototxt of the network",
        ) from error
    layers = [CaffeLayer(name=name, type=INPUT, tops=(name,)) for name in net.input]
    legacy = list(_LEGACY.values())
    for made in (*net.layers, *net.layer):
        if not _deployed(made):
            continue
        kind = made.type if isinstance(made.type, str) else legacy[made.type]
        layers.append(
            CaffeLayer(name=made.name, type=kind, bottoms=tuple(made.bottom), tops=tuple(made.top))
        )
    _check(layers, source)
    return tuple(layers)


def _check_size(text: str, source: str) -> None:
    """Refuse what the library would take minutes for: its time grows with the square of a line."""
    longest = max(map(len, text.split("\n")))
    if len(text) > _MOST_CHARACTERS or longest > _LONGEST_LINE:
        raise CacheFormatError(
            f"expected a Caffe prototxt, found {len(text)} characters, up to {longest} on a line",
            where=source,
            remedy="pass the deploy.prototxt; weights (.caffemodel) are not wanted",
        )


def _said(error: text_format.ParseError) -> str:
    """Give what the library says, without its own address and fit for any terminal."""
    said = str(error).rpartition(" : ")[2][:_QUOTED]
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in said)


def _check(layers: list[CaffeLayer], source: str) -> None:
    for number, layer in enumerate(layers, start=1):
        if not layer.name or not layer.type:
            raise CacheFormatError(
                f"layer {number} has no {'type' if layer.name else 'name'}",
                where=source,
                remedy="Caffe's upgrade_net_proto_text brings very old files to the new form",
            )
    if not layers:
        raise CacheFormatError(
            "the file has no layers", where=source, remedy="pass the deploy.prototxt of the network"
        )


def _deployed(layer: Any) -> bool:
    """Apply Caffe's rules for the phase TEST at level 0 without stages."""
    if layer.include:
        return any(map(_applies, layer.include))
    return not any(map(_applies, layer.exclude))


def _applies(rule: Any) -> bool:
    return (
        not (rule.HasField("phase") and rule.phase != _TEST)
        and not (rule.HasField("min_level") and rule.min_level > 0)
        and not (rule.HasField("max_level") and rule.max_level < 0)
        and not rule.stage
    )
