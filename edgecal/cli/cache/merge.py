"""`edgecal cache merge`: several caches of one network made into one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecal.cli.cache.outcome import Outcome, OutOption, read_source, write_outcome
from edgecal.cli.options import JsonOption, QuietOption, VerboseOption
from edgecal.cli.story import Story


def merge(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Calibration caches, or bundles.")
    ],
    *,
    out: OutOption,
    on_conflict: Annotated[
        str,
        typer.Option(
            metavar="WHICH",
            help="The scale of a tensor that has several: first, last, max, min; error refuses.",
        ),
    ] = "error",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Combine caches: all tensors of the first, then what the others have beyond it.

    Their headers must agree in TensorRT major.minor and algorithm.

    [bold]Example[/]

    edgecal cache merge day.cache night.cache -o both.cache --on-conflict max
    """
    from edgecal.core.edit_record import common_origin
    from edgecal.core.merging import OnConflict, Part, merge_caches
    from edgecal.errors import InputError

    words = [one.value for one in OnConflict]
    if on_conflict not in words:
        raise InputError(
            f"expected one of {', '.join(words)}, found {on_conflict!r}",
            where="--on-conflict",
            remedy="max keeps every value of every cache in range",
        )
    if len(files) < 2:
        raise InputError(
            "expected at least two caches, found one",
            where="cache merge",
            remedy="name them all: edgecal cache merge A.cache B.cache -o OUT.cache",
        )
    story = Story(as_json=as_json, quiet=quiet, verbose=verbose)
    sources = [read_source(file) for file in files]
    merged = merge_caches(
        [Part(source=str(one.path), cache=one.cache) for one in sources], OnConflict(on_conflict)
    )
    if merged.conflicts:
        story.tell(f"tensors with different scales: {len(merged.conflicts)}; {on_conflict} counts")
    write_outcome(
        Outcome(
            command="merge",
            sources=sources,
            out=out,
            cache=merged.cache,
            options={"on_conflict": on_conflict},
            origin=common_origin([one.past for one in sources], merged.cache.header),
            changes=merged.changes,
        ),
        story,
    )
