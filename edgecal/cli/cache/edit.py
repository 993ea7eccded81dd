"""`edgecal cache edit`: ranges of a cache overridden by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgecal.cli.cache.outcome import FileArgument, Outcome, OutOption, read_source, write_outcome
from edgecal.cli.options import JsonOption, QuietOption, VerboseOption
from edgecal.cli.story import Story

if TYPE_CHECKING:
    from collections.abc import Sequence


def edit(
    file: FileArgument,
    *,
    out: OutOption,
    ranges: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=AMAX",
            help="Give tensors a dynamic range, by name or glob; repeatable.",
            show_default=False,
        ),
    ] = None,
    scales: Annotated[
        list[str] | None,
        typer.Option(
            "--set-scale",
            metavar="NAME=SCALE",
            help="Likewise by scale, which is amax / 127.",
            show_default=False,
        ),
    ] = None,
    factors: Annotated[
        list[str] | None,
        typer.Option(
            "--multiply",
            metavar="NAME=FACTOR",
            help="Widen or narrow ranges, by name or glob.",
            show_default=False,
        ),
    ] = None,
    dropped: Annotated[
        list[str] | None,
        typer.Option(
            "--drop",
            metavar="NAME",
            help="Remove entries, by name or glob: those tensors stay out of INT8.",
            show_default=False,
        ),
    ] = None,
    added: Annotated[
        list[str] | None,
        typer.Option(
            "--add",
            metavar="NAME=AMAX",
            help="Give a tensor its first entry, at the end.",
            show_default=False,
        ),
    ] = None,
    floor_zero: Annotated[
        bool,
        typer.Option(
            "--floor-zero", help="Raise zero and denormal scales to the smallest usable one."
        ),
    ] = False,
    floor_amax: Annotated[
        float | None,
        typer.Option(metavar="AMAX", help="Raise them to this range instead.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Override ranges in a new cache; everything else stays as it is, to the byte.

    A NAME that the cache holds means that tensor, whatever characters it has;
    any other may be a glob, with * and ? in it. The record beside the new cache
    says what was there before.

    [bold]Examples[/]

    edgecal cache edit net.cache -o edited.cache --set conv1=4.2 --drop '*Softmax*'

    edgecal cache edit net.edgecal -o wide.cache --multiply '/head/*=1.25' --floor-zero
    """
    from edgecal.core.edits import Edits, edit_cache, parse_assignment
    from edgecal.errors import InputError

    def pairs(texts: Sequence[str] | None, option: str) -> tuple[tuple[str, float], ...]:
        return tuple(parse_assignment(text, option=option) for text in texts or ())

    if floor_amax is not None:
        parse_assignment(f"floor={floor_amax!r}", option="--floor-amax")
    edits = Edits(
        ranges=pairs(ranges, "--set"),
        scales=pairs(scales, "--set-scale"),
        added=pairs(added, "--add"),
        dropped=tuple(dropped or ()),
        factors=pairs(factors, "--multiply"),
        floor_zero=floor_zero,
        floor_amax=floor_amax,
    )
    if edits == Edits():
        raise InputError(
            "nothing to do: no change is given",
            where="cache edit",
            remedy="add --set, --set-scale, --multiply, --drop, --add or --floor-zero",
        )
    source = read_source(file)
    cache, changes = edit_cache(source.cache, edits, source=str(file))
    write_outcome(
        Outcome(
            command="edit",
            sources=[source],
            out=out,
            cache=cache,
            options={
                "set": list(ranges or ()),
                "set_scale": list(scales or ()),
                "multiply": list(factors or ()),
                "drop": list(dropped or ()),
                "add": list(added or ()),
                "floor_zero": floor_zero,
                "floor_amax": floor_amax,
            },
            origin=source.past.origin,
            changes=changes,
        ),
        Story(as_json=as_json, quiet=quiet, verbose=verbose),
    )
