"""Judges whether a built engine is close enough to the host's float32 network."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecal.core.golden import GoldenRun, cosines_by_sample

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """An output passes where its cosine to FP32 is at least min(ceiling, expected) - margin."""

    ceiling: float = 0.99
    margin: float = 0.02
    dla_margin: float = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputVerdict:
    """One output over all golden runs; `cosine_min` and `threshold` are its worst sample's."""

    name: str
    passed: bool
    cosine_min: float | None
    """None for integer outputs, which are reported, not judged."""
    threshold: float | None
    problem: str = ""
    max_error: float | None = None
    """Of all samples, in the output's own units; `None` where the engine gave no such output."""
    top1_agreement: float | None = None
    """Share of samples whose largest element agrees with FP32's, for outputs of class scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The verdict on an engine."""

    samples: int
    outputs: tuple[OutputVerdict, ...]

    @property
    def top1_agreement(self) -> float | None:
        """Give the first output's, where it holds class scores."""
        return self.outputs[0].top1_agreement if self.outputs else None

    @property
    def passed(self) -> bool:
        """Tell whether every output passed."""
        return all(output.passed for output in self.outputs)

    @property
    def cosine_min(self) -> float | None:
        """Give the worst cosine of all float outputs."""
        return min((o.cosine_min for o in self.outputs if o.cosine_min is not None), default=None)

    def to_json(self) -> dict[str, object]:
        """Give the keys scripts rely on."""
        return {
            "samples": self.samples,
            "outputs": [
                {
                    "name": output.name,
                    "cosine_min": output.cosine_min,
                    "threshold": output.threshold,
                    "max_error": output.max_error,
                    "top1_agreement": output.top1_agreement,
                    "passed": output.passed,
                    **({"problem": output.problem} if output.problem else {}),
                }
                for output in self.outputs
            ],
            "cosine_min": self.cosine_min,
            "top1_agreement": self.top1_agreement,
            "passed": self.passed,
        }


def verify_outputs(
    golden: Sequence[GoldenRun],
    outputs: Sequence[Mapping[str, npt.NDArray[Any]]],
    *,
    batch: int,
    thresholds: Thresholds,
    dla: bool = False,
    int8: bool = True,
) -> Verification:
    """Hold an engine's outputs of the golden runs against the host's.

    A float output passes if shape and finiteness hold and every sample's cosine to FP32 reaches its
    threshold, where *expected* is that sample's cosine in the host's own INT8 simulation.

    Parameters
    ----------
    outputs
        Of the engine, one mapping per golden run, in order.
    batch
        Samples per run, on axis 0.
    int8
        Whether the engine may run in INT8; of another one, the simulation says nothing, and the
        ceiling alone is expected.
    """
    margin = thresholds.dla_margin if dla else thresholds.margin
    names = list(golden[0].fp32)
    verdicts = tuple(
        replace(
            _judge(
                name,
                golden,
                outputs,
                batch=batch,
                ceiling=thresholds.ceiling,
                margin=margin,
                int8=int8,
            ),
            max_error=_max_error(golden, outputs, name),
            top1_agreement=_top1_agreement(golden, outputs, name, batch),
        )
        for name in names
    )
    return Verification(samples=len(golden) * batch, outputs=verdicts)


def _judge(
    name: str,
    golden: Sequence[GoldenRun],
    outputs: Sequence[Mapping[str, npt.NDArray[Any]]],
    *,
    batch: int,
    ceiling: float,
    margin: float,
    int8: bool,
) -> OutputVerdict:
    worst: tuple[float, float, float] | None = None  # distance to the threshold, cosine, threshold
    for number, run in enumerate(golden):
        want = run.fp32[name]
        have = outputs[number].get(name) if number < len(outputs) else None
        problem = _problem(want, have, number)
        if have is None or problem:
            return OutputVerdict(
                name=name, passed=False, cosine_min=None, threshold=None, problem=problem
            )
        if want.dtype.kind != "f":
            continue
        simulated = run.int8[name] if int8 else want
        expected = cosines_by_sample(want, simulated, batch=batch)
        found = cosines_by_sample(want, have.reshape(want.shape), batch=batch)
        for cosine_expected, cosine_found in zip(expected, found, strict=True):
            threshold = min(ceiling, cosine_expected) - margin
            case = (cosine_found - threshold, cosine_found, threshold)
            worst = case if worst is None else min(worst, case)
    if worst is None:
        return OutputVerdict(name=name, passed=True, cosine_min=None, threshold=None)
    return OutputVerdict(name=name, passed=worst[0] >= 0, cosine_min=worst[1], threshold=worst[2])


def _problem(want: npt.NDArray[Any], have: npt.NDArray[Any] | None, run: int) -> str:
    if have is None:
        return f"the engine gave no such output in run {run}"
    if have.size != want.size or (have.ndim == want.ndim and have.shape != want.shape):
        return f"expected shape {want.shape}, the engine gave {have.shape}"
    if want.dtype.kind == "f" and not np.isfinite(have).all():
        return f"the engine gave NaN or infinity in run {run}"
    return ""


def _max_error(
    golden: Sequence[GoldenRun], outputs: Sequence[Mapping[str, npt.NDArray[Any]]], name: str
) -> float | None:
    worst: float | None = None
    for run, given in zip(golden, outputs, strict=False):
        want, have = run.fp32[name], given.get(name)
        if have is None or have.size != want.size:
            return None
        with np.errstate(invalid="ignore"):
            gap = np.abs(want.astype(np.float64) - have.reshape(want.shape).astype(np.float64))
        error = float(gap.max(initial=0.0))
        if not math.isfinite(error):
            return None  # JSON has no such number, and `problem` says it
        worst = max(error, worst or 0.0)
    return worst


def _top1_agreement(
    golden: Sequence[GoldenRun],
    outputs: Sequence[Mapping[str, npt.NDArray[Any]]],
    name: str,
    batch: int,
) -> float | None:
    agreed: list[bool] = []
    for run, given in zip(golden, outputs, strict=False):
        want = run.fp32[name]
        have = given.get(name)
        if want.ndim != 2 or want.shape[0] != batch or want.shape[1] < 2 or have is None:
            return None
        if have.size != want.size:
            return None
        same = want.argmax(axis=1) == have.reshape(want.shape).argmax(axis=1)
        agreed += [bool(one) for one in same]
    return float(np.mean(agreed)) if agreed else None
