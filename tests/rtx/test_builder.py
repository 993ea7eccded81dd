"""What NVIDIA's parser and builder make of our Q/DQ networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import onnx.compose
import pytest
from onnx import helper, numpy_helper

from edgecal.adapters.onnx_model import OnnxModel, read_model
from edgecal.adapters.qdq import write_qdq
from edgecal.core.tensors import activations
from tests.networks import OLD_IR, conv_net, floats, network, save, tensor
from tests.rtx.judge import Verdict, ask
from tests.rtx.nets import NETS, feeds_of, scales_of

if TYPE_CHECKING:
    from pathlib import Path

    from edgecal.core.placement import Placement, Target

pytestmark = pytest.mark.rtx

PRODUCTS: Final = frozenset({"Conv", "Gemm", "MatMul"})
"""ConvTranspose is not among them: the builder keeps it float in whatever form it is quantized."""


def judged(
    proto: onnx.ModelProto,
    folder: Path,
    *,
    placement: Target = "gpu",
    fp16: bool = False,
    factor: float = 1.0,
) -> tuple[Verdict, OnnxModel, Placement]:
    model = read_model(save(proto, folder / "net.onnx"))
    scales = {name: scale * factor for name, scale in scales_of(model, feeds_of(proto)).items()}
    data, placed = write_qdq(model, scales, placement=placement, fp16=fp16)
    onnx.checker.check_model(onnx.load_model_from_string(data), full_check=True)
    return ask(data, folder), model, placed


def float_products(verdict: Verdict, model: OnnxModel) -> list[str]:
    assert verdict.complaints == ()
    nodes = [node for node in model.graph.nodes if node.op_type in PRODUCTS]
    assert nodes
    return [node.name for node in nodes if not verdict.is_int8(node.name)]


def product(
    op_type: str, first: list[int], second: list[int], constant: int = 1, **attributes: int
) -> onnx.ModelProto:
    """Make a network of one operator, the operand of that number a constant; -1: none of them."""
    names = ["x", "v"]
    shapes = dict(zip(names, (first, second), strict=True))
    node = helper.make_node(op_type, names, ["y"], "product")
    node.attribute.extend(helper.make_attribute(*one) for one in attributes.items())
    weights = {names[constant]: floats(*shapes[names[constant]])} if constant >= 0 else {}
    inputs = [tensor(name, shapes[name]) for name in names if name not in weights]
    made = network([node], inputs, [tensor("y", None)], weights, opset=17)
    return onnx.shape_inference.infer_shapes(made)


FORMS: Final = {
    "solid": product("Conv", [1, 8, 4, 4, 4], [4, 8, 3, 3, 3]),
    "depthwise in one dimension": product("Conv", [1, 8, 16], [8, 1, 3], group=8),
    "Gemm": product("Gemm", [4, 8], [8, 16]),
    "Gemm transB": product("Gemm", [4, 8], [16, 8], transB=1),
    "Gemm transA": product("Gemm", [8, 4], [8, 16], transA=1),
    "Gemm transA transB": product("Gemm", [8, 4], [16, 8], transA=1, transB=1),
    "Gemm of a constant": product("Gemm", [16, 8], [8, 4], constant=0),
    "Gemm of a constant transA": product("Gemm", [8, 16], [8, 4], constant=0, transA=1),
    "Gemm of activations": product("Gemm", [4, 8], [8, 4], constant=-1),
    "MatMul of four dimensions": product("MatMul", [2, 3, 4, 8], [8, 16]),
    "MatMul in batches": product("MatMul", [2, 4, 8], [2, 8, 16]),
    "MatMul by a vector": product("MatMul", [4, 8], [8]),
    "MatMul of a vector": product("MatMul", [8], [8, 16]),
    "MatMul of a constant": product("MatMul", [16, 8], [2, 8, 4], constant=0),
    "MatMul of constants in batches": product("MatMul", [2, 16, 8], [2, 8, 4], constant=0),
    "MatMul of activations": product("MatMul", [2, 4, 8], [2, 8, 4], constant=-1),
}


def test_a_float_network_is_not_taken_for_int8(tmp_path: Path) -> None:
    verdict = ask(product("Conv", [1, 8, 6, 6], [4, 8, 3, 3]).SerializeToString(), tmp_path)
    assert verdict.complaints == ()
    assert not verdict.is_int8("product")


def test_what_the_parser_refuses_is_said(tmp_path: Path) -> None:
    made = network(
        [helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])],
        [tensor("x", [4])],
        [tensor("s", [])],
    )
    assert ask(made.SerializeToString(), tmp_path).complaints


@pytest.mark.parametrize(("placement", "fp16"), [("gpu", False), ("gpu", True), ("dla", True)])
@pytest.mark.parametrize("name", sorted(NETS))
def test_every_convolution_and_product_that_has_scales_reads_int8(
    tmp_path: Path, name: str, placement: Target, *, fp16: bool
) -> None:
    verdict, model, placed = judged(NETS[name](), tmp_path, placement=placement, fp16=fp16)
    assert placed.without_scale == ()
    assert placed.left_float == ()
    assert placed.left_float32 == ()
    assert float_products(verdict, model) == []
    if fp16:
        ends = {one.name for one in (*model.graph.inputs, *model.graph.outputs)}
        inner = [one for one in activations(model.graph) if one not in ends]
        # but for a Transpose of a weight, which is folded
        assert {verdict.tensors[one] for one in inner if one in verdict.tensors} == {"HALF"}


@pytest.mark.parametrize("fp16", [False, True])
def test_products_of_every_form_read_int8(tmp_path: Path, *, fp16: bool) -> None:
    every = onnx.ModelProto()  # all in one, since a build takes its time
    every.CopyFrom(next(iter(FORMS.values())))
    every.ClearField("graph")
    every.graph.name = "every"
    for form, proto in FORMS.items():
        part = onnx.compose.add_prefix(proto, f"{form}: ").graph
        for field in ("node", "input", "output", "initializer"):
            getattr(every.graph, field).extend(getattr(part, field))
    verdict, model, _ = judged(every, tmp_path, fp16=fp16)
    assert len(model.graph.nodes) == len(FORMS)
    assert float_products(verdict, model) == []


def test_a_transposed_convolution_stays_float_in_this_builder(tmp_path: Path) -> None:
    proto = product("ConvTranspose", [1, 8, 8, 8], [8, 8, 2, 2])
    verdict, _, placed = judged(proto, tmp_path)
    assert verdict.complaints == ()
    assert [pair.constant for pair in placed.weights] == ["v"]
    assert not verdict.is_int8("product")  # a builder that does better is news


@pytest.mark.parametrize(
    ("opset", "fp16"),
    [
        (7, False),
        (7, True),
        (9, False),
        (11, True),
        (13, False),
        (15, True),
        (17, False),
        (21, True),
    ],
)
def test_networks_of_every_opset_are_taken(tmp_path: Path, opset: int, *, fp16: bool) -> None:
    proto = conv_net(batch=2, opset=opset, ir=OLD_IR if opset < 9 else 10)
    verdict, model, _ = judged(proto, tmp_path, fp16=fp16)
    assert float_products(verdict, model) == []


@pytest.mark.parametrize("factor", [1e-9, 1e6])
def test_a_scale_that_float16_cannot_hold_still_gives_int8(tmp_path: Path, factor: float) -> None:
    proto = product("Conv", [1, 8, 6, 6], [4, 8, 3, 3])
    verdict, model, _ = judged(proto, tmp_path, fp16=True, factor=factor)
    assert float_products(verdict, model) == []


@pytest.mark.parametrize("value", [1e-8, 1e6])
def test_a_weight_that_float16_cannot_hold_still_gives_int8(tmp_path: Path, value: float) -> None:
    proto = product("Conv", [1, 8, 6, 6], [4, 8, 3, 3])
    weight = floats(4, 8, 3, 3)
    weight[1] = value
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "v"))
    verdict, model, placed = judged(proto, tmp_path, fp16=True)
    assert float_products(verdict, model) == []
    # results reach beyond float16 with the large one
    assert [left.op_type for left in placed.left_float32] == (["Conv"] if value > 1 else [])


def test_a_channel_of_denormal_weights_is_taken(tmp_path: Path) -> None:
    proto = product("Conv", [1, 8, 6, 6], [4, 8, 3, 3])
    weight = floats(4, 8, 3, 3)
    weight[1:3] = 0
    weight[2, 0] = np.float32(1e-42)
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "v"))
    verdict, model, _ = judged(proto, tmp_path)
    assert float_products(verdict, model) == []
