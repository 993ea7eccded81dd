"""Whether an entropy calibrator clips so hard that the network may not survive it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgecal.core.amax import DEFAULT_PERCENTILE, amax_percentile
from edgecal.core.findings import Finding, Severity
from edgecal.core.quant import STEPS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from edgecal.core.histogram import Histogram

HARD: Final = 0.5
"""Of the 99.99th percentile. In the network of the demo, entropy2 puts a Relu and its pool at 0.19
of it: that alone costs 4 of 94 points of accuracy, and its other thresholds lie above 0.55."""

_MOST_NAMED: Final = 3


def judge_clipping(
    histograms: Mapping[str, Histogram], scales: Mapping[str, np.float32], *, algorithm: str
) -> tuple[Finding, ...]:
    """Say where thresholds lie far below what nearly all values stay under.

    A search for the least divergence favours the many values at zero, or at a spike, over the few
    large ones that a network may live on.
    """
    shares = {}
    for name, scale in scales.items():
        if name in histograms and histograms[name].largest > 0:
            usual = amax_percentile(histograms[name], percentile=DEFAULT_PERCENTILE)
            shares[name] = float(scale) * STEPS / float(usual)
    hard = sorted((share, name) for name, share in shares.items() if share < HARD)
    if not hard:
        return ()
    named = ", ".join(f"{name} at {share:.2f} of it" for share, name in hard[:_MOST_NAMED])
    return (
        Finding(
            rule="clips-hard",
            severity=Severity.WARNING,
            subject=algorithm,
            message=f"{len(hard)} of {len(shares)} tensors are clipped at less than half of their "
            f"{DEFAULT_PERCENTILE}th percentile, worst: {named}",
            remedy="compare with percentile or mse; 'edgecal calibrate --from BUNDLE --algorithm "
            "percentile' needs no second pass over the data",
        ),
    )
