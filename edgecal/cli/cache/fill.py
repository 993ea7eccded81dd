"""`edgecal cache fill`: holes of a cache filled from what the network says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecal.cli.cache.network import network_path
from edgecal.cli.cache.outcome import FileArgument, Outcome, OutOption, read_source, write_outcome
from edgecal.cli.options import JsonOption, QuietOption, VerboseOption
from edgecal.cli.story import Story


def fill(
    file: FileArgument,
    *,
    out: OutOption,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL.onnx",
            help="The network it is for.",
            show_default="the bundle's own",
        ),
    ] = None,
    dla: Annotated[
        bool,
        typer.Option("--dla", help="Every float tensor, constants too: on DLA a hole means FP16."),
    ] = False,
    tensorrt: Annotated[
        str | None,
        typer.Option(
            metavar="X.Y.Z", help="Whose names and copies count.", show_default="the header's"
        ),
    ] = None,
    replace_unusable: Annotated[
        bool,
        typer.Option(
            "--replace-unusable", help="Take zero, denormal, infinite and NaN scales for holes."
        ),
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Complete a cache by rules: what only moves values has its input's range, and so on.

    Entries that are there stay as they are. What no rule determines (sums,
    most products, convolutions) is listed and stays a hole: recalibrate for those.

    [bold]Example[/]

    edgecal cache fill net.cache --model net.onnx --dla -o full.cache
    """
    from edgecal.cli.wiring import networks
    from edgecal.core.fill import fill_cache
    from edgecal.core.versions import parse_tensorrt, version_of_code

    story = Story(as_json=as_json, quiet=quiet, verbose=verbose)
    source = read_source(file)
    version = parse_tensorrt(tensorrt) if tensorrt else version_of_code(source.cache.header.code)
    model = network_path(file, source.manifest, model)
    network = networks.model(model)
    filled = fill_cache(
        source.cache,
        network.graph,
        version,
        dla=dla,
        replace_unusable=replace_unusable,
        source=str(file),
    )
    write_outcome(
        Outcome(
            command="fill",
            sources=[source],
            out=out,
            cache=filled.cache,
            options={
                "model": {"path": str(model), "digest": network.record().digest},
                "tensorrt": str(version),
                "dla": dla,
                "replace_unusable": replace_unusable,
            },
            origin=source.past.origin,
            changes=filled.changes,
            remaining=filled.remaining,
            kept=[model],
        ),
        story,
    )
    if filled.remaining:
        story.tell(
            "  try: recalibrate, edgecal calibrate MODEL.onnx --data DATA -o OUT.edgecal; or give "
            "them a range with edgecal cache edit --add"
        )
