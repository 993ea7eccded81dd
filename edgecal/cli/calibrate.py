"""`edgecal calibrate`: a network and data to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecal.cli.data import (
    ColorOption,
    CropOption,
    DataOption,
    DataRequest,
    DtypeOption,
    FitOption,
    LayoutOption,
    MeanOption,
    ModelArgument,
    PreprocessOption,
    ResizeOption,
    SamplesOption,
    ScaleOption,
    SkipUnreadableOption,
    chosen_preprocess,
    needed,
    open_data,
)
from edgecal.cli.options import JsonOption, QuietOption, VerboseOption
from edgecal.cli.story import Story

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from edgecal.adapters.bundle import Bundle
    from edgecal.core.versions import TensorRTVersion
    from edgecal.workflows.calibrate import Calibration
    from edgecal.workflows.collect import Statistics

_WHICH = "Which TensorRT"


def calibrate(
    model: ModelArgument = None,
    *,
    data: DataOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The bundle to write, NAME.edgecal.", show_default=False
        ),
    ] = None,
    tensorrt: Annotated[
        list[str] | None,
        typer.Option(
            help="TensorRT to calibrate for, X.Y or X.Y.Z; repeatable: one pass, one bundle each.",
            rich_help_panel=_WHICH,
            show_default=False,
        ),
    ] = None,
    jetpack: Annotated[
        list[str] | None,
        typer.Option(
            help="JetPack to calibrate for, such as 5.1.2.",
            rich_help_panel=_WHICH,
            show_default=False,
        ),
    ] = None,
    for_target: Annotated[
        list[str] | None,
        typer.Option(
            "--for",
            metavar="T",
            help="Ask this target which TensorRT it has.",
            rich_help_panel=_WHICH,
            show_default=False,
        ),
    ] = None,
    algorithm: Annotated[
        str | None,
        typer.Option(
            help="auto, entropy2 (TensorRT's), minmax or percentile. auto takes the one whose "
            "simulated INT8 output is nearest to float32.",
            show_default="auto",
        ),
    ] = None,
    percentile: Annotated[
        float | None, typer.Option(help="For the algorithm of that name.", show_default="99.99")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="For networks with a dynamic batch axis.", show_default="1"),
    ] = None,
    samples: SamplesOption = None,
    skip_unreadable: SkipUnreadableOption = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Threads; any number gives the same bits.", show_default="cores"),
    ] = None,
    preprocess: PreprocessOption = None,
    resize: ResizeOption = None,
    fit: FitOption = None,
    crop: CropOption = None,
    color: ColorOption = None,
    mean: MeanOption = None,
    scale: ScaleOption = None,
    layout: LayoutOption = None,
    dtype: DtypeOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Make a bundle: calibrate a network on this machine, for the TensorRT of a target.

    [bold]Examples[/]

    edgecal calibrate net.onnx --data photos/ --preprocess net.toml --jetpack 5.1.2 -o net.edgecal

    edgecal calibrate net.onnx --data samples.npz --tensorrt 8.5 --tensorrt 10.3 -o net.edgecal
    """
    from edgecal.cli import wiring
    from edgecal.core.amax import DEFAULT_PERCENTILE
    from edgecal.core.manifest import bundle_name
    from edgecal.core.wanted import wanted_versions
    from edgecal.workflows import calibrate as workflow
    from edgecal.workflows.collect import AUTO, CalibrateOptions

    story = Story(as_json=as_json, quiet=quiet, verbose=verbose)
    project = wiring.project()
    defaults = project.calibrate
    model_path = Path(_need(model or defaults.model, "MODEL", "the ONNX file to calibrate"))
    spec = _need(data or defaults.data, "--data", "a folder, a file or a generator")
    out = Path(_need(output or defaults.output, "-o", "the bundle to write, NAME.edgecal"))
    named = bool(tensorrt or jetpack or for_target)
    versions = wanted_versions(
        wiring.platforms(),
        tensorrt=tensorrt or (() if named else defaults.tensorrt),
        jetpack=jetpack or (() if named else defaults.jetpack),
        asked=[_ask(text, story) for text in for_target or ()],
    )
    paths = [out] if len(versions) == 1 else [_with_version(out, one) for one in versions]
    for path in paths:
        bundle_name(path.name)
        wiring.check_destination(path)
    flags = {
        "resize": resize,
        "fit": fit,
        "crop": crop,
        "color": color,
        "mean": mean,
        "scale": scale,
        "layout": layout,
        "dtype": dtype,
    }
    request = DataRequest(
        spec=spec,
        preprocess=chosen_preprocess(preprocess, project, flags),
        skip_unreadable=skip_unreadable,
        limit=samples or defaults.samples,
    )

    started = wiring.now()
    network = wiring.model(model_path)
    source, findings = open_data(request, network.graph.inputs)
    options = CalibrateOptions(
        algorithm=algorithm or defaults.algorithm or AUTO,
        percentile=_first(percentile, defaults.percentile, DEFAULT_PERCENTILE),
        batch_size=batch_size or defaults.batch_size,
        workers=workers or wiring.workers(),
    )
    with story.progress() as progress:
        statistics, calibrations = workflow.calibrate(
            wiring.backend(network), source, versions, options, progress
        )
    written = []
    for path, done in zip(paths, calibrations, strict=True):
        written.append(
            (
                wiring.save_bundle(
                    path,
                    network=network,
                    data=spec,
                    source=source,
                    statistics=statistics,
                    calibration=done,
                ),
                done,
            )
        )
    seconds = (wiring.now() - started).total_seconds()
    findings += calibrations[0].findings
    story.findings(findings)
    document = {
        "schema": "edgecal.calibrate/1",
        "bundles": [str(bundle.path) for bundle, _ in written],
        "algorithm": calibrations[0].record.algorithm,
        "samples": statistics.samples,
        "skipped": list(source.skipped),
        "seconds": round(seconds, 3),
        "tensors": calibrations[0].coverage.covered,
        "findings": [finding.to_json() for finding in findings],
    }
    story.result(document, lambda console: show_bundles(console, written, statistics, seconds))


def show_bundles(
    console: Console,
    written: Sequence[tuple[Bundle, Calibration]],
    statistics: Statistics,
    seconds: float,
) -> None:
    """Print what was made, with the quality the host predicts."""
    from rich.markup import escape

    for bundle, done in written:
        console.print(f"[bold]{escape(str(bundle.path))}[/] for TensorRT {done.tensorrt}")
        console.print(f"  algorithm  {done.record.algorithm} ({escape(done.record.chosen_by)})")
        constants = f", {done.coverage.constants} constants" if done.coverage.constants else ""
        console.print(
            f"  tensors    {done.coverage.covered} of {done.coverage.activations} activations"
            f"{constants}"
        )
        for name, quality in done.quality.outputs.items():
            cosine, decibel = quality["cosine_min"], quality["sqnr_db"]
            console.print(
                f"  predicted  {escape(name)}: cosine to FP32 at least {cosine:.4f}"
                + (f", SQNR {decibel:.1f} dB" if decibel is not None else "")
            )
    unreadable = written[0][0].manifest.data.skipped
    skipped = f", {len(unreadable)} unreadable ones skipped" if unreadable else ""
    dropped = f", {statistics.dropped} of an incomplete batch dropped" if statistics.dropped else ""
    held = f" ({statistics.held_out_samples} held out to judge by)" if statistics.held_out else ""
    console.print(f"  samples    {statistics.samples}{held}{skipped}{dropped}, {seconds:.1f} s")


def _need(value: str | Path | None, what: str, meaning: str) -> str:
    return needed(value, what, meaning, command="calibrate")


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _ask(text: str, story: Story) -> TensorRTVersion:
    from edgecal.cli import wiring
    from edgecal.errors import InputError
    from edgecal.workflows.targets import probe_target

    facts = probe_target(wiring.target(text), wiring.world())
    if facts.tensorrt is None:
        raise InputError(
            "the target has no TensorRT that could be asked for its version",
            where=text,
            remedy="give --tensorrt X.Y, or install TensorRT on the target",
        )
    story.tell(f"{text} has TensorRT {facts.tensorrt}")
    return facts.tensorrt


def _with_version(out: Path, version: TensorRTVersion) -> Path:
    name = out.name.removesuffix(".edgecal")
    return out.with_name(f"{name}-{version.major_minor}{out.name[len(name) :]}")
