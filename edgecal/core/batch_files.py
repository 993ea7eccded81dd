"""Batch files as TensorRT's INT8 samples read them: header and name <-> values."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from edgecal.core.findings import Finding, Severity
from edgecal.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SUFFIX: Final = ".batch"

HEADER: Final = struct.Struct("<4i")
_FLOAT_BYTES: Final = 4
_LARGEST: Final = 2**31 - 1
_NAMED: Final = 5

_NAME: Final = re.compile(
    rf"(?P<prefix>.*?)(?P<number>[0-9]{{1,18}})(?P<suffix>(?:{re.escape(SUFFIX)})?)", re.DOTALL
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What a batch file holds: float32 pictures, prepared and planar, then perhaps labels."""

    samples: int
    channels: int
    height: int
    width: int
    has_labels: bool = False
    """Whether one float32 per sample follows the pictures, as in sets for classification."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Give the shape of one sample."""
        return self.channels, self.height, self.width

    @property
    def sample_bytes(self) -> int:
        """Count the bytes of one sample."""
        return self.channels * self.height * self.width * _FLOAT_BYTES

    @property
    def labels_offset(self) -> int:
        """Say where the labels begin, and the pictures end."""
        return HEADER.size + self.samples * self.sample_bytes


@dataclass(frozen=True, slots=True)
class BatchName:
    """The name of a batch file in parts; they are read in the order of their numbers."""

    prefix: str
    number: int
    suffix: str


def parse_batch(head: bytes, *, size: int, source: str) -> Batch:
    """Read the first bytes of a batch file: N, C, H, W as little-endian 32-bit integers.

    Parameters
    ----------
    size
        Bytes of the whole file. They tell whether there are labels, and bound what is read later.

    Raises
    ------
    DatasetError
        If it is none, or cut off, or longer than it says.
    """
    if len(head) < HEADER.size:
        raise DatasetError(
            f"expected a batch file, which has a header of {HEADER.size} bytes, found {size} bytes",
            where=source,
            remedy="write or copy the file again",
        )
    samples, channels, height, width = HEADER.unpack(head[: HEADER.size])
    if min(samples, channels, height, width) < 1:
        raise DatasetError(
            "expected a batch file with N, C, H and W of at least 1, found "
            f"{samples}, {channels}, {height}, {width}",
            where=source,
            remedy="write the file again: little-endian int32 N, C, H, W, then float32 values",
        )
    batch = Batch(samples=samples, channels=channels, height=height, width=width)
    bare = batch.labels_offset
    labelled = bare + samples * _FLOAT_BYTES
    if size not in {bare, labelled}:
        raise DatasetError(
            f"the header says {samples} samples of {channels}x{height}x{width}: {bare} bytes, or "
            f"{labelled} with labels, were expected, found {size}",
            where=source,
            remedy="write or copy the file again",
        )
    return Batch(
        samples=samples,
        channels=channels,
        height=height,
        width=width,
        has_labels=size == labelled,
    )


def serialize_header(batch: Batch) -> bytes:
    """Write the header.

    Raises
    ------
    DatasetError
        If a number does not fit into it.
    """
    numbers = (batch.samples, *batch.shape)
    if not all(1 <= number <= _LARGEST for number in numbers):
        raise DatasetError(
            f"a batch file cannot hold N, C, H, W of {', '.join(map(str, numbers))}",
            remedy="each must be at least 1 and less than 2^31",
        )
    return HEADER.pack(*numbers)


def parse_batch_name(name: str) -> BatchName | None:
    """Take a file's name apart, if it ends in a number, or in one before `.batch`."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    return BatchName(found["prefix"], int(found["number"]), found["suffix"])


def judge_batch_names(names: Sequence[str], *, source: str) -> Iterator[Finding]:
    """Warn where the numbers of a set have gaps: perhaps some files were not copied."""
    numbers = sorted({name.number for name in map(parse_batch_name, names) if name is not None})
    gaps = [(left + 1, right - 1) for left, right in pairwise(numbers) if right > left + 1]
    if not gaps:
        return
    words = [f"{left}" if left == right else f"{left} to {right}" for left, right in gaps]
    others = f" and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
    missing = sum(right - left + 1 for left, right in gaps)
    yield Finding(
        rule="batch-files-missing",
        severity=Severity.WARNING,
        subject=source,
        message=f"{missing} batch file{'s are' if missing > 1 else ' is'} missing between numbers "
        f"{numbers[0]} and {numbers[-1]}: {', '.join(words[:_NAMED])}{others}",
        remedy="copy the missing ones, or leave it if they are meant to be absent",
    )


def check_batch_words(prefix: str, suffix: str) -> None:
    """Make sure that names made of these can be taken apart again, by us and by others.

    Raises
    ------
    DatasetError
        If they cannot.
    """
    odd = (
        prefix[-1:].isdigit()
        or suffix[:1].isdigit()
        or prefix.startswith((".", "-"))
        or any(char in word for word in (prefix, suffix) for char in "/\\\n\0")
    )
    if odd:
        raise DatasetError(
            f"files called {prefix!r}, a number, {suffix!r} cannot be found again",
            remedy="take a prefix that ends in no digit and a suffix that begins with none, "
            "neither with a slash, nothing hidden: batch and .batch are usual",
        )
