"""Options that several commands share, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

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
        help="A name in the inventory, an ssh_config host, or \\[user@]host\\[:port].",
        show_default=False,
    ),
]
TargetsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        "-t",
        metavar="T",
        help="A name in the inventory, an ssh_config host, or \\[user@]host\\[:port]; repeatable.",
        show_default=False,
    ),
]
OnOption = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="EXPR",
        help="The targets that an expression of names, globs, groups and facts hits, such as "
        "'site-a & !canary & tensorrt=8.5 & module=orin-*'. Facts are what a target last said; one "
        "that never answered is asked.",
        show_default=False,
    ),
]
ProbeOption = Annotated[
    bool,
    typer.Option("--probe", help="Ask anew for the facts in --on.", show_default=False),
]
InventoryOption = Annotated[
    Path | None,
    typer.Option(
        "--inventory",
        metavar="FILE",
        help="A TOML file with \\[targets] and \\[groups], what ansible-inventory --list prints, a "
        "program that prints it, or an ssh_config.",
        show_default="the nearest fleet.toml, else edgecal.toml",
    ),
]

BUILDING = "How to build"
"""The panel of the options below in a command's help."""

BuilderOption = Annotated[
    str | None,
    typer.Option(
        help="trtexec, tensorrt (its Python API) or onnxruntime.",
        rich_help_panel=BUILDING,
        show_default="trtexec",
    ),
]
ModelNameOption = Annotated[
    str | None,
    typer.Option("--as", help="Name of the model on the target.", show_default="the bundle's"),
]
AcceptRestampedOption = Annotated[
    bool,
    typer.Option(
        "--accept-restamped",
        help="Go on although another TensorRT wrote the cache than its header says.",
        rich_help_panel=BUILDING,
    ),
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
PrecisionOption = Annotated[
    Literal["int8", "fp16"] | None,
    typer.Option(
        help="fp16 builds without INT8 and without the cache: for Nano, TX1 and TX2, which have "
        "no INT8.",
        rich_help_panel=BUILDING,
        show_default="int8",
    ),
]
WorkspaceOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="MIB",
        help="Memory that the builder may take for trying kernels.",
        rich_help_panel=BUILDING,
        show_default="the builder's choice",
    ),
]
ProfileOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="INPUT=MIN,OPT,MAX",
        help="Shapes that an input with dynamic dimensions is to take; repeatable. Else the engine "
        "takes the calibrated shape alone.",
        rich_help_panel=BUILDING,
        show_default=False,
    ),
]
BuildTimeoutOption = Annotated[
    float | None,
    typer.Option(
        min=0.1,
        metavar="MINUTES",
        help="End a build that takes longer.",
        rich_help_panel=BUILDING,
        show_default="240",
    ),
]
AcceptUnprovenOption = Annotated[
    bool,
    typer.Option(
        "--accept-unproven",
        help="Go on although the build's log does not show that the cache was used.",
        rich_help_panel=BUILDING,
    ),
]

ACTIVATING = "Beside others"
"""The panel of the options below in a command's help."""

BreakLockOption = Annotated[
    bool,
    typer.Option(
        "--break-lock",
        help="End whoever else is at work on the model there.",
        rich_help_panel=ACTIVATING,
    ),
]
ActivateWithinOption = Annotated[
    float,
    typer.Option(
        min=0,
        metavar="SECONDS",
        help="How long an application there may put the activation off; then the engine stays "
        "built, for the next push to activate.",
        rich_help_panel=ACTIVATING,
    ),
]
LimitRateOption = Annotated[
    str | None,
    typer.Option(
        metavar="RATE",
        help="Send no more bytes a second, such as 500k or 2M; all targets together.",
        rich_help_panel=ACTIVATING,
        show_default=False,
    ),
]

LIMITS = "Limits"
"""The panel of the options below in a command's help."""

ConnectionsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Open no more connections at once through one bastion, or to targets without one.",
        rich_help_panel=LIMITS,
        show_default="8",
    ),
]
TransfersOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Send to no more targets at once.",
        rich_help_panel=LIMITS,
        show_default="no limit",
    ),
]
BuildsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Let no more targets build at once.",
        rich_help_panel=LIMITS,
        show_default="no limit: each builds for itself",
    ),
]
BastionRateOption = Annotated[
    str | None,
    typer.Option(
        "--limit-rate-per-bastion",
        metavar="RATE",
        help="Send no more bytes a second through one bastion, or to targets without one.",
        rich_help_panel=LIMITS,
        show_default=False,
    ),
]

LISTENING = "Who hears of it"
"""The panel of the options below in a command's help."""

EventsOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Append a JSON line for everything that happens; - prints them on stdout.",
        rich_help_panel=LISTENING,
        show_default=False,
    ),
]
HookOption = Annotated[
    str | None,
    typer.Option(
        metavar="COMMAND",
        help="Run this for every entry of the journal, with its JSON on standard input.",
        rich_help_panel=LISTENING,
        show_default=False,
    ),
]
MetricsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Keep figures there for Prometheus, as node_exporter's textfile collector reads them.",
        rich_help_panel=LISTENING,
        show_default=False,
    ),
]
