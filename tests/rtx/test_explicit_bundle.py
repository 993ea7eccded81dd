"""What NVIDIA's parser and builder make of the network in a bundle of form `qdq`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest

from edgecal.adapters.onnx_model import read_model
from edgecal.core.manifest import MODEL_FILE, QDQ_FILE
from tests.bundles import make_bundles
from tests.rtx.judge import ask

if TYPE_CHECKING:
    from pathlib import Path

    from edgecal.adapters.bundle import Bundle

pytestmark = pytest.mark.rtx


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundles(tmp_path_factory.mktemp("bundle"), "11.0.0")[0]


def settled(bundle: Bundle, name: str) -> bytes:
    """Read a network of the bundle and settle its batch, which has to be known here."""
    proto = onnx.load(bundle.path / name)
    for value in (*proto.graph.input, *proto.graph.output):
        dimension = value.type.tensor_type.shape.dim[0]
        if not dimension.dim_value:
            dimension.ClearField("dim_param")
            dimension.dim_value = 1
    del proto.graph.value_info[:]
    return proto.SerializeToString()


def test_the_network_as_it_was_given_is_not_int8(bundle: Bundle, tmp_path: Path) -> None:
    verdict = ask(settled(bundle, MODEL_FILE), tmp_path)
    assert verdict.complaints == ()
    nodes = read_model(bundle.path / MODEL_FILE).graph.nodes
    assert not [node.name for node in nodes if verdict.is_int8(node.name)]


def test_every_convolution_and_product_of_it_reads_int8(bundle: Bundle, tmp_path: Path) -> None:
    verdict = ask(settled(bundle, QDQ_FILE), tmp_path)
    assert verdict.complaints == ()
    products = [
        node.name
        for node in read_model(bundle.path / MODEL_FILE).graph.nodes
        if node.op_type in {"Conv", "Gemm", "MatMul"}
    ]
    assert products
    assert [name for name in products if not verdict.is_int8(name)] == []
    explicit = bundle.manifest.explicit
    assert explicit is not None
    assert explicit.weights == len(products)
    assert "HALF" in verdict.tensors.values()
