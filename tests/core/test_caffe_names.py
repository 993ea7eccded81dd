"""Names of a Caffe network in TensorRT's caches and in NVDLA's tables."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.cache import Entry
from edgecal.core.caffe_names import CaffeLayer, rename_for_nvdla, rename_for_tensorrt
from edgecal.errors import IncompatibleError


def layer(name: str, kind: str, bottom: str, top: str | None = None) -> CaffeLayer:
    return CaffeLayer(name=name, type=kind, bottoms=(bottom,), tops=(top or name,))


# the beginning of ResNet-50 as Caffe has it, and an end
NETWORK: Final = (
    CaffeLayer(name="input", type="Input", tops=("data",)),
    layer("conv1", "Convolution", "data"),
    layer("bn_conv1", "BatchNorm", "conv1", "conv1"),
    layer("scale_conv1", "Scale", "conv1", "conv1"),
    layer("conv1_relu", "ReLU", "conv1", "conv1"),
    layer("pool1", "Pooling", "conv1"),
    layer("flat", "Flatten", "pool1"),
    layer("drop", "Dropout", "flat", "flat"),
    layer("fc", "InnerProduct", "flat"),
    layer("prob", "Softmax", "fc"),
)

# two blobs, `flat` and `pool1`, are one tensor for TensorRT, and the last name in order stays
CACHE: Final = (
    Entry("data", "1"),
    Entry("(Unnamed Layer* 0) [Convolution]_output", "2"),
    Entry("(Unnamed Layer* 1) [Scale]_output", "3"),
    Entry("(Unnamed Layer* 2) [Scale]_output", "4"),
    Entry("conv1", "5"),
    Entry("pool1", "6"),
    Entry("fc", "7"),
    Entry("prob", "8"),
)

TABLE: Final = {
    "data": "1",
    "conv1": "2",
    "bn_conv1": "3",
    "scale_conv1": "4",
    "conv1_relu": "5",
    "pool1": "6",
    "flat": "6",
    "drop": "6",
    "fc": "7",
    "prob": "8",
}


def without(name: str) -> tuple[Entry, ...]:
    return tuple(entry for entry in CACHE if entry.tensor != name)


@pytest.mark.parametrize(
    ("name", "described"),
    [
        ("data", "'data' (data)"),
        ("prob", "'prob' (prob)"),
        ("conv1", "'conv1_relu' (conv1)"),
        (
            "(Unnamed Layer* 1) [Scale]_output",
            "'bn_conv1' ((Unnamed Layer* 1) [Scale]_output)",
        ),
    ],
)
def test_a_layer_without_an_entry_is_refused_by_name(name: str, described: str) -> None:
    with pytest.raises(IncompatibleError) as caught:
        rename_for_nvdla(without(name), NETWORK)
    assert caught.value.what == f"the cache has no scale for layers of the network: {described}"


def test_an_empty_cache_names_the_first_layers_that_miss() -> None:
    with pytest.raises(IncompatibleError, match=r"of the network: 'data' .* and 5 more"):
        rename_for_nvdla((), NETWORK)


def test_a_layer_of_another_kind_in_its_place_is_refused() -> None:
    changed = (*without("(Unnamed Layer* 1) [Scale]_output"), Entry(
        "(Unnamed Layer* 1) [Shuffle]_output", "3"
    ))  # fmt: skip
    with pytest.raises(
        IncompatibleError, match="layer 'bn_conv1' is a Scale for TensorRT"
    ) as caught:
        rename_for_nvdla(changed, NETWORK)
    assert "(Unnamed Layer* 1) [Shuffle]_output" in caught.value.what


def test_an_entry_of_another_network_is_refused() -> None:
    with pytest.raises(IncompatibleError, match=r"the cache has entries .* no layer .*: 'conv9'"):
        rename_for_nvdla((*CACHE, Entry("conv9", "9")), NETWORK)
    with pytest.raises(IncompatibleError, match=r"the table has entries .* no layer .*: 'conv9'"):
        rename_for_tensorrt([Entry("conv9", "9")], NETWORK)


def test_two_layers_of_one_name_are_refused_if_their_scales_differ() -> None:
    network = (*NETWORK, layer("prob", "Softmax", "prob", "prob2"))
    with pytest.raises(IncompatibleError, match="two scales would have the name 'prob'"):
        rename_for_nvdla((*CACHE, Entry("prob2", "9")), network)
    same = rename_for_nvdla((*CACHE, Entry("prob2", "8")), network)
    assert {one.tensor: one.bits for one in same} == TABLE


def test_nobody_knows_the_name_of_an_overwritten_output_of_an_unknown_layer() -> None:
    network = (
        CaffeLayer(name="data", type="Input", tops=("data",)),
        layer("odd", "Normalize", "data"),
        layer("relu", "ReLU", "odd", "odd"),
    )
    assert rename_for_tensorrt([Entry("relu", "1")], network) == (Entry("odd", "1"),)
    with pytest.raises(IncompatibleError, match=r"nobody knows what TensorRT calls .* 'odd'"):
        rename_for_tensorrt([Entry("odd", "1")], network)


@given(st.permutations(CACHE))
def test_every_layer_gets_the_scale_of_its_own_output(entries: list[Entry]) -> None:
    renamed = rename_for_nvdla(entries, NETWORK)
    assert {one.tensor: one.bits for one in renamed} == TABLE
    assert [one.tensor for one in renamed] == list(TABLE)


def test_the_way_back_gives_tensorrts_names() -> None:
    assert rename_for_tensorrt(rename_for_nvdla(CACHE, NETWORK), NETWORK) == CACHE


def test_a_layer_of_a_type_we_do_not_know_may_be_of_any_kind() -> None:
    network = (
        CaffeLayer(name="data", type="Input", tops=("data",)),
        layer("odd", "Normalize", "data"),
        layer("relu", "ReLU", "odd", "odd"),
    )
    entries = (
        Entry("data", "1"),
        Entry("(Unnamed Layer* 0) [PluginV2Ext]_output", "2"),
        Entry("odd", "3"),
    )
    assert rename_for_nvdla(entries, network) == (
        Entry("data", "1"),
        Entry("odd", "2"),
        Entry("relu", "3"),
    )


def test_only_the_first_output_of_a_layer_has_a_place() -> None:
    network = (
        CaffeLayer(name="data", type="Input", tops=("data",)),
        CaffeLayer(name="odd", type="Slice", bottoms=("data",), tops=("a", "b")),
        layer("relu", "ReLU", "b"),
    )
    entries = [Entry(name, str(number)) for number, name in enumerate(("data", "a", "b", "relu"))]
    renamed = rename_for_nvdla(entries, network)
    assert renamed == (Entry("data", "0"), Entry("odd", "1"), Entry("relu", "3"))
