"""Options that several commands share, spelled once."""

from __future__ import annotations

from typing import Annotated

import typer

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout.", show_default=False)
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Say nothing but the result.", show_default=False)
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Tell more, notes too.", show_default=False)
]
YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Do it without asking.", show_default=False)
]
TargetOption = Annotated[
    str,
    typer.Option(
        "--target",
        "-t",
        metavar="T",
        help="A name in edgecal.toml, an ssh_config host, or \\[user@]host\\[:port].",
        show_default=False,
    ),
]
TargetsOption = Annotated[
    list[str],
    typer.Option(
        "--target",
        "-t",
        metavar="T",
        help="A name in edgecal.toml, an ssh_config host, or \\[user@]host\\[:port]; repeatable.",
        show_default=False,
    ),
]

BUILDING = "How to build"
"""The panel of the options below in a command's help."""

BuilderOption = Annotated[
    str | None,
    typer.Option(help="trtexec or onnxruntime.", rich_help_panel=BUILDING, show_default="trtexec"),
]
DlaOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="CORE",
        help="Build for a DLA core.",
        rich_help_panel=BUILDING,
        show_default=False,
    ),
]
NoGpuFallbackOption = Annotated[
    bool,
    typer.Option(
        "--no-gpu-fallback",
        help="The GPU takes no layer that the DLA refuses: such a build fails.",
        rich_help_panel=BUILDING,
    ),
]
NoFp16Option = Annotated[
    bool, typer.Option("--no-fp16", help="No FP16 beside INT8.", rich_help_panel=BUILDING)
]
