"""Networks of other frameworks in place of an ONNX file: recognised, and the way shown."""

from __future__ import annotations

import shlex
import struct
import zipfile
from typing import TYPE_CHECKING

import pytest

from edgecal.adapters.onnx_model import read_model
from edgecal.errors import ModelError
from tests.networks import conv_net, save

if TYPE_CHECKING:
    from pathlib import Path


def refused(path: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        read_model(path)
    assert caught.value.where == str(path)
    assert "\n" not in str(caught.value.what) + caught.value.remedy
    return caught.value


def field(number: int, data: bytes) -> bytes:
    """One field of a protocol buffer, shorter than 128 bytes."""
    return bytes([number << 3 | 2, len(data)]) + data


def node(name: str, op: str, *inputs: str) -> bytes:
    words = field(1, name.encode()) + field(2, op.encode())
    return field(1, words + b"".join(field(3, one.encode()) for one in inputs))


GRAPH = (
    node("image", "Placeholder")
    + node("w", "Const")
    + node("conv", "Conv2D", "image", "w")
    + node("split", "Split", "conv:1", "^w")
    + node("scores", "Softmax", "split:0")
    + node("done", "NoOp", "^scores")
)


class TestTensorFlow:
    def test_a_saved_model_is_shown_its_conversion(self, tmp_path: Path) -> None:
        folder = tmp_path / "my model"
        folder.mkdir()
        (folder / "saved_model.pb").write_bytes(b"\x08\x01\x12\x00")
        error = refused(folder)
        assert "SavedModel" in error.what
        words = shlex.split(error.remedy)
        assert words[words.index("--saved-model") + 1] == str(folder)
        assert words[words.index("--output") + 1] == "my model.onnx"
        inside = refused_as(folder / "saved_model.pb")
        assert shlex.split(inside.remedy)[-6:] == words[-6:]

    def test_a_frozen_graph_is_shown_with_its_own_inputs_and_outputs(self, tmp_path: Path) -> None:
        path = tmp_path / "frozen.pb"
        path.write_bytes(GRAPH)
        error = refused(path)
        words = shlex.split(error.remedy)
        assert words[words.index("--inputs") + 1] == "image:0"
        assert words[words.index("--outputs") + 1] == "scores:0"
        assert words[words.index("--graphdef") + 1] == str(path)

    @pytest.mark.parametrize("data", [b"", b"\xff\xfe not a graph", b"\x0a\x7f cut"])
    def test_a_pb_that_is_no_graph_is_called_corrupt(self, tmp_path: Path, data: bytes) -> None:
        path = tmp_path / "frozen.pb"
        path.write_bytes(data)
        assert "corrupt" in refused(path).what

    def test_a_graph_as_text_is_told_from_a_frozen_one(self, tmp_path: Path) -> None:
        path = tmp_path / "graph.pbtxt"
        path.write_text('node { name: "x" op: "Placeholder" }\n')
        assert "as text" in refused(path).what

    def test_tensorflow_lite_is_known_whatever_its_name(self, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        path.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(100))
        assert f"--tflite {path}" in refused(path).remedy

    @pytest.mark.parametrize(
        ("name", "data"),
        [("net.h5", b"\x89HDF\r\n\x1a\n" + bytes(90)), ("net.keras", b"PK\x03\x04" + bytes(90))],
    )
    def test_keras_files_are_shown_their_conversion(
        self, tmp_path: Path, name: str, data: bytes
    ) -> None:
        path = tmp_path / name
        path.write_bytes(data)
        assert f"--keras {path} --output {tmp_path / 'net.onnx'}" in refused(path).remedy


def refused_as(path: Path) -> ModelError:
    """A file that speaks for the folder that it lies in."""
    with pytest.raises(ModelError) as caught:
        read_model(path)
    assert caught.value.where == str(path.parent)
    return caught.value


class TestPyTorch:
    @pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.bin"])
    def test_zipped_and_pickled_files_are_told_to_be_exported(
        self, tmp_path: Path, name: str
    ) -> None:
        path = tmp_path / name
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
        assert "torch.onnx.export" in refused(path).remedy
        path.write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
        assert "PyTorch" in refused(path).what


class TestTensorRT:
    @pytest.mark.parametrize(
        ("name", "data"),
        [
            ("net.onnx", b"ptrt" + bytes(40)),
            ("net.bin", b"ftrt" + bytes(40)),
            ("net.engine", b"anything"),
            ("net.plan", b""),
            ("yolo.bin", struct.pack("<I", 13) + b'{"imgsz": 64}' + b"ptrt" + bytes(40)),
            ("long.bin", struct.pack("<I", 9000) + b"{" + bytes(8999) + b"ptrt" + bytes(40)),
        ],
    )
    def test_an_engine_is_never_called_a_corrupt_network(
        self, tmp_path: Path, name: str, data: bytes
    ) -> None:
        path = tmp_path / name
        path.write_bytes(data)
        error = refused(path)
        assert "engine of TensorRT" in error.what
        assert "ONNX file that it was built from" in error.remedy


def test_notes_ahead_of_something_else_are_no_engine(tmp_path: Path) -> None:
    path = tmp_path / "odd.bin"
    path.write_bytes(struct.pack("<I", 13) + b'{"imgsz": 64}' + bytes(44))
    assert "corrupt" in refused(path).what


class TestCaffe:
    @pytest.mark.parametrize("name", ["net.caffemodel", "net.prototxt"])
    def test_caffe_is_told_the_honest_state(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        path.write_bytes(b'name: "net"\n')
        assert "no converter" in refused(path).remedy


def test_a_bundle_in_place_of_a_network_is_told_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "model.onnx").write_bytes(b"")
    assert "--from" in refused(tmp_path).remedy


@pytest.mark.parametrize("name", ["net.pb", "net.pt", "net.engine", "net.caffemodel", "net"])
def test_an_onnx_file_is_one_whatever_its_name(tmp_path: Path, name: str) -> None:
    assert read_model(save(conv_net(), tmp_path / name)).graph.inputs[0].name == "image"
