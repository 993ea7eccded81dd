"""How long an engine takes for one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Of many runs with the same input: copies to the device and back included."""

    runs: int
    median_ms: float
    p99_ms: float

    def to_json(self) -> dict[str, object]:
        """Give the keys scripts rely on."""
        return {
            "runs": self.runs,
            "median_ms": round(self.median_ms, 4),
            "p99_ms": round(self.p99_ms, 4),
        }


def latency_of(times_ms: Sequence[float]) -> Latency:
    """Sum runs up; p99 is the time of a run that was, not one between two.

    Raises
    ------
    ValueError
        If there is no run, or a time is no time.
    """
    times = np.sort(np.asarray(times_ms, np.float64))
    if not times.size or not np.isfinite(times).all() or times[0] < 0:
        raise ValueError(f"expected the times of runs, found {list(times_ms)[:3]}")
    place = int(np.ceil(0.99 * times.size)) - 1
    return Latency(
        runs=int(times.size), median_ms=float(np.median(times)), p99_ms=float(times[place])
    )
