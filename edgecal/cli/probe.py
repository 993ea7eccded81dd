"""`edgecal probe`: what a target is, and what stands in the way there."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from edgecal.cli.options import JsonOption, QuietOption, TargetOption, VerboseOption
from edgecal.cli.story import Story, size_text
from edgecal.core.findings import Severity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

    from rich.console import Console

    from edgecal.core.access import Visit
    from edgecal.core.target import Target, TargetFacts


def probe(
    *,
    target: TargetOption,
    cached: Annotated[
        bool,
        typer.Option(
            "--cached", help="Show its last answer and do not connect.", show_default=False
        ),
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Ask a target what it is: TensorRT, JetPack, module, DLA, memory, disk; one round trip.

    Names what would cost time later, too. The answer is kept here, for --cached and for audits.

    [bold]Example[/]

    edgecal probe --target nvidia@xavier.local
    """
    from edgecal.cli import wiring
    from edgecal.core.access import check_access
    from edgecal.core.probes import facts_to_json

    story = Story(as_json=as_json, quiet=quiet, verbose=verbose)
    now = wiring.now()
    wanted = wiring.target(target)
    visit = _last_visit(wanted, story) if cached else _new_visit(wanted, now, story)
    findings = check_access(visit)
    document: dict[str, object] = {
        "schema": "edgecal.probe/1",
        "target": target,
        "facts": facts_to_json(visit.facts),
        "findings": [finding.to_json() for finding in findings],
    }
    age = None
    if cached and visit.at is not None:
        age = max(now - visit.at, now - now)  # our own clock may have been set back
        document.update(asked=visit.at.isoformat(), age_s=round(age.total_seconds()))
    story.result(document, lambda console: _show(console, visit, age))
    story.findings(findings)
    hidden = sum(finding.severity is Severity.NOTE for finding in findings)
    if hidden and not verbose:
        story.tell(f"[dim]{hidden} {'notes' if hidden > 1 else 'note'} more with -v[/]")


def _new_visit(target: Target, now: datetime, story: Story) -> Visit:
    from edgecal.cli import wiring
    from edgecal.core.access import Visit
    from edgecal.workflows.world import ask_target

    answer = ask_target(target, wiring.world())
    kept = wiring.facts_cache(note=lambda text: story.tell(escape(text)))
    kept.store(target.name, answer.text, now, address=target.address)
    return Visit(target=target, facts=answer.facts, at=now)


def _last_visit(target: Target, story: Story) -> Visit:
    from edgecal.cli import wiring
    from edgecal.core.access import Visit
    from edgecal.core.probes import parse_probe
    from edgecal.errors import CommandError, InputError

    kept = wiring.facts_cache(note=lambda text: story.tell(escape(text)))
    last = kept.load(target.name, address=target.address)
    ask = f"ask it: 'edgecal probe --target {shlex.quote(target.name)}'"
    if last is None:
        raise InputError("no answer of this target is kept here", where=target.name, remedy=ask)
    text, taken = last
    try:
        facts = parse_probe(text, wiring.platforms(), source=target.name)
    except CommandError as error:  # of another edgecal's probe
        raise InputError(
            f"its last answer is not kept whole: {error.what}", where=target.name, remedy=ask
        ) from error
    return Visit(target=target, facts=facts, at=taken)


def _show(console: Console, visit: Visit, age: timedelta | None) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    rows = dict(_rows(visit.facts))
    if age is not None:
        rows = {"asked": f"{_age_text(age)} ago ({visit.at:%Y-%m-%d %H:%M} UTC)", **rows}
    if visit.target.exec:
        rows["through"] = " ".join(visit.target.exec)
    for key, value in rows.items():
        table.add_row(key, escape(str(value)) if value else "[dim]unknown[/]")
    console.print(table)


def _rows(facts: TargetFacts) -> Mapping[str, str | int | None]:
    python = facts.python
    rows: dict[str, str | int | None] = {
        "host": f"{facts.user}@{facts.hostname}",
        "board": facts.model or ("a Jetson" if facts.is_jetson else "no Jetson"),
        "module": facts.module,
        "JetPack": f"{facts.jetpack or 'unknown'} (L4T {facts.l4t})" if facts.l4t else None,
        "TensorRT": str(facts.tensorrt) if facts.tensorrt else None,
        "builders": ", ".join(
            f"{one.name} {one.tensorrt or ''}({one.path})" for one in facts.builders
        )
        or "none",
        "CUDA": facts.cuda,
        "compute capability": facts.compute_capability,
        "DLA cores": None if facts.dla_cores is None else str(facts.dla_cores),
        "GPU access": {True: "yes", False: "no", None: None}[facts.gpu_access],
        "Python": None
        if python is None
        else f"{python.version} ({python.path}); numpy {python.numpy or '-'}, onnx "
        f"{python.onnx or '-'}, onnxruntime {python.onnxruntime or '-'}, tensorrt "
        f"{python.tensorrt or '-'}",
        "memory": facts.memory_bytes
        and f"{size_text(facts.memory_available_bytes or 0)} "
        f"of {size_text(facts.memory_bytes)} free",
        "disk": facts.disk_free_bytes and f"{size_text(facts.disk_free_bytes)} free",
        "power mode": facts.power_mode,
        "edgecal's folder": facts.root,
        "lacks": ", ".join(facts.missing_tools) or "nothing",
    }
    if facts.gpu:
        rows["GPU"] = facts.gpu
    if facts.container:
        rows["container"] = facts.container
    return rows


def _age_text(age: timedelta) -> str:
    """Write an age for people, in its largest unit."""
    seconds = int(age.total_seconds())
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
