"""Small networks of the kinds people quantize, with random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from onnx import helper

from edgecal.adapters.ort_backend import OrtBackend
from edgecal.core.quant import STEPS
from edgecal.core.tensors import activations
from tests.networks import floats, network, rng, tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    from edgecal.adapters.onnx_model import OnnxModel

Setting = int | str | list[int]

OUTPUTS: Final = {"Split": 2}


class Net:
    """A network in the making: each call adds a node and gives the name of its result."""

    def __init__(self, **inputs: tuple[int, ...]) -> None:
        self._inputs = inputs
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, npt.NDArray[Any]] = {}

    def add(self, op_type: str, *inputs: str, **attributes: Setting) -> str:
        """Add a node; one of several outputs is told by its number after the name."""
        outputs = OUTPUTS.get(op_type, 1)
        name = f"{op_type.lower()}{len(self.nodes)}"
        results = [name, *(f"{name}_{index}" for index in range(1, outputs))]
        node = helper.make_node(op_type, list(inputs), results, f"{name}_node")
        node.attribute.extend(helper.make_attribute(*one) for one in attributes.items())
        self.nodes.append(node)
        return name

    def constant(self, value: npt.ArrayLike) -> str:
        """Add an initializer."""
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def weight(self, *shape: int) -> str:
        """Add a weight, of a size that keeps activations near 1."""
        fan = max(1, int(np.prod(shape)) // max(shape))
        return self.constant(floats(*shape, seed=len(self.constants)) / np.float32(fan**0.5))

    def conv(self, x: str, channels: tuple[int, int], size: int = 3, **attributes: Setting) -> str:
        """Add a Conv with a bias that keeps the picture's size."""
        inputs, outputs = channels
        group = attributes.get("group", 1)
        assert isinstance(group, int)
        weight = self.weight(outputs, inputs // group, size, size)
        pads = [size // 2] * 4
        return self.add("Conv", x, weight, self.weight(outputs), pads=pads, **attributes)

    def norm(self, x: str, channels: int) -> str:
        """Add a BatchNormalization."""
        spread = self.constant(rng(1).uniform(0.5, 2, channels).astype(np.float32))
        shift, mean = self.weight(channels), self.weight(channels)
        return self.add("BatchNormalization", x, spread, shift, mean, spread)

    def silu(self, x: str) -> str:
        """Add x times sigmoid(x)."""
        return self.add("Mul", x, self.add("Sigmoid", x))

    def model(self, *outputs: str, opset: int = 17) -> onnx.ModelProto:
        """Put it together."""
        made = network(
            self.nodes,
            [tensor(name, shape) for name, shape in self._inputs.items()],
            [tensor(name, None) for name in outputs],
            self.constants,
            opset=opset,
            ir=8,
        )
        return onnx.shape_inference.infer_shapes(made)


def resnet() -> onnx.ModelProto:
    """Two residual blocks, one with a projection."""
    net = Net(image=(1, 3, 32, 32))
    x = net.add("Relu", net.norm(net.conv("image", (3, 16)), 16))
    x = net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    y = net.add("Relu", net.norm(net.conv(x, (16, 16)), 16))
    y = net.norm(net.conv(y, (16, 16)), 16)
    x = net.add("Relu", net.add("Add", y, x))
    y = net.add("Relu", net.norm(net.conv(x, (16, 32), strides=[2, 2]), 32))
    y = net.norm(net.conv(y, (32, 32)), 32)
    short = net.norm(net.conv(x, (16, 32), 1, strides=[2, 2]), 32)
    x = net.add("Relu", net.add("Add", y, short))
    x = net.add("Flatten", net.add("GlobalAveragePool", x))
    return net.model(net.add("Gemm", x, net.weight(10, 32), net.weight(10), transB=1))


def mobilenet() -> onnx.ModelProto:
    """Inverted residuals with Clip, depthwise Convs and a hard swish."""
    net = Net(image=(1, 3, 32, 32))

    def relu6(x: str) -> str:
        zero, six = net.constant(np.float32(0)), net.constant(np.float32(6))
        return net.add("Clip", x, zero, six)

    x = relu6(net.norm(net.conv("image", (3, 16), strides=[2, 2]), 16))
    for _ in range(2):
        y = relu6(net.norm(net.conv(x, (16, 32), 1), 32))
        y = relu6(net.norm(net.conv(y, (32, 32), group=32), 32))
        x = net.add("Add", x, net.norm(net.conv(y, (32, 16), 1), 16))
    x = net.add("HardSwish", net.conv(x, (16, 16), group=4))
    x = net.add("ReduceMean", x, axes=[2, 3], keepdims=0)
    return net.model(net.add("MatMul", x, net.weight(16, 10)))


def yolo() -> onnx.ModelProto:
    """SiLU, a split block, pyramid pooling, an upsampling neck, and a head that joins its parts."""
    net = Net(images=(1, 3, 32, 32))
    x = net.silu(net.conv("images", (3, 16), strides=[2, 2]))
    y = net.silu(net.conv(x, (16, 16), 1))
    halves = net.constant(np.asarray([8, 8], np.int64))
    left = net.add("Split", y, halves, axis=1)
    right = f"{left}_1"
    z = net.silu(net.conv(net.silu(net.conv(right, (8, 8))), (8, 8)))
    z = net.add("Add", right, z)
    early = net.silu(net.conv(net.add("Concat", left, right, z, axis=1), (24, 16), 1))
    x = net.silu(net.conv(early, (16, 16), strides=[2, 2]))
    pools = [x]
    for _ in range(2):
        pools.append(net.add("MaxPool", pools[-1], kernel_shape=[5, 5], pads=[2] * 4))
    x = net.silu(net.conv(net.add("Concat", *pools, axis=1), (48, 16), 1))
    twice = net.constant(np.asarray([1, 1, 2, 2], np.float32))
    up = net.add("Resize", x, "", twice, mode="nearest")
    x = net.silu(net.conv(net.add("Concat", up, early, axis=1), (32, 16)))
    boxes = net.conv(x, (16, 4), 1)
    scores = net.add("Sigmoid", net.conv(x, (16, 8), 1))
    hundred = net.constant(np.float32(100))
    joined = net.add("Concat", net.add("Mul", boxes, hundred), scores, axis=1)
    flat = net.constant(np.asarray([1, 12, -1], np.int64))
    return net.model(net.add("Reshape", joined, flat))


def transformer() -> onnx.ModelProto:
    """One encoder block on 16 tokens of width 32, two heads, GELU spelled out."""
    net = Net(tokens=(1, 16, 32))
    ones, zeros = np.ones(32, np.float32), np.zeros(32, np.float32)

    def normal(x: str) -> str:
        return net.add("LayerNormalization", x, net.constant(ones), net.constant(zeros), axis=-1)

    def linear(x: str, inputs: int, outputs: int) -> str:
        return net.add(
            "Add", net.add("MatMul", x, net.weight(inputs, outputs)), net.weight(outputs)
        )

    def heads(x: str, order: list[int]) -> str:
        shape = net.constant(np.asarray([1, 16, 2, 16], np.int64))
        return net.add("Transpose", net.add("Reshape", x, shape), perm=order)

    x = normal("tokens")
    query, value = heads(linear(x, 32, 32), [0, 2, 1, 3]), heads(linear(x, 32, 32), [0, 2, 1, 3])
    key = heads(linear(x, 32, 32), [0, 2, 3, 1])
    scores = net.add("Mul", net.add("MatMul", query, key), net.constant(np.float32(0.25)))
    mixed = net.add("MatMul", net.add("Softmax", scores, axis=-1), value)
    shape = net.constant(np.asarray([1, 16, 32], np.int64))
    mixed = net.add("Reshape", net.add("Transpose", mixed, perm=[0, 2, 1, 3]), shape)
    x = net.add("Add", "tokens", linear(mixed, 32, 32))
    wide = linear(normal(x), 32, 64)
    root = net.constant(np.float32(2**0.5))
    erf = net.add("Erf", net.add("Div", wide, root))
    half = net.add("Mul", wide, net.add("Add", erf, net.constant(np.float32(1))))
    gelu = net.add("Mul", half, net.constant(np.float32(0.5)))
    x = net.add("Add", x, linear(gelu, 64, 32))
    # a tied weight, as exporters spell it: read through a Transpose
    tied = net.add("Transpose", net.weight(24, 32), perm=[1, 0])
    return net.model(net.add("MatMul", normal(x), tied))


def unet() -> onnx.ModelProto:
    """Down, up by ConvTranspose, and joined again."""
    net = Net(image=(1, 3, 32, 32))
    fine = net.add("Relu", net.conv("image", (3, 16)))
    x = net.add("AveragePool", fine, kernel_shape=[2, 2], strides=[2, 2])
    x = net.add("LeakyRelu", net.conv(x, (16, 32)))
    x = net.add("ConvTranspose", x, net.weight(32, 16, 2, 2), strides=[2, 2])
    x = net.add("Relu", net.conv(net.add("Concat", x, fine, axis=1), (32, 16)))
    return net.model(net.add("Softmax", net.conv(x, (16, 4), 1), axis=1))


def sound() -> onnx.ModelProto:
    """Convs of one dimension, and a recurrent layer, which has no INT8 form."""
    net = Net(wave=(1, 8, 64))
    x = net.add("Conv", "wave", net.weight(16, 8, 5), pads=[2, 2])
    x = net.add("Relu", net.add("Conv", x, net.weight(16, 8, 3), group=2, pads=[1, 1]))
    x = net.add("MaxPool", x, kernel_shape=[2], strides=[2])
    x = net.add("Transpose", x, perm=[2, 0, 1])
    x = net.add("LSTM", x, net.weight(1, 32, 16), net.weight(1, 32, 8), hidden_size=8)
    x = net.add("Squeeze", x, net.constant(np.asarray([1], np.int64)))
    return net.model(net.add("MatMul", x, net.weight(8, 4)))


NETS: Final[Mapping[str, Callable[[], onnx.ModelProto]]] = {
    one.__name__: one for one in (resnet, mobilenet, yolo, transformer, unet, sound)
}


def feeds_of(model: onnx.ModelProto, seed: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    """Make normal numbers for every input."""
    constants = {one.name for one in model.graph.initializer}
    return {
        one.name: floats(*(size.dim_value for size in one.type.tensor_type.shape.dim), seed=seed)
        for one in model.graph.input
        if one.name not in constants
    }


def scales_of(model: OnnxModel, feeds: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, float]:
    """Calibrate on one sample: the largest value of every tensor is 127 steps."""
    names = activations(model.graph)
    values = {**feeds, **OrtBackend(model).expose(names).run(feeds)}
    return {name: float(np.abs(values[name]).max()) / STEPS for name in names}
