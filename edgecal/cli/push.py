"""`edgecal push`: ship, build, prove, verify, activate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgecal.cli.options import (
    BUILDING,
    AcceptRestampedOption,
    AcceptUnprovenOption,
    ActivateWithinOption,
    BreakLockOption,
    BuilderOption,
    BuildTimeoutOption,
    DlaOption,
    InventoryOption,
    JsonOption,
    LimitRateOption,
    ModelNameOption,
    NoFp16Option,
    NoGpuFallbackOption,
    OnOption,
    PrecisionOption,
    ProbeOption,
    ProfileOption,
    QuietOption,
    TargetsOption,
    VerboseOption,
    WorkspaceOption,
)
from edgecal.cli.story import Story

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgecal.core.build import BuildOptions


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
    targets: TargetsOption = None,
    on: OnOption = None,
    inventory: InventoryOption = None,
    probe: ProbeOption = False,
    name: ModelNameOption = None,
    builder: BuilderOption = None,
    dla: DlaOption = None,
    no_gpu_fallback: NoGpuFallbackOption = False,
    no_fp16: NoFp16Option = False,
    precision: PrecisionOption = None,
    workspace: WorkspaceOption = None,
    profile: ProfileOption = None,
    build_timeout: BuildTimeoutOption = None,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild", help="Build again what is there already.", rich_help_panel=BUILDING
        ),
    ] = False,
    accept_unproven: AcceptUnprovenOption = False,
    accept_restamped: AcceptRestampedOption = False,
    bench: Annotated[
        bool, typer.Option("--bench", help="Measure the latency there, after verifying.")
    ] = False,
    layout: Annotated[
        Literal["plain", "deepstream"] | None,
        typer.Option(
            help="deepstream also leaves calib.table and its two configuration lines for nvinfer "
            "beside the engine.",
            show_default="plain",
        ),
    ] = None,
    nvinfer_config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --layout deepstream: the configuration to be completed; refused if its "
            "network is built by the API.",
            show_default=False,
        ),
    ] = None,
    break_lock: BreakLockOption = False,
    activate_within: ActivateWithinOption = 60.0,
    limit_rate: LimitRateOption = None,
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

    edgecal push net-8.2.edgecal --target nano --precision fp16 --workspace 512 --bench

    edgecal push net.edgecal --on 'site-a & !canary & module=orin-*' --dry-run

    edgecal push net.edgecal --target orin-1 --layout deepstream --nvinfer-config pgie.txt
    """
    from edgecal.cli.building import build_timeout_s, choose_options, choose_profile, read_bundles
    from edgecal.cli.selecting import chosen_targets
    from edgecal.cli.watch import watch_pushes
    from edgecal.cli.wiring import bundling, lookup, remote
    from edgecal.core.bandwidth import parse_rate
    from edgecal.core.manifest import parse_name
    from edgecal.workflows.report import PushOptions

    story = Story(as_json=as_json, quiet=quiet, verbose=verbose)
    project = lookup.project()
    chosen = chosen_targets(
        targets, on=on, inventory=inventory, probe=probe, story=story, builder=builder
    )
    wanted = list(chosen.values())
    said = {
        "dla_core": dla,
        "gpu_fallback": False if no_gpu_fallback else None,
        "fp16": False if no_fp16 else None,
        "precision": precision,
        "workspace_mib": workspace,
        "profile": choose_profile(profile, project),
        "layout": layout,
    }
    builds = {one.name: choose_options(project, one, said) for one in wanted}
    if nvinfer_config is not None:
        _check_nvinfer(nvinfer_config, builds.values())
    options = PushOptions(
        name=parse_name(name, source="--as") if name else None,
        builds=builds,
        rebuild=rebuild,
        accept_unproven=accept_unproven,
        accept_restamped=accept_restamped,
        dry_run=dry_run,
        bench=bench,
        thresholds=project.thresholds,
        build_timeout_s=build_timeout_s(build_timeout, project),
        activate_within_s=activate_within,
        break_lock=break_lock,
    )
    read = read_bundles(bundles, project)
    options = replace(
        options, sources={one.manifest_digest: bundling.source_findings(one) for one in read}
    )
    rate = parse_rate(limit_rate, source="--limit-rate") if limit_rate else None
    world = remote.world(limit_rate=rate)
    reports = watch_pushes(read, wanted, options, world, story)
    raise typer.Exit(max_exit_code([report.exit_code for report in reports]))


def max_exit_code(codes: Sequence[int]) -> int:
    """Give the code of several targets: the first of 130, 1, 5, 4, 3, 2 that occurred, else 0."""
    return next((code for code in (130, 1, 5, 4, 3, 2) if code in codes), 0)


def _check_nvinfer(path: Path, builds: Iterable[BuildOptions]) -> None:
    from edgecal.core.deepstream import check_config
    from edgecal.errors import InputError

    if not all(one.layout == "deepstream" for one in builds):
        raise InputError(
            "an nvinfer configuration was given, and no layout for DeepStream",
            where=str(path),
            remedy="add --layout deepstream",
        )
    try:
        text = path.read_text("utf-8", "replace")
    except OSError as error:
        raise InputError(
            f"cannot be read: {error.strerror}",
            where=str(path),
            remedy="name the file that nvinfer's config-file-path names",
        ) from error
    check_config(text, source=str(path))
