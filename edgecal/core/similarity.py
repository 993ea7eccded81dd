"""Whether two pictures are the same one: by bytes, or by how they look from afar."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from edgecal.core.findings import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgecal.core.manifest import Digest

SIDE: Final = 16
"""A look is the grey values of a picture drawn together to 16 x 16."""
_MOST_ANYWHERE: Final = 8.0
_MOST_ON_AVERAGE: Final = 2.0
"""Grey levels by which two looks of one picture differ, however it was encoded and resized."""
_LEAST_CONTRAST: Final = 6.0
"""Standard deviation below which a look says too little: a night is like another."""
_NAMED: Final = 5
_ROUNDING: Final = 0.01
"""Far above what float32 means of 256 grey values are off."""

Look = npt.NDArray[np.float32]


def look_of(grey: npt.NDArray[Any]) -> Look | None:
    """Make the look of a picture that was drawn together to `SIDE` x `SIDE` grey values.

    Returns
    -------
    ndarray of float32, shape (256,), or None
        Nothing where the picture has too little contrast to be told from others.
    """
    look = np.asarray(grey, np.float32).reshape(SIDE * SIDE)
    return look if float(look.std()) >= _LEAST_CONTRAST else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A picture of the test set."""

    name: str
    digest: Digest
    look: Look | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Alike:
    """A sample that also stands in the test set."""

    sample: str
    known: str
    same_bytes: bool


@dataclass
class KnownPictures:
    """A test set to hold samples against: about two kilobytes for each of its pictures.

    Equal bytes are one picture. So are equal looks: this survives another encoding, a JPEG quality
    down to 10, another size down to 32 x 32, and stretching; not cropping, turning or another
    exposure, nor always a resize that passes over pixels (bilinear to a quarter). It is meant to
    miss rather than to accuse: no part of the picture may differ by more than a little, so that two
    pictures of a camera that stands still are two as soon as something the size of a cell moved.
    """

    _names: dict[Digest, str] = field(default_factory=dict)
    _looks: list[tuple[str, Look]] = field(default_factory=list)
    _table: _Table | None = None

    def add(self, known: Known) -> None:
        """Take one picture of the test set."""
        self._names.setdefault(known.digest, known.name)
        if known.look is not None:
            self._looks.append((known.name, known.look))
            self._table = None

    def find(self, name: str, digest: Digest, look: Look | None) -> Alike | None:
        """Find the picture of the test set that a sample is, if it is one."""
        if digest in self._names:
            return Alike(sample=name, known=self._names[digest], same_bytes=True)
        if look is None or not self._looks:
            return None
        if self._table is None:
            self._table = _table_of(self._looks)
        found = self._table.find(look)
        return None if found is None else Alike(sample=name, known=found, same_bytes=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """Looks in the order of their mean grey value: only near ones need to be compared."""

    means: npt.NDArray[np.float32]
    looks: npt.NDArray[np.float32]
    names: tuple[str, ...]

    def find(self, look: Look) -> str | None:
        mean = look.mean()
        first = np.searchsorted(self.means, mean - _MOST_ON_AVERAGE - _ROUNDING, side="left")
        last = np.searchsorted(self.means, mean + _MOST_ON_AVERAGE + _ROUNDING, side="right")
        apart = np.abs(self.looks[first:last] - look)
        same = (apart.max(axis=1, initial=0) <= _MOST_ANYWHERE) & (
            apart.mean(axis=1) <= _MOST_ON_AVERAGE
        )
        return self.names[first + int(same.argmax())] if same.any() else None


def _table_of(looks: Sequence[tuple[str, Look]]) -> _Table:
    means = np.asarray([look.mean() for _, look in looks], np.float32)
    order = np.argsort(means, kind="stable")
    return _Table(
        means=means[order],
        looks=np.asarray([looks[number][1] for number in order], np.float32),
        names=tuple(looks[number][0] for number in order),
    )


def judge_excluded(excluded: Sequence[Alike], *, test_set: str) -> Iterator[Finding]:
    """Say which samples were left out because the test set has them too.

    A network calibrated on its test set is judged by what it was fitted to.

    Severity: warning.
    Source: NVIDIA TensorRT developer guide, "Post-Training Quantization Using Calibration" (a
    calibration set of its own).
    Remedy: take calibration data from the training set.
    """
    if not excluded:
        return
    shown = ", ".join(
        f"{one.sample} ({'the bytes of' if one.same_bytes else 'looks like'} {one.known})"
        for one in excluded[:_NAMED]
    )
    more = f" and {len(excluded) - _NAMED} more" if len(excluded) > _NAMED else ""
    count = len(excluded)
    yield Finding(
        rule="like-test-set",
        severity=Severity.WARNING,
        subject=test_set,
        message=f"{count} sample{' was' if count == 1 else 's were'} left out, since the test set "
        f"has {'it' if count == 1 else 'them'} too: {shown}{more}",
        remedy="take calibration data from the training set; the manifest names every one",
    )
