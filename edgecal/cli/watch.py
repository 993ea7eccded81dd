"""Pushes to several targets at once, watched: one thread a target, one voice."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

from rich.markup import escape

from edgecal.cli.story import size_text
from edgecal.errors import Cancelled
from edgecal.workflows.events import (
    CacheShipped,
    EngineActivated,
    EngineBuilt,
    EngineVerified,
    LogGrew,
    PairingChecked,
    Step,
    StepDue,
    StepFailed,
    TargetProbed,
)
from edgecal.workflows.push import push
from edgecal.workflows.report import PushReport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from edgecal.cli.story import Story
    from edgecal.core.target import Target
    from edgecal.ports import BundleFiles
    from edgecal.workflows.events import PushEvent
    from edgecal.workflows.report import PushOptions
    from edgecal.workflows.world import World


def watch_pushes(
    bundles: Sequence[BundleFiles],
    targets: Sequence[Target],
    options: PushOptions,
    world: World,
    story: Story,
) -> list[PushReport]:
    """Push to every target, telling what happens; gives the reports in the order of the targets.

    Raises
    ------
    KeyboardInterrupt
        After every push has come to a stop at a point where nothing is half-done.
    """
    events: queue.SimpleQueue[tuple[Target, PushEvent | PushReport | BaseException]] = (
        queue.SimpleQueue()
    )

    def run(target: Target) -> None:
        try:
            pushing = push(bundles, target, options, world)
            while True:
                try:
                    events.put((target, next(pushing)))
                except StopIteration as end:
                    events.put((target, end.value))
                    return
        except BaseException as error:  # noqa: BLE001 - handed to the main thread
            events.put((target, error))

    threads = [threading.Thread(target=run, args=(one,), daemon=True) for one in targets]
    for thread in threads:
        thread.start()
    reports: dict[str, PushReport] = {}
    narrator = _Narrator(story, many=len(targets) > 1)
    try:
        while len(reports) < len(targets):
            target, event = events.get()
            if isinstance(event, PushReport):
                reports[target.name] = event
            elif isinstance(event, BaseException):
                raise event
            else:
                narrator.tell(target, event)
    except BaseException:
        world.cancel.cancel()
        for thread in threads:
            thread.join(timeout=10)
        raise
    ordered = [reports[target.name] for target in targets]
    story.result(
        {"schema": "edgecal.push/1", "targets": [report.to_json() for report in ordered]},
        lambda console: _show(console, ordered),
    )
    return ordered


class _Narrator:
    """Turns events into lines; each begins with the target's name when there are several."""

    def __init__(self, story: Story, *, many: bool) -> None:
        self._story = story
        self._many = many

    def tell(self, target: Target, event: PushEvent) -> None:
        """Say what an event means."""
        head = f"[bold]{escape(target.name)}[/] " if self._many else ""
        line = _sentence(event)
        if line:
            self._story.tell(head + line)
        if isinstance(event, PairingChecked):
            self._story.findings([one for one in event.findings if one.severity.value != "error"])
        if isinstance(event, LogGrew):
            for text in event.text.splitlines():
                self._story.detail(f"{head}[dim]| {escape(text)}[/]")


def _sentence(event: PushEvent) -> str:  # noqa: C901, PLR0911 - one case per event
    match event:
        case StepDue(Step.SHIP, detail):
            return f"shipping {size_text(int(detail))}"
        case StepDue(Step.BUILD, detail):
            return f"building with {escape(detail)}"
        case StepDue(Step.VERIFY, detail):
            return f"verifying with {escape(detail)}"
        case TargetProbed(facts):
            what = facts.model or f"{facts.hostname} ({facts.arch})"
            version = f"TensorRT {facts.tensorrt}" if facts.tensorrt else "no TensorRT"
            jetpack = f", JetPack {facts.jetpack}" if facts.jetpack else ""
            return f"reached {escape(what)}: {version}{escape(jetpack)}"
        case CacheShipped(_, present) if present:
            return f"{size_text(present)} were there already"
        case EngineBuilt(_, result, seconds):
            counts = ", ".join(
                f"{len(names)} {what}"
                for what, names in (
                    ("entries used", result.used),
                    ("missing", result.missing),
                    ("unused", result.unused),
                )
                if names is not None
            )
            return (
                f"built in {seconds:.1f} s; cache {result.proof.value}"
                f"{f' ({counts})' if counts else ''}: {escape(result.reason)}"
            )
        case EngineVerified(verification):
            worst = verification.cosine_min
            shown = f", cosine to FP32 at least {worst:.4f}" if worst is not None else ""
            return f"verified on {verification.samples} samples{shown}"
        case EngineActivated(release, changed):
            if changed:
                return f"[green]active[/]: release {release}"
            return f"[green]active[/]: release {release}, as before; nothing to do"
        case StepFailed(error) if not isinstance(error, Cancelled):
            where = f"{escape(error.where)}: " if error.where else ""
            return f"[bold red]error[/] {where}{escape(error.what)}\n  try: {escape(error.remedy)}"
    return ""


def _show(console: Console, reports: Sequence[PushReport]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("target", "state", "model", "release", "builder", "sent"):
        table.add_column(column)
    for report in reports:
        style = "green" if report.state in {"active", "planned"} else "red"
        table.add_row(
            escape(report.target),
            f"[{style}]{report.state}[/]",
            report.name,
            report.release or "-",
            report.builder or "-",
            size_text(report.bytes_to_send if report.state == "planned" else report.bytes_sent),
        )
    console.print(table)
