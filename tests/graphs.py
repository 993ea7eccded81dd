"""Little networks as values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgecal.core.graph import Attribute, Graph, Node, TensorInfo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt


def node(op_type: str, inputs: str, outputs: str, **attributes: Attribute) -> Node:
    """Make an operator; names stand in one string, `-` for an absent one."""
    return Node(
        name=f"{op_type}_{outputs.split(maxsplit=1)[0]}",
        op_type=op_type,
        inputs=tuple("" if name == "-" else name for name in inputs.split()),
        outputs=tuple("" if name == "-" else name for name in outputs.split()),
        attributes=attributes,
    )


def graph(
    nodes: Sequence[Node],
    *,
    inputs: Sequence[str] = ("x",),
    outputs: Sequence[str] = (),
    constants: Mapping[str, npt.NDArray[np.generic]] | None = None,
    types: Mapping[str, str] | None = None,
) -> Graph:
    """Make a network; tensors are float32 unless `types` says otherwise."""
    constants = constants or {}
    names = [*inputs, *(name for one in nodes for name in one.outputs if name)]
    tensors = {name: TensorInfo(name=name, dtype="float32") for name in names}
    for name, value in constants.items():
        tensors[name] = TensorInfo(name=name, dtype=str(value.dtype), shape=value.shape)
    for name, dtype in (types or {}).items():
        tensors[name] = TensorInfo(name=name, dtype=dtype)
    return Graph(
        inputs=tuple(tensors[name] for name in inputs),
        outputs=tuple(tensors[name] for name in outputs or nodes[-1].outputs),
        nodes=tuple(nodes),
        tensors=tensors,
        constants=constants,
        opset=17,
    )


def weight(*shape: int) -> npt.NDArray[np.generic]:
    """Make a constant."""
    return np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)


def small_classifier() -> Graph:
    """Make a network with one of everything that has a rule of its own."""
    return graph(
        [
            node("Conv", "images w1", "conv"),
            node("BatchNormalization", "conv gamma beta mean var", "bn"),
            node("Relu", "bn", "relu"),
            node("MaxPool", "relu", "pool"),
            node("Conv", "pool w2 b2", "left"),
            node("Add", "left pool", "sum"),
            node("Concat", "sum pool", "cat", axis=1),
            node("Mul", "cat half", "scaled"),
            node("Dropout", "scaled", "kept -"),
            node("GlobalAveragePool", "kept", "mean_out"),
            node("Shape", "mean_out", "size"),
            node("Reshape", "mean_out size", "flat"),
            node("Gemm", "flat w3 b3", "scores", transB=1),
            node("ArgMax", "scores", "class"),
        ],
        inputs=["images", "mask"],
        outputs=["scores", "class"],
        constants={
            **{name: weight(4) for name in ("gamma", "beta", "mean", "var", "b2", "b3")},
            **{name: weight(4, 4, 1, 1) for name in ("w1", "w2")},
            "half": np.asarray(0.5, np.float32),
            "w3": weight(4, 8),
        },
        types={"size": "int64", "class": "int64", "mask": "bool"},
    )
