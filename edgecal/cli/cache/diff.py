"""`edgecal cache diff`: what two calibration caches say differently."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from edgecal.cli.options import JsonOption, QuietOption
from edgecal.cli.printable import printable
from edgecal.cli.story import Story

if TYPE_CHECKING:
    from edgecal.core.cache_diff import CacheDiff, Change
    from edgecal.core.document import Document

_REFUSED: Final = 3
_MANY_TIMES: Final = 10
"""From here on a factor says more than percents."""


def diff(
    left: Annotated[
        Path,
        typer.Argument(metavar="A", help="A calibration cache or a bundle.", show_default=False),
    ],
    right: Annotated[
        Path,
        typer.Argument(metavar="B", help="What to compare it with.", show_default=False),
    ],
    *,
    fail_above: Annotated[
        float | None,
        typer.Option(
            "--fail-above",
            metavar="RATIO",
            help="Exit with 3 if a scale is more than RATIO times the other, up or down, if one is "
            "no longer positive and finite, or if a tensor is only on one side. Headers do not "
            "count.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare two calibration caches, tensor by tensor; the largest change comes first.

    Order and spelling do not count. The exit code is 0 unless --fail-above says otherwise.

    [bold]Example[/]

    edgecal cache diff monday.cache tuesday.cache --fail-above 1.1
    """
    from edgecal.cli.cache.rows import json_rows
    from edgecal.cli.wiring import caches
    from edgecal.core.cache_diff import diff_caches
    from edgecal.core.document import read_document
    from edgecal.errors import InputError

    if fail_above is not None and not fail_above >= 1:  # NaN too
        raise InputError(
            f"expected a ratio of 1 or more, found {fail_above:g}",
            where="--fail-above",
            remedy="1.1 allows a tenth, up or down; 1 allows nothing",
        )
    story = Story(as_json=as_json, quiet=quiet)
    documents = [
        read_document(caches.read_cache(path).data, source=str(path)) for path in (left, right)
    ]
    found = diff_caches(*documents)
    if as_json:
        story.out.file.write(json_rows(_document(found)))
    else:
        for path, document in zip((left, right), documents, strict=True):
            _tell_unreadable(story, path, document)
        _show(story, found, *documents)
    if fail_above is not None and found.beyond(fail_above):
        story.tell(f"they differ by more than {fail_above:g}")
        raise typer.Exit(_REFUSED)


def _document(found: CacheDiff) -> dict[str, object]:
    return {
        "schema": "edgecal.cache-diff/1",
        "only_left": list(found.only_left),
        "only_right": list(found.only_right),
        "changed": [
            {"name": one.tensor, "left": one.left, "right": one.right, "ratio": one.ratio}
            for one in found.changed
        ],
        "headers_differ": found.headers_differ,
    }


def _tell_unreadable(story: Story, path: Path, document: Document) -> None:
    from rich.markup import escape

    from edgecal.core.findings import Severity

    errors = sum(one.severity is Severity.ERROR for one in document.oddities)
    if errors:
        story.tell(
            f"[yellow]warning[/] {escape(str(path))} has {errors} "
            f"line{'' if errors == 1 else 's'} without a clear meaning; 'edgecal cache show' tells"
        )


def _show(story: Story, found: CacheDiff, left: Document, right: Document) -> None:
    stream = story.out.file
    encoding = getattr(stream, "encoding", None) or "utf-8"
    lines = []
    if found.headers_differ:
        names = [printable(one.header_text, encoding) or "none" for one in (left, right)]
        lines.append(f"header: {names[0]} -> {names[1]}")
    for change in sorted(found.changed, key=lambda one: -one.octaves):
        old, new = (_number(one) for one in (change.left, change.right))
        name = printable(change.tensor, encoding)
        lines.append(f"{_amount(change):>10}  {old:>11} -> {new:<11}  {name}")
    lines += [f"only in A: {printable(name, encoding)}" for name in found.only_left]
    lines += [f"only in B: {printable(name, encoding)}" for name in found.only_right]
    if found.same:
        lines.append(
            f"identical: the same header, and the same scales of {found.unchanged} tensors"
        )
    else:
        lines.append(
            f"{len(found.changed)} changed, {found.unchanged} alike, {len(found.only_left)} only "
            f"in A, {len(found.only_right)} only in B"
        )
    text = "\n".join(lines) + "\n"
    stream.write(text.encode(encoding, "replace").decode(encoding))
    stream.flush()


def _amount(change: Change) -> str:
    """Say how much a scale changed, with an arrow for the eye."""
    ratio = change.ratio
    if ratio is None:
        return "!"
    if ratio >= _MANY_TIMES:
        return f"↑ x{ratio:.4g}"
    if ratio <= 1 / _MANY_TIMES:
        return f"↓ /{1 / ratio:.4g}"
    return f"{'↑' if ratio > 1 else '↓'} {ratio - 1:+.2%}"


def _number(scale: float | None) -> str:
    return "not finite" if scale is None else f"{scale:.5g}"
