"""`edgecal cache show`: what a calibration cache holds, and what is odd about it."""

from __future__ import annotations

import enum
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from edgecal.cli.options import JsonOption, QuietOption, VerboseOption
from edgecal.cli.printable import printable
from edgecal.cli.story import Story

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias, TypeGuard

    from edgecal.core.document import Document, DocumentEntry
    from edgecal.core.oddities import HeaderMeaning

    _Chosen: TypeAlias = tuple[DocumentEntry, float | None]

_BAR: Final = 12
_BLOCKS: Final[tuple[str, ...]] = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█")
_WIDEST_BITS: Final = 24


class Order(str, enum.Enum):
    """By what tensors are sorted."""

    FILE = "file"
    NAME = "name"
    SCALE = "scale"


def show(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A calibration cache, or a bundle.", show_default=False
        ),
    ],
    *,
    sort: Annotated[Order, typer.Option("--sort", help="Order of the tensors.")] = Order.FILE,
    reverse: Annotated[
        bool, typer.Option("--reverse", help="Turn the order round.", show_default=False)
    ] = False,
    pattern: Annotated[
        str,
        typer.Option(
            "--filter",
            metavar="GLOB",
            help="Show only tensors with such names, as in '*/Conv_output_?'; a bracket in a name "
            "is matched by '?'.",
            show_default=False,
        ),
    ] = "*",
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show the scales of a calibration cache, what its header means, and what is odd about it.

    Whatever happened to the file since it was made, it is read as it is. The exit code is 0.

    [bold]Example[/]

    edgecal cache show resnet50.cache --sort scale --reverse
    """
    from edgecal.cli.cache.rows import json_rows
    from edgecal.cli.wiring import caches
    from edgecal.core.document import read_document
    from edgecal.core.oddities import explain_header, judge_scales

    story = Story(as_json=as_json, quiet=quiet, verbose=verbose)
    document = read_document(caches.read_cache(file).data, source=str(file))
    meaning = explain_header(document)
    findings = (*document.findings, *meaning.findings, *judge_scales(document))
    chosen = _choose(document.entries, sort=sort, reverse=reverse, pattern=pattern)
    if as_json:
        story.out.file.write(
            json_rows(
                {
                    "schema": "edgecal.cache/1",
                    "header": document.header_text or None,
                    "tensorrt": None if meaning.tensorrt is None else str(meaning.tensorrt),
                    "algorithm": meaning.algorithm,
                    "tensors": _rows(chosen),
                    "findings": [finding.to_json() for finding in findings],
                }
            )
        )
        return
    _show_header(story, document, meaning)
    _show_tensors(story, chosen, document.entries)
    story.findings(findings)


def _choose(
    entries: Sequence[DocumentEntry], *, sort: Order, reverse: bool, pattern: str
) -> list[_Chosen]:
    """Give the entries to show, in order, with their scales."""
    from fnmatch import fnmatchcase

    chosen = [
        (entry, entry.scale)
        for entry in entries
        if pattern == "*" or fnmatchcase(entry.tensor, pattern)
    ]
    if sort is Order.NAME:
        chosen.sort(key=lambda one: one[0].tensor)
    elif sort is Order.SCALE:
        # what has no place among numbers comes first or, as a rule, last
        chosen.sort(key=lambda one: math.inf if _unordered(one[1]) else one[1] or 0.0)
    if reverse:
        chosen.reverse()
    return chosen


def _unordered(scale: float | None) -> bool:
    return scale is None or math.isnan(scale)


def _rows(chosen: Sequence[_Chosen]) -> list[dict[str, object]]:
    from edgecal.core.usable import LEVELS

    rows: list[dict[str, object]] = []
    for entry, scale in chosen:
        finite = None if scale is None or not math.isfinite(scale) else scale
        rows.append(
            {
                "name": entry.tensor,
                "bits": entry.bits,
                "scale": finite,
                "dynamic_range": None if finite is None else finite * LEVELS,
            }
        )
    return rows


def _show_header(story: Story, document: Document, meaning: HeaderMeaning) -> None:
    from rich.markup import escape

    header = printable(document.header_text) or "no header"
    story.out.print(f"[bold]{escape(header)}[/]")
    for sentence in meaning.sentences:
        story.out.print(f"  {escape(sentence)}")


def _show_tensors(
    story: Story, chosen: Sequence[_Chosen], everything: Sequence[DocumentEntry]
) -> None:
    """Print a line a tensor, by hand: a table of rich takes minutes for 100,000."""
    from edgecal.core.usable import LEVELS

    stream = story.out.file
    encoding = getattr(stream, "encoding", None) or "utf-8"
    whole = len(chosen) == len(everything)
    scales = [scale for _, scale in chosen] if whole else [one.scale for one in everything]
    draw = _bars([scale for scale in scales if _has_logarithm(scale)], encoding)
    longest = max((len(entry.bits) for entry, _ in chosen), default=0)
    width = min(max(longest, len("3c010a14")), _WIDEST_BITS)
    lines = ["", f"{'bits':>{width}}  {'scale':>11}  {'amax':>11}  {'':{_BAR}}  tensor"]
    for entry, scale in chosen:
        numbers = "          -            -"
        if scale is not None:
            numbers = f"{scale:>11.5g}  {scale * LEVELS:>11.5g}"
        name = printable(entry.tensor, encoding)
        lines.append(f"{entry.bits:>{width}}  {numbers}  {draw(scale):{_BAR}}  {name}")
    of = "" if whole else f"{len(chosen)} of "
    lines.append(f"{of}{len(everything)} tensor{'' if len(everything) == 1 else 's'}")
    stream.write("\n".join(lines) + "\n")
    stream.flush()  # findings follow on stderr


def _has_logarithm(scale: float | None) -> TypeGuard[float]:
    return scale is not None and 0 < scale < math.inf


def _bars(scales: Sequence[float], encoding: str) -> Callable[[float | None], str]:
    """Give what draws a scale by its logarithm, from the smallest to the largest."""
    low = math.log2(min(scales, default=1))
    span = math.log2(max(scales, default=1)) - low
    blocks = _BLOCKS
    try:
        "".join(blocks).encode(encoding)
    except UnicodeEncodeError:
        blocks = ("", "#")
    steps = len(blocks) - 1

    def draw(scale: float | None) -> str:
        if not _has_logarithm(scale):
            return ""
        part = (math.log2(scale) - low) / span if span else 1.0
        length = max(1, round(part * _BAR * steps))
        return blocks[-1] * (length // steps) + blocks[length % steps]

    return draw
