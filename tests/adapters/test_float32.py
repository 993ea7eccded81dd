"""Float16 networks run in float32, under the names and with the types that they came with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime  # noqa: TID253 - judges what was written
import pytest
from onnx import TensorProto, helper

from edgecal.adapters.float32 import in_float32
from edgecal.adapters.onnx_model import read_model
from edgecal.adapters.ort_backend import OrtBackend
from edgecal.adapters.qdq import write_qdq
from edgecal.core.quant import sqnr
from edgecal.core.tensors import activations
from tests.networks import conv_net, floats, half_net, network, save, tensor

if TYPE_CHECKING:
    from pathlib import Path

    from edgecal.adapters.onnx_model import OnnxModel

IMAGE = floats(2, 3, 8, 8)
HALF = IMAGE.astype(np.float16)


def read(proto: onnx.ModelProto, folder: Path) -> OnnxModel:
    return read_model(save(proto, folder / "net.onnx"))


def test_a_float32_network_is_itself(tmp_path: Path) -> None:
    model = read(conv_net(), tmp_path)
    assert in_float32(model) is model


def test_the_network_as_given_is_not_touched(tmp_path: Path) -> None:
    model = read(half_net(), tmp_path)
    before = model.proto.SerializeToString()
    OrtBackend(model).simulate({"image": 0.1})
    assert model.proto.SerializeToString() == before
    assert {one.dtype for one in model.record().inputs} == {"float16"}


@pytest.mark.parametrize("edges", [True, False])
def test_tensors_are_those_of_the_file_and_hold_float32(tmp_path: Path, *, edges: bool) -> None:
    backend = OrtBackend(read(half_net(edges=edges), tmp_path))
    names = activations(backend.graph)
    assert {"image", "conv", "relu", "pool", "flat", "scores"} <= set(names)
    seen = backend.expose(names).run({"image": HALF if edges else IMAGE})
    inner = {name: value.dtype for name, value in seen.items() if name not in {"scores", "image"}}
    assert set(inner.values()) == {np.dtype(np.float32)}
    assert seen["scores"].dtype == (np.float16 if edges else np.float32)
    plain = OrtBackend(read(conv_net(), tmp_path)).expose(("conv",)).run({"image": IMAGE})
    assert np.allclose(seen["conv"], plain["conv"], atol=2e-2)
    assert np.allclose(seen["scores"], plain["scores"], atol=2e-2)


@pytest.mark.parametrize("edges", [True, False])
def test_the_simulation_quantizes_it_and_keeps_its_types(tmp_path: Path, *, edges: bool) -> None:
    backend = OrtBackend(read(half_net(edges=edges), tmp_path))
    feeds = {"image": HALF if edges else IMAGE}
    exact = backend.expose(()).run(feeds)["scores"]
    scales = dict.fromkeys(activations(backend.graph), 0.15)
    close = backend.simulate(scales).run(feeds)["scores"]
    coarse = backend.simulate(dict.fromkeys(scales, 30.0)).run(feeds)["scores"]
    assert close.dtype == coarse.dtype == exact.dtype
    assert 10 < sqnr(exact, close).decibel < 100
    assert sqnr(exact, coarse).decibel < 10


@pytest.mark.parametrize("fp16", [False, True])
@pytest.mark.parametrize("edges", [True, False])
def test_a_written_network_has_the_edges_of_the_given_one(
    tmp_path: Path, *, edges: bool, fp16: bool
) -> None:
    model = read(half_net(edges=edges), tmp_path)
    scales = dict.fromkeys(activations(model.graph), 0.02)
    data, placed = write_qdq(model, scales, fp16=fp16)
    onnx.checker.check_model(data, full_check=True)
    assert {one.tensor for one in placed.activations} & {"image", "image_half"}
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    kind = "tensor(float16)" if edges else "tensor(float)"
    assert [one.type for one in (*session.get_inputs(), *session.get_outputs())] == [kind] * 2
    feeds = {"image": HALF if edges else IMAGE}
    simulated = OrtBackend(model).simulate(scales).run(feeds)["scores"]
    assert np.allclose(session.run(None, feeds)[0], simulated, atol=0.02)


def test_weights_that_are_kept_in_float16_and_cast_are_quantized_as_weights(tmp_path: Path) -> None:
    proto = network(
        [
            helper.make_node("Cast", ["w"], ["w_single"], to=TensorProto.FLOAT),
            helper.make_node("Conv", ["x", "w_single"], ["y"], "conv1"),
        ],
        [tensor("x", ["n", 3, 8, 8])],
        [tensor("y", ["n", 4, 6, 6])],
        {"w": floats(4, 3, 3, 3).astype(np.float16)},
    )
    model = read(proto, tmp_path)
    _, placed = write_qdq(model, {"x": 0.05})
    assert [one.constant for one in placed.weights] == ["w"]


def test_an_input_that_is_an_output_too_stays_float16(tmp_path: Path) -> None:
    half = TensorProto.FLOAT16
    proto = network(
        [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Add", ["y", "y"], ["z"])],
        [tensor("x", ["n", 4], half)],
        [tensor(name, ["n", 4], half) for name in ("y", "x", "z")],
    )
    model = read(proto, tmp_path)
    x = floats(2, 4).astype(np.float16)
    seen = OrtBackend(model).expose(("x", "y", "z")).run({"x": x})
    assert {value.dtype for value in seen.values()} == {np.dtype(np.float16)}
    data, _ = write_qdq(model, {})
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    again = dict(zip(("y", "x", "z"), session.run(None, {"x": x}), strict=True))
    assert all(np.array_equal(seen[name], again[name]) for name in again)


def test_what_float16_cannot_hold_is_infinite_at_an_output_and_finite_inside(
    tmp_path: Path,
) -> None:
    half = TensorProto.FLOAT16
    proto = network(
        [helper.make_node("Mul", ["x", "c"], ["m"]), helper.make_node("Identity", ["m"], ["y"])],
        [tensor("x", ["n", 4], half)],
        [tensor("y", ["n", 4], half)],
        {"c": np.asarray(60000, np.float16)},
    )
    seen = OrtBackend(read(proto, tmp_path)).expose(("m",)).run({"x": np.full((1, 4), 2, "f2")})
    assert seen["m"].tolist() == [[120000.0] * 4]
    assert np.isinf(seen["y"]).all()


def test_a_function_typed_float16_is_widened_with_the_rest(tmp_path: Path) -> None:
    half = TensorProto.FLOAT16
    proto = network(
        [helper.make_node("Halve", ["x"], ["h"], domain="own"), helper.make_node("Relu", "h", "y")],
        [tensor("x", ["n", 4])],
        [tensor("y", ["n", 4], half)],
        domains={"own": 1},
    )
    body = [helper.make_node("Cast", ["a"], ["b"], to=half)]
    proto.functions.append(
        helper.make_function("own", "Halve", ["a"], ["b"], body, proto.opset_import)
    )
    x = floats(2, 4)
    seen = OrtBackend(read(proto, tmp_path)).expose(("h",)).run({"x": x})
    assert np.array_equal(seen["h"], x)
    assert seen["y"].dtype == np.float16
