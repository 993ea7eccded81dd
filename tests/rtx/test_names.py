"""Tensor names that edgecal predicts, held against those of NVIDIA's parser."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pytest

from edgecal.adapters.onnx_model import read_model
from edgecal.core.tensors import activations, constant_entries
from edgecal.core.versions import parse_tensorrt
from tests.networks import save
from tests.rtx.judge import ask
from tests.rtx.nets import NETS

if TYPE_CHECKING:
    from pathlib import Path

    from edgecal.core.graph import Graph

pytestmark = pytest.mark.rtx

HELPER: Final = re.compile(r"ONNXTRT_\w+_output|\(Unnamed Layer\* \d+\) \[[\w ]+\]_output")
"""What the parser calls layers that it adds and that have no name in the ONNX file."""
UNPREDICTED: Final = frozenset({"LayerNormalization", "LSTM", "Transpose"})
"""Operators whose constants get an entry in this parser, and that `constant_entries` leaves out."""


def is_helper(graph: Graph, name: str) -> bool:
    """Tell whether a tensor is the result of a layer that the parser adds for a node."""
    nodes = {node.name for node in graph.nodes}
    constants = {
        f"{constant}_output"
        for node in graph.nodes
        if node.op_type in UNPREDICTED
        for constant in node.inputs
        if constant in graph.constants
    }
    layer = re.sub(r"(_\d+)?_output$", "", name)
    return bool(HELPER.fullmatch(name)) or layer in nodes or name in constants


@pytest.mark.parametrize("name", sorted(NETS))
def test_the_parser_knows_every_predicted_name_and_no_other_float(
    tmp_path: Path, name: str
) -> None:
    proto = NETS[name]()
    graph = read_model(save(proto, tmp_path / "net.onnx")).graph
    verdict = ask(proto.SerializeToString(), tmp_path)
    assert verdict.complaints == ()
    floats = {tensor for tensor, kind in verdict.tensors.items() if kind == "FLOAT"}
    predicted = {*activations(graph), *constant_entries(graph, parse_tensorrt("10.3.0"))}
    assert predicted - floats == set()
    assert {one for one in floats - predicted if not is_helper(graph, one)} == set()
