"""`edgecal rollout status` and `list`: how rollouts stand."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from edgecal.cli.interrupts import INTERRUPTED, exit_code_of
from edgecal.cli.rollout.options import (
    JournalWords,
    MaybeRolloutArgument,
    OutputWords,
    takes,
)
from edgecal.cli.story import Story

if TYPE_CHECKING:
    from edgecal.ports import Journal

_POLL_S: Final = 0.5
_LISTED: Final = 20
"""Each is read from its first entry on, which takes a second for thousands of devices."""


@takes(journal_words=JournalWords, output=OutputWords)
def status(
    name: MaybeRolloutArgument = None,
    *,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            "-f",
            help="Look on until it ends, and exit as 'rollout start' does; Ctrl-C only ends the "
            "looking on.",
        ),
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Check by the chain of digests that no entry was changed, taken out or put in.",
        ),
    ] = False,
    journal_words: JournalWords,
    output: OutputWords,
) -> None:
    """Show how a rollout stands: its waves, and each device that is not fine, with what to do.

    It reads the journal alone, from any shell or machine that reaches it. A journal that was
    changed is exit 2.

    [bold]Examples[/]

    edgecal rollout status

    edgecal rollout status net-8.5-20260301-101500 --follow
    """
    from edgecal.cli.rollout.shown import show_rollout
    from edgecal.cli.rollout.standing import end_code, find_row, journal_url, stand
    from edgecal.cli.wiring import lookup, machine, rollouts
    from edgecal.errors import InputError

    story = Story(as_json=output.as_json, quiet=output.quiet, verbose=output.verbose)
    journal = rollouts.journal(journal_url(journal_words.journal, lookup.project()))
    row = find_row(journal, name)
    code = _follow(row.rollout, journal, story) if follow else 0
    if verify and (broken := journal.verify(row.rollout)):
        raise InputError(
            f"the journal was changed: {broken}",
            where=f"rollout {row.rollout}",
            remedy="find out who did, and ask the devices themselves with 'edgecal status'",
        )
    found = stand(journal, row.rollout)
    document = found.document()
    if verify:
        document["whole"] = True
        story.tell(f"the journal is whole: {found.entries} entries, the last one {row.digest}")
    story.result(
        document,
        lambda console: show_rollout(
            console, found, now_ms=machine.now_ms(), verbose=output.verbose
        ),
    )
    if follow:
        raise typer.Exit(code or end_code(found.rollout))


def _follow(name: str, journal: Journal, story: Story) -> int:
    """Show what is written to a journal until the rollout is over; gives an interrupt's code."""
    from edgecal.cli.rollout.standing import OVER, stand
    from edgecal.cli.rollout.watching import Watch
    from edgecal.cli.wiring import machine
    from edgecal.core.rollout.machine import advance
    from edgecal.workflows.rollout.tasks import Journaled

    found = stand(journal, name)
    rollout, entries = found.rollout, found.entries
    watch = Watch(rollout, story, now_ms=machine.now_ms, driving=False)
    if not found.row.driver and rollout.phase not in OVER:
        story.tell(f"nobody drives it: 'edgecal rollout resume {name}' drives it on")
    try:
        with watch.showing():
            while rollout.phase not in OVER or rollout.busy():
                time.sleep(_POLL_S)
                for event in journal.read(name, since=entries):
                    rollout = advance(rollout, event)
                    entries += 1
                    watch.hear(Journaled(event, rollout, entries))
    except KeyboardInterrupt as error:
        return exit_code_of(error) or INTERRUPTED
    return 0


@takes(journal_words=JournalWords, output=OutputWords)
def list_rollouts(*, journal_words: JournalWords, output: OutputWords) -> None:
    """List the rollouts of the journal, the latest first; without -v or --json the latest 20.

    [bold]Example[/]

    edgecal rollout list
    """
    from edgecal.cli.rollout.documents import list_document
    from edgecal.cli.rollout.shown import show_list
    from edgecal.cli.rollout.standing import journal_url
    from edgecal.cli.wiring import lookup, rollouts
    from edgecal.core.rollout.machine import replay

    story = Story(as_json=output.as_json, quiet=output.quiet, verbose=output.verbose)
    journal = rollouts.journal(journal_url(journal_words.journal, lookup.project()))
    every = journal.rollouts()
    shown = every if output.verbose or output.as_json else every[:_LISTED]
    rows = [
        (row, replay(journal.read(row.rollout), source=f"rollout {row.rollout}")) for row in shown
    ]
    story.result(
        list_document(rows), lambda console: show_list(console, rows, hidden=len(every) - len(rows))
    )
