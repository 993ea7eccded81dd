"""`edgecal rollout pause`, `promote`, `halt` and `retry`: wishes, written down from any shell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgecal.cli.ask import confirm
from edgecal.cli.options import YesOption
from edgecal.cli.rollout.options import JournalWords, OutputWords, RolloutArgument, takes
from edgecal.cli.story import Story

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgecal.cli.rollout.standing import Standing
    from edgecal.core.rollout.events import Kind


@takes(journal_words=JournalWords, output=OutputWords)
def pause(name: RolloutArgument, *, journal_words: JournalWords, output: OutputWords) -> None:
    """Start nothing new in a rollout until 'edgecal rollout resume'; what is under way goes on.

    [bold]Example[/]

    edgecal rollout pause net-8.5-20260301-101500
    """
    from edgecal.core.rollout.events import Kind

    _wish(name, Kind.PAUSED, journal_words, output)


@takes(journal_words=JournalWords, output=OutputWords)
def promote(name: RolloutArgument, *, journal_words: JournalWords, output: OutputWords) -> None:
    """Let the next wave go: after --pause-after, or without the rest of the soak time.

    A wave that has not passed yet still has to.

    [bold]Example[/]

    edgecal rollout promote net-8.5-20260301-101500
    """
    from edgecal.core.rollout.events import Kind

    _wish(name, Kind.PROMOTED, journal_words, output)


@takes(journal_words=JournalWords, output=OutputWords)
def halt(
    name: RolloutArgument,
    *,
    yes: YesOption = False,
    journal_words: JournalWords,
    output: OutputWords,
) -> None:
    """End a rollout for good, from wherever it stands.

    Devices under way stop where nothing is half-done; devices that run the release keep it. Another
    rollout later leaves these as they are.

    [bold]Example[/]

    edgecal rollout halt net-8.5-20260301-101500
    """
    from edgecal.cli.rollout.lines import devices
    from edgecal.core.rollout.events import Kind
    from edgecal.core.rollout.state import SUCCEEDED, DevicePhase, Phase
    from edgecal.errors import InputError

    def ask(standing: Standing, story: Story) -> None:
        rollout = standing.rollout
        if rollout.phase in {Phase.FINISHED, Phase.HALTED}:
            raise InputError(
                f"it is {rollout.phase.value} already",
                where=f"rollout {name}",
                remedy="see how it ended: 'edgecal rollout status'",
            )
        running = sum(len(rollout.in_phase(phase)) for phase in SUCCEEDED)
        waiting = (DevicePhase.PENDING, DevicePhase.WAITING)
        left = sum(len(rollout.in_phase(phase)) for phase in waiting)
        confirm(
            f"halt {name} for good: {devices(running)} run the release and keep it, "
            f"{len(rollout.busy())} under way stop, {left} are left as they are",
            yes=yes,
            story=story,
        )

    _wish(name, Kind.HALTED, journal_words, output, ask=ask)


@takes(journal_words=JournalWords, output=OutputWords)
def retry(
    name: RolloutArgument,
    *,
    failed: Annotated[
        bool,
        typer.Option(
            "--failed", help="Those that failed, and those that were rolled back with them."
        ),
    ] = False,
    unreached: Annotated[
        bool, typer.Option("--unreached", help="Those that could not be reached.")
    ] = False,
    journal_words: JournalWords,
    output: OutputWords,
) -> None:
    """Have devices tried again that failed or could not be reached; the others stay as they are.

    A failed or finished rollout runs again by this.

    [bold]Examples[/]

    edgecal rollout retry net-8.5-20260301-101500 --unreached

    edgecal rollout retry net-8.5-20260301-101500 --failed --unreached
    """
    from edgecal.cli.rollout.lines import devices
    from edgecal.cli.rollout.standing import find_row, journal_url, stand
    from edgecal.cli.wiring import lookup, machine, rollouts
    from edgecal.workflows.rollout import wishes

    story = Story(as_json=output.as_json, quiet=output.quiet, verbose=output.verbose)
    if not failed and not unreached:
        raise typer.BadParameter("pass --failed, --unreached or both", param_hint="whom to retry")
    phases = [
        *((*wishes.FAILED, *wishes.ROLLED_BACK) if failed else ()),
        *(wishes.UNREACHED if unreached else ()),
    ]
    journal = rollouts.journal(journal_url(journal_words.journal, lookup.project()))
    find_row(journal, name)
    _, names = wishes.retry(journal, name, phases, who=machine.owner(), now_ms=machine.now_ms())
    tell_wish(f"{devices(len(names))} to be tried again", stand(journal, name), story, names=names)


def _wish(
    name: str,
    kind: Kind,
    journal_words: JournalWords,
    output: OutputWords,
    *,
    ask: Callable[[Standing, Story], None] | None = None,
) -> None:
    from edgecal.cli.rollout.standing import journal_url, stand
    from edgecal.cli.wiring import lookup, machine, rollouts
    from edgecal.workflows.rollout.wishes import wish

    story = Story(as_json=output.as_json, quiet=output.quiet, verbose=output.verbose)
    journal = rollouts.journal(journal_url(journal_words.journal, lookup.project()))
    standing = stand(journal, name)
    if ask is not None:
        ask(standing, story)
    wish(journal, name, kind, who=machine.owner(), now_ms=machine.now_ms())
    tell_wish(kind.value, stand(journal, name), story)


def tell_wish(
    what: str, standing: Standing, story: Story, *, names: Sequence[str] | None = None
) -> None:
    """Say what was written down, and who acts on it."""
    from edgecal.cli.rollout.lines import plain
    from edgecal.cli.rollout.standing import OVER

    name = plain(standing.rollout.plan.rollout)
    document = standing.document()
    if names is not None:
        document["retried"] = list(names)
    over = standing.rollout.phase in OVER and not standing.rollout.busy()
    if standing.row.driver:
        then = f"{plain(standing.row.driver)} drives it and hears of it within a second or two"
    elif over:
        then = "nobody drives it, and nothing is under way"
    else:
        then = f"nobody drives it: 'edgecal rollout resume {name}' drives it on"
    story.result(document, lambda console: console.print(f"[bold]{name}[/] {plain(what)}; {then}"))
