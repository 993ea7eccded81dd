"""Networks of other frameworks, given where an ONNX file is wanted, and how each becomes one."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError

from edgecal.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_HEAD: Final = 4096
_LONGEST_NOTES: Final = 1 << 20
_MOST_NAMED: Final = 8
_ONNX: Final = b"\x08"
"""The version of the format comes first; what else begins so is told by more than its name."""
_HDF5: Final = b"\x89HDF\r\n\x1a\n"
_ZIP: Final = b"PK\x03\x04"
_PICKLE: Final = b"\x80\x02"
_ENGINES: Final = (b"ptrt", b"ftrt")
"""First bytes of what TensorRT serializes."""
_TF2ONNX: Final = "pip install 'edgecal[tensorflow]'; python -m tf2onnx.convert"
_OPSET: Final = "--opset 17"


def refuse_other_network(path: Path) -> None:
    """Find out by its first bytes, its content or its name what this is, if it is no ONNX file.

    Raises
    ------
    ModelError
        If it is a network of another format; the remedy is the way that works today.
    OSError
        If it cannot be read.
    """
    if path.is_dir():
        _refuse_folder(path)
    if not path.is_file():  # a pipe can be read once only
        return
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
    suffix = path.suffix.lower()
    known = head.startswith(_ONNX)
    if path.name in {"saved_model.pb", "saved_model.pbtxt"}:
        _refuse_folder(path.parent)
    if _is_engine(head) or (suffix in {".engine", ".plan", ".trt"} and not known):
        raise _refusal(
            path,
            "this is an engine of TensorRT, which holds no network that could be calibrated",
            "give the ONNX file that it was built from; each device builds its own engine, "
            "from that and the calibration cache",
        )
    if head[4:8] == b"TFL3":
        raise _refusal(
            path,
            "this is a network of TensorFlow Lite",
            f"convert it: {_TF2ONNX} --tflite {_word(path)} --output {_target(path)} {_OPSET} "
            "(of the float network: one that is quantized already has no use for calibration)",
        )
    if head.startswith(_HDF5) or (suffix == ".keras" and not known):
        raise _keras(path)
    if head.startswith((_ZIP, _PICKLE)) or (suffix in {".pt", ".pth", ".pt2"} and not known):
        raise _torch(path)
    if suffix in {".caffemodel", ".prototxt"} and not known:
        raise _caffe(path)
    if suffix in {".pb", ".pbtxt"} and not known:
        _refuse_tensorflow(path)


def _refusal(path: Path, what: str, remedy: str) -> ModelError:
    return ModelError(f"{what}; edgecal calibrates ONNX files", where=str(path), remedy=remedy)


def _word(path: Path | str) -> str:
    return shlex.quote(str(path))


def _target(path: Path) -> str:
    return _word(path.with_suffix(".onnx"))


def _refuse_folder(path: Path) -> None:
    if (path / "saved_model.pb").is_file() or (path / "saved_model.pbtxt").is_file():
        name = path.resolve().name
        raise _refusal(
            path,
            "this is a SavedModel of TensorFlow",
            f"convert it: {_TF2ONNX} --saved-model {_word(path)} --output {_word(name + '.onnx')} "
            f"{_OPSET}",
        )
    if (path / "manifest.json").is_file() and (path / "model.onnx").is_file():
        raise _refusal(
            path,
            "this is a bundle",
            f"derive another one from its statistics: edgecal calibrate --from {_word(path)}; or "
            f"calibrate its network on new data: {_word(path / 'model.onnx')}",
        )


def _is_engine(head: bytes) -> bool:
    if head.startswith(_ENGINES):
        return True
    # Ultralytics writes the size of its notes, and the notes as JSON, ahead of the engine
    size = int.from_bytes(head[:4], "little")
    if head[4:5] != b"{" or size > _LONGEST_NOTES:
        return False
    engine = head[4 + size :]
    return not engine or engine.startswith(_ENGINES)  # nothing: longer than what was looked at


def _keras(path: Path) -> ModelError:
    return _refusal(
        path,
        "this is a network of Keras",
        f"convert it: {_TF2ONNX} --keras {_word(path)} --output {_target(path)} {_OPSET}",
    )


def _torch(path: Path) -> ModelError:
    target = str(path.with_suffix(".onnx"))
    return _refusal(
        path,
        "this is a file of PyTorch, whose weights mean nothing without the code of the network",
        "export it where that code is: torch.onnx.export(model.eval(), torch.zeros(1, 3, 640, "
        f"640), {target!r}, opset_version=17); for a detector of Ultralytics: "
        f"yolo export model={_word(path)} format=onnx",
    )


def _caffe(path: Path) -> ModelError:
    return _refusal(
        path,
        "this is a network of Caffe",
        "no converter that we tried works on a current Python: caffe2onnx 2.0.1 does not install, "
        "caffe-onnx 0.1.2 fails on plain networks. Build the network again in PyTorch or Keras, "
        "copy these weights into it, and export that",
    )


def _refuse_tensorflow(path: Path) -> None:
    if path.suffix.lower() == ".pb":
        nodes = _graph_def(path)
        if not nodes:  # an ONNX file may be called so too, and its own reader says what is wrong
            return
        inputs = [name for name, op, _ in nodes if op == "Placeholder"]
        read = {one for _, _, names in nodes for one in names}
        outputs = [
            name
            for name, op, _ in nodes
            if name not in read and op not in {"Const", "NoOp", "Placeholder"}
        ]
        raise _refusal(
            path,
            "this is a frozen graph of TensorFlow",
            f"convert it: {_TF2ONNX} --graphdef {_word(path)} --inputs {_tensors(inputs)} "
            f"--outputs {_tensors(outputs)} --output {_target(path)} {_OPSET}",
        )
    if path.suffix.lower() != ".pb":
        raise _refusal(
            path,
            "this is a graph of TensorFlow as text",
            "give the frozen graph as .pb, or the SavedModel: edgecal then names the conversion",
        )


def _tensors(names: Sequence[str]) -> str:
    if not names:
        return "NAME:0"
    shown = ",".join(f"{name}:0" for name in names[:_MOST_NAMED])
    return _word(shown)


def _graph_def(path: Path) -> list[tuple[str, str, tuple[str, ...]]]:
    """Read name, operator and inputs of each node; nothing if it is no TensorFlow graph."""
    from edgecal.adapters.protobuf_schemas import Schema  # noqa: PLC0415 - seldom needed

    schema = Schema(
        package="edgecal.graphdef",
        messages={
            "NodeDef": [
                "optional bytes name = 1",
                "optional bytes op = 2",
                "repeated bytes input = 3",
            ],
            "GraphDef": ["repeated NodeDef node = 1"],
        },
    )
    graph: Any
    try:
        graph = schema.classes()["GraphDef"].FromString(path.read_bytes())
    except DecodeError:
        return []
    return [
        (_text(node.name), _text(node.op), tuple(map(_source, _read(node.input))))
        for node in graph.node
        if node.op
    ]


def _read(names: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what a node reads; the others it only waits for."""
    return (name for name in names if not name.startswith(b"^"))


def _source(name: bytes) -> str:
    """Give the node that an input comes from; a number behind it says which of its outputs."""
    return _text(name).partition(":")[0]


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
