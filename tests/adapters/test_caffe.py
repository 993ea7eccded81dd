from __future__ import annotations

import time
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.adapters.caffe import read_prototxt
from edgecal.core.caffe_names import CaffeLayer
from edgecal.errors import CacheFormatError

NEW: Final = b"""name: "net"  # \xb5\xc4 is no UTF-8
layer {
  name: "data"
  type: "Input"
  top: "data"
  input_param { shape: { dim: 1 dim: 3 dim: 8 dim: 8 } }
}
layer {
  name: "train-data" type: "ImageData" top: "data" top: "label"
  include { phase: TRAIN }
  transform_param { mirror: true mean_value: [104, 117, 123] }
}
layer {
  name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  param { lr_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: 'xavier' } }
}
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" exclude { phase: TRAIN } }
layer { name: "only-test" type: "Accuracy" bottom: "conv1" top: "acc" exclude { phase: TEST } }
layer { name: "staged" type: "Softmax" bottom: "conv1" top: "x" include { stage: "deploy" } }
layer { name: "levelled" type: "Softmax" bottom: "conv1" top: "x" include { min_level: 1 } }
layer { name: "low" type: "Softmax" bottom: "conv1" top: "x" include { max_level: -1 } }
layer {
  name: "prob" type: "Softmax" bottom: "conv1" top: "prob"
  include { phase: TRAIN } include { phase: TEST max_level: 3 not_stage: "x" }
}
"""

OLD: Final = b"""input: "data"
input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
layers {
  name: "conv1" type: CONVOLUTION bottom: "data" top: "conv1" blobs_lr: 1
  convolution_param < num_output: 4 >
}
layers { name: "relu1" type: 18 bottom: "conv1" top: "conv1" }
layers { name: "loss" type: SOFTMAX_LOSS bottom: "conv1" include: { phase: TRAIN } }
layers { name: "prob" type: SOFTMAX bottom: "conv1" top: "prob" }
"""

EXPECTED: Final = (
    CaffeLayer(name="data", type="Input", tops=("data",)),
    CaffeLayer(name="conv1", type="Convolution", bottoms=("data",), tops=("conv1",)),
    CaffeLayer(name="relu1", type="ReLU", bottoms=("conv1",), tops=("conv1",)),
    CaffeLayer(name="prob", type="Softmax", bottoms=("conv1",), tops=("prob",)),
)


@pytest.mark.parametrize(
    ("data", "where", "complaint"),
    [
        (b"", "net", "has no layers"),
        (b'layer { name: "a" }', "net", "layer 1 has no type"),
        (b'layers { layer { name: "a" type: "conv" } }', "net", "layer 1 has no name"),
        (b'layer {\n name: "a"', "net:2", "expected a Caffe prototxt"),
        (b'layer {\n name: "a" name: "b" }', "net:2", "expected a Caffe prototxt"),
        (b"layer {\n type: RELU }", "net:2", "expected a Caffe prototxt"),
        (b'layers {\n type: "ReLU" }', "net:2", "expected a Caffe prototxt"),
        (b"layers {\n type: NONSENSE }", "net:2", "expected a Caffe prototxt"),
        (b'layer {\n name: "\xff" }', "net:2", "expected a Caffe prototxt"),
        (b"\x0a\x05model\x12\x00", "net:2", "expected a Caffe prototxt"),
        (b"layer " + b"{ a " * 30_000, "net", "on a line"),
        (b"layer " + b"{ a\n" * 30_000, "net", "nesting without end"),
        (b"a: 1\n" * 500_000, "net", "2500000 characters"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else None,
)
def test_what_is_no_prototxt_is_refused(data: bytes, where: str, complaint: str) -> None:
    started = time.monotonic()
    with pytest.raises(CacheFormatError, match=complaint) as caught:
        read_prototxt(data, source="net")
    assert caught.value.where == where
    assert time.monotonic() - started < 2
    str(caught.value).encode()


@given(st.binary(max_size=100), st.integers(0, len(NEW)), st.integers(0, 8))
def test_arbitrary_bytes_give_layers_or_a_format_error(data: bytes, at: int, cut: int) -> None:
    for given_bytes in (data, NEW[:at] + data + NEW[at + cut :]):
        try:
            assert all(one.name for one in read_prototxt(given_bytes, source="net"))
        except CacheFormatError:
            continue


def test_layers_are_those_of_deployment() -> None:
    assert read_prototxt(NEW, source="deploy.prototxt") == EXPECTED


def test_legacy_layers_are_read_like_new_ones() -> None:
    assert read_prototxt(OLD, source="deploy.prototxt") == EXPECTED


def test_files_of_windows_are_read() -> None:
    data = b"\xef\xbb\xbf" + OLD.replace(b"\n", b"\r\n")
    assert read_prototxt(data, source="deploy.prototxt") == EXPECTED


def test_an_escape_that_is_none_is_taken_as_it_stands() -> None:
    (layer,) = read_prototxt(rb'layer { name: "a\d" type: "ReLU" }', source="deploy.prototxt")
    assert layer.name == r"a\d"
