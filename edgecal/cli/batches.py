"""`edgecal batches`: calibration data, prepared, to the batch files of TensorRT's INT8 samples."""

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
    preprocess_option,
)
from edgecal.cli.options import JsonOption, QuietOption, VerboseOption
from edgecal.cli.preview import findings_of_pass
from edgecal.cli.story import Story

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from edgecal.adapters.batches import WrittenBatches
    from edgecal.core.graph import TensorInfo


def batches(
    model: ModelArgument = None,
    *,
    data: DataOption = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="The folder to write: a new one, or one that this command wrote before.",
            show_default=False,
        ),
    ],
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Samples per file.", show_default="what the network fixes, else 1"
        ),
    ] = None,
    prefix: Annotated[str, typer.Option(help="What the names begin with.")] = "batch",
    suffix: Annotated[str, typer.Option(help="What follows the number; may be empty.")] = ".batch",
    samples: SamplesOption = None,
    skip_unreadable: SkipUnreadableOption = False,
    exclude_like: ExcludeLikeOption = None,
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
    """Write prepared calibration data as batch files, which TensorRT's INT8 samples read.

    A file is little-endian: int32 N, C, H, W, then N x C x H x W float32. Every file holds exactly
    the batch size; an incomplete last batch is left out, and said. Which sample went where stands
    in contents.json beside them.

    [bold]Example[/]

    edgecal batches net.onnx --data photos/ --preprocess net.toml --batch-size 8 -o batches
    """
    from edgecal.cli.wiring import datasets, lookup, networks

    story = Story(as_json=as_json, quiet=quiet, verbose=verbose)
    project = lookup.project()
    defaults = project.calibrate
    model_path = Path(
        needed(model or defaults.model, "MODEL", "the ONNX file to feed", command="batches")
    )
    spec = needed(
        data or defaults.data, "--data", "a folder, a file or a generator", command="batches"
    )
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
    request = DataRequest(
        spec=spec,
        preprocess=chosen_preprocess(preprocess, project, flags),
        skip_unreadable=skip_unreadable,
        limit=samples or defaults.samples,
        exclude_like=exclude_like,
        preview=preview,
        for_pictures=preprocess_option(preprocess, flags),
    )
    inputs = networks.model(model_path).graph.inputs
    datasets.check_batches(output, inputs, prefix=prefix, suffix=suffix, data=Path(spec))
    size = _batch_size(inputs, batch_size or defaults.batch_size)
    source, findings = open_data(request, inputs)
    if source.preprocess is not None and source.preprocess.layout != "nchw":
        raise _not_planar(source.preprocess.layout, spec)
    total = len(source)
    with story.progress() as progress:
        written = datasets.write_batches(
            output,
            source,
            prefix=prefix,
            suffix=suffix,
            batch_size=size,
            progress=lambda count: progress("writing", count, total),
        )
    findings += findings_of_pass(source, spec=spec, test_set=exclude_like)
    story.findings(findings)
    document = {
        "schema": "edgecal.batches/1",
        "folder": str(output),
        "files": len(written.files),
        "batch_size": size,
        "shape": [size, *written.shape],
        "samples": written.samples,
        "dropped": written.dropped,
        "skipped": list(source.skipped),
        "excluded": list(source.excluded),
        "findings": [finding.to_json() for finding in findings],
    }
    skipped = len(source.skipped)
    story.result(document, lambda console: _show(console, written, skipped))


def _batch_size(inputs: Sequence[TensorInfo], given: int | None) -> int:
    from edgecal.core.batching import fixed_batch
    from edgecal.errors import DatasetError

    fixed = fixed_batch(inputs)
    if None not in {fixed, given} and fixed != given:
        raise DatasetError(
            f"the network's batch size is fixed to {fixed}, and --batch-size says {given}",
            remedy="leave --batch-size out, or export the network with a dynamic batch axis",
        )
    return fixed or given or 1


def _not_planar(layout: str, spec: str) -> Exception:
    from edgecal.errors import DatasetError

    return DatasetError(
        f"batch files hold N, C, H, W, and the network takes {layout}",
        where=spec,
        remedy="keep such data in an .npz file, or export the network as nchw",
    )


def _show(console: Console, written: WrittenBatches, skipped: int) -> None:
    from rich.markup import escape

    count = len(written.files)
    channels, height, width = written.shape
    console.print(
        f"[bold]{escape(str(written.folder))}[/]: {count} file{'' if count == 1 else 's'} of "
        f"{written.batch_size} x {channels} x {height} x {width}, from "
        f"{escape(written.files[0])} on"
    )
    unreadable = f", {skipped} unreadable skipped" if skipped else ""
    dropped = f", {written.dropped} of an incomplete batch dropped" if written.dropped else ""
    console.print(f"  samples    {written.samples}{unreadable}{dropped}")
