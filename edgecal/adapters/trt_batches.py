"""Batches on their way to TensorRT's worker: stacked, checked, and written a few ahead of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgecal.adapters.trt_folder import disk_trouble
from edgecal.core.batching import stack
from edgecal.core.trt_job import Hello, JobInput, batch_file, batch_line, end_line
from edgecal.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt

    Arrays = Mapping[str, npt.NDArray[Any]]

_AHEAD: Final = 4
"""Batches on disk that the worker has not taken yet: the next ones are made while the GPU works."""


@dataclass(slots=True)
class Progress:
    """How far it went, for the end's account."""

    samples: int = 0
    dropped: int = 0
    hello: Hello | None = None


def full_batches(
    samples: Iterable[Arrays], batch_size: int, state: Progress
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Stack samples to batches of exactly that size; count what is left over."""
    pending: list[Arrays] = []
    names: set[str] | None = None
    for number, sample in enumerate(samples):
        names = names or set(sample)
        if set(sample) != names:
            raise DatasetError(
                f"the first sample has the inputs {', '.join(sorted(names))}, this one has the "
                f"inputs {', '.join(sorted(sample))}",
                where=f"sample {number}",
                remedy="give an array for every input of the network in every sample",
            )
        pending.append(sample)
        if len(pending) == batch_size:
            yield stack(pending)
            state.samples += batch_size
            pending = []
    state.dropped = len(pending)


class Feeder:
    """Writes batches to the folder, a few ahead of the worker."""

    def __init__(
        self,
        folder: Path,
        inputs: tuple[JobInput, ...],
        first: dict[str, npt.NDArray[Any]],
        rest: Iterator[dict[str, npt.NDArray[Any]]],
    ) -> None:
        self._folder = folder
        self._inputs = inputs
        self._dtypes = {name: array.dtype for name, array in first.items()}
        self._next: dict[str, npt.NDArray[Any]] | None = first
        self._rest = rest
        self.sent = 0
        self.taken = 0
        self.ended = False

    def news(self) -> Iterator[bytes]:
        """Write what there is room for; gives the lines that announce it."""
        while not self.ended and self.sent - self.taken < _AHEAD:
            batch = self._next if self._next is not None else next(self._rest, None)
            self._next = None
            if batch is None:
                self.ended = True
                yield end_line(self.sent)
                return
            self._write(batch)
            self.sent += 1
            yield batch_line(self.sent - 1)

    def forget(self, number: int) -> None:
        """Delete the files of a batch that the worker has taken."""
        self.taken = number + 1
        for position in range(len(self._inputs)):
            (self._folder / batch_file(number, position)).unlink(missing_ok=True)

    def _write(self, batch: dict[str, npt.NDArray[Any]]) -> None:
        for position, one in enumerate(self._inputs):
            array = batch[one.name]
            where = f"batch {self.sent}, input {one.name}"
            if array.shape != one.shape:
                raise DatasetError(
                    f"TensorRT calibrates with one shape, {list(one.shape)} so far, "
                    f"found {list(array.shape)}",
                    where=where,
                    remedy="set a fixed resize",
                )
            if array.dtype != self._dtypes[one.name]:
                raise DatasetError(
                    f"the first batch is {self._dtypes[one.name]}, found {array.dtype}",
                    where=where,
                    remedy="give every sample in the same type",
                )
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise DatasetError(
                    "found NaN or infinity in what the network would see",
                    where=where,
                    remedy="check the sample and its preprocessing",
                )
            values = np.ascontiguousarray(array, dtype=np.dtype(one.dtype).newbyteorder("<"))
            with (
                disk_trouble(self._folder),
                (self._folder / batch_file(self.sent, position)).open("wb") as out,
            ):
                out.write(values.data)
