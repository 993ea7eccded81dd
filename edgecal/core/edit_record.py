"""The record of a cache made out of others: from what, by which command, what changed and why."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from edgecal.core.manifest import Digest, digest_of
from edgecal.core.versions import TensorRTVersion, parse_tensorrt, version_of_code
from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from edgecal.core.cache import Header
    from edgecal.core.manifest import Manifest

SCHEMA: Final = "edgecal.cache-record/1"
RECORD_SUFFIX: Final = ".record.json"
"""What the record of a cache is called beyond the cache's own name."""

Document = dict[str, Any]
"""A record as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One entry that is not as it was; bits as the files spell them."""

    name: str
    before: str | None
    """`None` for a tensor that had no entry."""
    after: str | None
    """`None` for a tensor that has none any more."""
    rule: str
    source: str
    """What the new value comes from: an option, a file, tensors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A tensor that is still without a usable scale."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who wrote the entries in the first place, whatever the header says by now."""

    written_by_tensorrt: bool
    """False: the numbers are edgecal's, and the header was stamped."""
    tensorrt: TensorRTVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedFile:
    """A file as the user named it, and what it held."""

    path: str
    digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """Where an input comes from, as far as anything tells."""

    file: NamedFile
    origin: Origin
    history: tuple[Document, ...] = ()
    """Records of the steps that led to it, the oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What one command did."""

    command: str
    created: datetime
    edgecal: str
    inputs: tuple[NamedFile, ...]
    output: NamedFile
    options: Mapping[str, object]
    before: Header
    """Of the first input."""
    after: Header
    origin: Origin
    changes: tuple[Change, ...]
    remaining: tuple[Left, ...]
    history: tuple[Document, ...]

    def to_json(self) -> Document:
        """Give the keys scripts rely on."""
        return {
            "schema": SCHEMA,
            "command": self.command,
            "created": self.created.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "edgecal": self.edgecal,
            "inputs": [_file_json(file) for file in self.inputs],
            "output": _file_json(self.output),
            "options": dict(self.options),
            "header": {"before": header_text(self.before), "after": header_text(self.after)},
            "origin": {
                "written_by_tensorrt": self.origin.written_by_tensorrt,
                "tensorrt": str(self.origin.tensorrt),
            },
            "changes": [
                {
                    "name": one.name,
                    "before": one.before,
                    "after": one.after,
                    "rule": one.rule,
                    "source": one.source,
                }
                for one in self.changes
            ],
            "remaining": [{"name": one.name, "reason": one.reason} for one in self.remaining],
            "history": list(self.history),
        }


def serialize_record(record: Record) -> bytes:
    """Write a record as readable JSON; names that are no UTF-8 survive as escapes."""
    return (json.dumps(record.to_json(), indent=2) + "\n").encode()


def past_of(
    path: str, data: bytes, header: Header, *, manifest: Manifest | None, record: bytes | None
) -> Past:
    """Find out where a cache comes from.

    Parameters
    ----------
    manifest
        That of the bundle that holds the cache; it outweighs a record.
    record
        What lies beside the cache. It counts only if it is about exactly these bytes; a cache of
        which nothing tells is taken for one that TensorRT wrote, which is the careful guess.
    """
    file = NamedFile(path=path, digest=digest_of(data))
    known = _read(record, file.digest) if record is not None else None
    if manifest is not None:
        origin = Origin(
            written_by_tensorrt=manifest.written_by_tensorrt,
            tensorrt=manifest.restamped_from or manifest.tensorrt,
        )
    elif known is not None:
        origin = known[0]
    else:
        origin = Origin(written_by_tensorrt=True, tensorrt=version_of_code(header.code))
    return Past(file=file, origin=origin, history=known[1] if known else ())


def common_origin(pasts: Sequence[Past], header: Header) -> Origin:
    """Give the origin of what several inputs make together: the one to be most careful about."""
    version = version_of_code(header.code)
    strangers = [
        one.origin for one in pasts if one.origin.tensorrt.major_minor != version.major_minor
    ]
    careful = [one for one in strangers if one.written_by_tensorrt]
    first = (careful or strangers or [pasts[0].origin])[0]
    return Origin(
        written_by_tensorrt=any(one.origin.written_by_tensorrt for one in pasts),
        tensorrt=first.tensorrt,
    )


def join_histories(histories: Iterable[Iterable[Document]]) -> tuple[Document, ...]:
    """Put histories one after the other; a step that several share stands once."""
    steps = {json.dumps(step, sort_keys=True): step for steps in histories for step in steps}
    return tuple(steps.values())


def _read(data: bytes, digest: Digest) -> tuple[Origin, tuple[Document, ...]] | None:
    """Read a record; `None` if it is none, is damaged, or is about another file."""
    try:
        document = json.loads(data)
        if document["schema"] != SCHEMA or document["output"]["digest"] != digest:
            return None
        origin = document["origin"]
        history = [*document["history"], {k: v for k, v in document.items() if k != "history"}]
        if origin["written_by_tensorrt"] not in (True, False) or not all(
            isinstance(step, dict) for step in history
        ):
            return None
        return Origin(
            written_by_tensorrt=origin["written_by_tensorrt"],
            tensorrt=parse_tensorrt(origin["tensorrt"]),
        ), tuple(history)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InputError):
        return None


def _file_json(file: NamedFile) -> Document:
    return {"path": file.path, "digest": file.digest}


def header_text(header: Header) -> str:
    """Write a header as the file does."""
    return f"TRT-{header.code}-{header.algorithm}"
