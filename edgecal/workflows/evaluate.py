"""How often a classifier is right: its largest output against labels."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from edgecal.core.batching import runs_of
from edgecal.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgecal.ports import Dataset, Network


def top1(network: Network, dataset: Dataset, labels: Mapping[str, int], *, batch: int) -> float:
    """Give the share of samples whose largest element of the first output is their label.

    Parameters
    ----------
    labels
        Class index by sample name.

    Raises
    ------
    DatasetError
        If there is no sample, or one without a label.
    """
    samples = iter(dataset)
    right = seen = 0
    while group := list(itertools.islice(samples, batch)):
        unknown = [sample.name for sample in group if sample.name not in labels]
        if unknown:
            raise DatasetError(
                "this sample has no label", where=unknown[0], remedy="give one for every sample"
            )
        seen += len(group)
        for inputs in runs_of([sample.arrays for sample in group], batch=len(group)):
            scores = np.asarray(next(iter(network.run(inputs).values())))
            found = scores.reshape(len(group), -1).argmax(axis=1)
            wanted = [labels[sample.name] for sample in group]
            right += int((found == np.asarray(wanted)).sum())
    if not seen:
        raise DatasetError("the data holds no sample", remedy="give at least one sample")
    return right / seen
