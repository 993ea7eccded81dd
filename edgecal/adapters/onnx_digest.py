"""The digest of what a network computes: without doc strings, producer and metadata."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import onnx

from edgecal.adapters.onnx_outline import copy_without
from edgecal.core.manifest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator

_WORDS: Final = ("doc_string", "metadata_props")
"""Torch writes paths and stack traces there."""
_PRODUCER: Final = ("producer_name", "producer_version")
_GRAPH: Final = 7
_INITIALIZER: Final = 5
_BEFORE_INITIALIZERS: Final = frozenset({"node", "name"})
_BEFORE_GRAPH: Final = frozenset({"ir_version", "domain", "model_version"})


def canonical_digest(proto: onnx.ModelProto) -> Digest:
    """Digest what the network computes.

    The bytes are those of the whole message without words, written in the order of its field
    numbers; weights pass through one at a time, so that none lies in memory twice.
    """
    digest = hashlib.sha256()
    bare = copy_without(proto, {"initializer", *_WORDS, *_PRODUCER})
    graph = bare.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info):
        _strip(part)
    before, after = _split(graph, _BEFORE_INITIALIZERS)
    size = len(before) + len(after)
    size += sum(len(_head(_INITIALIZER, one)) + one for one in _sizes(proto.graph))
    bare.ClearField("graph")
    start, end = _split(bare, _BEFORE_GRAPH)
    digest.update(start + _head(_GRAPH, size) + before)
    for tensor in proto.graph.initializer:
        data = _bare_tensor(tensor).SerializeToString(deterministic=True)
        digest.update(_head(_INITIALIZER, len(data)))
        digest.update(data)
    digest.update(after + end)
    return Digest(f"sha256:{digest.hexdigest()}")


def _sizes(graph: onnx.GraphProto) -> Iterator[int]:
    for tensor in graph.initializer:
        yield int(_bare_tensor(tensor).ByteSize())


def _bare_tensor(tensor: onnx.TensorProto) -> onnx.TensorProto:
    if not tensor.doc_string and not tensor.metadata_props:
        return tensor
    bare = onnx.TensorProto()
    bare.CopyFrom(tensor)
    _strip(bare)
    return bare


def _strip(part: Any) -> None:
    for field in _WORDS:
        part.ClearField(field)


def _split(message: Any, first: frozenset[str]) -> tuple[bytes, bytes]:
    """Write the fields named, which come first, and the rest."""
    rest = type(message)()
    rest.CopyFrom(message)
    for name in first:
        rest.ClearField(name)
    for field, _ in rest.ListFields():
        message.ClearField(field.name)
    return (
        message.SerializeToString(deterministic=True),
        rest.SerializeToString(deterministic=True),
    )


def _head(number: int, size: int) -> bytes:
    """Write what goes ahead of a message inside another: its field, and its size as a varint."""
    written = bytearray([number << 3 | 2])
    while size > 0x7F:
        written.append(size & 0x7F | 0x80)
        size >>= 7
    written.append(size)
    return bytes(written)
