"""What a Q/DQ export quantized and what it left float, as a report and as findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecal.core.findings import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgecal.core.placement import Left, Placement

_MOST_NAMED = 3


def report_placement(placement: Placement) -> dict[str, object]:
    """Give the keys that scripts may rely on: lists of names, and operators with reasons."""
    return {
        "activations": [pair.tensor for pair in placement.activations],
        "weights": [pair.constant for pair in placement.weights],
        "without_scale": list(placement.without_scale),
        "unusable": list(placement.unusable),
        "unplaced": list(placement.unplaced),
        "unknown": list(placement.unknown),
        "left_float": _operators(placement.left_float),
        "left_float32": _operators(placement.left_float32),
    }


def judge_placement(placement: Placement) -> tuple[Finding, ...]:
    """Say what an INT8 build from the exported network will lack."""
    return tuple(_judge(placement))


def _judge(placement: Placement) -> Iterator[Finding]:
    if not placement.activations:
        yield Finding(
            rule="nothing-quantized",
            severity=Severity.WARNING,
            subject="network",
            message="no tensor was quantized: none that INT8 kernels read has a usable scale",
            remedy="see whether the cache belongs to this network: edgecal cache check",
        )
    if placement.unusable:
        yield _about(
            "scale-suspicious",
            Severity.WARNING,
            placement.unusable,
            "zero, infinite, NaN, negative or denormal scales are not written",
            "recalibrate, or give them a range: edgecal cache edit --set",
        )
    if placement.without_scale:
        yield _about(
            "tensor-coverage",
            Severity.WARNING,
            placement.without_scale,
            "no usable scale, so their readers stay float",
            "recalibrate; edgecal cache fill derives what can be derived",
        )
    if placement.unknown:
        yield _about(
            "tensor-coverage",
            Severity.NOTE,
            placement.unknown,
            "the network has no such tensors",
            "helpers of TensorRT's parser are harmless: edgecal cache check tells them apart",
        )
    for rule, left, what in (
        ("left-float", placement.left_float, "stay float"),
        ("left-float32", placement.left_float32, "stay float32"),
    ):
        reasons: dict[str, list[str]] = {}
        for one in left:
            reasons.setdefault(one.reason, []).append(one.node)
        for reason, nodes in reasons.items():
            yield _about(rule, Severity.NOTE, nodes, f"these {what}: {reason}", "nothing, if meant")


def _about(rule: str, severity: Severity, names: Sequence[str], what: str, remedy: str) -> Finding:
    more = len(names) - _MOST_NAMED
    listed = ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    return Finding(
        rule=rule,
        severity=severity,
        subject=names[0],
        message=f"{what}: {listed}",
        remedy=remedy,
    )


def _operators(left: Sequence[Left]) -> list[dict[str, str]]:
    return [{"node": one.node, "op_type": one.op_type, "reason": one.reason} for one in left]
