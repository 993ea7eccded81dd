"""Small ONNX networks, made as tests need them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


FLOAT = TensorProto.FLOAT
OLD_IR = 3
"""The last intermediate representation in which every initializer is an input as well."""


def rng(seed: int = 0) -> np.random.Generator:
    """Random numbers that are the same every time."""
    return np.random.default_rng(seed)


def floats(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Normal numbers."""
    return rng(seed).standard_normal(shape).astype(np.float32)


def tensor(
    name: str, shape: Sequence[int | str | None] | None, kind: int = FLOAT
) -> onnx.ValueInfoProto:
    """Declare an input or output; a word or `None` is a dimension known at run time only."""
    return helper.make_tensor_value_info(name, kind, shape)


def network(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Mapping[str, npt.NDArray[Any]] | None = None,
    *,
    opset: int = 13,
    ir: int = 8,
    domains: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """Put a network together."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        list(inputs),
        list(outputs),
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid(name, version) for name, version in (domains or {}).items()]
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset), *opsets],
        ir_version=ir,
        producer_name="tests",
    )


def save(proto: onnx.ModelProto, path: Path) -> Path:
    """Write a network to disk."""
    path.write_bytes(proto.SerializeToString())
    return path


def conv_net(
    *,
    batch: int | str = "n",
    channels: int = 3,
    size: int = 8,
    opset: int = 13,
    ir: int = 8,
    seed: int = 0,
) -> onnx.ModelProto:
    """Conv, Relu, GlobalAveragePool, Flatten, Gemm: a classifier of small pictures."""
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["conv"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"], "relu1"),
        helper.make_node("GlobalAveragePool", ["relu"], ["pool"], "pool1"),
        helper.make_node("Flatten", ["pool"], ["flat"], "flatten1"),
        helper.make_node("Gemm", ["flat", "fw", "fb"], ["scores"], "fc1", transB=1),
    ]
    constants = {
        "w": floats(4, channels, 3, 3, seed=seed),
        "b": floats(4, seed=seed + 1),
        "fw": floats(5, 4, seed=seed + 2),
        "fb": floats(5, seed=seed + 3),
    }
    inputs = [tensor("image", [batch, channels, size, size])]
    if ir <= OLD_IR:
        inputs += [tensor(name, value.shape) for name, value in constants.items()]
    return network(nodes, inputs, [tensor("scores", [batch, 5])], constants, opset=opset, ir=ir)


def two_input_net() -> onnx.ModelProto:
    """Two float vectors to one."""
    return network(
        [
            helper.make_node("MatMul", ["left", "w"], ["mm"], "matmul"),
            helper.make_node("Add", ["mm", "right"], ["sum"], "add"),
        ],
        [tensor("left", ["n", 3]), tensor("right", ["n", 4])],
        [tensor("sum", ["n", 4])],
        {"w": floats(3, 4)},
    )


def vector_net(size: int = 4, *, batch: int | str = "n") -> onnx.ModelProto:
    """One float vector to one."""
    return network(
        [
            helper.make_node("MatMul", ["x", "w"], ["mm"], "matmul"),
            helper.make_node("Relu", ["mm"], ["y"], "relu"),
        ],
        [tensor("x", [batch, size])],
        [tensor("y", [batch, size])],
        {"w": floats(size, size)},
    )


def token_net() -> onnx.ModelProto:
    """Integers in, floats and integers out."""
    return network(
        [
            helper.make_node("Gather", ["table", "ids"], ["embedded"], "embed"),
            helper.make_node("MatMul", ["embedded", "w"], ["mm"], "project"),
            helper.make_node("ArgMax", ["mm"], ["best"], "best", axis=2, keepdims=0),
        ],
        [tensor("ids", ["n", 6], TensorProto.INT64)],
        [tensor("best", ["n", 6], TensorProto.INT64), tensor("mm", ["n", 6, 3])],
        {"table": floats(10, 4), "w": floats(4, 3, seed=1)},
    )


def half_net(*, batch: int | str = "n", edges: bool = True) -> onnx.ModelProto:
    """`conv_net` in float16, as exporters type it: all of it, or only between two Casts."""
    proto = conv_net(batch=batch)
    graph = proto.graph
    for one in graph.initializer:
        half = numpy_helper.to_array(one).astype(np.float16)
        one.CopyFrom(numpy_helper.from_array(half, one.name))
    if edges:
        for value in (*graph.input, *graph.output):
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
        return proto
    graph.node[0].input[0] = "image_half"
    graph.node[-1].output[0] = "scores_half"
    first = helper.make_node("Cast", ["image"], ["image_half"], "in", to=TensorProto.FLOAT16)
    last = helper.make_node("Cast", ["scores_half"], ["scores"], "out", to=FLOAT)
    nodes = [*graph.node, last, first]  # converters leave sorting to whoever reads it
    del graph.node[:]
    graph.node.extend(nodes)
    return proto


def picture_net(*, size: int | str = "h") -> onnx.ModelProto:
    """Conv and Relu over pictures of any number and size."""
    return network(
        [
            helper.make_node("Conv", ["image", "w"], ["conv"], "conv1", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["conv"], ["y"], "relu1"),
        ],
        [tensor("image", ["n", 3, size, "w" if isinstance(size, str) else size])],
        [tensor("y", None)],
        {"w": floats(4, 3, 3, 3)},
    )


def plugin_net() -> onnx.ModelProto:
    """A detector that ends in a plugin of TensorRT, as exporters append it."""
    return network(
        [
            helper.make_node("Conv", ["image", "w"], ["boxes"], "conv1", pads=[1, 1, 1, 1]),
            helper.make_node("Sigmoid", ["boxes"], ["scores"], "sigmoid1"),
            helper.make_node("EfficientNMS_TRT", ["boxes", "scores"], ["num", "found"], "nms"),
            helper.make_node("Cast", ["found"], ["classes"], "cast1", to=TensorProto.INT32),
        ],
        [tensor("image", ["n", 3, 8, 8])],
        [tensor("num", None, TensorProto.INT32), tensor("classes", None, TensorProto.INT32)],
        {"w": floats(4, 3, 3, 3)},
    )


def masked_token_net() -> onnx.ModelProto:
    """Integers and floats in: words as numbers, and how much each counts."""
    return network(
        [
            helper.make_node("Gather", ["table", "ids"], ["embedded"], "embed"),
            helper.make_node("Mul", ["embedded", "weights"], ["weighted"], "mask"),
            helper.make_node("MatMul", ["weighted", "w"], ["mm"], "project"),
        ],
        [tensor("ids", ["n", 6], TensorProto.INT64), tensor("weights", ["n", 6, 1])],
        [tensor("mm", ["n", 6, 3])],
        {"table": floats(10, 4), "w": floats(4, 3, seed=1)},
    )
