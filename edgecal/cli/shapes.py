"""`--shape`: what users choose for dynamic inputs, on the command line or in `edgecal.toml`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgecal.adapters.onnx_model import OnnxModel
    from edgecal.core.project import Project

ShapeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="INPUT=1x3xHxW",
        help="Shape of an input with dynamic dimensions, the batch first; repeatable. Else the "
        "data says it. Outweighs \\[calibrate.shapes] in edgecal.toml.",
        show_default=False,
    ),
]


def read_network(path: Path, shapes: Sequence[str] | None, project: Project) -> OnnxModel:
    """Read a network, its dynamic inputs settled as far as anybody said.

    Raises
    ------
    InputError
        If that contradicts the network.
    """
    from edgecal.cli.wiring import networks
    from edgecal.core.shapes import parse_shape_table, parse_shapes

    chosen = parse_shapes(shapes or ())
    table = parse_shape_table(
        project.calibrate.shapes, source=f"{project.source}: [calibrate.shapes]"
    )
    return networks.model(path, {**table, **chosen})
