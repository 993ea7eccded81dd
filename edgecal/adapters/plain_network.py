"""The network that is left of a Q/DQ network once its pairs are taken out, put together."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import EncodeError
from onnx import helper, numpy_helper

from edgecal.adapters.qdq_grid import refusal
from edgecal.core.findings import Finding, Severity
from edgecal.core.quant import STEPS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from edgecal.adapters.known_values import KnownValues
    from edgecal.adapters.qdq_grid import Integers

STANDARD: Final = frozenset({"", "ai.onnx"})
MICROSOFT: Final = "com.microsoft"
MOVES: Final = frozenset(
    {
        *("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Slice", "Split"),
        *("Gather", "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "MaxPool"),
    }
)
"""What gives only values that it was given, so that rounding before or after it is the same."""

_WEIGHTED: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_NO_LAYER_OF_FLOATS: Final = frozenset(
    {"Shape", "Size", "Cast", "ArgMax", "ArgMin", "NonZero", "Dropout", "Concat", *MOVES}
)
"""What reads a tensor and either moves it, or computes no floats of it."""
_FIRST_IR_WITHOUT_INPUTS: Final = 4
"""From here on an initializer need not be an input too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainNetwork:
    """What a Q/DQ network says, as a builder that reads a calibration cache wants it."""

    model: bytes
    """ONNX without pairs, self-contained."""
    scales: dict[str, float]
    """Real units per INT8 step, by tensor of `model`; topological, constants last."""
    constants: frozenset[str]
    """Those of `scales` that are constants, by ONNX name; TensorRT's own differs by version."""
    fp16_layers: tuple[str, ...]
    """Nodes of `model` that training left in floating point, in topological order."""
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Folded:
    """A constant that is float again."""

    source: str
    """What the file calls the constant before the pair, or its integers."""
    value: npt.NDArray[np.float32]
    integers: Integers


@dataclass(slots=True)
class Claim:
    """What the pairs on one tensor say of its scale."""

    scales: dict[float, None] = field(default_factory=dict)
    channels: int = 1
    unsigned: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """A node of the plain network; which of its inputs were read through a pair."""

    node: onnx.NodeProto
    through_pair: tuple[bool, ...]


@dataclass(slots=True)
class Reading:
    """What was understood of a Q/DQ network, node by node."""

    proto: onnx.ModelProto
    known: KnownValues
    kept: list[Kept] = field(default_factory=list)
    alias: dict[str, str] = field(default_factory=dict)
    """What is no tensor of the plain network any more, and the tensor to read instead."""
    claims: dict[str, Claim] = field(default_factory=dict)
    """What its pairs say of a tensor."""
    folded: dict[str, Folded] = field(default_factory=dict)
    """Constants that are float again, by the name that their readers use."""
    integers: set[str] = field(default_factory=set)
    """Tensors that were integers."""

    @property
    def outputs(self) -> dict[str, None]:
        """Name the network's outputs, in order."""
        return {one.name: None for one in self.proto.graph.output}


def put_together(reading: Reading, path: Path, *, widened: bool) -> PlainNetwork:
    """Make the plain network of what was read; the network that was read is used up.

    Parameters
    ----------
    widened
        Whether what is float32 in it was float16 in the file.
    """
    return _Plain(reading, path).finish(widened=widened)


class _Plain:
    """The plain network in the making."""

    def __init__(self, reading: Reading, path: Path) -> None:
        self._proto = reading.proto
        self._graph = reading.proto.graph
        self._path = path
        self._known = reading.known
        self._kept = reading.kept
        self._alias = reading.alias
        self._claims = reading.claims
        self._folded = reading.folded
        self._integers = reading.integers
        self._outputs = reading.outputs
        self._initializers = {one.name for one in self._graph.initializer}
        names = (one.name for one in self._graph.input)
        self._inputs = {name: None for name in names if name not in self._initializers}
        self._used: set[str] = set()

    def finish(self, *, widened: bool) -> PlainNetwork:
        """Put the plain network together, in place of the one that was read."""
        renamed = self._name_outputs()
        self._drop_idle()
        renamed |= self._name_constants(renamed)
        computed = (name for one in self._kept for name in one.node.output)
        scales = {
            renamed.get(name, name): max(self._claims[name].scales)
            for name in (*self._inputs, *computed)
            if name in self._claims
        }
        constants = self._constant_scales(renamed)
        scales |= constants
        layers = self._float_layers(scales, renamed)
        findings = [*self._scale_findings(renamed), *self._weight_findings(renamed)]
        if not self._claims:
            findings.append(_all_float(self._path))
        if widened:
            findings.append(_widened(self._path))
        self._write(renamed)
        try:
            model = self._proto.SerializeToString()
        except (ValueError, EncodeError) as error:
            raise refusal(
                self._path, f"the plain network is too large: {error}", "split the network"
            ) from error
        return PlainNetwork(
            model=model,
            scales=scales,
            constants=frozenset(constants),
            fp16_layers=layers,
            findings=tuple(findings),
        )

    def _name_outputs(self) -> dict[str, str]:
        """Keep the names of outputs that were given by a pair; gives tensors' new names."""
        produced = {name for one in self._kept for name in one.node.output}
        renamed: dict[str, str] = {}
        for output in self._outputs:
            tensor = self._alias.get(output, output)
            if tensor == output:
                continue
            if tensor in produced and tensor not in self._outputs and tensor not in renamed:
                renamed[tensor] = output
                continue
            node = helper.make_node("Identity", [tensor], [output], name=f"{output}_Identity")
            self._kept.append(Kept(node, (False,)))
        return renamed

    def _drop_idle(self) -> None:
        """Drop constants, and what moved them, that only pairs have read."""
        used = set(self._outputs)
        kept: list[Kept] = []
        for one in reversed(self._kept):
            node = one.node
            idle = used.isdisjoint(node.output) and node.domain in STANDARD
            if idle and (node.op_type == "Constant" or self._known.moves_known(node)):
                continue
            used.update(node.input)
            kept.append(one)
        self._kept = kept[::-1]
        self._used = used

    def _name_constants(self, renamed: Mapping[str, str]) -> dict[str, str]:
        """Give constants the name that they had before they were quantized, where it is free."""
        taken = {name for one in self._kept for name in (*one.node.input, *one.node.output)}
        taken.update(self._outputs, self._inputs, renamed.values())
        found: dict[str, str] = {}
        for name, folded in self._folded.items():
            if name in self._outputs or name not in self._used:
                continue
            source = self._alias.get(folded.source, folded.source)
            for wanted in (source.removesuffix("_quantized"), source):
                if wanted == name:
                    break
                if wanted and wanted not in taken:
                    found[name] = wanted
                    taken.add(wanted)
                    break
        return found

    def _constant_scales(self, renamed: Mapping[str, str]) -> dict[str, float]:
        """Give the scales of constants that are operands of something else than weighted layers."""
        found: dict[str, float] = {}
        for one in self._kept:
            if one.node.op_type in _WEIGHTED or one.node.op_type in _NO_LAYER_OF_FLOATS:
                continue
            for name in one.node.input:
                folded = self._folded.get(name)
                if folded is not None and folded.integers.grid.kind != "int32":
                    found[renamed.get(name, name)] = folded.integers.grid.largest
        return found

    def _float_layers(
        self, scales: Mapping[str, float], renamed: Mapping[str, str]
    ) -> tuple[str, ...]:
        counts = Counter(one.node.name for one in self._kept)
        layers = []
        for position, one in enumerate(self._kept):
            node = one.node
            if node.domain in STANDARD and node.op_type in _WEIGHTED:
                stays = not all(one.through_pair[:2])
            elif node.op_type in _NO_LAYER_OF_FLOATS and node.domain in STANDARD:
                stays = False
            else:
                stays = not any(one.through_pair) and any(
                    renamed.get(name, name) in scales for name in node.input
                )
            if not stays:
                continue
            if not node.name or counts[node.name] > 1:
                wanted, number = f"{node.name or node.op_type}_{position}", 0
                while wanted in counts:
                    number += 1
                    wanted = f"{node.name or node.op_type}_{position}_{number}"
                counts[wanted] = 1
                node.name = wanted
            layers.append(node.name)
        return tuple(layers)

    def _write(self, renamed: Mapping[str, str]) -> None:
        graph = self._graph
        nodes = [one.node for one in self._kept]
        for node in nodes:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    names[index] = renamed.get(name, name)
        floats = {
            renamed.get(name, name): folded.value
            for name, folded in self._folded.items()
            if name in self._used
        }
        read = {name for node in nodes for name in node.input} | set(self._outputs)
        kept = [one for one in graph.initializer if one.name in read and one.name not in floats]
        dropped = self._initializers - {one.name for one in kept}
        inputs = [one for one in graph.input if one.name not in dropped]
        produced = {name for node in nodes for name in node.output}
        produced -= self._integers.union(renamed.values())  # whose types have changed
        known = [one for one in graph.value_info if one.name in produced]
        _replace(graph.node, nodes)
        _replace(graph.initializer, kept)
        _replace(graph.input, inputs)
        _replace(graph.value_info, known)
        graph.initializer.extend(
            numpy_helper.from_array(value, name) for name, value in floats.items()
        )
        del graph.quantization_annotation[:]
        domains = {node.domain for node in nodes}
        opsets = [
            one
            for one in self._proto.opset_import
            if one.domain != MICROSOFT or MICROSOFT in domains
        ]
        _replace(self._proto.opset_import, opsets)
        self._proto.ir_version = max(self._proto.ir_version, _FIRST_IR_WITHOUT_INPUTS)

    def _scale_findings(self, renamed: Mapping[str, str]) -> Iterator[Finding]:
        for tensor, claim in self._claims.items():
            name = renamed.get(tensor, tensor)
            if len(claim.scales) > 1:
                yield Finding(
                    rule="several-scales",
                    severity=Severity.WARNING,
                    subject=name,
                    message=f"pairs on this tensor have {len(claim.scales)} scales, "
                    f"{min(claim.scales):.6g} to {max(claim.scales):.6g}, and a cache has one: "
                    "the largest was taken",
                    remedy="train with one quantizer per tensor, or evaluate before shipping",
                )
            if claim.channels > 1:
                yield Finding(
                    rule="activation-per-channel",
                    severity=Severity.WARNING,
                    subject=name,
                    message=f"this tensor has {claim.channels} scales, one per channel, and a "
                    "cache has one: the largest was taken",
                    remedy="quantize activations per tensor, or evaluate before shipping",
                )
            if claim.unsigned:
                yield Finding(
                    rule="activation-unsigned",
                    severity=Severity.WARNING,
                    subject=name,
                    message="this tensor was quantized to 255 steps above zero, and INT8 has 127: "
                    "the range stays, its steps are twice as coarse",
                    remedy="train with symmetric int8, or evaluate before shipping",
                )

    def _weight_findings(self, renamed: Mapping[str, str]) -> Iterator[Finding]:
        """Count the channels that a builder quantizes to other integers than training did."""
        axes: dict[str, int | None] = {}
        for one in self._kept:
            if one.node.op_type in _WEIGHTED and one.node.domain in STANDARD:
                for name in one.node.input[:2]:
                    if name in self._folded:
                        rank = self._folded[name].value.ndim
                        axes.setdefault(name, _channel_axis(one.node, rank))
        counts = {
            renamed.get(name, name): _off_scale(self._folded[name].integers, axis)
            for name, axis in axes.items()
        }
        odd = {name: count for name, count in counts.items() if count[0]}
        if odd:
            worst = max(odd, key=lambda name: odd[name][0] / odd[name][1])
            yield (
                Finding(
                    rule="weights-requantized",
                    severity=Severity.NOTE,
                    subject=worst,
                    message=f"{sum(one[0] for one in odd.values())} of "
                    f"{sum(one[1] for one in counts.values())} output channels of weights do not "
                    "reach +-127 of their INT8 steps, here "
                    f"{odd[worst][0]} of {odd[worst][1]}; TensorRT takes the largest weight of a "
                    "channel for 127, so their steps become other ones, mostly finer",
                    remedy="nothing, unless the accuracy differs: then train with the scales of "
                    "weights at max(abs(w)) / 127 per output channel",
                )
            )


def _replace(whole: Any, part: list[Any]) -> None:
    """Give a repeated field other contents; its type has no name that mypy knows."""
    del whole[:]
    whole.extend(part)


def _off_scale(integers: Integers, axis: int | None) -> tuple[int, int]:
    """Count the channels whose largest step is neither 127 nor 0, and all channels."""
    magnitude = np.abs(integers.steps.astype(np.int16))
    others = tuple(one for one in range(magnitude.ndim) if one != axis)
    peaks = magnitude.max(axis=others if axis is not None else None, initial=0)
    odd = (peaks != STEPS) & (peaks != 0)
    return int(np.count_nonzero(odd)), int(np.size(odd))


def _channel_axis(node: onnx.NodeProto, rank: int) -> int | None:
    attributes = {one.name: one.i for one in node.attribute}
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if attributes.get("group", 1) == 1 else None
    if node.op_type == "Gemm":
        return 0 if attributes.get("transB", 0) else 1
    return rank - 1 if rank > 1 else None


def _all_float(path: Path) -> Finding:
    return Finding(
        rule="activations-float",
        severity=Severity.WARNING,
        subject=path.name,
        message="only weights are quantized in this network, so no tensor has a scale",
        remedy="calibrate the plain network, or train with quantized activations",
    )


def _widened(path: Path) -> Finding:
    return Finding(
        rule="float16-widened",
        severity=Severity.NOTE,
        subject=path.name,
        message="tensors of this network were typed float16; in the plain network they are float32",
        remedy="nothing: a builder that reads a cache makes FP16 layers by itself (--fp16)",
    )
