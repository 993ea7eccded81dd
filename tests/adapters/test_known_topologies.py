"""How many entries real tables have, for networks whose graphs the onnx package carries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgecal.adapters.onnx_model import read_model
from edgecal.core.tensors import activations

if TYPE_CHECKING:
    from edgecal.core.graph import Graph

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
GEMM_HELPERS = 3
"""TensorRT 6 adds a constant weight, a constant bias and a product of matrices for a Gemm."""


def with_weights(name: str, folder: Path) -> Graph:
    """Read a graph whose weights the package leaves to run time, with them as initializers."""
    model = onnx.load(LIGHT / f"light_{name}.onnx")
    shapes = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape":
            ones = np.ones(tuple(shapes[node.input[0]]), np.float32)
            model.graph.initializer.append(numpy_helper.from_array(ones, node.output[0]))
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.ir_version = 8  # the first ones want every initializer among the inputs
    onnx.save(model, folder / "network.onnx")
    return read_model(folder / "network.onnx").graph


@pytest.mark.parametrize(
    ("name", "entries"),
    [("resnet50", 180), ("inception_v1", 148)],  # tables of TensorRT 6.0.1, public
)
def test_as_many_tensors_get_an_entry_as_in_the_tables_of_tensorrt(
    tmp_path: Path, name: str, entries: int
) -> None:
    assert len(activations(with_weights(name, tmp_path))) + GEMM_HELPERS == entries
