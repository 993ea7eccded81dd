"""Tables in graphs of TF-TRT; the messages are made by TensorFlow's public field numbers."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from edgecal.adapters.protobuf_schemas import Schema
from edgecal.adapters.tftrt import read_tftrt
from edgecal.core.cache import parse_cache
from edgecal.core.formats.registry import recognise
from edgecal.errors import CacheFormatError
from tests.networks import conv_net

TABLE: Final = b"TRT-7103-EntropyCalibration2\nTensorRTInputPH_0: 3c010a14\n"
OTHER: Final = b"TRT-7103-EntropyCalibration2\nTensorRTInputPH_0: 3c810a14\n"

# more fields than the reader knows, as real files have
CLASSES: Final = Schema(
    package="tensorflow",
    messages={
        "VersionDef": ["optional int32 producer = 1"],
        "AttrValue": ["optional bytes s = 2", "optional int64 i = 3", "optional bool b = 5"],
        "AttrEntry": ["optional string key = 1", "optional AttrValue value = 2"],
        "NodeDef": [
            "optional string name = 1",
            "optional string op = 2",
            "repeated string input = 3",
            "optional string device = 4",
            "repeated AttrEntry attr = 5",
        ],
        "OpDef": ["optional string name = 1"],
        "FunctionDef": ["optional OpDef signature = 1", "repeated NodeDef node_def = 3"],
        "FunctionDefLibrary": ["repeated FunctionDef function = 1"],
        "GraphDef": [
            "repeated NodeDef node = 1",
            "optional FunctionDefLibrary library = 2",
            "optional VersionDef versions = 4",
        ],
        "MetaInfoDef": ["optional string meta_graph_version = 1"],
        "MetaGraphDef": [
            "optional MetaInfoDef meta_info_def = 1",
            "optional GraphDef graph_def = 2",
        ],
        "SavedModel": [
            "optional int64 saved_model_schema_version = 1",
            "repeated MetaGraphDef meta_graphs = 2",
        ],
    },
).classes()


def node(name: str, op: str, **attributes: bytes | bool) -> Any:  # noqa: ANN401 - made at run time
    made = CLASSES["NodeDef"](name=name, op=op, input=["x"], device="/GPU:0")
    for key, value in attributes.items():
        entry = made.attr.add(key=key)
        if isinstance(value, bytes):
            entry.value.s = value
        else:
            entry.value.b = value
    return made


def engine(name: str, table: bytes = b"") -> Any:  # noqa: ANN401 - made at run time
    return node(
        name,
        "TRTEngineOp",
        calibration_data=table,
        precision_mode=b"INT8",
        serialized_segment=b"\x00\xff" * 40,
        use_calibration=True,
    )


def graph(*nodes: Any, inner: tuple[Any, ...] = ()) -> Any:  # noqa: ANN401 - made at run time
    made = CLASSES["GraphDef"](node=[node("x", "Placeholder"), *nodes])
    made.versions.producer = 561
    if inner:
        made.library.function.add(node_def=inner).signature.name = "TRTEngineOp_0_native_segment"
    return made


def saved(*graphs: Any) -> bytes:  # noqa: ANN401 - made at run time
    made = CLASSES["SavedModel"](saved_model_schema_version=1)
    for one in graphs:
        meta = made.meta_graphs.add(graph_def=one)
        meta.meta_info_def.meta_graph_version = "v2"
    data: bytes = made.SerializeToString()
    return data


def frozen(*nodes: Any, inner: tuple[Any, ...] = ()) -> bytes:  # noqa: ANN401 - as above
    data: bytes = graph(*nodes, inner=inner).SerializeToString()
    return data


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "the file holds no graph"),
        (TABLE, "expected a TensorFlow graph"),
        (frozen(), "no TensorRT segment among 1 nodes"),
        (saved(graph()), "no TensorRT segment among 1 nodes"),
        (frozen(engine("a"), engine("b")), "no TensorRT segment has a calibration table: 'a', 'b'"),
        (frozen(node("a", "TRTEngineOp")), "has a calibration table: 'a'"),
        (frozen(engine("a", TABLE), engine("a", OTHER)), "two segments are called 'a'"),
        (saved(graph(engine("a", TABLE)), graph(engine("a", OTHER))), "two segments are called"),
        (frozen(engine("a", TABLE))[:-20], "expected a TensorFlow graph"),
        (
            conv_net().SerializeToString(),
            "holds no graph|expected a TensorFlow|no TensorRT segment",
        ),
    ],
    ids=["empty", "cache", "plain", "saved", "uncalibrated", "none", "two", "metas", "cut", "onnx"],
)
def test_a_file_without_a_table_is_refused_with_what_was_found(data: bytes, complaint: str) -> None:
    with pytest.raises(CacheFormatError, match=complaint) as caught:
        read_tftrt(data, source="graph.pb")
    assert caught.value.where == "graph.pb"


def test_messages_nested_without_end_are_refused() -> None:
    data = b""
    for _ in range(300):
        size = len(data)
        length = bytes([size & 0x7F | 0x80, size >> 7]) if size > 0x7F else bytes([size])
        data = b"\x12" + length + data
    with pytest.raises(CacheFormatError):
        read_tftrt(data, source="graph.pb")


WHOLE: Final = frozen(engine("a", TABLE), inner=(engine("b", OTHER),))


@given(st.binary(max_size=100), st.integers(0, len(WHOLE)), st.integers(0, 8))
def test_arbitrary_bytes_give_tables_or_a_format_error(data: bytes, at: int, cut: int) -> None:
    for given_bytes in (data, WHOLE[:at] + data + WHOLE[at + cut :]):
        try:
            assert read_tftrt(given_bytes, source="graph.pb")
        except CacheFormatError:
            continue


def test_every_segment_of_a_frozen_graph_gives_its_table() -> None:
    data = frozen(engine("TRTEngineOp_0", TABLE), engine("none"), engine("TRTEngineOp_1", OTHER))
    tables = read_tftrt(data, source="graph.pb")
    assert dict(tables) == {"TRTEngineOp_0": TABLE, "TRTEngineOp_1": OTHER}
    assert parse_cache(tables["TRTEngineOp_0"]).header.code == 7103
    assert recognise(data, name="file") == "tftrt"


def test_segments_of_functions_and_of_every_meta_graph_are_found() -> None:
    data = saved(graph(engine("a", TABLE)), graph(engine("a", TABLE), inner=(engine("b", OTHER),)))
    assert dict(read_tftrt(data, source="saved_model.pb")) == {"a": TABLE, "b": OTHER}
    assert recognise(data, name="file") == "tftrt"


def test_a_graph_that_begins_like_json_is_still_a_graph() -> None:
    first = node("x", "Placeholder")
    while len(first.SerializeToString()) < ord("{"):
        first.name += "x"
    made = CLASSES["GraphDef"](node=[first, engine("a", TABLE)])
    data = made.SerializeToString()
    assert data.startswith(b"\n{")
    assert recognise(data, name="graph.json") == "tftrt"
    assert dict(read_tftrt(data, source="graph.pb")) == {"a": TABLE}


@pytest.mark.parametrize("ir", [1, 8, 13])
def test_onnx_is_told_from_tensorflow(ir: int) -> None:
    proto = conv_net()
    proto.ir_version = ir
    proto.producer_name = "pytorch"
    assert recognise(proto.SerializeToString(), name="file") == "qdq"
    helper.set_model_props(proto, {"key": "value"})
    assert recognise(proto.SerializeToString()[:400], name="file") == "qdq"
