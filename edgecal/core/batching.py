"""Which samples are held out, and how samples make batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgecal.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

    from edgecal.core.graph import TensorInfo

MOST_HELD_OUT: Final = 32
FEWEST_HELD_OUT: Final = 4
SMALL_DATA: Final = 16
"""Below this many samples none is held out: all serve for both."""


def is_held_out(index: int, *, batch_size: int, already: int) -> bool:
    """Decide in passing whether a sample is kept for judging, not for measuring.

    Every 8th, and every 4th of the first 16, so that 16 samples give the least number of 4; never
    one of the first batch, whose range anchors every histogram.

    Parameters
    ----------
    index
        Position of the sample in the data, from 0.
    already
        How many were held out so far.
    """
    stride = 4 if index < SMALL_DATA else 8
    return index >= batch_size and index % stride == stride - 1 and already < MOST_HELD_OUT


def fixed_batch(inputs: Sequence[TensorInfo]) -> int | None:
    """Give the batch size that the network's inputs fix, if they do.

    Raises
    ------
    DatasetError
        If they fix different ones, or an input has no batch axis.
    """
    for tensor in inputs:
        if tensor.shape is not None and not tensor.shape:
            raise DatasetError(
                f"input {tensor.name!r} is a scalar, and samples need a batch axis",
                remedy="make it a constant of the network",
            )
    sizes = {tensor.shape[0] for tensor in inputs if tensor.shape} - {None}
    if len(sizes) > 1:
        raise DatasetError(
            f"the network's inputs have different batch sizes: {sorted(map(str, sizes))}",
            remedy="export it with one batch size for all inputs, or a dynamic one",
        )
    return next(iter(sizes), None)


def stack(
    samples: Sequence[Mapping[str, npt.NDArray[Any]]], *, source: str = "data"
) -> dict[str, npt.NDArray[Any]]:
    """Make one batch of samples; that of a single one shares its memory.

    Raises
    ------
    DatasetError
        If their shapes differ.
    """
    if len(samples) == 1:
        return {name: value[np.newaxis] for name, value in samples[0].items()}
    try:
        return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
    except ValueError as error:
        raise DatasetError(
            "samples of one batch have different shapes",
            where=source,
            remedy="set a fixed resize, or --batch-size 1",
        ) from error


def runs_of(
    samples: Sequence[Mapping[str, npt.NDArray[Any]]], *, batch: int
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Group samples into runs of exactly `batch`, the last one filled up with its last sample."""
    for start in range(0, len(samples), batch):
        group = list(samples[start : start + batch])
        yield stack(group + [group[-1]] * (batch - len(group)))
