"""How often a classifier is right: its largest output against labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgecal.core.batching import runs_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgecal.ports import Dataset, Network


def top1(network: Network, dataset: Dataset, labels: Mapping[str, int], *, batch: int) -> float:
    """Give the share of samples whose largest element of the first output is their label.

    Parameters
    ----------
    labels
        Class index by sample name.
    """
    samples = list(dataset)
    right = 0
    for start in range(0, len(samples), batch):
        group = samples[start : start + batch]
        for inputs in runs_of([sample.arrays for sample in group], batch=len(group)):
            scores = next(iter(network.run(inputs).values()))
            found = np.asarray(scores).argmax(axis=1)
            wanted = [labels[sample.name] for sample in group]
            right += int((found == np.asarray(wanted)).sum())
    return right / len(samples)
