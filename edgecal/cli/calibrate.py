"""`edgecal calibrate`: a network and data, or the statistics of a bundle, to a bundle."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecal.cli.data import (
    ColorOption,
    CropOption,
    DataOption,
    DataRequest,
    DtypeOption,
    ExcludeLikeOption,
    FitOption,
    LayoutOption,
    MeanOption,
    ModelArgument,
    PreprocessOption,
    PresetOption,
    PreviewOption,
    ResizeOption,
    SamplesOption,
    ScaleOption,
    SkipUnreadableOption,
    chosen_preprocess,
    needed,
    open_data,
)
from edgecal.cli.options import JsonOption, QuietOption, VerboseOption
from edgecal.cli.preview import findings_of_pass, shares_line
from edgecal.cli.story import Story

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from edgecal.adapters.bundle import Bundle
    from edgecal.adapters.onnx_model import OnnxModel
    from edgecal.core.findings import Finding
    from edgecal.core.overrides import Overrides
    from edgecal.core.versions import TensorRTVersion
    from edgecal.ports import Dataset
    from edgecal.workflows.calibrate import Calibration
    from edgecal.workflows.collect import CalibrateOptions, Statistics

_WHICH = "Which TensorRT"
_WITHOUT_A_TABLE = frozenset({"tftrt", "qdq"})
"""Formats that may hold several tables, or a network: 'cache convert' asks which."""


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
            help="TensorRT to calibrate for, X.Y or X.Y.Z; repeatable: one pass, one bundle each. "
            "With --from that of the bundle, if none is named.",
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
            help="auto, entropy2 (TensorRT's), minmax, percentile, mse (least squared error) or "
            "entropy (as NVIDIA told of it in 2017). auto takes the one of the first four whose "
            "simulated INT8 output is nearest to float32.",
            show_default="auto",
        ),
    ] = None,
    percentile: Annotated[
        float | None, typer.Option(help="For the algorithm of that name.", show_default="99.99")
    ] = None,
    ranges: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Ranges that outweigh measured ones: dynamic-range text, CSV, JSON, a cache, or "
            "what else 'edgecal cache convert' recognises. Names may be globs. Outweighs "
            "\\[calibrate.ranges] in edgecal.toml.",
            show_default=False,
        ),
    ] = None,
    from_bundle: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="BUNDLE",
            help="Take network and statistics from this bundle, in place of MODEL and --data, for "
            "another TensorRT, algorithm or range: no second pass. auto judges by its golden runs.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="For networks with a dynamic batch axis.", show_default="1"),
    ] = None,
    samples: SamplesOption = None,
    skip_unreadable: SkipUnreadableOption = False,
    exclude_like: ExcludeLikeOption = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Threads; any number gives the same bits.", show_default="cores"),
    ] = None,
    preset: PresetOption = None,
    preprocess: PreprocessOption = None,
    resize: ResizeOption = None,
    fit: FitOption = None,
    crop: CropOption = None,
    color: ColorOption = None,
    mean: MeanOption = None,
    scale: ScaleOption = None,
    layout: LayoutOption = None,
    dtype: DtypeOption = None,
    preview: PreviewOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Make a bundle: calibrate a network on this machine, for the TensorRT of a target.

    [bold]Examples[/]

    edgecal calibrate net.onnx --data photos/ --preprocess net.toml --jetpack 5.1.2 -o net.edgecal

    edgecal calibrate net.onnx --data samples.npz --tensorrt 8.5 --tensorrt 10.3 -o net.edgecal

    edgecal calibrate --from net.edgecal --tensorrt 10.3 --algorithm mse -o net-10.3.edgecal
    """
    from edgecal.cli import wiring
    from edgecal.core.amax import DEFAULT_PERCENTILE
    from edgecal.core.manifest import bundle_name
    from edgecal.core.overrides import parse_range_table
    from edgecal.core.wanted import wanted_versions
    from edgecal.workflows.collect import AUTO, CalibrateOptions

    story = Story(as_json=as_json, quiet=quiet, verbose=verbose)
    project = wiring.project()
    defaults = project.calibrate
    flags = {
        "preset": preset,
        "resize": resize,
        "fit": fit,
        "crop": crop,
        "color": color,
        "mean": mean,
        "scale": scale,
        "layout": layout,
        "dtype": dtype,
    }
    if from_bundle is not None:
        _refuse_pass_options(
            {
                "MODEL": model,
                "--data": data,
                "--batch-size": batch_size,
                "--samples": samples,
                "--skip-unreadable": skip_unreadable or None,
                "--exclude-like": exclude_like,
                "--preview": preview,
                "--preprocess": preprocess,
                **{f"--{name}": value for name, value in flags.items()},
            }
        )
    else:
        model = Path(_need(model or defaults.model, "MODEL", "the ONNX file to calibrate"))
        data = _need(data or defaults.data, "--data", "a folder, a file or a generator")
    out = Path(_need(output or defaults.output, "-o", "the bundle to write, NAME.edgecal"))
    parent = None if from_bundle is None else wiring.bundle(from_bundle)
    named = bool(tensorrt or jetpack or for_target)
    if parent is not None and not named:
        versions: tuple[TensorRTVersion, ...] = (parent.manifest.tensorrt,)
    else:
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
    options = CalibrateOptions(
        algorithm=algorithm or defaults.algorithm or AUTO,
        percentile=_first(percentile, defaults.percentile, DEFAULT_PERCENTILE),
        batch_size=batch_size or defaults.batch_size,
        workers=workers or wiring.workers(),
    )
    overrides = [
        parse_range_table(defaults.ranges, source=f"{project.source}: [calibrate.ranges]"),
        *([] if ranges is None else [read_ranges(ranges)]),
    ]

    started = wiring.now()
    if parent is not None:
        work = _recalibrate(parent, versions, options, overrides, story)
    else:
        request = DataRequest(
            spec=str(data),
            preprocess=chosen_preprocess(preprocess, project, flags),
            skip_unreadable=skip_unreadable,
            limit=samples or defaults.samples,
            exclude_like=exclude_like,
            preview=preview,
        )
        work = _calibrate(Path(str(model)), request, versions, options, overrides, story)
    written = []
    for path, done in zip(paths, work.calibrations, strict=True):
        written.append(
            (
                wiring.save_bundle(
                    path,
                    network=work.network,
                    data=work.data,
                    source=work.source,
                    statistics=work.statistics,
                    calibration=done,
                ),
                done,
            )
        )
    seconds = (wiring.now() - started).total_seconds()
    findings = [
        *work.findings,
        *dict.fromkeys(finding for done in work.calibrations for finding in done.findings),
    ]
    story.findings(findings)
    first = work.calibrations[0]
    document = {
        "schema": "edgecal.calibrate/1",
        "bundles": [str(bundle.path) for bundle, _ in written],
        "algorithm": first.record.algorithm,
        "samples": work.statistics.samples,
        "skipped": list(work.source.skipped),
        "excluded": list(work.source.excluded),
        "groups": dict(work.source.groups),
        "seconds": round(seconds, 3),
        "tensors": first.coverage.covered,
        "derived_from": first.parent.digest if first.parent else None,
        "overrides": [asdict(one) for one in first.record.overrides],
        "findings": [finding.to_json() for finding in findings],
    }
    story.result(document, lambda console: show_bundles(console, written, work.statistics, seconds))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What was calibrated, and out of what."""

    network: OnnxModel
    data: str
    source: Dataset
    statistics: Statistics
    calibrations: tuple[Calibration, ...]
    findings: list[Finding]


def _calibrate(  # noqa: PLR0917 - called once, in the words of the command line
    model: Path,
    request: DataRequest,
    versions: Sequence[TensorRTVersion],
    options: CalibrateOptions,
    overrides: Sequence[Overrides],
    story: Story,
) -> _Work:
    """Go through the data."""
    from rich.markup import escape

    from edgecal.cli import wiring
    from edgecal.workflows import calibrate as workflow

    network = wiring.model(model)
    source, findings = open_data(request, network.graph.inputs)
    if request.preview is not None:
        story.tell(f"preview: {escape(str(request.preview))}")
    with story.progress() as progress:
        statistics, calibrations = workflow.calibrate(
            wiring.backend(network), source, versions, options, progress, overrides=overrides
        )
    findings += findings_of_pass(source, spec=request.spec, test_set=request.exclude_like)
    if shares := shares_line(source):
        story.detail(f"shares: {escape(shares)}")
    return _Work(
        network=network,
        data=request.spec,
        source=source,
        statistics=statistics,
        calibrations=calibrations,
        findings=findings,
    )


def _recalibrate(
    parent: Bundle,
    versions: Sequence[TensorRTVersion],
    options: CalibrateOptions,
    overrides: Sequence[Overrides],
    story: Story,
) -> _Work:
    """Use what a bundle has kept."""
    from edgecal.cli import wiring
    from edgecal.core.manifest import MODEL_FILE
    from edgecal.workflows import calibrate as workflow

    network = wiring.model(parent.path / MODEL_FILE)
    with story.progress() as progress:
        statistics, calibrations = workflow.recalibrate(
            wiring.backend(network),
            parent,
            versions,
            options,
            progress,
            overrides=overrides,
            source=str(parent.path),
        )
    recorded = parent.manifest.data
    return _Work(
        network=network,
        data=recorded.source,
        source=workflow.RecordedData(
            kind=recorded.kind, skipped=recorded.skipped, samples=recorded.samples
        ),
        statistics=statistics,
        calibrations=calibrations,
        findings=[],
    )


def read_ranges(path: Path) -> Overrides:
    """Read ranges that outweigh measured ones, in any format that is recognised.

    Raises
    ------
    InputError
        If it is of no such format, or a scale is not one TensorRT can use.
    """
    from edgecal.cli import wiring
    from edgecal.core.overrides import overrides_from
    from edgecal.errors import CacheFormatError

    remedy = f"make a table of it first: edgecal cache convert {path} --to json -o ranges.json"
    file = wiring.read_cache(path)
    try:
        word = wiring.recognise(file)
    except CacheFormatError as error:
        # its own remedy speaks of convert's --from, which is another thing here
        raise CacheFormatError(
            error.what, where=str(path), remedy=f"{remedy} --from FORMAT"
        ) from error
    if word in _WITHOUT_A_TABLE:
        raise CacheFormatError(
            "expected a table of ranges, found a network", where=str(path), remedy=remedy
        )
    return overrides_from(wiring.read_scales(file, word, segment=None).entries, source=str(path))


def _refuse_pass_options(given: Mapping[str, object]) -> None:
    """Say which options make no sense where nothing is run over data."""
    from edgecal.errors import InputError

    found = [name for name, value in given.items() if value is not None]
    if found:
        raise InputError(
            f"--from takes the network and what was measured from the bundle; {', '.join(found)} "
            f"{'belongs' if len(found) == 1 else 'belong'} to a pass over data",
            where="calibrate",
            remedy=f"leave {'it' if len(found) == 1 else 'them'} out, or leave out --from",
        )


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
        if done.parent is not None:
            console.print(
                f"  derived    from {escape(done.parent.manifest.name)} without a pass, judged by "
                f"its {done.golden.runs} golden runs"
            )
        if done.record.overrides:
            console.print(f"  ranges     {_count_ranges(done)}")
        for name, quality in done.quality.outputs.items():
            cosine, decibel = quality["cosine_min"], quality["sqnr_db"]
            console.print(
                f"  predicted  {escape(name)}: cosine to FP32 at least {cosine:.4f}"
                + (f", SQNR {decibel:.1f} dB" if decibel is not None else "")
            )
    unreadable = written[0][0].manifest.data.skipped
    skipped = f", {len(unreadable)} unreadable ones skipped" if unreadable else ""
    alike = written[0][0].manifest.data.excluded
    skipped += f", {len(alike)} of the test set left out" if alike else ""
    dropped = f", {statistics.dropped} of an incomplete batch dropped" if statistics.dropped else ""
    held = f" ({statistics.held_out_samples} held out to judge by)" if statistics.held_out else ""
    console.print(f"  samples    {statistics.samples}{held}{skipped}{dropped}, {seconds:.1f} s")


def _count_ranges(done: Calibration) -> str:
    copied = sum(one.follows is not None for one in done.record.overrides)
    given = len(done.record.overrides) - copied
    also = f", and {copied} more copy them" if copied else ""
    return f"{given} given, in place of measured ones{also}"


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
