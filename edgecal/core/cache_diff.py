"""What two calibration caches say differently, tensor by tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgecal.core.cache import Header

if TYPE_CHECKING:
    from edgecal.core.document import Document, DocumentEntry


@dataclass(frozen=True, slots=True)
class Change:
    """A tensor whose scale differs."""

    tensor: str
    left: float | None  # None where the file holds no finite float32
    right: float | None

    @property
    def ratio(self) -> float | None:
        """How many times the left scale the right one is; `None` unless both are above zero."""
        if self.left is None or self.right is None or self.left <= 0 or self.right <= 0:
            return None
        return self.right / self.left

    @property
    def octaves(self) -> float:
        """How far apart the scales are, up or down: 1 for half or twice; infinite without ratio."""
        ratio = self.ratio
        return math.inf if ratio is None else abs(math.log2(ratio))


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheDiff:
    """Two caches beside each other; names in the order of their files."""

    only_left: tuple[str, ...]
    only_right: tuple[str, ...]
    changed: tuple[Change, ...]
    unchanged: int
    headers_differ: bool

    @property
    def same(self) -> bool:
        """Whether both say the same, however they spell it."""
        return not (self.only_left or self.only_right or self.changed or self.headers_differ)

    def beyond(self, ratio: float) -> bool:
        """Tell whether more than rounding lies between the two.

        That is: a tensor only on one side, a scale more than `ratio` times the other in either
        direction, or a changed one that is not positive and finite on both sides. Headers do not
        count: two versions of TensorRT may agree about the scales.
        """
        return bool(
            self.only_left
            or self.only_right
            or any(one.octaves > math.log2(ratio) for one in self.changed)
        )


def diff_caches(left: Document, right: Document) -> CacheDiff:
    """Compare what two caches say of each tensor, whatever their order and spelling.

    Of a tensor named twice in one file the last line counts; that there are two is a finding of
    that file.
    """
    before, after = _by_tensor(left), _by_tensor(right)
    changed: list[Change] = []
    unchanged = 0
    for tensor, old in before.items():
        new = after.get(tensor)
        if new is None:
            continue
        if _same(old, new):
            unchanged += 1
        else:
            changed.append(Change(tensor, _finite(old), _finite(new)))
    return CacheDiff(
        only_left=tuple(tensor for tensor in before if tensor not in after),
        only_right=tuple(tensor for tensor in after if tensor not in before),
        changed=tuple(changed),
        unchanged=unchanged,
        headers_differ=_header(left) != _header(right),
    )


def _by_tensor(document: Document) -> dict[str, DocumentEntry]:
    return {entry.tensor: entry for entry in document.entries}


def _same(left: DocumentEntry, right: DocumentEntry) -> bool:
    if left.bits == right.bits:  # decimals too, which have no scale
        return True
    old, new = left.scale, right.scale
    if old is None or new is None:
        return False
    return old == new or (math.isnan(old) and math.isnan(new))


def _finite(entry: DocumentEntry) -> float | None:
    scale = entry.scale
    return scale if scale is not None and math.isfinite(scale) else None


def _header(document: Document) -> Header | str:
    header = document.header
    return header if isinstance(header, Header) else document.header_text
