"""Exports of one network whose tensors are counted, as PyTorch's exporter counts them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper

from tests.networks import floats, network, tensor

if TYPE_CHECKING:
    import onnx


def counted_net(*, start: int = 11, seed: int = 0, extra: bool = False) -> onnx.ModelProto:
    """Make a small classifier whose activations are called "11", "12" and so on.

    Parameters
    ----------
    start
        The first number: a new layer's parameters move it.
    seed
        Of the weights.
    extra
        Whether there is one more operator in the middle, which moves only the numbers after it.
    """
    nodes: list[onnx.NodeProto] = []
    number = start - 1

    def add(op: str, *inputs: str, **attributes: float | list[int]) -> str:
        nonlocal number
        number += 1
        made = helper.make_node(op, inputs, [str(number)], f"{op}_{len(nodes)}")
        made.attribute.extend(
            helper.make_attribute(key, value) for key, value in attributes.items()
        )
        nodes.append(made)
        return str(number)

    pool: dict[str, float | list[int]] = {"kernel_shape": [2, 2], "strides": [2, 2]}
    same: dict[str, float | list[int]] = {"pads": [1, 1, 1, 1]}
    stem = add("Relu", add("Conv", "image", "w1", **same))
    first = add("MaxPool", stem, **pool)
    left = add("Sigmoid", add("Conv", first, "w2", **same))
    right = add("Conv", first, "w3", **same)
    if extra:
        right = add("LeakyRelu", right, alpha=0.5)
    second = add("MaxPool", add("Mul", left, right), **pool)
    deep = add("Relu", add("Conv", second, "w4", **same))
    joined = add("Add", deep, second)
    third = add("MaxPool", joined, **pool)
    size = add("Unsqueeze", add("Gather", add("Shape", third), "zero"), "axes")
    flat = add("Reshape", third, add("Concat", size, "minus_one", axis=0))
    hidden = add("Clip", add("Gemm", flat, "w5", "b5", transB=1), "low", "high")
    scores = add("Gemm", hidden, "w6", "b6", transB=1)
    nodes.append(helper.make_node("Softmax", [scores], ["scores"], "last", axis=1))
    # each layer has a gain of its own, so that ranges differ as they do in real networks
    constants: dict[str, npt.NDArray[Any]] = {
        "w1": floats(6, 3, 3, 3, seed=seed) * 3,
        "w2": floats(6, 6, 3, 3, seed=seed + 1) / 40,
        "w3": floats(6, 6, 3, 3, seed=seed + 2) * 2,
        "w4": floats(6, 6, 3, 3, seed=seed + 3) / 300,
        "w5": floats(8, 6, seed=seed + 4) / 9,
        "b5": floats(8, seed=seed + 5),
        "w6": floats(5, 8, seed=seed + 6) / 4,
        "b6": floats(5, seed=seed + 7),
        "low": np.asarray(0, np.float32),
        "high": np.asarray(6, np.float32),
        "zero": np.asarray(0, np.int64),
        "axes": np.asarray([0], np.int64),
        "minus_one": np.asarray([-1], np.int64),
    }
    return network(
        nodes,
        [tensor("image", ["n", 3, 8, 8])],
        [tensor("scores", ["n", 5], TensorProto.FLOAT)],
        constants,
    )
