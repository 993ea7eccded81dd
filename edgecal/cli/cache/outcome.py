"""What the commands that make a new cache share: reading with the past, writing with a record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from edgecal.cli.story import Story
    from edgecal.core.cache import CalibrationCache
    from edgecal.core.edit_record import Change, Document, Left, Origin, Past, Record
    from edgecal.core.findings import Finding
    from edgecal.core.manifest import Manifest

_SHOWN: Final = 10

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="A calibration cache, or a bundle.")
]
OutOption = Annotated[
    Path, typer.Option("--output", "-o", metavar="OUT", help="The new cache; never an input.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An input, read."""

    path: Path
    cache: CalibrationCache
    manifest: Manifest | None
    past: Past


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a command made, before it is written."""

    command: str
    sources: Sequence[Source]
    out: Path
    cache: CalibrationCache
    options: Mapping[str, object]
    origin: Origin
    changes: Sequence[Change] = ()
    remaining: Sequence[Left] | None = None
    """By default the tensors whose scales in the new cache are not usable."""
    findings: Sequence[Finding] = ()
    kept: Sequence[Path] = ()
    """Further files that must not be written over, beside the inputs."""
    manifest: Manifest | None = None
    """Of the bundle to write; `None` where it is a file."""


def read_source(path: Path) -> Source:
    """Read an input, and what is known of its past."""
    from edgecal.cli.wiring import caches
    from edgecal.core.document import cache_of, read_document
    from edgecal.core.edit_record import past_of

    file = caches.read_cache(path)
    name = str(path)
    cache = cache_of(read_document(file.data, source=name), source=name)
    past = past_of(
        name,
        file.data,
        cache.header,
        manifest=file.manifest,
        record=caches.read_record(path),
    )
    return Source(path=path, cache=cache, manifest=file.manifest, past=past)


def write_outcome(outcome: Outcome, story: Story) -> None:
    """Write the record, then the cache; then say what happened."""
    from edgecal.cli.wiring import caches
    from edgecal.core.cache import serialize_cache
    from edgecal.core.edit_record import serialize_record

    data = serialize_cache(outcome.cache)
    record = _record(outcome, data)
    inputs = [source.path for source in outcome.sources]
    if outcome.manifest is None:
        caches.write_with_record(
            outcome.out, data, serialize_record(record), inputs=[*inputs, *outcome.kept]
        )
    else:
        caches.write_bundle_with_record(
            outcome.out, outcome.manifest, data, serialize_record(record), source=inputs[0]
        )
    story.findings(outcome.findings)
    document: Document = {
        **record.to_json(),
        "schema": f"edgecal.cache-{outcome.command}/1",
        "findings": [finding.to_json() for finding in outcome.findings],
    }
    story.result(document, lambda console: _show(console, record, story))


def _record(outcome: Outcome, data: bytes) -> Record:
    from edgecal import __version__
    from edgecal.cli.wiring import machine
    from edgecal.core.edit_record import Left, NamedFile, Record, join_histories
    from edgecal.core.manifest import digest_of
    from edgecal.core.usable import unusable

    remaining = outcome.remaining
    if remaining is None:
        scales = outcome.cache.scales()
        remaining = [
            Left(name=name, reason=f"its scale is {scales[name]:g}")
            for name in unusable(outcome.cache.entries)
        ]
    return Record(
        command=f"cache {outcome.command}",
        created=machine.now(),
        edgecal=__version__,
        inputs=tuple(source.past.file for source in outcome.sources),
        output=NamedFile(path=str(outcome.out), digest=digest_of(data)),
        options=outcome.options,
        before=outcome.sources[0].cache.header,
        after=outcome.cache.header,
        origin=outcome.origin,
        changes=tuple(outcome.changes),
        remaining=tuple(remaining),
        history=join_histories(source.past.history for source in outcome.sources),
    )


def _show(console: Console, record: Record, story: Story) -> None:
    from edgecal.cli.printable import printable
    from edgecal.core.edit_record import RECORD_SUFFIX, header_text

    def plain(name: str) -> str:
        return printable(name, console.encoding)

    before, after = header_text(record.before), header_text(record.after)
    header = after if before == after else f"{before} -> {after}"
    count = len(record.changes)
    lines = [f"{plain(record.output.path)}: {count} change{'' if count == 1 else 's'}, {header}"]
    shown = record.changes if story.verbose else record.changes[:_SHOWN]
    lines += [
        f"  {one.rule:<18} {plain(one.name)}: {_ranges(one)}  ({plain(one.source)})"
        for one in shown
    ]
    if len(shown) < count:
        lines.append(f"  and {count - len(shown)} more; -v shows all")
    if record.remaining:
        lines.append(f"still without a usable scale: {len(record.remaining)}")
        left = record.remaining if story.verbose else record.remaining[:_SHOWN]
        lines += [f"  {plain(one.name)}: {one.reason}" for one in left]
        if len(left) < len(record.remaining):
            lines.append(f"  and {len(record.remaining) - len(left)} more; -v shows all")
    lines.append(f"record: {plain(record.output.path)}{RECORD_SUFFIX}")
    console.print("\n".join(lines), markup=False)


def _ranges(change: Change) -> str:
    """Show both ranges, with as many digits as it takes to tell them apart."""
    from edgecal.core.cache import Entry
    from edgecal.core.usable import amax_of

    def text(bits: str | None, digits: int) -> str:
        return "none" if bits is None else f"{amax_of(Entry(change.name, bits)):.{digits}g}"

    before, after = text(change.before, 6), text(change.after, 6)
    if before == after:
        before, after = text(change.before, 9), text(change.after, 9)
    return f"{before} -> {after}"
