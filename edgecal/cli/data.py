"""Options of commands that read calibration data, and how the data is opened with them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecal.cli.preview import only_pictures, write_preview

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgecal.core.findings import Finding
    from edgecal.core.graph import TensorInfo
    from edgecal.core.preprocess import Preprocess
    from edgecal.core.project import Project
    from edgecal.ports import Dataset

_PICTURE = "Picture preprocessing"

ModelArgument = Annotated[
    Path | None, typer.Argument(help="The float32 network, as ONNX.", show_default=False)
]
DataOption = Annotated[
    str | None,
    typer.Option(
        help="Images: a folder, a list (.txt, .csv), a quoted pattern such as 'photos/**/*.jpg', "
        "or an archive (.tar, .tar.gz). Or an .npy or .npz file (axis 0 counts samples), a folder "
        "of sampleINT8 batch files or the path that their names begin with, or module:function of "
        "a Python generator.",
        show_default=False,
    ),
]
SamplesOption = Annotated[
    int | None, typer.Option(min=1, help="Use only the first N samples.", show_default="all")
]
SkipUnreadableOption = Annotated[
    bool,
    typer.Option("--skip-unreadable", help="Pass over images that cannot be read, and count them."),
]
ExcludeLikeOption = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="Leave out pictures that also stand in this test set, re-encoded or resized too.",
        show_default=False,
    ),
]
PreviewOption = Annotated[
    Path | None,
    typer.Option(
        metavar="OUT.png",
        help="Draw what the network sees of the first 20 pictures.",
        rich_help_panel=_PICTURE,
        show_default=False,
    ),
]
PresetOption = Annotated[
    str | None,
    typer.Option(
        help="imagenet, yolo, ssd or caffe-bgr: sizes are the network's; what else is given wins.",
        rich_help_panel=_PICTURE,
        show_default=False,
    ),
]
PreprocessOption = Annotated[
    Path | None,
    typer.Option(
        help="TOML file with preset, resize, fit, crop, color, mean, scale, layout, dtype.",
        rich_help_panel=_PICTURE,
        show_default=False,
    ),
]
ResizeOption = Annotated[
    str | None,
    typer.Option(
        metavar="HxW", help="Height x width.", rich_help_panel=_PICTURE, show_default=False
    ),
]
FitOption = Annotated[
    str | None,
    typer.Option(
        help="stretch, shorter (side) or letterbox.", rich_help_panel=_PICTURE, show_default=False
    ),
]
CropOption = Annotated[
    str | None,
    typer.Option(
        metavar="HxW", help="From the middle.", rich_help_panel=_PICTURE, show_default=False
    ),
]
ColorOption = Annotated[
    str | None,
    typer.Option(help="rgb, bgr or gray.", rich_help_panel=_PICTURE, show_default=False),
]
MeanOption = Annotated[
    str | None,
    typer.Option(
        metavar="M[,M,M]",
        help="Subtracted; pixels count 0 to 255.",
        rich_help_panel=_PICTURE,
        show_default=False,
    ),
]
ScaleOption = Annotated[
    str | None,
    typer.Option(
        metavar="S[,S,S]",
        help="Multiplied afterwards.",
        rich_help_panel=_PICTURE,
        show_default=False,
    ),
]
LayoutOption = Annotated[
    str | None, typer.Option(help="nchw or nhwc.", rich_help_panel=_PICTURE, show_default=False)
]
DtypeOption = Annotated[
    str | None, typer.Option(help="float32 or uint8.", rich_help_panel=_PICTURE, show_default=False)
]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRequest:
    """Which data to read, and how."""

    spec: str
    preprocess: Preprocess | None
    """`None` where nobody has said anything: then it is guessed for images."""
    skip_unreadable: bool = False
    limit: int | None = None
    exclude_like: str | None = None
    """A test set whose pictures are left out."""
    preview: Path | None = None
    """Where a contact sheet goes, before the work."""
    for_pictures: str | None = None
    """An option of preprocessing that the command line has, which means nothing to other data."""


def preprocess_option(file: Path | None, flags: Mapping[str, object]) -> str | None:
    """Name an option of preprocessing that the command line has, if it has one."""
    given = (f"--{name}" for name, value in flags.items() if value is not None)
    return "--preprocess" if file is not None else next(given, None)


def chosen_preprocess(
    file: Path | None, project: Project, flags: Mapping[str, Any]
) -> Preprocess | None:
    """Put together what the project, a file and the command line say, the latter over the former.

    A file takes the place of the project's settings, and so does a preset, over which the file's
    settings stand.

    Parameters
    ----------
    flags
        By setting, `preset` among them; `None` where the option was not given.
    """
    from edgecal.cli.wiring import lookup
    from edgecal.core.preprocess import parse_preprocess

    given = {key: value for key, value in flags.items() if value is not None}
    preset = given.pop("preset", None)
    settings = project.preprocess
    if preset is not None:
        settings = parse_preprocess({"preset": preset}, source="--preset")
    if file is not None:
        table = lookup.read_toml(file)
        if preset is not None:
            table.pop("preset", None)
        base = settings if preset is not None else None
        settings = parse_preprocess(table, source=str(file), base=base)
    if given:
        settings = parse_preprocess(given, source="command line", base=settings)
    return settings


def open_data(request: DataRequest, inputs: Sequence[TensorInfo]) -> tuple[Dataset, list[Finding]]:
    """Open the data for a network, and draw it if asked to; a finding says what was guessed."""
    from edgecal.cli.wiring import datasets
    from edgecal.core.preprocess import assume_preprocess, fit_to_network, judge_values

    settings = request.preprocess
    findings: list[Finding] = []
    if settings is not None:
        settings = fit_to_network(settings, inputs)
        findings += judge_values(settings, inputs)
    elif inputs:
        settings, assumed = assume_preprocess(inputs)
        findings.append(assumed)
    source = datasets.open_dataset(
        request.spec,
        inputs,
        preprocess=settings,
        skip_unreadable=request.skip_unreadable,
        limit=request.limit,
    )
    if request.for_pictures is not None:
        only_pictures(source, request.spec, option=request.for_pictures)
    if request.exclude_like is not None:
        pictures = only_pictures(source, request.spec, option="--exclude-like")
        pictures.exclude_like(request.exclude_like)
    if request.preview is not None:
        pictures = only_pictures(source, request.spec, option="--preview")
        write_preview(request.preview, pictures, request.spec)
    if source.preprocess is None:  # it comes prepared
        findings = []
    return source, [*findings, *datasets.judge_files(source, spec=request.spec)]


def needed(value: str | Path | None, what: str, meaning: str, *, command: str) -> str:
    """Give a value that the command cannot do without.

    Raises
    ------
    InputError
        If neither the command line nor the project has it.
    """
    from edgecal.errors import InputError

    if value is None:
        raise InputError(
            f"{what} is missing: {meaning}",
            where=command,
            remedy=f"see edgecal {command} --help, or write it in edgecal.toml under [calibrate]",
        )
    # edgecal.toml may say ~; on the command line the shell has dealt with it
    return os.path.expanduser(value)  # noqa: PTH111 - a Path would respell what was given
