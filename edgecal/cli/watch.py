"""Pushes to several targets at once, watched: one thread a target, one voice."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from rich.markup import escape

from edgecal.cli.story import size_text
from edgecal.core.findings import Severity
from edgecal.errors import Cancelled
from edgecal.workflows.events import (
    ActivationWaits,
    BuildRuns,
    CacheReheaded,
    CacheShipped,
    EngineActivated,
    EngineBuilt,
    EngineConfirmed,
    EngineMeasured,
    EngineVerified,
    PairingChecked,
    SignatureChecked,
    Step,
    StepDue,
    StepFailed,
    TargetProbed,
    TrialRuns,
)
from edgecal.workflows.push import push
from edgecal.workflows.report import PushReport
from edgecal.workflows.waiting import next_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from edgecal.cli.story import Story
    from edgecal.core.target import Target
    from edgecal.ports import BundleFiles
    from edgecal.workflows.events import PushEvent
    from edgecal.workflows.report import PushOptions
    from edgecal.workflows.world import World

    _Message = PushEvent | PushReport | BaseException | int
    """An event, the end, a bug, or bytes just sent."""


_HEARTBEAT_S: Final = 5.0
"""A person who waits hears something at least this often."""
_STOP_S: Final = 10.0


def watch_pushes(
    bundles: Sequence[BundleFiles],
    targets: Sequence[Target],
    options: PushOptions,
    world: World,
    story: Story,
    *,
    schema: str = "edgecal.push/1",
) -> list[PushReport]:
    """Push to every target, telling what happens; gives the reports in the order of the targets.

    Raises
    ------
    KeyboardInterrupt
        After every push has come to a stop at a point where nothing is half-done.
    """
    events: queue.SimpleQueue[tuple[Target, _Message]] = queue.SimpleQueue()
    threads = [
        threading.Thread(target=_run, args=(bundles, one, options, world, events), daemon=True)
        for one in targets
    ]
    for thread in threads:
        thread.start()
    reports: dict[str, PushReport] = {}
    narrators = {one.name: _Narrator(story, one.name if targets[1:] else "") for one in targets}
    try:
        while len(reports) < len(narrators):
            target, message = next_of(events)
            if isinstance(message, PushReport):
                reports[target.name] = message
            elif isinstance(message, BaseException):
                raise message
            else:
                narrators[target.name].tell(message)
    except BaseException:
        world.cancel.cancel()
        for thread in threads:
            thread.join(timeout=_STOP_S)
        raise
    ordered = [reports[name] for name in narrators]
    story.result(
        {"schema": schema, "targets": [report.to_json() for report in ordered]},
        lambda console: _show(console, ordered),
    )
    return ordered


def _run(
    bundles: Sequence[BundleFiles],
    target: Target,
    options: PushOptions,
    world: World,
    events: queue.SimpleQueue[tuple[Target, _Message]],
) -> None:
    """Push in a thread of its own; everything goes to the main thread, which alone speaks."""
    counting = replace(options, upload_progress=lambda count: events.put((target, count)))
    pushing = push(bundles, target, counting, world)
    try:
        while True:
            events.put((target, next(pushing)))
    except StopIteration as end:
        events.put((target, end.value))
    except BaseException as error:  # noqa: BLE001 - raised again in the main thread
        events.put((target, error))


class _Narrator:
    """Turns one target's events into lines, which begin with its name when there are several."""

    def __init__(self, story: Story, name: str) -> None:
        self._story = story
        self._head = f"[bold]{escape(name)}[/] " if name else ""
        self._sent = self._to_send = 0
        self._last_line = ""
        self._spoke = time.monotonic()

    def tell(self, message: PushEvent | int) -> None:
        """Say what an event, or a number of bytes just sent, means."""
        if isinstance(message, int):
            self._count(message)
        elif isinstance(message, BuildRuns):
            for line in message.log.splitlines():
                if line.startswith("edgecal: "):  # the target's own word, not the builder's
                    self._say(escape(line.removeprefix("edgecal: ")))
                else:
                    self._story.detail(f"{self._head}[dim]| {escape(line)}[/]")
                self._last_line = line.strip() or self._last_line
            said = f": {escape(self._last_line[:120])}" if self._last_line else ""
            self._heartbeat(f"building for {message.seconds:.0f} s{said}")
        elif isinstance(message, TrialRuns):
            self._heartbeat(f"checking its health for {message.soak_s} s")
        elif isinstance(message, ActivationWaits):
            self._heartbeat(
                "waiting for an application that holds 'not-now'", first=not message.seconds
            )
        else:
            if isinstance(message, StepDue) and message.step is Step.SHIP:
                self._to_send = int(message.detail)
            if line := _sentence(message):
                self._say(line)
            if isinstance(message, PairingChecked):
                self._story.findings(
                    [one for one in message.findings if one.severity is not Severity.ERROR]
                )

    def _count(self, sent: int) -> None:
        self._sent += sent
        if self._sent < self._to_send:  # else the next step is about to be told
            self._heartbeat(f"sent {size_text(self._sent)} of {size_text(self._to_send)}")

    def _heartbeat(self, line: str, *, first: bool = False) -> None:
        if first or time.monotonic() - self._spoke > _HEARTBEAT_S:
            self._say(line)

    def _say(self, line: str) -> None:
        self._spoke = time.monotonic()
        self._story.tell(self._head + line)


def _sentence(event: PushEvent) -> str:  # noqa: C901, PLR0911, PLR0912 - one case per event
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
        case SignatureChecked(verdict) if verdict.key is not None:
            return f"signature verified there with {verdict.key}, counter {verdict.counter}"
        case CacheReheaded(builder):
            return (
                "TensorRT refused the cache for the version in its header; once more, with a copy "
                f"headed for {builder.tensorrt}"
            )
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
            fell = f"; the GPU took {len(result.fell_back)} layers that the DLA refused"
            return (
                f"built in {seconds:.1f} s; {'cache' if counts else 'INT8'} {result.proof.value}"
                f"{f' ({counts})' if counts else ''}: {escape(result.reason)}"
                f"{fell if result.fell_back else ''}"
            )
        case EngineVerified(verification):
            worst = verification.cosine_min
            shown = f", cosine to FP32 at least {worst:.4f}" if worst is not None else ""
            return f"verified on {verification.samples} samples{shown}"
        case EngineMeasured(latency, power_mode):
            if latency is None:
                return "not measured: this builder cannot"
            mode = f", power mode {escape(power_mode)}" if power_mode else ""
            return (
                f"measured over {latency.runs} runs: median {latency.median_ms:.3f} ms, "
                f"p99 {latency.p99_ms:.3f} ms{mode}"
            )
        case EngineConfirmed(_):
            return "passed its health check"
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
    planned = any(report.state == "planned" for report in reports)
    for column in (
        *("target", "state", "model", "release", "builder"),
        "to send" if planned else "sent",
    ):
        table.add_column(column)
    for report in reports:
        style = "green" if report.state in {"active", "planned"} else "red"
        table.add_row(
            escape(report.target),
            f"[{style}]{report.state}[/]",
            report.name,
            report.release or "-",
            report.builder or "-",
            size_text(report.bytes_to_send if planned else report.bytes_sent),
        )
    console.print(table)
