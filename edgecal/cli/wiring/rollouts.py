"""Rollouts: the journal, who hears of them, who does the work."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from edgecal.cli.printable import printable
from edgecal.cli.story import warn_once
from edgecal.cli.wiring import clusters, machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from edgecal.adapters.bundle import Bundle
    from edgecal.adapters.cluster.near import DaskCluster
    from edgecal.adapters.journal import DatabaseJournal
    from edgecal.cli.cluster import ClusterRequest
    from edgecal.workflows.rollout.draft import Look
    from edgecal.workflows.rollout.listeners import Listeners
    from edgecal.workflows.rollout.tasks import Hands
    from edgecal.workflows.rollout.work import Crew


def journal(url: str = "") -> DatabaseJournal:
    """Open the journal of rollouts: SQLite in the user's state folder, or any database by URL."""
    from edgecal.adapters.journal import DatabaseJournal

    return DatabaseJournal(url)


def listeners(
    *,
    events: str | Path | None,
    hook: Sequence[str],
    metrics: str | Path | None,
    warn: Callable[[str], object],
) -> Listeners:
    """Put together who hears of a rollout besides the one who watches.

    Parameters
    ----------
    events
        A file to append lines of JSON to, or `-` for stdout.
    hook
        A command and its arguments; none if empty.
    metrics
        A file to keep figures for Prometheus in.
    warn
        Hears plain text, from any thread, of what went wrong; the rollout goes on.

    Raises
    ------
    InputError
        If a file cannot be written, or holds something else.
    """
    from edgecal.adapters import rollout_outputs as outputs
    from edgecal.workflows.rollout.listeners import (
        EventLines,
        Hook,
        Listener,
        Listeners,
        Metrics,
    )

    several: list[Listener] = []
    if metrics is not None:
        figures = outputs.open_figures(Path(metrics).expanduser(), warn=warn)
        several.append(Metrics(figures, clock=monotonic))
    if hook:
        several.append(Hook(outputs.Hooks(hook, warn=warn)))
    if events is not None:
        lines = (
            outputs.stdout_lines(warn=warn)
            if events == "-"
            else outputs.open_lines(Path(events).expanduser(), warn=warn)
        )
        several.append(EventLines(lines, clock=monotonic, now_ms=machine.now_ms))
    return Listeners(several)


@contextmanager
def hands(
    crew: Crew, over: ClusterRequest | None, tell: Callable[[str], object]
) -> Iterator[Hands]:
    """Give those who do a rollout's work: threads here, or the workers of a cluster."""
    from edgecal.workflows.rollout.afar import ClusterHands
    from edgecal.workflows.rollout.threads import ThreadHands

    if over is None:
        yield ThreadHands(crew)
        return
    with (
        clusters.connect(over, tell) as where,
        ClusterHands(where, crew.job, crew.bundles, tell=crew.tell) as found,
    ):
        _warn_of_missing(where, list(crew.targets))
        yield found


@contextmanager
def looks(
    bundles: Sequence[Bundle],
    names: Sequence[str],
    over: ClusterRequest | None,
    tell: Callable[[str], object],
) -> Iterator[Look | None]:
    """Give those who find out what a rollout would do; nothing without a cluster."""
    from edgecal.core.rollout.job import Job
    from edgecal.workflows.rollout.afar import ClusterHands

    if over is None:
        yield None
        return
    with (
        clusters.connect(over, tell) as where,
        ClusterHands(where, Job(), bundles, tell=lambda *_: None) as found,
    ):
        _warn_of_missing(where, names)
        yield found.look


def _warn_of_missing(where: DaskCluster, names: Sequence[str]) -> None:
    from edgecal.workflows.rollout.afar import without_worker

    missing = without_worker(where, names)
    if missing:
        warn_once(
            f"no worker may touch {', '.join(map(printable, missing))}: as good as offline until "
            "one comes that has them in its inventory"
        )
