"""`edgecal cache convert`, as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import helper

from edgecal.adapters.ort_backend import load_network
from edgecal.adapters.protobuf_schemas import Schema
from edgecal.cli import app
from edgecal.core.cache import parse_cache
from edgecal.core.formats.registry import WRITABLE
from tests.bundles import make_bundles
from tests.networks import conv_net, floats, network, save, tensor

if TYPE_CHECKING:
    from edgecal.adapters.bundle import Bundle

CACHE = (
    "TRT-8502-EntropyCalibration2\n"
    "image: 3c010a14\nconv: 3d010a14\nrelu: 3d010a14\npool: 3c810a14\nscores: 3dccb38f\n"
)
SORTED = {"ort-text": "calibration.cache", "ort-flatbuffers": "calibration.flatbuffers"}
ODD = "TRT-8502-EntropyCalibration2\nimages:0: 3c010a14\na: b: 3d010a14\nzero: 0\n"


TENSORFLOW = Schema(
    package="tests.tensorflow",
    messages={
        "AttrValue": ["optional bytes s = 2"],
        "AttrEntry": ["optional string key = 1", "optional AttrValue value = 2"],
        "NodeDef": [
            "optional string name = 1",
            "optional string op = 2",
            "repeated AttrEntry attr = 5",
        ],
        "GraphDef": ["repeated NodeDef node = 1"],
        "MetaGraphDef": ["optional GraphDef graph_def = 2"],
        "SavedModel": [
            "optional int64 saved_model_schema_version = 1",
            "repeated MetaGraphDef meta_graphs = 2",
        ],
    },
).classes()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("a.cache").write_text(CACHE)
    save(conv_net(), Path("net.onnx"))
    return tmp_path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    (made,) = make_bundles(tmp_path_factory.mktemp("bundles"), "8.5.2")
    return made


def convert(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        app.main(["cache", "convert", *words])
    return end.value.code if isinstance(end.value.code, int) else 0


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("word", [word for word in WRITABLE if word not in {"qdq", *SORTED}])
@pytest.mark.parametrize("text", [CACHE, ODD])
def test_a_cache_comes_back_from_every_format_byte_for_byte(word: str, text: str) -> None:
    Path("a.cache").write_text(text)
    assert convert("a.cache", "--to", word, "-o", f"out.{word}") == 0
    again = ["--tensorrt", "8.5.2", "--from", word]
    assert convert(f"out.{word}", "--to", "trt", "-o", "back.cache", *again) == 0
    assert Path("back.cache").read_text() == text


@pytest.mark.parametrize(("word", "name"), SORTED.items())
def test_a_cache_comes_back_from_onnx_runtimes_tables_which_are_sorted(
    word: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert("a.cache", "--to", word, "-o", name) == 0
    assert convert(name, "--to", "trt", "--tensorrt", "8.5.2", "-o", "b.cache") == 0
    head, *lines = CACHE.splitlines()
    assert Path("b.cache").read_text().splitlines() == [head, *sorted(lines)]
    assert f"{word} to trt" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text",
    [
        "TRT-8502-EntropyCalibration2\r\na: 0x3C010A14 \r\na: zz\n",
        "0 3ff0000000000000 3fefffeb074a771d\ndata: 3c010a14\n",
        "03ff00000000000003feffffde7210be9\ndata: 3c010a14\n",
    ],
)
def test_a_cache_to_a_cache_is_the_same_file_however_odd(text: str) -> None:
    Path("odd.cache").write_bytes(text.encode())
    words = ["odd.cache", "--to", "trt", "-o", "same.cache"]
    code = convert(*words)
    if "zz" in text:
        assert code == 2  # a line nobody can read is not carried on as if it were a cache
        assert not Path("same.cache").exists()
    else:
        assert code == 0
        assert Path("same.cache").read_bytes() == text.encode()


def test_without_a_version_a_foreign_table_is_refused_with_what_to_add(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("ranges.txt").write_text("image:1.5\n")
    assert convert("ranges.txt", "--to", "trt", "-o", "out.cache") == 2
    assert "add --tensorrt" in capsys.readouterr().err
    assert not Path("out.cache").exists()


def test_another_tensorrt_is_a_matter_for_restamp(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["a.cache", "--to", "trt", "--tensorrt", "8.6", "-o", "out.cache"]
    assert convert(*words) == 3
    assert "restamp" in capsys.readouterr().err
    assert convert("a.cache", "--to", "trt", "--tensorrt", "11.0", "-o", "out.cache") == 2
    assert "qdq" in capsys.readouterr().err
    assert not Path("out.cache").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a.cache", "--to", "tflite", "-o", "x"), "expected one of trt"),
        (("a.cache", "--to", "tftrt", "-o", "x"), "expected one of trt"),
        (("a.cache", "--from", "nope", "--to", "csv", "-o", "x"), "expected one of trt"),
        (("a.cache", "--to", "csv", "-o", "a.cache"), "also an input"),
        (("a.cache", "--to", "qdq", "-o", "x.onnx"), "add --model"),
        (("a.cache", "--to", "csv", "--prototxt", "net.onnx", "-o", "x"), "leave --prototxt out"),
        (("none.cache", "--to", "csv", "-o", "x"), "No such file"),
        (("junk", "--to", "csv", "-o", "x"), "no format known here"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_written(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("junk").write_bytes(b"\x00\x01junk" * 100)
    before = {path.name for path in Path().iterdir()}
    assert convert(*words) == 2
    assert said in capsys.readouterr().err
    assert {path.name for path in Path().iterdir()} == before


def test_names_that_the_readers_of_a_format_lose_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("odd.cache").write_text(ODD)
    assert convert("odd.cache", "--to", "ranges", "-o", "ranges.txt") == 0
    said = capsys.readouterr().err
    assert "name-lost" in said
    assert "'images:0', 'a: b'" in said
    Path("old.cache").write_text(f"{CACHE}(Unnamed Layer* 3) [Scale]_output: 3c010a14\n")
    assert convert("old.cache", "--to", "nvdla", "-o", "net.json", "--json") == 0
    assert [one["rule"] for one in document(capsys)["findings"]] == ["name-unknown"]


def test_a_network_is_quantized_and_taken_apart_again(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--to", "qdq", "--model", "net.onnx", "-o", "int8.onnx", "--json"]
    assert convert("a.cache", *words) == 0
    said = document(capsys)
    assert said["schema"] == "edgecal.cache-convert/1"
    assert {"image", "relu"} <= set(said["activations"])
    kinds = [node.op_type for node in onnx.load("int8.onnx").graph.node]
    assert kinds.count("QuantizeLinear") == len(said["activations"])
    feeds = {"image": floats(2, 3, 8, 8)}
    exact = load_network(Path("net.onnx")).run(feeds)["scores"]
    close = load_network(Path("int8.onnx")).run(feeds)["scores"]
    assert not np.array_equal(close, exact)

    words = ["--to", "trt", "--tensorrt", "8.5.2", "-o", "back.cache", "--json"]
    assert convert("int8.onnx", *words) == 0
    said = document(capsys)
    assert said["files"] == ["back.onnx", "back.precision.json"]
    again = load_network(Path("back.onnx")).run(feeds)["scores"]
    assert np.allclose(again, exact, atol=0.05)
    kept = dict(line.split(": ") for line in CACHE.splitlines()[1:])
    back = dict(line.split(": ") for line in Path("back.cache").read_text().splitlines()[1:])
    assert back
    assert back.items() <= kept.items()
    assert json.loads(Path("back.precision.json").read_text())["schema"] == "edgecal.precision/1"


def test_a_quantized_constant_gets_the_name_that_tensorrt_10_gives_it() -> None:
    pairs = [
        helper.make_node(kind, [source, f"{of}_scale", "zero"], [f"{source}_{kind[0]}"])
        for of in ("x", "half")
        for kind, source in (("QuantizeLinear", of), ("DequantizeLinear", f"{of}_Q"))
    ]
    constants = {"half": np.full(1, 0.5, np.float32), "zero": np.int8(0)}
    constants |= {"x_scale": np.float32(0.01), "half_scale": np.float32(0.004)}
    product = helper.make_node("Mul", ["x_Q_D", "half_Q_D"], ["y"], "mul")
    ends = [tensor("x", [2, 3])], [tensor("y", [2, 3])]
    save(network([*pairs, product], *ends, constants), Path("qat.onnx"))
    for version, name in (("10.3", "half_output"), ("8.5", "half")):
        assert convert("qat.onnx", "--to", "trt", "--tensorrt", version, "-o", "qat.cache") == 2
        words = ["--plain-model", "plain.onnx", "-o", "out.cache"]
        assert convert("qat.onnx", "--to", "trt", "--tensorrt", version, *words) == 0
        assert set(parse_cache(Path("out.cache").read_bytes()).scales()) == {"x", name}


def test_a_bundle_brings_its_network_along(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(str(bundle.path), "--to", "qdq", "--fp16", "-o", "int8.onnx") == 0
    kinds = {tensor.data_type for tensor in onnx.load("int8.onnx").graph.initializer}
    assert {onnx.TensorProto.INT8, onnx.TensorProto.FLOAT16} <= kinds
    assert "quantized" in capsys.readouterr().out
    inside = str(bundle.path / "net.int8.onnx")
    assert convert(str(bundle.path), "--to", "qdq", "-o", inside) == 2
    assert "lies in the bundle" in capsys.readouterr().err


def test_a_plain_network_has_nothing_to_take_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert convert("net.onnx", "--to", "trt", "--tensorrt", "8.5.2", "-o", "x.cache") == 2
    assert "not quantized" in capsys.readouterr().err
    assert not Path("x.cache").exists()


PROTOTXT = """
input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "prob" type: "Softmax" bottom: "conv1" top: "prob" }
"""
CAFFE = (
    "TRT-8502-EntropyCalibration2\ndata: 3c010a14\n"
    "(Unnamed Layer* 0) [Convolution]_output: 3d010a14\nconv1: 3c810a14\nprob: 3b010a14\n"
)


def test_a_caffe_networks_layers_get_the_names_that_nvdla_looks_for() -> None:
    Path("caffe.cache").write_text(CAFFE)
    Path("deploy.prototxt").write_text(PROTOTXT)
    words = ["--prototxt", "deploy.prototxt"]
    assert convert("caffe.cache", "--to", "nvdla", *words, "-o", "net.json") == 0
    assert list(json.loads(Path("net.json").read_text())) == ["data", "conv1", "relu1", "prob"]
    back = ["--to", "trt", "--tensorrt", "8.5.2", *words, "-o", "back.cache"]
    assert convert("net.json", *back) == 0
    assert Path("back.cache").read_text() == CAFFE


def test_a_table_that_nvdla_compiler_would_abort_on_is_not_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("caffe.cache").write_text(CAFFE.replace("prob: 3b010a14\n", ""))
    Path("deploy.prototxt").write_text(PROTOTXT)
    words = ["--to", "nvdla", "--prototxt", "deploy.prototxt", "-o", "net.json"]
    assert convert("caffe.cache", *words) == 3
    assert "'prob'" in capsys.readouterr().err
    assert not Path("net.json").exists()


def engines(**tables: bytes) -> Any:  # noqa: ANN401 - a message made at run time
    """Make a graph as TF-TRT leaves it: an engine and its table for each name."""
    graph = TENSORFLOW["GraphDef"]()
    for name, table in tables.items():
        node = graph.node.add(name=name, op="TRTEngineOp")
        node.attr.add(key="calibration_data").value.s = table
    return graph


def test_a_table_comes_out_of_a_graph_of_tensorflow(capsys: pytest.CaptureFixture[str]) -> None:
    one, two = CACHE.encode(), ODD.encode()
    Path("frozen.pb").write_bytes(engines(first=one, second=two).SerializeToString())
    assert convert("frozen.pb", "--to", "trt", "-o", "out.cache") == 2
    assert "first, second" in capsys.readouterr().err
    assert convert("frozen.pb", "--to", "trt", "--segment", "third", "-o", "out.cache") == 2
    assert not Path("out.cache").exists()
    assert convert("frozen.pb", "--to", "trt", "--segment", "second", "-o", "out.cache") == 0
    assert Path("out.cache").read_bytes() == two

    saved = TENSORFLOW["SavedModel"](saved_model_schema_version=1)
    saved.meta_graphs.add().graph_def.CopyFrom(engines(only=one))
    Path("saved").mkdir()
    Path("saved/saved_model.pb").write_bytes(saved.SerializeToString())
    assert convert("saved", "--to", "trt", "-o", "out.cache") == 0
    assert Path("out.cache").read_bytes() == one


def test_a_legacy_table_converts_though_it_names_no_tensorrt(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("legacy.cache").write_text("0 3ff0000000000000 3fefffeb074a771d\ndata: 3c010a14\n")
    assert convert("legacy.cache", "--to", "csv", "-o", "out.csv") == 0
    assert "3c010a14" in Path("out.csv").read_text()
    assert convert("out.csv", "--to", "trt", "-o", "out.cache") == 2
    assert "which TensorRT" in capsys.readouterr().err
