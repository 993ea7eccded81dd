"""What is kept of an unfinished pass over the data, so that it can be gone on with."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgecal.core.derived import View
from edgecal.core.histogram import BINS, Clamp
from edgecal.core.manifest import Digest
from edgecal.core.npz import read_arrays
from edgecal.core.statistics import parse_histograms, serialize_histograms
from edgecal.errors import BundleError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edgecal.core.histogram import Histogram

SCHEMA: Final = "edgecal.checkpoint/1"
ANEW: Final = "leave out --resume to start at the first sample"

_MOST: Final = 1 << 24
"""Samples: more would take months, and a damaged count could ask for all of the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How far the data was read, and what it was up to there."""

    samples: int
    digest: Digest
    """Of their names, contents and prepared values, in order."""
    ended: bool
    """Whether there were no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What was measured of a pass so far.

    Histograms are whole numbers, so it does not matter which worker measured which batch, nor in
    which order: those that are not `done` are measured on top, and the end has the same bits.
    Samples that were kept back to judge by are not in it. Whoever goes on reads the data from the
    first sample again, which costs less than running the network, and proves that it is the same.
    """

    of: Mapping[str, str]
    """What else the bits depend on, in words: network, batch size, versions, preprocessing."""
    reading: Reading
    """Holds every sample of the batches that are done."""
    done: frozenset[int]
    """Numbers of batches, the first one 0; it is always done, as its ranges are where all begin."""
    histograms: Mapping[View, Histogram]


def check_same_pass(checkpoint: Checkpoint, of: Mapping[str, str], *, source: str) -> None:
    """Refuse to go on with a pass of another network, batch size or anything else that counts.

    Raises
    ------
    InputError
        It says what differs.
    """
    for what in dict.fromkeys((*of, *checkpoint.of)):
        then, now = checkpoint.of.get(what, "none"), of.get(what, "none")
        if then != now:
            raise InputError(
                f"the unfinished pass has another {what}: {then}, and now it is {now}",
                where=source,
                remedy=f"give what was given then, or {ANEW}",
            )


def serialize_checkpoint(checkpoint: Checkpoint) -> bytes:
    """Write a checkpoint as .npz; its members carry check sums."""
    views = list(checkpoint.histograms)
    about = {
        "schema": SCHEMA,
        "of": dict(checkpoint.of),
        "samples": checkpoint.reading.samples,
        "digest": checkpoint.reading.digest,
        "ended": checkpoint.reading.ended,
        "done": _runs(checkpoint.done),
        "views": [[one.source, one.clamp.low, one.clamp.high] for one in views],
    }
    histograms = serialize_histograms(
        {str(number): checkpoint.histograms[view] for number, view in enumerate(views)}
    )
    buffer = io.BytesIO()
    np.savez(
        buffer,
        about=np.frombuffer(json.dumps(about).encode(), np.uint8),
        histograms=np.frombuffer(histograms, np.uint8),
    )
    return buffer.getvalue()


def parse_checkpoint(data: bytes, *, source: str) -> Checkpoint:
    """Read what `serialize_checkpoint` wrote.

    Raises
    ------
    InputError
        If it is no such file, damaged, or of another schema.
    """
    try:
        arrays = read_arrays(data, source=source)
        about = json.loads(arrays["about"].tobytes())
        if about["schema"] != SCHEMA:
            raise InputError(
                f"expected a checkpoint of schema {SCHEMA!r}, found {about['schema']!r}",
                where=source,
                remedy=f"use the version of edgecal that wrote it, or {ANEW}",
            )
        found = parse_histograms(arrays["histograms"].tobytes(), source=source)
        return _checkpoint(about, found)
    except (BundleError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        what = error.what if isinstance(error, BundleError) else f"{type(error).__name__} {error}"
        raise InputError(
            f"the checkpoint is damaged, or is none: {what}",
            where=source,
            remedy=f"{ANEW}; it is replaced then",
        ) from error


def _checkpoint(about: dict[str, Any], found: Mapping[str, Histogram]) -> Checkpoint:
    views = [
        View(_text(name), Clamp(float(low), float(high))) for name, low, high in about["views"]
    ]
    histograms = dict(zip(views, found.values(), strict=True))
    if not histograms or len(histograms) != len(views):
        raise ValueError("no tensor, or one twice")
    for histogram in histograms.values():
        _check_histogram(histogram)
    done = frozenset(
        number for start, stop in about["done"] for number in range(_count(start), _count(stop))
    )
    samples = _count(about["samples"])
    if 0 not in done or len(done) > samples:
        raise ValueError("batches that cannot be")
    return Checkpoint(
        of={_text(key): _text(value) for key, value in about["of"].items()},
        reading=Reading(
            samples=samples, digest=Digest(_text(about["digest"])), ended=about["ended"] is True
        ),
        done=done,
        histograms=histograms,
    )


def _check_histogram(histogram: Histogram) -> None:
    counts = histogram.counts
    if counts.shape != (2 * BINS + 1,) or counts.dtype != np.int64 or counts.min() < 0:
        raise ValueError("counts that cannot be")
    if not 0 < histogram.range_end < np.inf:
        raise ValueError(f"a range up to {histogram.range_end}")


def _runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Write numbers as what begins and what follows each unbroken run of them."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number:
            runs[-1] = (runs[-1][0], number + 1)
        else:
            runs.append((number, number + 1))
    return runs


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, found {value!r:.40}")
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MOST:
        raise TypeError(f"expected a count, found {value!r:.40}")
    return value
