"""The networks that calibrators are compared on, as PyTorch exports them: normalisation folded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

SIDE: Final = 224
_MOBILENET: Final = (  # expansion, channels, repeats, first stride, size of the kernel
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 32, 3, 2, 3),
    (6, 64, 4, 2, 3),
    (6, 96, 3, 1, 3),
    (6, 160, 3, 2, 3),
    (6, 320, 1, 1, 3),
)
_EFFICIENTNET_LITE0: Final = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
DEPTHWISE_STEM: Final = 16
DEPTHWISE: Final = (
    (1, 16, 1, 1, 3),
    (4, 24, 2, 2, 3),
    (4, 40, 3, 2, 3),
)
"""A small network for pictures of 28 x 28 in gray."""

_RESNET_50: Final = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))

_GAINS: Final = {"branch2c_w": 0.3, "pred_w": 0.1}

_Folded = tuple["NDArray[np.float32]", "NDArray[np.float32]"]


def _folded(weights: Mapping[str, NDArray[Any]], epsilon: float) -> Iterator[_Folded]:
    """Yield weights and bias of each convolution with its normalisation, in the order they run.

    Each normalisation stands right behind its convolution in the dictionary.
    """
    values = [one for name, one in weights.items() if not name.endswith("num_batches_tracked")]
    for start in range(0, len(values) - 2, 5):
        kernel, gamma, beta, mean, variance = values[start : start + 5]
        factor = gamma / np.sqrt(variance + epsilon)
        scaled = kernel * factor.reshape(-1, 1, 1, 1)
        yield scaled.astype(np.float32), (beta - mean * factor).astype(np.float32)


class _Graph:
    """A network in the making."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def node(self, kind: str, inputs: list[str], **attributes: Any) -> str:  # noqa: ANN401 - ONNX's
        """Add an operator; gives its output."""
        name = f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """Add values."""
        if all(one.name != name for one in self._constants):
            array = np.ascontiguousarray(values, np.float32)
            self._constants.append(numpy_helper.from_array(array, name))
        return name

    def conv(
        self, x: str, folded: _Folded, *, pads: list[int], stride: int = 1, depthwise: bool = False
    ) -> str:
        """Add a convolution."""
        kernel, bias = folded
        wider, _, size, _ = kernel.shape
        number = len(self._nodes)
        inputs = [x, self.constant(f"w{number}", kernel), self.constant(f"b{number}", bias)]
        return self.node(
            "Conv",
            inputs,
            kernel_shape=[size, size],
            strides=[stride, stride],
            pads=pads,
            group=wider if depthwise else 1,
        )

    def clip(self, x: str) -> str:
        """Add ReLU6."""
        low, high = self.constant("low", np.asarray(0)), self.constant("high", np.asarray(6))
        return self.node("Clip", [x, low, high])

    def head(
        self,
        x: str,
        weights: NDArray[Any],
        bias: NDArray[Any],
        picture: tuple[int, int, int] = (3, SIDE, SIDE),
    ) -> onnx.ModelProto:
        """Add pooling and the classifier, and finish."""
        x = self.node("Flatten", [self.node("GlobalAveragePool", [x])])
        inputs = [x, self.constant("fc", weights), self.constant("bias", bias)]
        logits = self.node("Gemm", inputs, transB=1)
        graph = helper.make_graph(
            self._nodes,
            "network",
            [helper.make_tensor_value_info("image", 1, ["n", *picture])],
            [helper.make_tensor_value_info(logits, 1, ["n", len(bias)])],
            self._constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def _inverted_residuals(
    blocks: tuple[tuple[int, int, int, int, int], ...],
    weights: Mapping[str, NDArray[Any]],
    *,
    epsilon: float,
    same: bool = False,
    stem: tuple[int, int] = (32, 2),
    picture: tuple[int, int, int] = (3, SIDE, SIDE),
) -> onnx.ModelProto:
    """Put MobileNetV2 together, or a network of its kind.

    Parameters
    ----------
    same
        Pad as TensorFlow does: less at the top left than at the bottom right where strides are 2.
    stem
        Channels and stride of the first convolution.
    """
    graph, folded = _Graph(), _folded(weights, epsilon)

    def pads(size: int, stride: int) -> list[int]:
        whole = size - stride if same else size - 1  # every side is even where the stride is 2
        before = whole // 2 if same else size // 2
        after = whole - before if same else before
        return [before, before, after, after]

    x = graph.clip(graph.conv("image", next(folded), pads=pads(3, stem[1]), stride=stem[1]))
    channels = stem[0]
    for expansion, wider, repeats, first_stride, size in blocks:
        for number in range(repeats):
            stride, before = 1 if number else first_stride, x
            if expansion > 1:
                x = graph.clip(graph.conv(x, next(folded), pads=[0] * 4))
            x = graph.conv(x, next(folded), pads=pads(size, stride), stride=stride, depthwise=True)
            x = graph.conv(graph.clip(x), next(folded), pads=[0] * 4)
            if stride == 1 and channels == wider:
                x = graph.node("Add", [before, x])
            channels = wider
    x = graph.clip(graph.conv(x, next(folded), pads=[0] * 4))
    *_, last_weights, last_bias = weights.values()
    return graph.head(x, last_weights, last_bias, picture)


def mobilenet(weights: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    """Make MobileNetV2 with the weights of torchvision."""
    return _inverted_residuals(_MOBILENET, weights, epsilon=1e-5)


def efficientnet(weights: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    """Make EfficientNet-Lite0 with the weights of its Python package."""
    return _inverted_residuals(_EFFICIENTNET_LITE0, weights, epsilon=1e-3, same=True)


def depthwise(weights: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    """Make the small network that `_depthwise.py` trains."""
    stem, picture = (DEPTHWISE_STEM, 1), (1, 28, 28)
    return _inverted_residuals(DEPTHWISE, weights, epsilon=1e-5, stem=stem, picture=picture)


def resnet() -> onnx.ModelProto:
    """Make ResNet-50 with seeded random weights that keep activations of one size."""
    graph, seed = _Graph(), np.random.default_rng(0)

    def weights(wider: int, narrow: int, size: int, gain: float) -> _Folded:
        spread = gain * (2 / (narrow * size * size)) ** 0.5
        kernel = seed.normal(0, spread, (wider, narrow, size, size))
        return kernel.astype(np.float32), seed.normal(0, 0.1, wider).astype(np.float32)

    x = graph.conv("image", weights(64, 3, 7, 1.0), pads=[3] * 4, stride=2)
    x = graph.node("Relu", [x])
    x = graph.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = 64
    for inner, repeats, first_stride in _RESNET_50:
        for number in range(repeats):
            stride, before = 1 if number else first_stride, x
            x = graph.conv(x, weights(inner, channels, 1, 1.0), pads=[0] * 4)
            x = graph.node("Relu", [x])
            x = graph.conv(x, weights(inner, inner, 3, 1.0), pads=[1] * 4, stride=stride)
            x = graph.node("Relu", [x])
            x = graph.conv(x, weights(4 * inner, inner, 1, 0.4), pads=[0] * 4)
            if not number:  # a shortcut carries its input on at the same size
                shortcut = weights(4 * inner, channels, 1, 0.9)
                before = graph.conv(before, shortcut, pads=[0] * 4, stride=stride)
            x = graph.node("Relu", [graph.node("Add", [x, before])])
            channels = 4 * inner
    return graph.head(x, seed.normal(0, 0.03, (1000, channels)), np.zeros(1000))


def resnet_unfolded() -> onnx.ModelProto:
    """Give the weightless ResNet-50 of the onnx package weights; it keeps its normalisation."""
    light = Path(onnx.__file__).parent / "backend/test/data/light/light_resnet50.onnx"
    model = onnx.load(light)
    shapes = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    seed = np.random.default_rng(0)
    kept = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        shape = tuple(int(size) for size in shapes[node.input[0]])
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
        # the last of a branch adds little, and the classifier's softmax chooses no single class
        gain = next((one for word, one in _GAINS.items() if word in node.output[0]), 1.0)
        spread = gain * (2 / fan_in) ** 0.5
        values = seed.normal(0, spread, shape) if len(shape) > 1 else np.ones(shape)
        array = values.astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.ir_version = 8  # the first ones want every initializer among the inputs
    made = {one.name for one in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in made]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return model


TRAINED: Final[Mapping[str, Callable[[Mapping[str, NDArray[Any]]], onnx.ModelProto]]] = {
    "mobilenet": mobilenet,
    "efficientnet": efficientnet,
}
RANDOM: Final[Mapping[str, Callable[[], onnx.ModelProto]]] = {
    "resnet": resnet,
    "resnet-unfolded": resnet_unfolded,
}
