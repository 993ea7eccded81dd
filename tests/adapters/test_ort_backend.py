"""ONNX Runtime as a backend: exposing tensors changes nothing, and its errors are ours."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
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
