"""What the operators of a network say about the range of one tensor when others are known.

Sums, convolutions and normalisations say nothing, nor do products but those with a factor of at
most one: what they give was either measured or is not known. Where a rule is NVIDIA's own it is
that of the Q/DQ translator for DLA (tools/qdq-translator of
github.com/NVIDIA/Deep-Learning-Accelerator-SW), or one of the copies TensorRT makes itself
(`edgecal.core.tensors`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from edgecal.core.tensors import constant_entries, copies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from edgecal.core.graph import Graph, Node
    from edgecal.core.versions import TensorRTVersion

BOUND_OF_ONE: Final = 2048.5 / 2048
"""What EntropyCalibration2 writes for a tensor whose largest value is 1: half a bin above it.

Sigmoid outputs of real caches read so (3c010a14).
"""
NO_DIFFERENCE, BOUND, REASONABLE = range(3)
"""Ranks: the engine computes the same; nothing is clipped; better than a hole."""

_GATES: Final = frozenset({"HardSigmoid", "Sigmoid", "Softmax", "Tanh"})
"""Whose values lie between -1 and 1."""

DOMAINS: Final = frozenset({"", "ai.onnx"})
"""Of the operators whose names mean what ONNX says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivation:
    """One way to know a tensor's range."""

    tensor: str
    rule: str
    rank: int
    amax: Callable[[Sequence[float]], float]
    """Of the sources' amax, then that of the constants; NaN or 0 where nothing follows."""
    sources: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()


def derivations(graph: Graph, tensorrt: TensorRTVersion) -> Iterator[Derivation]:
    """List every way there is, in the order of the network."""
    for entry, constant in constant_entries(graph, tensorrt).items():
        yield Derivation(
            tensor=entry, rule="constant", rank=NO_DIFFERENCE, amax=_largest, constants=(constant,)
        )
    for copy in copies(graph, tensorrt):  # TensorRT itself would make them equal
        producer = graph.producers.get(copy.tensor)
        if producer is not None and copy.source in producer.inputs:
            yield _equal(copy.tensor, copy.source, "pool", NO_DIFFERENCE)
            yield _equal(copy.source, copy.tensor, "pool", NO_DIFFERENCE)
        else:
            yield _equal(copy.tensor, copy.source, "concat-copy", NO_DIFFERENCE)
    for node in graph.nodes:
        rule = _RULES.get(node.op_type)
        if rule is not None and node.domain in DOMAINS and node.inputs and node.outputs:
            yield from rule(graph, node)


def _same_values(graph: Graph, node: Node) -> Iterator[Derivation]:
    """Give both sides one range: the output has the input's absolute values, and no others."""
    first, out = node.inputs[0], node.outputs[0]
    yield _from_input(graph, node, "same-values", NO_DIFFERENCE)
    yield _equal(first, out, "same-values", NO_DIFFERENCE)


def _never_beyond(graph: Graph, node: Node) -> Iterator[Derivation]:
    """Let the output reach as far as the input: a selection, a mean, or a cut."""
    yield _from_input(graph, node, "never-beyond-input", BOUND)


def _split(graph: Graph, node: Node) -> Iterator[Derivation]:
    for place in range(len(node.outputs)):
        yield _from_input(graph, node, "never-beyond-input", BOUND, output=place)
    if all(node.outputs):
        yield Derivation(
            tensor=node.inputs[0],
            rule="largest-part",
            rank=NO_DIFFERENCE,
            amax=_largest,
            sources=node.outputs,
        )


def _concat(graph: Graph, node: Node) -> Iterator[Derivation]:
    """Give the output the largest input's range; inputs that have none get the output's."""
    names = tuple(dict.fromkeys(name for name in node.inputs if name))
    yield Derivation(
        tensor=node.outputs[0],
        rule="largest-part",
        rank=NO_DIFFERENCE,
        amax=_largest,
        sources=tuple(name for name in names if name not in graph.constants),
        constants=tuple(name for name in names if name in graph.constants),
    )
    for name in names:
        yield _equal(name, node.outputs[0], "part-of-whole", BOUND)


def _relu(graph: Graph, node: Node) -> Iterator[Derivation]:
    yield _from_input(graph, node, "never-beyond-input", BOUND)
    yield from _read_only_by(graph, node)


def _leaky_relu(graph: Graph, node: Node) -> Iterator[Derivation]:
    slope = max(1.0, abs(_number(node.attributes.get("alpha", 0.01))))
    yield _from_input(graph, node, "leaky-relu", BOUND, lambda amax: amax * slope)


def _clip(graph: Graph, node: Node) -> Iterator[Derivation]:
    """Clip the input's range as the operator does; without one its ends are the range."""
    low, high = _end_of_clip(graph, node, 1, "min"), _end_of_clip(graph, node, 2, "max")
    if low is None or high is None:
        return

    def image(amax: float) -> float:
        return max(abs(min(max(end, low), high)) for end in (-amax, amax))

    yield _from_input(graph, node, "clipped", BOUND, image)
    yield from _read_only_by(graph, node)
    yield Derivation(
        tensor=node.outputs[0],
        rule="clipped",
        rank=REASONABLE,
        amax=lambda _values: image(math.inf),
    )


def _read_only_by(graph: Graph, node: Node) -> Iterator[Derivation]:
    """Give the input the output's range: what only this operator reads may be cut where it cuts."""
    if graph.consumers.get(node.inputs[0]) == (node,) and not _is_output(graph, node.inputs[0]):
        yield _equal(node.inputs[0], node.outputs[0], "read-by-relu-only", BOUND)


def _bounded_by_one(_graph: Graph, node: Node) -> Iterator[Derivation]:
    yield Derivation(
        tensor=node.outputs[0],
        rule="bounded-by-one",
        rank=REASONABLE,
        amax=lambda _values: BOUND_OF_ONE,
    )


def _tanh(graph: Graph, node: Node) -> Iterator[Derivation]:
    """Bound the output by its input too: Tanh of a little is hardly more."""
    yield _from_input(graph, node, "bounded-by-one", BOUND, lambda amax: min(amax, BOUND_OF_ONE))
    yield from _bounded_by_one(graph, node)


def _mul(graph: Graph, node: Node) -> Iterator[Derivation]:
    """Let a gated tensor, as in SiLU, reach as far as it does without its gate."""
    first, second = node.inputs[:2]
    for gate, value in ((first, second), (second, first)):
        producer = graph.producers.get(gate)
        if producer is not None and producer.op_type in _GATES and producer.domain in DOMAINS:
            yield _equal(node.outputs[0], value, "gated", BOUND)


def _sigmoid(graph: Graph, node: Node) -> Iterator[Derivation]:
    """Undo the Sigmoid, as NVIDIA's translator does.

    Only where nobody else reads the input but the product of a SiLU, which the Sigmoid closes:
    then it hardly matters how far the negative side goes. An output that reaches 1, as most do,
    tells nothing.
    """
    first, out = node.inputs[0], node.outputs[0]
    yield from _bounded_by_one(graph, node)
    readers = [one for one in graph.consumers.get(first, ()) if one != node]
    gated = all(one.op_type == "Mul" and set(one.inputs) == {first, out} for one in readers)
    if gated and not _is_output(graph, first):
        yield Derivation(
            tensor=first,
            rule="sigmoid-input",
            rank=REASONABLE,
            amax=lambda values: _logit(values[0]),
            sources=(out,),
        )


def _pad(graph: Graph, node: Node) -> Iterator[Derivation]:
    """Follow padding that adds one value, or repeats others; negative pads cut and are left."""
    pads = _argument(graph, node, 1, "pads")
    if pads is None or min(pads, default=0) < 0:
        return
    extra = 0.0
    if node.attributes.get("mode", "constant") == "constant":
        given = _has(node, 2) or "value" in node.attributes
        values = (_argument(graph, node, 2, "value") or (math.nan,)) if given else (0.0,)
        extra = abs(values[0])
    if math.isfinite(extra):
        yield _from_input(graph, node, "padded", NO_DIFFERENCE, lambda amax: max(amax, extra))
    yield _equal(node.inputs[0], node.outputs[0], "padded", BOUND)


def _resize(graph: Graph, node: Node) -> Iterator[Derivation]:
    """Follow Resize: nearest repeats values, linear lies between them, cubic goes beyond."""
    mode = node.attributes.get("mode", "nearest")
    if node.attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return  # puts a value of its own outside of the picture
    if mode == "nearest":
        yield _from_input(graph, node, "resized", NO_DIFFERENCE)
        yield _equal(node.inputs[0], node.outputs[0], "resized", NO_DIFFERENCE)
    elif mode == "linear":
        yield _from_input(graph, node, "resized", BOUND)


_RULES: Final[Mapping[str, Callable[[Graph, Node], Iterator[Derivation]]]] = {
    **dict.fromkeys(
        (
            "Abs",
            "DepthToSpace",
            "Dropout",
            "Expand",
            "Flatten",
            "Identity",
            "Neg",
            "Reshape",
            "SpaceToDepth",
            "Squeeze",
            "Tile",
            "Transpose",
            "Unsqueeze",
        ),
        _same_values,
    ),
    **dict.fromkeys(
        (
            "Gather",
            "GatherElements",
            "GatherND",
            "GlobalAveragePool",
            "GlobalMaxPool",
            "HardSwish",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "Slice",
        ),
        _never_beyond,
    ),
    "Clip": _clip,
    "Concat": _concat,
    "HardSigmoid": _bounded_by_one,
    "LeakyRelu": _leaky_relu,
    "Mul": _mul,
    "Pad": _pad,
    "Relu": _relu,
    "Resize": _resize,
    "Sigmoid": _sigmoid,
    "Softmax": _bounded_by_one,
    "Split": _split,
    "Tanh": _tanh,
    "Upsample": _resize,
}

FOLLOWED: Final = frozenset(_RULES)
"""Operators that say something about ranges."""


def _from_input(
    graph: Graph,
    node: Node,
    rule: str,
    rank: int,
    amax: Callable[[float], float] = lambda amax: amax,
    *,
    output: int = 0,
) -> Derivation:
    """Derive an output from the first input, which may be a constant."""
    first = node.inputs[0]
    is_constant = first in graph.constants
    return Derivation(
        tensor=node.outputs[output],
        rule=rule,
        rank=rank,
        amax=lambda values: amax(values[0]),
        sources=() if is_constant else (first,),
        constants=(first,) if is_constant else (),
    )


def _equal(tensor: str, source: str, rule: str, rank: int) -> Derivation:
    return Derivation(
        tensor=tensor, rule=rule, rank=rank, amax=lambda values: values[0], sources=(source,)
    )


def _largest(values: Sequence[float]) -> float:
    """Take the largest, unless one is no number."""
    return float(np.max(values)) if values else math.nan


def _logit(amax: float) -> float:
    return math.log(amax / (1 - amax)) if 0.5 < amax < 1 else math.nan


def _is_output(graph: Graph, name: str) -> bool:
    return any(one.name == name for one in graph.outputs)


def _has(node: Node, place: int) -> bool:
    return len(node.inputs) > place and bool(node.inputs[place])


def _argument(graph: Graph, node: Node, place: int, attribute: str) -> tuple[float, ...] | None:
    """Read what is an attribute in old operator sets and a constant input in new ones."""
    if _has(node, place):
        if node.inputs[place] not in graph.constants:
            return None
        values = np.asarray(graph.constants[node.inputs[place]]).reshape(-1)
        return tuple(float(one) for one in values)
    given = node.attributes.get(attribute)
    if isinstance(given, tuple):
        return tuple(_number(one) for one in given)
    return None if given is None else (_number(given),)


def _end_of_clip(graph: Graph, node: Node, place: int, attribute: str) -> float | None:
    """Read one end; infinite where there is none, `None` where it is not known."""
    if not _has(node, place) and attribute not in node.attributes:
        return math.inf if attribute == "max" else -math.inf
    found = _argument(graph, node, place, attribute)
    return found[0] if found and not math.isnan(found[0]) else None


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
