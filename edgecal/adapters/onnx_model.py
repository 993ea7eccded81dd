"""ONNX files: read into a core graph, digested, and given extra outputs."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import onnx
import onnx.version_converter
from google.protobuf.message import DecodeError

from edgecal.adapters.onnx_checks import check_float_network
from edgecal.adapters.onnx_digest import canonical_digest
from edgecal.adapters.onnx_errors import corrupt, one_line
from edgecal.adapters.onnx_graph import info_of, read_graph
from edgecal.adapters.onnx_order import sort_nodes
from edgecal.adapters.onnx_outline import outline
from edgecal.adapters.onnx_weights import inline_external_data
from edgecal.adapters.other_networks import refuse_other_network
from edgecal.core.manifest import Digest, ModelRecord, SourceFile, TensorRecord
from edgecal.core.shapes import GivenShape, settle_inputs
from edgecal.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgecal.core.graph import Graph, TensorInfo

_LFS: Final = b"version https://git-lfs"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxModel:
    """An ONNX file that was read whole, external data included."""

    path: Path
    source: SourceFile
    proto: onnx.ModelProto
    graph: Graph
    digest: Digest
    canonical_digest: Digest
    external_data: tuple[str, ...]
    """Paths relative to the model, in name order."""
    settled: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes that the user chose for inputs; `graph` has them, the file has dynamic ones."""

    def record(self) -> ModelRecord:
        """Say which network this is, as a manifest does."""
        names = {tensor.name for tensor in self.graph.inputs}
        return ModelRecord(
            digest=self.digest,
            canonical_digest=self.canonical_digest,
            opset=self.graph.opset,
            inputs=tuple(
                _tensor_record(info_of(one)) for one in self.proto.graph.input if one.name in names
            ),
            outputs=tuple(_tensor_record(tensor) for tensor in self.graph.outputs),
            source=self.source,
            external_data=self.external_data,
            settled=dict(self.settled),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxFile:
    """What an ONNX file holds, external data included; nobody has judged it yet."""

    path: Path
    source: SourceFile
    proto: onnx.ModelProto
    digest: Digest
    external_data: tuple[str, ...]


def read_model(path: Path) -> OnnxModel:
    """Read, check and understand an ONNX file.

    Raises
    ------
    ModelError
        If it is missing, corrupt, or a kind of network that cannot be calibrated here.
    """
    file = load_proto(path)
    check_float_network(file.proto, path)
    return OnnxModel(
        path=path,
        source=file.source,
        proto=file.proto,
        graph=read_graph(file.proto, outline(file.proto), path),
        digest=file.digest,
        canonical_digest=canonical_digest(file.proto),
        external_data=file.external_data,
    )


def load_proto(path: Path) -> OnnxFile:
    """Read an ONNX file with its external data, whatever network it holds.

    Raises
    ------
    ModelError
        If it is missing, cut off, or holds no network; for a network of another format the remedy
        is how to convert it.
    """
    try:
        refuse_other_network(path)
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            data = stream.read()
    except OSError as error:
        raise ModelError(
            f"cannot read the model: {error.strerror or error}",
            where=str(path),
            remedy="check the path; edgecal wants an ONNX file",
        ) from error
    if not data:
        raise corrupt(path, "the file is empty")
    if data.startswith(_LFS):
        raise ModelError(
            "this is only a pointer of Git LFS to the file",
            where=str(path),
            remedy="fetch the file itself: git lfs pull",
        )
    try:
        proto = onnx.load_model_from_string(data)
    except (DecodeError, ValueError, TypeError) as error:
        raise corrupt(path, "it is not an ONNX file, or it was cut off") from error
    if not proto.graph.node or not proto.graph.output:
        raise corrupt(path, "it holds no network: no nodes or no outputs")
    digest = hashlib.sha256(data)
    del data
    sort_nodes(proto)
    external = inline_external_data(proto, path, digest)
    return OnnxFile(
        path=path,
        source=SourceFile(path=str(path), size=status.st_size, mtime_ns=status.st_mtime_ns),
        proto=proto,
        digest=Digest(f"sha256:{digest.hexdigest()}"),
        external_data=external,
    )


def settle_shapes(model: OnnxModel, given: Mapping[str, GivenShape]) -> OnnxModel:
    """Choose shapes for dynamic inputs, for this run only: the file stays as it is.

    Raises
    ------
    InputError
        If the network has no such input, or another shape for it.
    """
    if not given:
        return model
    inputs = settle_inputs(model.graph.inputs, given)
    tensors = {**model.graph.tensors, **{tensor.name: tensor for tensor in inputs}}
    return replace(
        model,
        graph=replace(model.graph, inputs=inputs, tensors=tensors),
        settled={**model.settled, **{name: one.shape for name, one in given.items()}},
    )


def with_outputs(model: OnnxModel, names: tuple[str, ...]) -> bytes:
    """Serialize the network with more of its tensors as outputs, after its own ones.

    Their types are left for the runtime to infer.
    """
    outputs = model.proto.graph.output
    own = len(outputs)
    try:  # lent, not copied: weights need not lie in memory twice
        for name in names:
            outputs.add(name=name)
        return bytes(model.proto.SerializeToString())
    finally:
        del outputs[own:]


def raise_opset(model: OnnxModel, opset: int) -> OnnxModel:
    """Give the same network in at least this opset; tensors keep their names.

    Raises
    ------
    ModelError
        If an operator of the network has no such version.
    """
    if model.graph.opset >= opset:
        return model
    try:
        proto = onnx.version_converter.convert_version(model.proto, opset)
    except (onnx.version_converter.ConvertError, RuntimeError) as error:
        raise ModelError(
            f"opset {model.graph.opset} cannot be raised to {opset}: {one_line(error)}",
            where=str(model.path),
            remedy=f"export the network with opset {opset} or later",
        ) from error
    return replace(model, proto=proto, graph=read_graph(proto, outline(proto), model.path))


def _tensor_record(tensor: TensorInfo) -> TensorRecord:
    return TensorRecord(
        name=tensor.name,
        dtype=tensor.dtype,
        shape=tuple(-1 if size is None else size for size in tensor.shape or ()),
    )
