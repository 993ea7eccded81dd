"""`edgecal calibrate`: a network and data, or the statistics of a bundle, to a bundle."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecal.cli.backends import (
    BackendOption,
    BackendRequest,
    TrtContainerOption,
    TrtPythonOption,
    settle_backend,
)
from edgecal.cli.calibrated import show_bundles
from edgecal.cli.calibrating import Keep, derive_from_bundle, pass_over_data
from edgecal.cli.cluster import (
    ClusterCaOption,
    ClusterCertOption,
    ClusterKeyOption,
    ClusterOption,
    ClusterWords,
    InsecureClusterOption,
)
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
    preprocess_option,
)
from edgecal.cli.options import JsonOption, QuietOption, VerboseOption
from edgecal.cli.shapes import ShapeOption, read_network
from edgecal.cli.story import Story

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgecal.core.overrides import Overrides
    from edgecal.core.versions import TensorRTVersion

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
            "With --from that of the bundle, if none is named. From 11 on the bundle is of form "
            "qdq: its network carries the scales.",
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
            help="auto, entropy2 (TensorRT's), minmax, mse (least squared error), percentile, "
            "mean-percentile (the mean of every sample's own) or entropy (as NVIDIA told of it in "
            "2017). auto takes the one of the first five whose "
            "simulated INT8 output is nearest to float32, the first of those within 5 %; with "
            "--backend tensorrt it is entropy2. With --from that of the bundle, if none is named.",
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
    no_fp16: Annotated[
        bool,
        typer.Option(
            "--no-fp16",
            help="In a bundle of form qdq, leave float32 what is not quantized: such a network "
            "says itself what is computed in FP16, and push cannot take that back.",
            rich_help_panel=_WHICH,
            show_default=False,
        ),
    ] = False,
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
    shape: ShapeOption = None,
    samples: SamplesOption = None,
    skip_unreadable: SkipUnreadableOption = False,
    exclude_like: ExcludeLikeOption = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Threads; any number gives the same bits.", show_default="cores"),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with a pass over the data that was stopped, from OUTPUT.checkpoint: to the "
            "same bits, if everything is given as it was. It is there after Ctrl-C, and twice a "
            "minute before.",
        ),
    ] = False,
    backend: BackendOption = None,
    trt_python: TrtPythonOption = None,
    trt_container: TrtContainerOption = None,
    cluster: ClusterOption = None,
    insecure_cluster: InsecureClusterOption = False,
    cluster_ca: ClusterCaOption = None,
    cluster_cert: ClusterCertOption = None,
    cluster_key: ClusterKeyOption = None,
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

    edgecal calibrate net.onnx --data samples.npz --tensorrt 8.5 --tensorrt 11.4 -o net.edgecal

    edgecal calibrate --from net.edgecal --tensorrt 10.3 --algorithm mse -o net-10.3.edgecal

    edgecal calibrate net.onnx --data in.npz --tensorrt 8.5 --trt-python python3.8 -o net.edgecal
    """
    from edgecal.cli.wiring import bundling, lookup, machine
    from edgecal.core.amax import DEFAULT_PERCENTILE
    from edgecal.core.manifest import bundle_name
    from edgecal.core.overrides import parse_range_table
    from edgecal.core.wanted import wanted_versions
    from edgecal.workflows.collect import AUTO, CalibrateOptions

    story = Story(as_json=as_json, quiet=quiet, verbose=verbose)
    project = lookup.project()
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
                "--shape": shape,
                "--samples": samples,
                "--skip-unreadable": skip_unreadable or None,
                "--exclude-like": exclude_like,
                "--preview": preview,
                "--resume": resume or None,
                "--backend": backend,
                "--trt-python": trt_python,
                "--trt-container": trt_container,
                "--cluster": cluster,
                "--preprocess": preprocess,
                **{f"--{name}": value for name, value in flags.items()},
            }
        )
    else:
        model = Path(_need(model or defaults.model, "MODEL", "the ONNX file to calibrate"))
        data = _need(data or defaults.data, "--data", "a folder, a file or a generator")
    out = Path(_need(output or defaults.output, "-o", "the bundle to write, NAME.edgecal"))
    parent = None if from_bundle is None else bundling.read_bundle(from_bundle)
    named = bool(tensorrt or jetpack or for_target)
    if parent is not None and not named:
        versions: tuple[TensorRTVersion, ...] = (parent.manifest.tensorrt,)
    else:
        versions = wanted_versions(
            lookup.platforms(),
            tensorrt=tensorrt or (() if named else defaults.tensorrt),
            jetpack=jetpack or (() if named else defaults.jetpack),
            asked=[_ask(text, story) for text in for_target or ()],
            explicit=True,
        )
    _check_no_fp16(versions, no_fp16=no_fp16)
    paths = [out] if len(versions) == 1 else [_with_version(out, one) for one in versions]
    for path in paths:
        bundle_name(path.name)
        bundling.check_destination(path)
    options = CalibrateOptions(
        algorithm=algorithm or defaults.algorithm or AUTO,
        percentile=_first(percentile, defaults.percentile, DEFAULT_PERCENTILE),
        batch_size=batch_size or defaults.batch_size,
        workers=workers or machine.workers(),
        fp16=not no_fp16,
    )
    overrides = [
        parse_range_table(defaults.ranges, source=f"{project.source}: [calibrate.ranges]"),
        *([] if ranges is None else [read_ranges(ranges)]),
    ]

    started = machine.now()
    if parent is not None:
        as_before = algorithm is None and percentile is None
        work = derive_from_bundle(parent, versions, options, overrides, story, as_before=as_before)
    else:
        over = ClusterWords(
            cluster=cluster,
            insecure_cluster=insecure_cluster,
            cluster_ca=cluster_ca,
            cluster_cert=cluster_cert,
            cluster_key=cluster_key,
        ).request(project)
        request = DataRequest(
            spec=str(data),
            preprocess=chosen_preprocess(preprocess, project, flags),
            skip_unreadable=skip_unreadable,
            limit=samples or defaults.samples,
            exclude_like=exclude_like,
            preview=preview,
            for_pictures=preprocess_option(preprocess, flags),
        )
        keep = Keep(out=out, resume=resume)
        native = settle_backend(
            BackendRequest(
                backend=_backend_of_workers(backend) if cluster else backend,
                python=trt_python,
                container=trt_container,
            ),
            project,
            algorithm=options.algorithm,
            versions=versions,
            resume=resume,
            story=story,
        )
        work = pass_over_data(
            read_network(Path(str(model)), shape, project),
            request,
            versions,
            options,
            overrides,
            keep,
            native,
            over,
            story,
        )
    written = []
    for path, done in zip(paths, work.calibrations, strict=True):
        written.append(
            (
                bundling.save_bundle(
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
    if work.keeper is not None:
        work.keeper.finish()
    seconds = (machine.now() - started).total_seconds()
    findings = [
        *work.findings,
        *dict.fromkeys(finding for done in work.calibrations for finding in done.findings),
    ]
    story.findings(findings)
    first = work.calibrations[0]
    document = {
        "schema": "edgecal.calibrate/1",
        "bundles": [str(bundle.path) for bundle, _ in written],
        "forms": [bundle.manifest.form for bundle, _ in written],
        "algorithm": first.record.algorithm,
        "backend": first.record.backend,
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


def read_ranges(path: Path) -> Overrides:
    """Read ranges that outweigh measured ones, in any format that is recognised.

    Raises
    ------
    InputError
        If it is of no such format, or a scale is not one TensorRT can use.
    """
    from edgecal.cli.wiring import caches
    from edgecal.core.overrides import overrides_from
    from edgecal.errors import CacheFormatError

    remedy = f"make a table of it first: edgecal cache convert {path} --to json -o ranges.json"
    file = caches.read_cache(path)
    try:
        word = caches.recognise(file)
    except CacheFormatError as error:
        # its own remedy speaks of convert's --from, which is another thing here
        raise CacheFormatError(
            error.what,
            where=str(path),
            remedy="write a line NAME:RANGE for each tensor, its largest magnitude to let through; "
            f"or {remedy} --from FORMAT",
        ) from error
    if word in _WITHOUT_A_TABLE:
        raise CacheFormatError(
            "expected a table of ranges, found a network", where=str(path), remedy=remedy
        )
    return overrides_from(caches.read_scales(file, word, segment=None).entries, source=str(path))


def _check_no_fp16(versions: Sequence[TensorRTVersion], *, no_fp16: bool) -> None:
    from edgecal.core.hosts import takes_caches
    from edgecal.errors import InputError

    if no_fp16 and all(takes_caches(one) for one in versions):
        raise InputError(
            "no bundle of form 'qdq' is made, and a calibration cache says nothing about FP16",
            where="--no-fp16",
            remedy="leave it out here, and give it to push",
        )


def _backend_of_workers(backend: str | None) -> str:
    """Say which backend workers of a cluster have."""
    from edgecal.core.backends import AUTO, ONNXRUNTIME
    from edgecal.errors import InputError

    if backend not in {None, AUTO, ONNXRUNTIME}:
        raise InputError(
            "workers of a cluster measure with ONNX Runtime, and TensorRT calibrates in one piece",
            where="--cluster",
            remedy="leave out --cluster or --backend",
        )
    return ONNXRUNTIME


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


def _need(value: str | Path | None, what: str, meaning: str) -> str:
    return needed(value, what, meaning, command="calibrate")


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _ask(text: str, story: Story) -> TensorRTVersion:
    from edgecal.cli.wiring import lookup, remote
    from edgecal.errors import InputError
    from edgecal.workflows.targets import probe_target

    facts = probe_target(lookup.target(text), remote.world())
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
