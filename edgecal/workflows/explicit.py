"""The scales of a bundle as Q/DQ pairs in its network, where TensorRT takes no cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgecal.core.explicit import minimum_tensorrt
from edgecal.core.manifest import ExplicitRecord
from edgecal.core.qdq_report import judge_placement
from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgecal.core.findings import Finding
    from edgecal.ports import Backend


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplicitNetwork:
    """A network that carries its own scales."""

    data: bytes
    """The ONNX file, self-contained."""
    record: ExplicitRecord
    findings: tuple[Finding, ...]


def make_explicit(backend: Backend, scales: Mapping[str, float], *, fp16: bool) -> ExplicitNetwork:
    """Put scales into the network.

    Raises
    ------
    InputError
        If no pair has a place in it: no builder would make INT8 of it.
    """
    data, placed = backend.quantize(scales, fp16=fp16)
    if not placed.activations:
        raise InputError(
            "the network has no place for a Q/DQ pair: nothing in it has INT8 kernels whose inputs "
            "have usable scales",
            remedy="build it in FP16, without a bundle of form 'qdq'",
        )
    return ExplicitNetwork(
        data=data,
        record=ExplicitRecord(
            minimum_tensorrt=minimum_tensorrt(fp16=fp16),
            fp16=fp16,
            activations=len(placed.activations),
            weights=len(placed.weights),
        ),
        findings=judge_placement(placed),
    )
