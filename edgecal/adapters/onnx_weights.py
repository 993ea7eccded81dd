"""Weights that lie in files beside an ONNX file: read into it, and digested with it."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

import onnx

from edgecal.adapters.onnx_errors import corrupt
from edgecal.core.manifest import (
    CACHE_FILE,
    GOLDEN_FILE,
    HISTOGRAMS_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    QDQ_FILE,
)
from edgecal.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_LARGEST_PROTO_BYTES: Final = 2**31 - 1024
"""Protocol buffers end at 2 GiB; ONNX Runtime takes an edited model only as one of them."""

_CHUNK: Final = 1 << 20

_OWN_FILES: Final = frozenset(
    {MODEL_FILE, QDQ_FILE, CACHE_FILE, GOLDEN_FILE, HISTOGRAMS_FILE, MANIFEST_FILE}
)
"""Names that weight files cannot have: in a bundle they lie beside these."""


def inline_external_data(
    proto: onnx.ModelProto, path: Path, digest: hashlib._Hash
) -> tuple[str, ...]:
    """Read weights that lie in files of their own, adding each file to the model's digest.

    Returns
    -------
    tuple of str
        Their paths relative to the model, in name order.

    Raises
    ------
    ModelError
        If a file is missing or too short, or lies where a bundle could not hold it.
    """
    tensors = [
        tensor
        for tensor in all_tensors(proto.graph)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    ]
    if not tensors:
        return ()
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
        raise corrupt(path, f"it says wrongly where its weights lie: {error}") from error
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
        one = hashlib.sha256()
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                one.update(chunk)
        digest.update(one.digest())
    for tensor, place in places:
        file = files[place["location"]]
        offset = int(place.get("offset", 0))
        with file.open("rb") as stream:
            stream.seek(offset)
            length = int(place.get("length", file.stat().st_size - offset))
            tensor.raw_data = stream.read(length)
        if len(tensor.raw_data) != length:
            raise corrupt(path, f"its weight file {place['location']!r} is too short")
        del tensor.external_data[:]
        # not set to DEFAULT: the digest of what the network computes would tell the two apart
        tensor.ClearField("data_location")


def _external_file(path: Path, name: str) -> Path:
    inside = PurePosixPath(name)
    if name == "." or inside.is_absolute() or ".." in inside.parts:
        raise corrupt(path, f"its weights are said to lie at {name!r}, outside the model's folder")
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


def all_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield initializers, and the values of attributes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
