"""Reads calibration data once: batches, samples kept back to judge by, and what was read so far."""

from __future__ import annotations

import hashlib
import zlib
from typing import TYPE_CHECKING

import numpy as np

from edgecal.core.batching import FEWEST_HELD_OUT, SMALL_DATA, is_held_out
from edgecal.core.checkpoint import ANEW, Reading
from edgecal.core.manifest import Digest
from edgecal.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgecal.ports import Dataset, Sample


class Reader:
    """Goes through the data once: hands out batches of samples, keeps held-out ones back, counts.

    Parameters
    ----------
    before
        How far it was read by a pass that goes on here; up to there it must be the same.
    """

    def __init__(
        self, dataset: Dataset, batch_size: int, *, exact: bool, before: Reading | None = None
    ) -> None:
        self._dataset = dataset
        self._batch_size = batch_size
        self._exact = exact
        self._before = before
        self._digest = hashlib.sha256()
        self._proof = hashlib.sha256()
        self._ended = False
        self.reading: Reading | None = None
        """How far it was read when the last batch was handed out; nothing before it gets as far
        as it was read before, and is known to be the same."""
        self.held: list[Sample] = []
        self.early: list[Sample] = []
        """The first samples, which judge as well where data is too little to hold any out."""
        self.samples = 0
        self.dropped = 0

    @property
    def holds_out(self) -> bool:
        """Tell whether enough samples were kept back to judge by."""
        return len(self.held) >= FEWEST_HELD_OUT

    @property
    def digest(self) -> Digest:
        """Digest names and contents in their order."""
        return Digest(f"sha256:{self._digest.hexdigest()}")

    def __iter__(self) -> Iterator[list[Sample]]:
        for batch in self._batches():
            self._note()
            yield batch
        self._note()

    def _batches(self) -> Iterator[list[Sample]]:
        pending: list[Sample] = []
        full_batches = 0
        for sample in self._measured():
            pending.append(sample)
            if len(pending) == self._batch_size:
                full_batches += 1
                yield pending
                pending = []
        if self.samples == 0:
            raise DatasetError("the data holds no sample", remedy="give at least one sample")
        if pending and self._exact and full_batches:
            self.dropped = len(pending)
        elif pending:
            missing = self._batch_size - len(pending) if self._exact else 0
            yield pending + [pending[-1]] * missing

    def _measured(self) -> Iterator[Sample]:
        """Yield the samples that make histograms: all but the held-out ones, if they suffice."""
        for index, sample in enumerate(self._dataset):
            self._count(sample)
            if index < SMALL_DATA - 1:
                self.early.append(sample)
            if is_held_out(index, batch_size=self._batch_size, already=len(self.held)):
                self.held.append(sample)
            else:
                yield sample
        self._ended = True
        if self._before is not None and self.samples < self._before.samples:
            raise _other_data(f"it ends after {self.samples} samples", self._before)
        if not self.holds_out:
            yield from self.held

    def _count(self, sample: Sample) -> None:
        self.samples += 1
        known = f"{sample.name}\0{sample.digest}\n".encode()
        self._digest.update(known)
        self._proof.update(known)
        for name, value in sample.arrays.items():
            # what a decoder of another version makes of the same file may differ
            check = zlib.crc32(np.ascontiguousarray(value).data)
            self._proof.update(f"{name}\0{value.dtype.str}\0{value.shape}\0{check}\n".encode())
        before = self._before
        if before is None or self.samples < before.samples:
            return
        if self.samples == before.samples and self._mark().digest != before.digest:
            raise _other_data("a name, a content or what became of it differs", before)
        if self.samples > before.samples and before.ended:
            raise _other_data("it goes on, and that was all then", before)

    def _note(self) -> None:
        now, before = self._mark(), self._before
        if before is None or (now.samples >= before.samples and now.ended >= before.ended):
            self.reading = now

    def _mark(self) -> Reading:
        digest = Digest(f"sha256:{self._proof.hexdigest()}")
        return Reading(samples=self.samples, digest=digest, ended=self._ended)


def _other_data(what: str, before: Reading) -> DatasetError:
    return DatasetError(
        f"the data is not the one whose first {before.samples} samples the unfinished pass has "
        f"read: {what}",
        where="--resume",
        remedy=f"give the same data, prepared the same way, or {ANEW}",
    )
