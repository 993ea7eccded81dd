"""The journal's chain: each entry's digest covers its text, its place and the digest before it.

What was changed, put in, taken out or moved breaks the chain at its place. What was cut off at the
end is told by the head, which is kept apart: how many entries there are, and the last one's digest.
Whoever may write to the database can forge all of it from some entry on, head included; against
that helps only a copy of a head elsewhere, which is why reports print it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of the journal, as it lies there."""

    position: int
    """From 1."""
    text: str
    """The event's JSON."""
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where a chain ends."""

    entries: int = 0
    digest: str = ""


def link(rollout: str, position: int, text: str, before: str) -> str:
    """Give the digest of an entry, as 64 hex digits; `before` is empty for the first."""
    covered = json.dumps([rollout, position, before, text], separators=(",", ":"))
    return hashlib.sha256(covered.encode("ascii")).hexdigest()


def first_break(rollout: str, rows: Sequence[Entry], head: Head, *, since: Head) -> str:
    """Say where a chain that goes on from `since` breaks first; nothing if it is whole."""
    before = since
    for row in rows:
        position = before.entries + 1
        if row.position != position:
            return f"entry {position} is missing: {row.position} comes after {before.entries}"
        if row.digest != link(rollout, position, row.text, before.digest):
            return f"entry {position} is not the one that was written there"
        before = Head(entries=position, digest=row.digest)
    if head.entries > before.entries:
        return f"entry {before.entries + 1} is missing: {head.entries} were written"
    if head != before:
        return f"entry {before.entries} is not the last one that was written ({head.entries})"
    return ""
