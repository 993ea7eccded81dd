"""What may be said of a rollout on the command line: options, and the values they travel in."""

from __future__ import annotations

import functools
import inspect
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_type_hints

import typer

from edgecal.cli.options import (
    AcceptRestampedOption,
    AcceptUnprovenOption,
    ActivateWithinOption,
    BastionRateOption,
    BuilderOption,
    BuildsOption,
    BuildTimeoutOption,
    ConnectionsOption,
    DlaOption,
    EventsOption,
    HookOption,
    InventoryOption,
    JsonOption,
    LimitRateOption,
    MetricsOption,
    ModelNameOption,
    NoFp16Option,
    NoGpuFallbackOption,
    OnOption,
    PrecisionOption,
    ProbeOption,
    ProfileOption,
    QuietOption,
    TargetsOption,
    TransfersOption,
    VerboseOption,
    WorkspaceOption,
    YesOption,
)

if TYPE_CHECKING:
    from collections.abc import Callable

W = TypeVar("W")

WAVES = "Waves and gates"
"""The panel of the options below in a command's help."""
TRYING = "Pace and patience"
"""And of those after them."""

BundlesArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="BUNDLE",
        help="Of several, each target gets the one for its TensorRT.",
        show_default=False,
    ),
]
RolloutArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="The rollout's name.", show_default=False)
]
MaybeRolloutArgument = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="The rollout's name.", show_default="the latest one"),
]
JournalOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="The database of rollouts: sqlite:////PATH, or postgresql://USER@HOST/NAME for a "
        "team.",
        envvar="EDGECAL_JOURNAL",
        show_default="SQLite in the user's state folder",
    ),
]
NameOption = Annotated[
    str | None,
    typer.Option(
        "--name", help="What the rollout is called.", show_default="the bundle's name and the time"
    ),
]
WavesOption = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="How far each wave reaches, waves before it included: counts, or shares that are "
        "rounded up.",
        rich_help_panel=WAVES,
        show_default="1,10%,100%",
    ),
]
SuccessOption = Annotated[
    str | None,
    typer.Option(
        metavar="SHARE,COUNT",
        help="A wave passes when at least this share of it, and at least so many, have succeeded.",
        rich_help_panel=WAVES,
        show_default="90%,1",
    ),
]
FailuresOption = Annotated[
    str | None,
    typer.Option(
        metavar="SHARE,COUNT",
        help="A wave fails as soon as at least this share of those reached, and at least so many, "
        "have failed. No more are under way at once than it would take: so many at first, more as "
        "others succeed.",
        rich_help_panel=WAVES,
        show_default="10%,8",
    ),
]
MissingOption = Annotated[
    str | None,
    typer.Option(
        metavar="SHARE,COUNT",
        help="A wave also fails when so many could not be reached by their deadline; or 'never'.",
        rich_help_panel=WAVES,
        show_default="never",
    ),
]
OnFailureOption = Annotated[
    Literal["halt", "rollback", "continue"] | None,
    typer.Option(
        help="When a wave has failed: start nothing more; or also take its own devices back; or go "
        "on.",
        rich_help_panel=WAVES,
        show_default="halt",
    ),
]
SoakOption = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Wait so long after a wave has passed, such as 30s, 10m or 2h.",
        rich_help_panel=WAVES,
        show_default="0",
    ),
]
PauseAfterOption = Annotated[
    str | None,
    typer.Option(
        metavar="WAVES",
        help="After these waves, such as 1,2 or 'all', wait until a person promotes.",
        rich_help_panel=WAVES,
        show_default=False,
    ),
]
InFlightOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Work on no more devices at once.",
        rich_help_panel=TRYING,
        show_default="32",
    ),
]
DeadlineOption = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Wait so long for a device that is offline or occupied, from its first try on.",
        rich_help_panel=TRYING,
        show_default="24h",
    ),
]
TriesOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Pushes in all to a device whose connection breaks off on the way.",
        rich_help_panel=TRYING,
        show_default="4",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitWords:
    """How much may go on at once."""

    connections: ConnectionsOption = None
    transfers: TransfersOption = None
    builds: BuildsOption = None
    limit_rate: LimitRateOption = None
    bastion_rate: BastionRateOption = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerWords:
    """Who hears of what happens."""

    events: EventsOption = None
    hook: HookOption = None
    metrics: MetricsOption = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputWords:
    """How much is said, and where."""

    as_json: JsonOption = False
    quiet: QuietOption = False
    verbose: VerboseOption = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanWords:
    """What is to be rolled out to whom, in which steps, and how it is built there."""

    bundles: BundlesArgument = None
    targets: TargetsOption = None
    on: OnOption = None
    inventory: InventoryOption = None
    probe: ProbeOption = False
    name: NameOption = None
    waves: WavesOption = None
    success: SuccessOption = None
    failures: FailuresOption = None
    missing: MissingOption = None
    on_failure: OnFailureOption = None
    soak: SoakOption = None
    pause_after: PauseAfterOption = None
    in_flight: InFlightOption = None
    deadline: DeadlineOption = None
    tries: TriesOption = None
    model_name: ModelNameOption = None
    builder: BuilderOption = None
    dla: DlaOption = None
    no_gpu_fallback: NoGpuFallbackOption = False
    no_fp16: NoFp16Option = False
    precision: PrecisionOption = None
    workspace: WorkspaceOption = None
    profile: ProfileOption = None
    build_timeout: BuildTimeoutOption = None
    accept_unproven: AcceptUnprovenOption = False
    accept_restamped: AcceptRestampedOption = False
    activate_within: ActivateWithinOption = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalWords:
    """Where rollouts are written down."""

    journal: JournalOption = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartWords:
    """Where the rollout is written down, and whether a person has said yes already."""

    journal: JournalOption = None
    yes: YesOption = False


def takes(**groups: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command of a function that takes its options as values, by the names given here.

    Two commands that are told the same things need not list them twice; typer reads the list off
    the signature that is put together here. The function's own parameters come first.
    """

    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        own = [
            parameter
            for name, parameter in inspect.signature(command).parameters.items()
            if name not in groups
        ]
        hints = get_type_hints(command, include_extras=True)
        listed = [one.replace(annotation=hints[one.name]) for one in own]
        for group in groups.values():
            listed += _parameters(group)

        @functools.wraps(command)
        def run(**given: Any) -> None:  # noqa: ANN401 - whatever the options are
            values = {
                name: group(**{one.name: given.pop(one.name) for one in fields(group)})
                for name, group in groups.items()
            }
            command(**given, **values)

        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in listed]
        )
        run.__annotations__ = {one.name: one.annotation for one in listed}
        run.__doc__ = _flowing(command.__doc__ or "")
        del run.__wrapped__  # its signature is another one
        return run

    return wrap


def _flowing(text: str) -> str:
    """Let paragraphs flow: typer would keep the line breaks of the source."""
    return "\n\n".join(" ".join(one.split()) for one in inspect.cleandoc(text).split("\n\n"))


def _parameters(group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if one.default is MISSING else one.default,
            annotation=hints[one.name],
        )
        for one in fields(group)
    ]
