"""ONNX files: read into a core graph, digested, and given extra outputs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.version_converter
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from edgecal.core.graph import Attribute, Graph, Node, TensorInfo
from edgecal.core.manifest import (
    CACHE_FILE,
    GOLDEN_FILE,
    HISTOGRAMS_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    Digest,
    ModelRecord,
    SourceFile,
    TensorRecord,
)
from edgecal.errors import ModelError

_LARGEST_PROTO_BYTES = 2**31 - 1024
"""Protocol buffers end at 2 GiB; ONNX Runtime takes an edited model only as one of them."""

_LONGEST_MESSAGE = 300

_NUMBERS = frozenset("fiub")
"""Kinds of NumPy types that samples can have."""

_OWN_FILES = frozenset({MODEL_FILE, CACHE_FILE, GOLDEN_FILE, HISTOGRAMS_FILE, MANIFEST_FILE})
"""Names that weight files cannot have: in a bundle they lie beside these."""

_HALF = onnx.TensorProto.FLOAT16
_CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})
_QUANTIZED = frozenset({"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul"}) | {
    "ConvInteger",
    "DynamicQuantizeLinear",
    "MatMulInteger",
}


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

    def record(self) -> ModelRecord:
        """Say which network this is, as a manifest does."""
        return ModelRecord(
            digest=self.digest,
            canonical_digest=self.canonical_digest,
            opset=self.graph.opset,
            inputs=tuple(_tensor_record(tensor) for tensor in self.graph.inputs),
            outputs=tuple(_tensor_record(tensor) for tensor in self.graph.outputs),
            source=self.source,
            external_data=self.external_data,
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
        graph=_graph(file.proto, path),
        digest=file.digest,
        canonical_digest=_canonical_digest(file.proto),
        external_data=file.external_data,
    )


def load_proto(path: Path) -> OnnxFile:
    """Read an ONNX file with its external data, whatever network it holds.

    Raises
    ------
    ModelError
        If it is missing, cut off, or holds no network.
    """
    try:
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            data = stream.read()
    except OSError as error:
        raise ModelError(
            f"cannot read the model: {error.strerror or error}",
            where=str(path),
            remedy="check the path; edgecal wants an ONNX file",
        ) from error
    try:
        proto = onnx.load_model_from_string(data)
    except (DecodeError, ValueError, TypeError) as error:
        raise _corrupt(path, "it is not an ONNX file, or it was cut off") from error
    if not proto.graph.node or not proto.graph.output:
        raise _corrupt(path, "it holds no network: no nodes or no outputs")
    digest = hashlib.sha256(data)
    del data
    external = _inline_external_data(proto, path, digest)
    return OnnxFile(
        path=path,
        source=SourceFile(path=str(path), size=status.st_size, mtime_ns=status.st_mtime_ns),
        proto=proto,
        digest=Digest(f"sha256:{digest.hexdigest()}"),
        external_data=external,
    )


def check_float_network(proto: onnx.ModelProto, path: Path) -> None:
    """Make sure that this is a valid float32 network that can be calibrated.

    Raises
    ------
    ModelError
        If it is not.
    """
    _refuse_control_flow(proto, path)
    _refuse_quantized(proto, path)
    _check_structure(proto, path)
    weights = {tensor.name for tensor in proto.graph.initializer}
    _check_inputs([one for one in proto.graph.input if one.name not in weights], path)


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


def _tensor_record(tensor: TensorInfo) -> TensorRecord:
    return TensorRecord(
        name=tensor.name,
        dtype=tensor.dtype,
        shape=tuple(-1 if size is None else size for size in tensor.shape or ()),
    )


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
    return replace(model, proto=proto, graph=_graph(proto, model.path))


def one_line(said: object) -> str:
    """Give the beginning of what a library says, which may be pages, on one line."""
    words = " ".join(str(said).split()) or "no reason was given"
    return words if len(words) <= _LONGEST_MESSAGE else f"{words[:_LONGEST_MESSAGE]} ..."


def _corrupt(path: Path, what: str) -> ModelError:
    return ModelError(
        f"the model is corrupt: {what}",
        where=str(path),
        remedy="export it again, or copy it again if it was transferred",
    )


def _refuse_quantized(proto: onnx.ModelProto, path: Path) -> None:
    for node in proto.graph.node:
        if node.op_type in _QUANTIZED:
            raise ModelError(
                f"node {node.name!r} is a {node.op_type}: the network is already quantized, and "
                "TensorRT uses no calibration cache for such a network",
                where=str(path),
                remedy="give the float network, or build this one without edgecal",
            )
    halves = [
        *(one.name for one in (*proto.graph.input, *proto.graph.output) if _element(one) == _HALF),
        *(tensor.name for tensor in _all_tensors(proto.graph) if tensor.data_type == _HALF),
    ]
    if halves:
        raise ModelError(
            f"tensor {halves[0]!r} is float16: this version calibrates float32 networks",
            where=str(path),
            remedy="export in float32; the target's builder makes FP16 layers by itself",
        )


def _refuse_control_flow(proto: onnx.ModelProto, path: Path) -> None:
    for node in proto.graph.node:
        if node.op_type in _CONTROL_FLOW:
            raise ModelError(
                f"node {node.name!r} is a {node.op_type}: tensors in control flow have no scale",
                where=str(path),
                remedy="export without control flow (trace instead of script, or unroll)",
            )


def check_structure(proto: onnx.ModelProto, path: Path) -> None:
    """Have ONNX's own checker look at a network without control flow, quantized or not.

    Raises
    ------
    ModelError
        If it is no valid ONNX, or has control flow.
    """
    _refuse_control_flow(proto, path)
    _check_structure(proto, path)


def _check_structure(proto: onnx.ModelProto, path: Path) -> None:
    # the checker wants a shape on every input and output; runtimes do without, and so do we
    bare = [
        one.type.tensor_type
        for one in (*proto.graph.input, *proto.graph.output)
        if one.type.HasField("tensor_type") and not one.type.tensor_type.HasField("shape")
    ]
    try:
        for tensor in bare:
            tensor.shape.SetInParent()
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        what = one_line(error)
        if what.startswith("No Op registered"):
            raise ModelError(
                f"the model uses an operator that ONNX does not define: {what}",
                where=str(path),
                remedy="plugins of TensorRT do not run on a CPU; export the network without them",
            ) from error
        raise _corrupt(path, what) from error
    except ValueError as error:  # a message of the checker that is not text
        raise _corrupt(path, one_line(error)) from error
    finally:
        for tensor in bare:
            tensor.ClearField("shape")


def _check_inputs(inputs: Sequence[onnx.ValueInfoProto], path: Path) -> None:
    if not inputs:
        raise ModelError(
            "the network has no inputs, so there is nothing to calibrate it with",
            where=str(path),
            remedy="export it with its inputs; constants folded into it cannot be replaced",
        )
    for one in inputs:
        if not one.type.HasField("tensor_type"):
            raise ModelError(
                f"input {one.name!r} is a {one.type.WhichOneof('value')}, not a tensor",
                where=str(path),
                remedy="export the network with one input per tensor",
            )
        if not _is_number(_element(one)):
            raise ModelError(
                f"input {one.name!r} is of type {_dtype(_element(one))}, and samples are numbers",
                where=str(path),
                remedy="export the network with inputs of float32 or integers",
            )


def _is_number(code: int) -> bool:
    dtype = _dtype(code)
    return dtype != "unknown" and np.dtype(dtype).kind in _NUMBERS


def _element(value: onnx.ValueInfoProto) -> int:
    return int(value.type.tensor_type.elem_type)


def _inline_external_data(
    proto: onnx.ModelProto, path: Path, digest: hashlib._Hash
) -> tuple[str, ...]:
    """Read weights that lie in files of their own, adding each file to the model's digest."""
    tensors = [
        tensor
        for tensor in _all_tensors(proto.graph)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    ]
    places = [
        (tensor, {entry.key: entry.value for entry in tensor.external_data}) for tensor in tensors
    ]
    for _, place in places:
        # as a bundle's manifest spells it: without "./"
        place["location"] = str(PurePosixPath(place.get("location", "")))
    names = sorted({place["location"] for _, place in places})
    files = {name: _external_file(path, name) for name in names}
    try:
        _read_external_data(proto, places, files, path, digest)
    except OSError as error:
        raise ModelError(
            f"cannot read the model's weights: {error.strerror or error}",
            where=str(path),
            remedy="check the weight files beside the model",
        ) from error
    except ValueError as error:
        raise _corrupt(path, f"it says wrongly where its weights lie: {error}") from error
    return tuple(names)


def _read_external_data(
    proto: onnx.ModelProto,
    places: Iterable[tuple[onnx.TensorProto, dict[str, str]]],
    files: Mapping[str, Path],
    path: Path,
    digest: hashlib._Hash,
) -> None:
    total = proto.ByteSize() + sum(file.stat().st_size for file in files.values())
    if total > _LARGEST_PROTO_BYTES:
        raise ModelError(
            f"the network with its weights takes {total / 2**30:.1f} GiB; 2 GiB is the most that "
            "can be calibrated",
            where=str(path),
            remedy="calibrate a smaller network, or split this one",
        )
    for file in files.values():
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    for tensor, place in places:
        file = files[place["location"]]
        offset = int(place.get("offset", 0))
        with file.open("rb") as stream:
            stream.seek(offset)
            length = int(place.get("length", file.stat().st_size - offset))
            tensor.raw_data = stream.read(length)
        if len(tensor.raw_data) != length:
            raise _corrupt(path, f"its weight file {place['location']!r} is too short")
        del tensor.external_data[:]
        # not set to DEFAULT: the digest of what the network computes would tell the two apart
        tensor.ClearField("data_location")


def _external_file(path: Path, name: str) -> Path:
    inside = PurePosixPath(name)
    if name == "." or inside.is_absolute() or ".." in inside.parts:
        raise _corrupt(path, f"its weights are said to lie at {name!r}, outside the model's folder")
    if name in _OWN_FILES:
        raise ModelError(
            f"the model keeps weights in {name!r}, which is the name of another file of a bundle",
            where=str(path),
            remedy="save the model again with another location for its weights",
        )
    file = path.parent / inside
    if not file.is_file():
        raise ModelError(
            f"the model keeps weights in {name!r}, which is not there",
            where=str(path),
            remedy="copy that file beside the model",
        )
    return file


def _all_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t


def _canonical_digest(proto: onnx.ModelProto) -> Digest:
    """Digest what the network computes: without doc strings, producer and metadata."""
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    for field in ("doc_string", "producer_name", "producer_version", "metadata_props"):
        bare.ClearField(field)
    for part in (
        bare.graph,
        *bare.graph.node,
        *bare.graph.initializer,
        *bare.graph.input,
        *bare.graph.output,
        *bare.graph.value_info,
    ):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")  # torch writes paths and stack traces there
    data = bare.SerializeToString(deterministic=True)
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


def _graph(proto: onnx.ModelProto, path: Path) -> Graph:
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        raise _corrupt(path, one_line(error)) from error
    initializers = {tensor.name: tensor for tensor in proto.graph.initializer}
    constants = dict(initializers)
    tensors = {
        tensor.name: TensorInfo(
            name=tensor.name, dtype=_dtype(tensor.data_type), shape=tuple(tensor.dims)
        )
        for tensor in proto.graph.initializer
    }
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        if value.type.HasField("tensor_type") and value.name not in initializers:
            tensors[value.name] = _info(value)
    nodes = []
    for position, node in enumerate(proto.graph.node):
        nodes.append(_node(node, position))
        if node.op_type == "Constant" and (known := _constant(node)) is not None:
            constants[node.output[0]] = known
    return Graph(
        inputs=tuple(
            tensors[value.name] for value in proto.graph.input if value.name not in initializers
        ),
        outputs=tuple(
            tensors.get(value.name, TensorInfo(name=value.name, dtype="unknown"))
            for value in proto.graph.output
        ),
        nodes=tuple(nodes),
        tensors=tensors,
        constants=_Constants(constants),
        opset=next((one.version for one in proto.opset_import if one.domain in {"", "ai.onnx"}), 0),
    )


class _Constants(Mapping[str, npt.NDArray[np.generic]]):
    """Initializers by name, turned into arrays only when looked at."""

    def __init__(self, tensors: Mapping[str, onnx.TensorProto]) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> npt.NDArray[np.generic]:
        return np.asarray(numpy_helper.to_array(self._tensors[name]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """Give the value of a Constant node; none for strings and sparse ones."""
    for attribute in node.attribute:
        given = onnx.helper.get_attribute_value(attribute)
        if attribute.name == "value":
            return attribute.t
        if attribute.name in {"value_float", "value_floats"}:
            return numpy_helper.from_array(np.asarray(given, np.float32))
        if attribute.name in {"value_int", "value_ints"}:
            return numpy_helper.from_array(np.asarray(given, np.int64))
    return None


def _node(node: onnx.NodeProto, position: int) -> Node:
    attributes: dict[str, Attribute] = {}
    subgraph = False
    for attribute in node.attribute:
        value: Any = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        elif attribute.type in {onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS}:
            value = tuple(value)
        elif attribute.type in {onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS}:
            subgraph = True
        if isinstance(value, int | float | str | tuple):
            attributes[attribute.name] = value
    return Node(
        name=node.name or f"{node.op_type}_{position}",
        op_type=node.op_type,
        inputs=tuple(node.input),
        outputs=tuple(node.output),
        attributes=attributes,
        domain=node.domain,
        has_subgraph=subgraph,
    )


def _info(value: onnx.ValueInfoProto) -> TensorInfo:
    tensor = value.type.tensor_type
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(
            size.dim_value if size.HasField("dim_value") and size.dim_value > 0 else None
            for size in tensor.shape.dim
        )
    return TensorInfo(name=value.name, dtype=_dtype(tensor.elem_type), shape=shape)


def _dtype(code: int) -> str:
    if code == onnx.TensorProto.UNDEFINED or code not in onnx.TensorProto.DataType.values():
        return "unknown"
    return str(onnx.helper.tensor_dtype_to_np_dtype(code))
