"""Tensors left in the order of ONNX Runtime's convolutions: other places, the same values."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgecal.adapters.onnx_model import read_model
from edgecal.adapters.ort_backend import OrtBackend
from edgecal.adapters.ort_blocks import leave_in_blocks
from edgecal.core.tensors import activations
from edgecal.errors import ModelError
from tests.networks import conv_net, floats, network, save, tensor

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

BLOCKS = "com.microsoft.nchwc"


def optimised(*nodes: onnx.NodeProto, outputs: str) -> onnx.ModelProto:
    """Make what ONNX Runtime might write."""
    given = [tensor(name, None) for name in outputs.split()]
    return helper.make_model(helper.make_graph(nodes, "g", [tensor("x", None)], given))


def ordered(blocks: str, name: str, *, channels: int = 32, last: int = 0) -> onnx.NodeProto:
    return helper.make_node(
        "ReorderOutput", [blocks], [name], domain=BLOCKS, channels=channels, channels_last=last
    )


def blocked(name: str, blocks: str, *, last: int = 0) -> onnx.NodeProto:
    return helper.make_node("ReorderInput", [name], [blocks], domain=BLOCKS, channels_last=last)


def conv(blocks: str, out: str) -> onnx.NodeProto:
    return helper.make_node("Conv", [blocks, "w"], [out], domain=BLOCKS)


def shape_of(proto: onnx.ModelProto) -> list[tuple[str, str, str]]:
    return [(node.op_type, node.input[0], node.output[0]) for node in proto.graph.node]


def test_nothing_is_put_in_order_between_convolutions_and_for_who_looks() -> None:
    proto = optimised(
        conv("x", "t0"),
        ordered("t0", "conv"),
        helper.make_node("Clip", ["conv", "low", "high"], ["clip"]),
        blocked("clip", "t1"),
        conv("t1", "t2"),
        ordered("t2", "y"),
        outputs="y conv clip",
    )
    assert leave_in_blocks(proto, {"y"}) == {"t0": "conv", "clip/blocks": "clip"}
    assert shape_of(proto) == [
        ("Conv", "x", "t0"),
        ("Clip", "t0", "clip/blocks"),
        ("Conv", "clip/blocks", "t2"),
        ("ReorderOutput", "t2", "y"),
    ]
    assert [output.name for output in proto.graph.output] == ["y", "t0", "clip/blocks"]


def test_what_others_read_in_order_is_still_put_in_order() -> None:
    proto = optimised(
        conv("x", "t0"),
        ordered("t0", "conv"),
        helper.make_node("Clip", ["conv"], ["clip"]),
        helper.make_node("Softmax", ["clip"], ["y"]),
        helper.make_node("Erf", ["conv"], ["z"]),
        outputs="y z conv",
    )
    assert leave_in_blocks(proto, {"y", "z"}) == {"t0": "conv"}
    assert ("ReorderOutput", "clip/blocks", "clip") in shape_of(proto)
    assert ("ReorderOutput", "t0", "conv") in shape_of(proto)


@pytest.mark.parametrize(
    "how", [{"channels": 24}, {"channels": 8}, {"last": 1}], ids=["24", "8", "channels last"]
)
def test_padding_and_other_orders_are_left_alone(how: dict[str, int]) -> None:
    proto = optimised(
        conv("x", "t0"),
        ordered("t0", "conv", **how),
        helper.make_node("Clip", ["conv"], ["clip"]),
        blocked("clip", "t1"),
        conv("t1", "y"),
        outputs="y conv",
    )
    before = shape_of(proto)
    assert leave_in_blocks(proto, {"y"}) == {}
    assert shape_of(proto) == before


def clip_net(*, half: bool = False) -> onnx.ModelProto:
    """Convolutions of 32, 24 and 48 channels, with what may stand between them."""
    kind = np.float16 if half else np.float32
    nodes = [
        helper.make_node("Conv", ["image", "w0"], ["c0"], "conv0", pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["c0", "low", "high"], ["r0"], "clip0"),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], "conv1"),
        helper.make_node("Clip", ["c1", "low", "high"], ["r1"], "clip1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "conv2", pads=[1, 1, 1, 1], group=2),
        helper.make_node("LeakyRelu", ["c2"], ["r2"], "leaky2", alpha=0.1),
        helper.make_node("Conv", ["r2", "w3"], ["c3"], "conv3"),
        helper.make_node("Add", ["c3", "c2"], ["sum"], "add"),
        helper.make_node("Clip", ["sum", "low", "high"], ["seen"], "clip3"),
        helper.make_node("Transpose", ["seen"], ["turned"], "turn", perm=[0, 2, 3, 1]),
        helper.make_node("Conv", ["seen", "w4"], ["y"], "conv4"),
    ]
    constants = {
        "w0": floats(32, 3, 3, 3, seed=1),
        "w1": floats(24, 32, 1, 1, seed=2),
        "w2": floats(48, 12, 3, 3, seed=3),
        "w3": floats(48, 48, 1, 1, seed=4),
        "w4": floats(16, 48, 1, 1, seed=5),
        "low": np.asarray(0),
        "high": np.asarray(0.7),
    }
    element = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    return network(
        nodes,
        [tensor("image", ["n", 3, 9, 7], element)],
        [tensor("y", None, element), tensor("turned", None, element), tensor("c0", None, element)],
        {name: value.astype(kind) for name, value in constants.items()},
    )


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_every_sample_has_the_same_values_and_outputs_their_places(
    tmp_path: Path, count: int, *, half: bool
) -> None:
    backend = OrtBackend(read_model(save(clip_net(half=half), tmp_path / "net.onnx")))
    names = activations(backend.graph)
    feeds = {"image": floats(count, 3, 9, 7).astype(np.float16 if half else np.float32)}
    want = backend.expose(names).run(feeds)
    have = backend.expose(names, any_order=True).run(feeds)
    assert set(have) == set(want)
    for name, values in want.items():
        assert have[name].shape == values.shape
        assert have[name].dtype == values.dtype
        assert np.array_equal(by_sample(have[name]), by_sample(values))
    for output in ("y", "turned", "c0"):
        assert np.array_equal(have[output], want[output])


def by_sample(values: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[Any]]:
    return np.sort(values.reshape(len(values), -1), axis=1)


def test_without_a_place_for_the_optimised_network_all_stay_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = OrtBackend(read_model(save(clip_net(), tmp_path / "net.onnx")))
    names = activations(backend.graph)
    feeds = {"image": floats(2, 3, 9, 7)}
    want = backend.expose(names).run(feeds)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    have = backend.expose(names, any_order=True).run(feeds)
    assert all(np.array_equal(have[name], want[name]) for name in want)


def test_a_network_that_cannot_be_loaded_is_told_as_ever(tmp_path: Path) -> None:
    proto = conv_net()
    proto.graph.node[0].attribute[0].ints[:] = [1, 1, 1]  # pads of what is no picture
    backend = OrtBackend(read_model(save(proto, tmp_path / "net.onnx")))
    with pytest.raises(ModelError) as caught:
        backend.expose(("conv",), any_order=True).run({"image": floats(1, 3, 8, 8)})
    assert caught.value.where == str(tmp_path / "net.onnx")
