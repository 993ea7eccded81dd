"""What TensorRT looks up in a calibration cache for a network: found, missing and left over."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from edgecal.core.findings import Finding, Severity
from edgecal.core.parser_tensors import Helper, constant_role, find_helpers
from edgecal.core.tensors import activations, constant_entries

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from edgecal.core.graph import Graph, Node, TensorInfo
    from edgecal.core.versions import TensorRTVersion

RULE: Final = "tensor-coverage"

COSTS: Final = ("high", "medium", "low", "none")
"""What a hole costs, worst first."""

_FIRST_WITHOUT_CALIBRATION: Final = 11
_TOLERATED_UNKNOWN: Final = 10
"""Per cent of entries that may match nothing: old lines do no harm, a renamed network does."""

_WEIGHTED: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_FUSED: Final = frozenset({"Relu", "BatchNormalization", "Clip", "LeakyRelu"})
"""What TensorRT usually makes one layer of with the convolution before it."""
_INT8: Final = _WEIGHTED | _FUSED | {
    "Add", "AveragePool", "Concat", "GlobalAveragePool", "HardSigmoid", "HardSwish", "Max",
    "MaxPool", "Min", "Mul", "PRelu", "Resize", "Sigmoid", "Sub", "Sum", "Tanh", "Upsample",
}  # fmt: skip
"""Operators worth INT8 on a GPU; the rest runs in a higher precision, or only moves values."""
_DLA: Final = frozenset({
    "Abs", "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose",
    "Equal", "Flatten", "Gemm", "LRN", "LeakyRelu", "MatMul", "Max", "MaxPool", "Mul", "PRelu",
    "Relu", "Reshape", "Resize", "Sigmoid", "Slice", "Softmax", "Split", "Sub", "Sum", "Tanh",
    "Transpose", "Upsample",
})  # fmt: skip
"""Operators that Orin's DLA runs itself (NVIDIA Deep-Learning-Accelerator-SW, TensorRT 8.5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """A tensor of the network, or of the parser, without an entry."""

    name: str
    kind: str
    """`activation`, `constant`, `integer`, or `shape`: integers that count dimensions."""
    node: str | None
    """What computes it, or reads it if it is a constant; `None` for an input of the network."""
    cost: str
    """One of `COSTS`."""
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """A cache held against a network, name by name."""

    covered: tuple[str, ...]
    """Float activations with an entry, in the order of the network."""
    needless: tuple[str, ...]
    """Entries of tensors that TensorRT never asks for: integers, masks, constants by name."""
    helpers: tuple[Helper, ...]
    unknown: tuple[str, ...]
    """Entries that match nothing, in file order."""
    holes: tuple[Hole, ...]
    """All that has no entry, costliest first."""
    findings: tuple[Finding, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """Float activations without an entry, costliest first."""
        return tuple(hole.name for hole in self.holes if hole.kind == "activation")


def check_coverage(
    scales: Mapping[str, float],
    graph: Graph,
    *,
    tensorrt: TensorRTVersion | None,
    dla: bool = False,
    gpu_fallback: bool = True,
    fp16: bool = True,
) -> Coverage:
    """Tell what TensorRT will find, will miss, and will not ask for.

    Parameters
    ----------
    scales
        All entries of the cache, in file order; zero, infinite and NaN ones count as covered.
    tensorrt
        `None` where nobody knows: then constants are not judged.
    """
    wanted = activations(graph)
    asked = set(wanted)
    helpers = find_helpers(tuple(scales), graph)
    explained = {helper.name for helper in helpers}
    own = {*graph.tensors, *graph.producers, *graph.constants}
    rest = [name for name in scales if name not in asked and name not in explained]
    holes = [*_holes(scales, graph, wanted, dla=dla), *_constant_holes(scales, graph, tensorrt)]
    coverage = Coverage(
        covered=tuple(name for name in wanted if name in scales),
        needless=tuple(name for name in rest if name in own),
        helpers=helpers,
        unknown=tuple(name for name in rest if name not in own),
        holes=tuple(sorted(holes, key=lambda hole: COSTS.index(hole.cost))),
        findings=(),
    )
    strict = dla and not gpu_fallback and not fp16
    findings = _judge(coverage, scales, graph, tensorrt, dla=dla, strict=strict)
    return replace(coverage, findings=tuple(findings))


def some(names: Sequence[str], *, most: int = 3) -> str:
    """Quote the first few names in a sentence."""
    shown = ", ".join(repr(name[:80]) for name in names[:most])
    more = len(names) - most
    return f"{shown} and {more} more" if more > 0 else shown


def is_whole(tensor: TensorInfo | None) -> bool:
    """Tell whether a tensor holds integers or truth values; doubles are floats to the parser."""
    return tensor is not None and tensor.dtype.startswith(("int", "uint", "bool"))


def _judge(
    coverage: Coverage,
    scales: Mapping[str, float],
    graph: Graph,
    tensorrt: TensorRTVersion | None,
    *,
    dla: bool,
    strict: bool,
) -> Iterator[Finding]:
    if tensorrt is not None and tensorrt.major >= _FIRST_WITHOUT_CALIBRATION:
        yield Finding(
            rule="implicit-int8-removed",
            severity=Severity.ERROR,
            subject="cache",
            message=f"TensorRT {tensorrt} takes no calibration caches; 10.16 was the last that "
            "does",
            remedy="check it for the TensorRT it was made for, or export a network with Q/DQ nodes",
        )
    yield from _too_little(coverage, graph)
    yield from _missing(coverage, dla=dla, strict=strict)
    yield from _constants(coverage, dla=dla)
    yield from _unknown(coverage, entries=len(scales))
    yield from _unusable(coverage.covered, scales)


def _too_little(coverage: Coverage, graph: Graph) -> Iterator[Finding]:
    inputs = [tensor.name for tensor in graph.inputs if tensor.is_float]
    total = len(coverage.covered) + len(coverage.missing)
    if inputs and not set(inputs) & set(coverage.covered):
        yield Finding(
            rule=RULE,
            severity=Severity.ERROR,
            subject=inputs[0],
            message=f"no input of the network has an entry: {some(inputs)}",
            remedy="give the network this cache was made for, or recalibrate this one",
        )
    if 2 * len(coverage.covered) < total:
        yield Finding(
            rule=RULE,
            severity=Severity.ERROR,
            subject="cache",
            message=f"only {len(coverage.covered)} of the network's {total} float activations have "
            "an entry",
            remedy="give the network this cache was made for, or recalibrate this one",
        )


def _missing(coverage: Coverage, *, dla: bool, strict: bool) -> Iterator[Finding]:
    missing = coverage.missing
    if not missing:
        return
    what = "TensorRT keeps the layers around them out of INT8"
    if strict:
        what = "the DLA needs FP16 for their layers, or the GPU, and both are forbidden"
    elif dla:
        what = "the DLA runs their layers in FP16"
    yield Finding(
        rule=RULE,
        severity=Severity.ERROR if strict else Severity.WARNING,
        subject=missing[0],
        message=f"{_count(len(missing), 'activation has', 'activations have')} no entry: "
        f"{some(missing)}; {what}",
        remedy="recalibrate, or let 'edgecal cache fill' copy what follows from neighbours",
    )


def _constants(coverage: Coverage, *, dla: bool) -> Iterator[Finding]:
    constants = [hole.name for hole in coverage.holes if hole.kind == "constant"]
    if constants:
        yield Finding(
            rule=RULE,
            severity=Severity.WARNING if dla else Severity.NOTE,
            subject=constants[0],
            message=f"{_count(len(constants), 'constant has', 'constants have')} no entry: "
            f"{some(constants)}; their small layers stay out of INT8",
            remedy="'edgecal cache fill' computes them from the network's file",
        )


def _unknown(coverage: Coverage, *, entries: int) -> Iterator[Finding]:
    unknown = coverage.unknown
    if unknown:
        share = 100 * len(unknown)
        yield Finding(
            rule=RULE,
            severity=Severity.WARNING if share > _TOLERATED_UNKNOWN * entries else Severity.NOTE,
            subject=unknown[0],
            message=f"{len(unknown)} of {entries} entries match nothing in this network: "
            f"{some(unknown)}",
            remedy="TensorRT ignores them; many of them mean that the cache is of another network",
        )


def _unusable(covered: Sequence[str], scales: Mapping[str, float]) -> Iterator[Finding]:
    odd = [name for name in covered if not (math.isfinite(scales[name]) and scales[name] > 0)]
    if odd:
        yield Finding(
            rule="scale-suspicious",
            severity=Severity.WARNING,
            subject=odd[0],
            message=f"{_count(len(odd), 'entry holds', 'entries hold')} a scale that no range has: "
            + ", ".join(f"{name[:80]!r} {scales[name]:g}" for name in odd[:3])
            + (f" and {len(odd) - 3} more" if len(odd) > 3 else ""),
            remedy="recalibrate with data that moves these tensors, or set them with 'edgecal "
            "cache edit'",
        )


def _holes(
    scales: Mapping[str, float], graph: Graph, wanted: Iterable[str], *, dla: bool
) -> Iterator[Hole]:
    asked = set(wanted)
    results = {output.name for output in graph.outputs}
    shapes = _shapes(graph)
    inputs = [(tensor.name, None) for tensor in graph.inputs]
    outputs = [(name, node) for node in graph.nodes for name in node.outputs if name]
    for name, node in dict((*inputs, *outputs)).items():
        if name in scales or name in graph.constants:
            continue
        if name in asked:
            cost, why = _cost(graph, name, node, dla=dla, result=name in results)
            yield Hole(
                name=name,
                kind="activation",
                node=node.name if node else None,
                cost=cost,
                why=why,
            )
        elif (tensor := graph.tensors.get(name)) is not None and is_whole(tensor):
            yield Hole(
                name=name,
                kind="shape" if name in shapes else "integer",
                node=node.name if node else None,
                cost="none",
                why=f"{tensor.dtype} has no scale",
            )


def _constant_holes(
    scales: Mapping[str, float], graph: Graph, tensorrt: TensorRTVersion | None
) -> Iterator[Hole]:
    if tensorrt is None:
        return
    for entry, constant in constant_entries(graph, tensorrt).items():
        if entry not in scales:
            node, role = constant_role(graph, constant)
            yield Hole(
                name=entry,
                kind="constant",
                node=node,
                cost="low",
                why=f"{role}, which the network's file holds",
            )


def _cost(
    graph: Graph, name: str, node: Node | None, *, dla: bool, result: bool
) -> tuple[str, str]:
    readers = graph.consumers.get(name, ())
    if not readers and not result:
        return "low", "nothing reads it"
    lower = "FP16" if dla else "FP16 or FP32"
    able = _DLA if dla else _INT8
    if not result and node is not None and _is_fused_away(graph, node, readers):
        return "low", f"usually inside one layer with {readers[0].name}"
    weighted = [reader for reader in readers if reader.op_type in _WEIGHTED]
    if weighted:
        return "high", f"{_reader(weighted)} cannot run in INT8: {lower}"
    others = [reader for reader in readers if reader.op_type in able]
    if others:
        return "medium", f"{_reader(others)} runs in {lower}"
    if node is not None and node.op_type in able:
        return "medium", f"{node.op_type} {node.name} writes {lower}"
    place = "the GPU runs" if dla else "never in INT8:"
    known = ", ".join(dict.fromkeys(reader.op_type for reader in readers)) or "an output"
    return "low", f"{place} {known}"


def _is_fused_away(graph: Graph, node: Node, readers: Sequence[Node]) -> bool:
    """Tell whether a tensor lies inside convolution, normalization and activation made one."""
    first: Node | None = node
    if node.op_type == "BatchNormalization":
        first = graph.producers.get(node.inputs[0])
    return (
        first is not None
        and first.op_type in _WEIGHTED
        and len(readers) == 1
        and readers[0].op_type in _FUSED
    )


def _reader(readers: Sequence[Node]) -> str:
    more = f" and {len(readers) - 1} more" if len(readers) > 1 else ""
    return f"{readers[0].op_type} {readers[0].name}{more}"


def _shapes(graph: Graph) -> set[str]:
    """Find integers that follow from nothing but shapes and constants."""
    found: set[str] = set()
    for node in graph.nodes:
        read = [name for name in node.inputs if name and name not in graph.constants]
        if node.op_type in {"Shape", "Size"} or (read and found.issuperset(read)):
            found.update(name for name in node.outputs if name)
    return found


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
