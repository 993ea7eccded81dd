"""Scale and amax, and how far two arrays lie apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

STEPS: Final = 127
"""INT8 is symmetric in TensorRT: -127 to 127, zero point 0."""


def scale_of(amax: np.float32) -> np.float32:
    """Give real units per INT8 step, divided in float32 as TensorRT does."""
    scale: np.float32 = np.float32(amax) / np.float32(STEPS)
    return scale


def cosine(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> float:
    """Give the cosine of two arrays seen as vectors; two zero vectors are alike."""
    a = np.asarray(left, np.float64).reshape(-1)
    b = np.asarray(right, np.float64).reshape(-1)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    if norms == 0.0:
        return 1.0 if not a.any() and not b.any() else 0.0
    return float(np.clip(a @ b / norms, -1.0, 1.0))


@dataclass(frozen=True, slots=True)
class Sqnr:
    """Signal and noise power, summed; adding two of them joins what they measured."""

    signal: float = 0.0
    noise: float = 0.0

    def __add__(self, other: Sqnr) -> Sqnr:
        """Join two measurements."""
        return Sqnr(self.signal + other.signal, self.noise + other.noise)

    @property
    def decibel(self) -> float:
        """Signal over noise; infinite where there is no noise, and minus infinity for no signal."""
        if self.noise == 0.0:
            return float("inf")
        if self.signal == 0.0:
            return float("-inf")
        return float(10.0 * np.log10(self.signal / self.noise))


def sqnr(reference: npt.NDArray[Any], values: npt.NDArray[Any]) -> Sqnr:
    """Measure how much of `values` is not `reference`."""
    wanted = np.asarray(reference, np.float64)
    return Sqnr(
        float(np.square(wanted).sum()),
        float(np.square(np.asarray(values, np.float64) - wanted).sum()),
    )
