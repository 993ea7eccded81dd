"""Renames the tensors of a Caffe network between TensorRT's cache and NVDLA's layers.

A cache names tensors; nvdla_compiler looks up inputs by tensor and layers by *layer* name. How
TensorRT's Caffe parser comes by its names is public (parsers/caffe in NVIDIA/TensorRT, up to 8.x):
it walks over the layers, adds one layer of its own for each (none for Input, Dropout and Flatten,
whose output is their input), and at the end gives every blob's name to the tensor that the blob
then stands for. So of several layers that write one blob in place, the last one has its name, and
the others keep `(Unnamed Layer* N) [Type]_output`, N being the index of the TensorRT layer. The
ResNet-50 that nvdla/sw publishes as cache and as table agrees: 229 values, in one order.

Why not by position in the file: newer caches are not in order, and names can be checked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgecal.core.cache import Entry
from edgecal.errors import IncompatibleError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

INPUT: Final = "Input"
_ALIASES: Final = frozenset({"Dropout", "Flatten"})
_NAMED: Final = 5
_QUOTED: Final = 60

_HIDDEN = re.compile(r"\(Unnamed Layer\* (?P<index>[0-9]{1,9})\) \[(?P<kind>[^\]]*)\]_output")

_KINDS: Final = {
    "AbsVal": "Unary",
    "BNLL": "Activation",
    "BatchNorm": "Scale",
    "Clip": "Activation",
    "Concat": "Concatenation",
    "Convolution": "Convolution",
    "Crop": "Padding",
    "Deconvolution": "Deconvolution",
    "ELU": "Activation",
    "Eltwise": "ElementWise",
    "InnerProduct": "Fully Connected",
    "LRN": "LRN",
    "Permute": "Shuffle",
    "Pooling": "Pooling",
    "Power": "Scale",
    "ReLU": "Activation",
    "Reshape": "Shuffle",
    "Scale": "Scale",
    "Sigmoid": "Activation",
    "Softmax": "Softmax",
    "SoftmaxWithLoss": "Softmax",
    "TanH": "Activation",
}
"""TensorRT's word for the layer it adds. `LRN` is inferred: no cache with it was seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaffeLayer:
    """A layer of a network as it is deployed; `Input` layers stand for inputs of any spelling."""

    name: str
    type: str
    bottoms: tuple[str, ...] = ()
    tops: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Output:
    """The first output of a layer, or an input, with both its names."""

    nvdla: str
    tensor: str | None
    """TensorRT's name, where the blob's name is on this tensor."""
    index: int | None = None
    """Of TensorRT's layer; `None` for an input."""
    kind: str | None = None
    """TensorRT's word for the layer; `None` where we do not know it."""

    @property
    def described(self) -> str:
        if self.tensor is not None:
            return self.tensor
        return f"(Unnamed Layer* {self.index}) [{self.kind or '?'}]_output"


def rename_for_nvdla(entries: Iterable[Entry], network: Sequence[CaffeLayer]) -> tuple[Entry, ...]:
    """Name scales as nvdla_compiler looks them up: one for every input and every layer.

    Dropout and Flatten get the scale of what they pass on; the compiler leaves them out, and keys
    it does not ask for do no harm. No nvdla_compiler has read the result here.

    Raises
    ------
    IncompatibleError
        If a layer has no entry (the compiler would abort on it), an entry belongs to no layer, a
        layer of TensorRT's is of another kind than the network's, or two layers share a name.
    """
    by_name = {entry.tensor: entry.bits for entry in entries}
    hidden: dict[int, tuple[str, str]] = {}
    for name in by_name:
        if match := _HIDDEN.fullmatch(name):
            hidden[int(match["index"])] = (name, match["kind"])
    bits: dict[str, str] = {}
    # further outputs have no place in NVDLA's table, and their blobs' names in the cache
    used = {top for layer in network for top in layer.tops[1:]}
    missing: list[str] = []
    for output in _outputs(network):
        tensor = output.tensor
        if tensor is None and output.index in hidden:
            tensor, kind = hidden[output.index]
            _check_kind(output, tensor, kind)
        if tensor is None or tensor not in by_name:
            missing.append(f"{output.nvdla!r} ({output.described})")
            continue
        used.add(tensor)
        if bits.setdefault(output.nvdla, by_name[tensor]) != by_name[tensor]:
            raise _ambiguous(output.nvdla)
    if missing:
        raise IncompatibleError(
            f"the cache has no scale for layers of the network: {_some(missing)}",
            remedy="calibrate this network itself; nvdla_compiler aborts if one layer is missing",
        )
    if strangers := [repr(name[:_QUOTED]) for name in by_name if name not in used]:
        raise IncompatibleError(
            f"the cache has entries that belong to no layer of the network: {_some(strangers)}",
            remedy="pass the prototxt that was calibrated; layers must not have been added since",
        )
    return tuple(Entry(name, value) for name, value in bits.items())


def rename_for_tensorrt(
    entries: Iterable[Entry], network: Sequence[CaffeLayer]
) -> tuple[Entry, ...]:
    """Name scales as TensorRT's Caffe parser names tensors, from NVDLA's layer names.

    Only for the parser of TensorRT up to 8.x, and for tensors that layers of the network put out:
    constants that a parser adds have no name in NVDLA's table. The words in brackets are those
    seen in caches of 5.1 to 8.x; no TensorRT has read the result here.

    Raises
    ------
    IncompatibleError
        If an entry belongs to no layer, or is of a type whose name in TensorRT we do not know.
    """
    outputs = {output.nvdla: output for output in _outputs(network)}
    bits: dict[str, str] = {}
    strangers: list[str] = []
    unknown: list[str] = []
    for entry in entries:
        output = outputs.get(entry.tensor)
        if output is None:
            strangers.append(repr(entry.tensor[:_QUOTED]))
        elif output.tensor is None and output.kind is None:
            unknown.append(repr(entry.tensor[:_QUOTED]))
        elif bits.setdefault(output.described, entry.bits) != entry.bits:
            raise _ambiguous(output.described)
    if strangers:
        raise IncompatibleError(
            f"the table has entries that belong to no layer of the network: {_some(strangers)}",
            remedy="pass the prototxt that the table was made for",
        )
    if unknown:
        raise IncompatibleError(
            f"nobody knows what TensorRT calls the output of {_some(unknown)}: another layer "
            "overwrites its blob in place, and its type is none we have seen",
            remedy="calibrate with TensorRT instead",
        )
    return tuple(Entry(name, value) for name, value in bits.items())


def _outputs(network: Sequence[CaffeLayer]) -> list[_Output]:
    """Walk over the network as TensorRT's parser does, inputs first.

    Tensors are numbers here: inputs as they come, then the outputs of layers.
    """
    blobs: dict[str, int] = {}
    made: list[tuple[CaffeLayer, str, int, int | None]] = []
    index = tensors = 0
    for layer in network:
        if layer.type == INPUT:
            for top in layer.tops:
                blobs[top] = tensors
                made.append((layer, top, tensors, None))
                tensors += 1
        elif layer.type in _ALIASES:
            for top in layer.tops[:1]:
                if layer.bottoms and layer.bottoms[0] in blobs:
                    blobs[top] = blobs[layer.bottoms[0]]
                    made.append((layer, layer.name, blobs[top], None))
        else:
            for output, top in enumerate(layer.tops):
                blobs[top] = tensors + output
            made.append((layer, layer.name, tensors, index))
            tensors += max(len(layer.tops), 1)
            index += 1
    # the parser goes through its map of blobs in byte order; the last name of a tensor stays
    names = {blobs[blob]: blob for blob in sorted(blobs, key=_bytes)}
    places = {tensor: (place, layer.type) for layer, _, tensor, place in made if place is not None}
    outputs: list[_Output] = []
    for _, name, tensor, _ in made:
        place, kind = places.get(tensor, (None, ""))
        outputs.append(
            _Output(nvdla=name, tensor=names.get(tensor), index=place, kind=_KINDS.get(kind))
        )
    return outputs


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


def _check_kind(output: _Output, tensor: str, kind: str) -> None:
    if output.kind is not None and output.kind != kind:
        raise IncompatibleError(
            f"layer {output.nvdla!r} is a {output.kind} for TensorRT, and the cache has "
            f"{tensor!r} in its place",
            remedy="pass the prototxt that was calibrated: its layers count differently",
        )


def _ambiguous(name: str) -> IncompatibleError:
    return IncompatibleError(
        f"two scales would have the name {name[:_QUOTED]!r}",
        remedy="give every layer of the network a name of its own",
    )


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
