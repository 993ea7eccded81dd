"""Takes the calibration tables out of graphs that TF-TRT converted, without TensorFlow.

Each segment that TensorRT runs is a `TRTEngineOp` node; its string attribute `calibration_data` is
a native calibration cache. The node stands in the graph or in its function library, in a frozen
GraphDef or in the `saved_model.pb` of a SavedModel. Engine assets beside a SavedModel hold engines,
not tables, and are not read.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError

from edgecal.adapters.protobuf_schemas import Schema
from edgecal.errors import CacheFormatError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_OPERATOR: Final = b"TRTEngineOp"
_ATTRIBUTE: Final = b"calibration_data"
_NAMED: Final = 3

# names are bytes here: a name that is no UTF-8 is kept, as in a cache
_SCHEMA: Final = Schema(
    package="edgecal.tensorflow",
    messages={
        "AttrValue": ["optional bytes s = 2"],
        "Attr": ["optional bytes key = 1", "optional AttrValue value = 2"],
        "NodeDef": [
            "optional bytes name = 1",
            "optional bytes op = 2",
            "repeated Attr attr = 5",
        ],
        "FunctionDef": ["repeated NodeDef node_def = 3"],
        "FunctionDefLibrary": ["repeated FunctionDef function = 1"],
        "GraphDef": ["repeated NodeDef node = 1", "optional FunctionDefLibrary library = 2"],
        "MetaGraphDef": ["optional GraphDef graph_def = 2"],
        "SavedModel": [
            "optional int64 saved_model_schema_version = 1",
            "repeated MetaGraphDef meta_graphs = 2",
        ],
    },
)


@cache
def _classes() -> dict[str, Any]:
    return _SCHEMA.classes()


def read_tftrt(data: bytes, *, source: str) -> Mapping[str, bytes]:
    """Read the table of every segment that has one, by the name of its engine node.

    Parameters
    ----------
    data
        A frozen graph, or the `saved_model.pb` of a SavedModel.

    Raises
    ------
    CacheFormatError
        If it is no graph, no segment has a table, or two segments of one name differ.
    """
    tables: dict[str, bytes] = {}
    without: list[str] = []
    nodes = 0
    try:
        for node in _nodes(data):
            nodes += 1
            if node.op != _OPERATOR:
                continue
            name = node.name.decode("utf-8", "surrogateescape")
            table = _table(node)
            if not table:
                without.append(name)
            elif tables.setdefault(name, table) != table:
                raise CacheFormatError(
                    f"two segments are called {name[:60]!r} and have different tables",
                    where=source,
                    remedy="pass the frozen graph of the one that is meant",
                )
    except DecodeError as error:
        raise CacheFormatError(
            "expected a TensorFlow graph; the file is none, or is cut off",
            where=source,
            remedy="pass the frozen graph, or saved_model.pb of a SavedModel",
        ) from error
    if tables:
        return tables
    if without:
        named = ", ".join(map(repr, without[:_NAMED])) + (", ..." if without[_NAMED:] else "")
        raise CacheFormatError(
            f"no TensorRT segment has a calibration table: {named}",
            where=source,
            remedy="run the calibration of the TF-TRT converter, in INT8, and save the graph after",
        )
    raise CacheFormatError(
        f"no TensorRT segment among {nodes} nodes" if nodes else "the file holds no graph",
        where=source,
        remedy="pass the graph that TF-TRT wrote, not the one it read",
    )


def _nodes(data: bytes) -> Iterator[Any]:
    saved = _classes()["SavedModel"].FromString(data)
    if saved.HasField("saved_model_schema_version"):
        graphs = [meta.graph_def for meta in saved.meta_graphs]
    else:
        graphs = [_classes()["GraphDef"].FromString(data)]
    for graph in graphs:
        yield from graph.node
        for function in graph.library.function:
            yield from function.node_def


def _table(node: Any) -> bytes:
    for attribute in node.attr:
        if attribute.key == _ATTRIBUTE:
            return bytes(attribute.value.s)
    return b""
