"""ONNX Runtime as a backend: exposing tensors changes nothing, and its errors are ours."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime  # noqa: TID253 - the test runs what the adapter only writes
import pytest
from onnx import helper

from edgecal.adapters.onnx_model import read_model
from edgecal.adapters.ort_backend import OrtBackend, load_network
from edgecal.core.tensors import activations
from edgecal.errors import ModelError
from tests.networks import conv_net, floats, network, save, tensor, token_net, vector_net

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from edgecal.adapters.ort_backend import OrtNetwork


def backend(proto: onnx.ModelProto, folder: Path) -> OrtBackend:
    return OrtBackend(read_model(save(proto, folder / "net.onnx")))


def test_every_float_tensor_can_be_seen_and_no_value_changes_by_it(tmp_path: Path) -> None:
    made = backend(conv_net(), tmp_path)
    names = activations(made.graph)
    feeds = {"image": floats(4, 3, 8, 8)}
    seen = made.expose(names).run(feeds)
    assert set(seen) == {"conv", "relu", "pool", "flat", "scores"}  # an input is known already
    plain = load_network(tmp_path / "net.onnx").run(feeds)
    assert list(plain) == ["scores"]
    assert np.allclose(seen["scores"], plain["scores"], rtol=1e-5, atol=1e-6)
    assert np.array_equal(seen["relu"], np.maximum(np.asarray(seen["conv"], np.float32), 0))
    assert np.allclose(
        np.asarray(seen["relu"], np.float32).mean(axis=(2, 3), keepdims=True),
        seen["pool"],
        atol=1e-6,
    )
    assert np.array_equal(np.asarray(seen["pool"]).reshape(4, 4), seen["flat"])


def test_the_network_s_own_outputs_come_first_and_once(tmp_path: Path) -> None:
    made = backend(token_net(), tmp_path)
    seen = made.expose(("mm", "embedded")).run({"ids": np.zeros((2, 6), np.int64)})
    assert list(seen) == ["best", "mm", "embedded"]


def test_an_input_that_is_an_output_is_passed_through(tmp_path: Path) -> None:
    proto = network(
        [helper.make_node("Relu", ["x"], ["y"])],
        [tensor("x", ["n", 4])],
        [tensor("y", ["n", 4]), tensor("x", ["n", 4])],
    )
    x = floats(2, 4)
    assert np.array_equal(backend(proto, tmp_path).expose(("x", "y")).run({"x": x})["x"], x)


@pytest.mark.parametrize(
    ("feeds", "word"),
    [
        ({"x": floats(2, 7)}, "invalid dimensions"),
        ({"x": floats(2, 4).astype(np.float64)}, "double"),
        ({"x": floats(4)}, "Invalid rank"),
        ({"other": floats(2, 4)}, "'x'"),
        ({}, "'x'"),
    ],
)
def test_what_onnxruntime_says_of_a_run_is_one_line_of_ours_and_not_on_stderr(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    feeds: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]],
    word: str,
) -> None:
    with pytest.raises(ModelError) as caught:
        backend(vector_net(), tmp_path).expose(()).run(feeds)
    assert word in caught.value.what
    assert "\n" not in caught.value.what
    assert "onnxruntime_src" not in caught.value.what
    assert caught.value.where == str(tmp_path / "net.onnx")
    assert capfd.readouterr() == ("", "")


def test_a_picture_of_a_size_that_fits_nowhere_is_shown_the_option_to_type(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MaxPool", ["image"], ["half"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Resize", ["half", "", "twice"], ["whole"]),
        helper.make_node("Add", ["image", "whole"], ["y"]),
    ]
    shape: list[int | str | None] = ["n", 3, "h", "w"]
    twice = {"twice": np.array([1, 1, 2, 2], np.float32)}
    net = network(nodes, [tensor("image", shape)], [tensor("y", shape)], twice)
    ready = backend(net, tmp_path).expose(())
    with pytest.raises(ModelError) as caught:
        ready.run({"image": floats(1, 3, 301, 9)})
    assert "was given 1x3x301x9" in caught.value.remedy
    assert caught.value.remedy.endswith("--shape image=1x3x288x32")
    assert ".h:" not in caught.value.what
    assert ready.run({"image": floats(1, 3, 288, 32)})["y"].shape == (1, 3, 288, 32)


def test_an_operator_that_fails_names_itself_and_is_not_on_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ids = np.full((1, 6), 99)
    with pytest.raises(ModelError, match=r"Gather node.*Name:'embed'.*idx=99"):
        backend(token_net(), tmp_path).expose(()).run({"ids": ids})
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("content", [b"", b"not a network", None])
def test_an_engine_that_cannot_be_loaded_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.int8.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        load_network(path)
    assert caught.value.where == str(path)
    assert "\n" not in caught.value.what


def test_a_network_may_be_run_by_several_threads_with_the_same_bits(tmp_path: Path) -> None:
    made = backend(conv_net(), tmp_path)
    running = made.expose(activations(made.graph))
    batches = [floats(2, 3, 8, 8, seed=number) for number in range(40)]
    one_by_one = [running.run({"image": batch}) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda batch: running.run({"image": batch}), batches))
    for left, right in zip(one_by_one, together, strict=True):
        assert all(np.array_equal(left[name], right[name]) for name in left)


class TestASimulation:
    """Of a network whose own tensors have the names that inputs for scales would have."""

    def proto(self) -> onnx.ModelProto:
        nodes = [
            helper.make_node("MatMul", ["x", "v"], ["x_scale"]),
            helper.make_node("Relu", ["x_scale"], ["h"]),
            helper.make_node("MatMul", ["h", "w"], ["y"]),
        ]
        weights = {"v": floats(4, 4), "w": floats(4, 4)}
        return network(nodes, [tensor("x", ["n", 4])], [tensor("y", ["n", 4])], weights)

    def test_is_loaded_once_for_all_scales_of_the_same_tensors(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loaded = []
        load = OrtBackend._load

        def counted(self: OrtBackend, model: bytes, *settings: dict[str, str]) -> OrtNetwork:
            loaded.append(len(model))
            return load(self, model, *settings)

        monkeypatch.setattr(OrtBackend, "_load", counted)
        made = backend(self.proto(), tmp_path)
        for scale in (0.01, 0.02, 0.04):
            made.simulate({"x": scale, "h": scale})
        assert len(loaded) == 1
        made.simulate({"x": 0.01})
        made.simulate({"x": 0.01, "h": 0.0})  # which is none that can be used
        assert len(loaded) == 2
        made.simulate({"x": 0.01, "h": 0.02})
        assert len(loaded) == 3

    def test_keeps_its_scales_whatever_else_is_simulated(self, tmp_path: Path) -> None:
        made = backend(self.proto(), tmp_path)
        feeds = {"x": floats(3, 4)}
        scales = [{"x": scale, "h": 3 * scale} for scale in (0.01, 0.05, 0.2)]
        networks = [made.simulate(one) for one in scales]
        networks.append(made.simulate({"x": 0.1}))
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda one: one.run(feeds)["y"], networks * 4))
        for number, one in enumerate((*scales, {"x": 0.1})):
            alone = backend(self.proto(), tmp_path).simulate(one).run(feeds)["y"]
            assert all(np.array_equal(alone, other) for other in found[number::4])
        assert not np.array_equal(found[0], found[2])

    def test_gives_the_bits_of_the_network_that_carries_its_scales(self, tmp_path: Path) -> None:
        made = backend(self.proto(), tmp_path)
        scales, feeds = {"x": 0.03, "h": 0.07}, {"x": floats(3, 4)}
        (tmp_path / "int8.onnx").write_bytes(made.quantize(scales, fp16=False)[0])
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        session = onnxruntime.InferenceSession(
            tmp_path / "int8.onnx", options, providers=["CPUExecutionProvider"]
        )
        assert list(made.simulate(scales).run(feeds)) == ["y"]
        assert np.array_equal(made.simulate(scales).run(feeds)["y"], session.run(None, feeds)[0])
