"""`edgecal push`: ship, build, prove, verify, activate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecal.cli.options import (
    BUILDING,
    BuilderOption,
    DlaOption,
    JsonOption,
    NoFp16Option,
    NoGpuFallbackOption,
    QuietOption,
    TargetsOption,
    VerboseOption,
)
from edgecal.cli.story import Story

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgecal.adapters.bundle import Bundle


def push(
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="BUNDLE",
            help="Of several, the one for the target's TensorRT is taken.",
            show_default=False,
        ),
    ] = None,
    *,
    targets: TargetsOption,
    name: Annotated[
        str | None,
        typer.Option("--as", help="Name of the model on the target.", show_default="the bundle's"),
    ] = None,
    builder: BuilderOption = None,
    dla: DlaOption = None,
    no_gpu_fallback: NoGpuFallbackOption = False,
    no_fp16: NoFp16Option = False,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild", help="Build again what is there already.", rich_help_panel=BUILDING
        ),
    ] = False,
    accept_unproven: Annotated[
        bool,
        typer.Option(
            "--accept-unproven",
            help="Go on although the build's log does not show that the cache was used.",
            rich_help_panel=BUILDING,
        ),
    ] = False,
    accept_restamped: Annotated[
        bool,
        typer.Option(
            "--accept-restamped",
            help="Go on although another TensorRT wrote the cache than its header says.",
            rich_help_panel=BUILDING,
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Probe and check only; change nothing.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Bring a bundle to targets over SSH: each builds its own engine, verified before it is active.

    The old engine stays active until the new one has proved itself.

    [bold]Examples[/]

    edgecal push resnet18.edgecal --target nvidia@xavier.local

    edgecal push net-8.5.edgecal net-10.3.edgecal --target orin-1 --target orin-2 --dla 0 --as dla
    """
    from dataclasses import replace

    from edgecal.cli import wiring
    from edgecal.cli.watch import watch_pushes
    from edgecal.core.build import BuildOptions
    from edgecal.core.manifest import parse_name
    from edgecal.workflows.report import PushOptions

    story = Story(as_json=as_json, quiet=quiet, verbose=verbose)
    project = wiring.project()
    options = PushOptions(
        name=parse_name(name, source="--as") if name else None,
        build=BuildOptions(
            dla_core=dla if dla is not None else project.push.dla,
            gpu_fallback=project.push.gpu_fallback and not no_gpu_fallback,
            fp16=project.push.fp16 and not no_fp16,
        ),
        rebuild=rebuild,
        accept_unproven=accept_unproven,
        accept_restamped=accept_restamped,
        dry_run=dry_run,
        thresholds=project.thresholds,
    )
    read = _read(bundles or [Path(one) for one in project.push.bundle])
    options = replace(
        options, sources={one.manifest_digest: wiring.source_findings(one) for one in read}
    )
    wanted = [wiring.target(text, builder=builder) for text in targets]
    reports = watch_pushes(read, wanted, options, wiring.world(), story)
    raise typer.Exit(max_exit_code([report.exit_code for report in reports]))


def max_exit_code(codes: Sequence[int]) -> int:
    """Give the code of several targets: the first of 130, 1, 5, 4, 3, 2 that occurred, else 0."""
    return next((code for code in (130, 1, 5, 4, 3, 2) if code in codes), 0)


def _read(paths: Sequence[Path]) -> list[Bundle]:
    from edgecal.cli import wiring
    from edgecal.errors import InputError

    if not paths:
        raise InputError(
            "no bundle was given",
            where="push",
            remedy="name one: edgecal push NAME.edgecal --target T; or write [push] bundle in "
            "edgecal.toml",
        )
    return [wiring.bundle(path) for path in paths]
