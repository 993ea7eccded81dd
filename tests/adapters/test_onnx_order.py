"""Nodes in any order are read in one that computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from edgecal.adapters.onnx_model import read_model
from edgecal.adapters.onnx_order import sort_nodes
from edgecal.adapters.ort_backend import OrtBackend
from edgecal.errors import ModelError
from tests.networks import conv_net, floats, network, save, tensor

if TYPE_CHECKING:
    from pathlib import Path


def reorder(order: list[int]) -> list[str]:
    proto = conv_net()
    nodes = [proto.graph.node[position] for position in order]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    sort_nodes(proto)
    return [node.name for node in proto.graph.node]


@given(st.permutations(range(5)))
def test_any_order_becomes_the_one_that_computes(order: list[int]) -> None:
    assert reorder(order) == [node.name for node in conv_net().graph.node]


def test_a_sorted_network_keeps_its_bytes() -> None:
    proto = conv_net()
    before = proto.SerializeToString()
    sort_nodes(proto)
    assert proto.SerializeToString() == before


def test_a_circle_is_corrupt(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    proto = network(nodes, [tensor("x", ["n", 4])], [tensor("y", ["n", 4])])
    with pytest.raises(ModelError, match=r"corrupt.*sorted"):
        read_model(save(proto, tmp_path / "net.onnx"))


def test_a_network_in_reverse_computes_the_same(tmp_path: Path) -> None:
    image = {"image": floats(2, 3, 8, 8)}
    plain = OrtBackend(read_model(save(conv_net(), tmp_path / "net.onnx"))).expose(())
    proto = conv_net()
    nodes = list(reversed(proto.graph.node))
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    turned = OrtBackend(read_model(save(proto, tmp_path / "turned.onnx"))).expose(("relu",))
    assert np.array_equal(plain.run(image)["scores"], turned.run(image)["scores"])


def test_a_long_chain_in_reverse_takes_no_time() -> None:
    count = 20_000
    nodes = [helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"]) for i in reversed(range(count))]
    proto = network(nodes, [tensor("t0", ["n"])], [tensor(f"t{count}", ["n"])])
    sort_nodes(proto)
    assert proto.graph.node[0].input[0] == "t0"
