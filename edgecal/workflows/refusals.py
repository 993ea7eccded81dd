"""Why a target's agent refused, as errors in three parts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from edgecal.errors import BusyError, CommandError, HealthError, NotNowError, TransferError

if TYPE_CHECKING:
    from edgecal.errors import TargetError
    from edgecal.ports import CommandResult

NOT_WRITABLE: Final = 12
DAMAGED_INPUT: Final = 13
BUSY: Final = 20
MISSING_BLOB: Final = 21
CURRENT_CHANGED: Final = 22
ENGINE_CHANGED: Final = 24
NOT_NOW: Final = 26
NO_TRIAL: Final = 27
KILLED: Final = 255
"""What a transport gives for a command that a signal ended."""

_BUSY = re.compile(
    r"busy lock=(?P<lock>\S+) pid=(?P<pid>[0-9]+) start=(?P<start>[0-9]+) work=(?P<work>\S+) "
    r"age=(?P<age>-?[0-9]+) release=(?P<release>\S+) owner=(?P<owner>.*)"
)
_WORDS: Final = {"build": "building", "prune": "removing what is not needed"}


def refusal(  # noqa: PLR0911 - one per status
    operation: str, result: CommandResult, target: str
) -> TargetError:
    """Say what an exit status of the agent means."""
    said = last_words(result)
    if result.exit_status == BUSY:
        return _busy(result, target)
    if result.exit_status == DAMAGED_INPUT:
        return TransferError(
            f"what '{operation}' was given did not arrive whole: {said.removeprefix('edgecal: ')}",
            where=target,
            remedy="do this again; nothing was activated",
        )
    if result.exit_status == MISSING_BLOB:
        return TransferError(
            f"a file vanished from the target's store: {said}",
            where=target,
            remedy="push again: it is sent anew",
        )
    if result.exit_status == CURRENT_CHANGED:
        return CommandError(
            f"another release was activated there in the meantime ({said})",
            where=target,
            remedy="look at 'edgecal status', then do this again if it is still wanted",
        )
    if result.exit_status == ENGINE_CHANGED:
        return CommandError(
            f"the engine on the target is not the one that was verified ({said})",
            where=target,
            remedy="push with --rebuild",
        )
    if result.exit_status == NOT_NOW:
        return NotNowError(
            f"now is no good time: {said.removeprefix('edgecal: ')}",
            where=target,
            remedy="do it again when the application has let go of that file",
        )
    if result.exit_status == NO_TRIAL:
        return HealthError(
            f"the release could not be confirmed: {said.removeprefix('edgecal: ')}",
            where=target,
            remedy="look at 'edgecal status', then push again",
        )
    if result.exit_status == KILLED:  # how far it came, nobody knows
        return CommandError(
            f"'{operation}' was killed on the target (out of memory?)",
            where=target,
            remedy="do this again: it goes on from there; 'edgecal status' says what is active",
        )
    active = "'edgecal status' says what is active"
    return CommandError(
        f"'{operation}' failed on the target with status {result.exit_status}: {said}",
        where=target,
        remedy="check the target's disk and permissions; "
        + (active if operation == "activate" else "nothing was activated"),
    )


def _busy(result: CommandResult, target: str) -> BusyError:
    match = _BUSY.search(result.stdout.decode("utf-8", "replace"))
    if match is None:
        return BusyError(
            f"somebody else is at work there: {last_words(result)}",
            where=target,
            remedy="wait, then do this again",
            holder=("", "", ""),
        )
    work = _WORDS.get(match["work"], match["work"])
    release = f" release {match['release']}" if match["release"] != "-" else ""
    return BusyError(
        f"somebody else is at work on this model there: {match['owner']} ({work}{release}, for "
        f"{age_text(int(match['age']))} by the target's uptime)",
        where=target,
        remedy="wait for the end of that, then do this again; --break-lock ends it",
        holder=(match["lock"], match["pid"], match["start"]),
    )


def age_text(seconds: int) -> str:
    """Write a span of time for people."""
    if seconds < 120:
        return f"{max(seconds, 0)} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"


def last_words(result: CommandResult) -> str:
    """Give the end of what a command said, its errors first."""
    text = (result.stderr or result.stdout).decode("utf-8", "replace").strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    words = " / ".join(lines[-3:])[:500]
    return re.sub(r"([0-9a-f]{12})[0-9a-f]{52}", r"\1…", words)  # digests, as short as git's
