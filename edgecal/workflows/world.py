"""What workflows need beside their subject: connections, scripts, builders, tables, time, stop."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final

from edgecal.core.probes import has_answer, no_way_in, parse_probe
from edgecal.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgecal.core.platforms import Platforms
    from edgecal.core.target import Target, TargetFacts
    from edgecal.ports import Builder, Scripts, Transport

    Slot = Callable[["Target", "CancelToken"], contextlib.AbstractContextManager[object]]

_PROBE_S: Final = 60.0


class CancelToken:
    """Set from any thread; a push stops at the next point where stopping leaves things whole."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Ask every holder to stop."""
        self._event.set()

    def check(self) -> None:
        """Raise `Cancelled` if a stop was asked for."""
        if self._event.is_set():
            raise Cancelled(
                "stopped on request; nothing half-done is active",
                remedy="push again: what was sent is kept, a build that runs goes on and is found",
            )


def _at_once(_target: Target, _cancel: CancelToken) -> contextlib.AbstractContextManager[object]:
    return contextlib.nullcontext()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many may do each thing at once; a fleet's pushes share them. By default, all of them.

    Each is a place to wait in before the thing is done, and what waits there stops with
    `Cancelled` when the token says so: `workflows.limits.shared_limits` makes such ones.
    """

    connections: Slot = _at_once
    """Around the opening of one; what is open counts no more."""
    transfers: Slot = _at_once
    builds: Slot = _at_once
    pace: Callable[[Target, int, CancelToken], object] = lambda _target, _count, _cancel: None
    """Hears how many bytes were just sent to whom, and waits where that was too fast."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What a push needs beside its bundle and target."""

    connect: Callable[[Target], Transport]
    scripts: Scripts
    builders: Mapping[str, Builder]
    platforms: Platforms
    now: Callable[[], datetime]
    owner: str
    """Who pushes, as the target's record shows it."""
    sleep: Callable[[float], object] = time.sleep
    clock: Callable[[], float] = time.monotonic
    """Seconds, to tell how long something took: `now` may jump."""
    limits: Limits = field(default_factory=Limits)
    cancel: CancelToken = field(default_factory=CancelToken)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeAnswer:
    """What a target said, word for word, and what that means."""

    text: str
    facts: TargetFacts


def reach(target: Target, world: World) -> Transport:
    """Connect to a target, as soon as so many more connections may be opened.

    Raises
    ------
    TargetError
        If it cannot be reached.
    """
    with world.limits.connections(target, world.cancel):
        return world.connect(target)


def ask_target(target: Target, world: World) -> ProbeAnswer:
    """Connect to a target and ask what it is.

    Raises
    ------
    TargetError
        If it cannot be reached or gives no answer.
    """
    with contextlib.closing(reach(target, world)) as transport:
        return ask_over(transport, target, world)


def ask_over(transport: Transport, target: Target, world: World) -> ProbeAnswer:
    """Ask a target what it is: one command, one answer.

    Raises
    ------
    CommandError
        If it gives no usable answer.
    """
    result = transport.run(
        ("sh", "-s", "--", target.root or "", target.python or ""),
        stdin=world.scripts.probe.encode(),
        timeout_s=_PROBE_S,
    )
    text = result.stdout.decode("utf-8", "replace")
    if target.exec and not has_answer(text):
        said = (result.stderr or result.stdout).decode("utf-8", "replace")
        raise no_way_in(target, status=result.exit_status, said=said)
    facts = parse_probe(text, world.platforms, source=target.name)
    return ProbeAnswer(text=text, facts=facts)


def probe_over(transport: Transport, target: Target, world: World) -> TargetFacts:
    """Ask a target what it is, for its facts alone."""
    return ask_over(transport, target, world).facts


def utc_text(moment: datetime) -> str:
    """Write a time as the records on a target do."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
