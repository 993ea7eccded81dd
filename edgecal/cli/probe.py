"""`edgecal probe`: what a target is, and what stands in the way there."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from edgecal.cli.options import (
    InventoryOption,
    JsonOption,
    OnOption,
    QuietOption,
    TargetsOption,
    VerboseOption,
)
from edgecal.cli.printable import printable
from edgecal.cli.story import Story, size_text
from edgecal.core.findings import Severity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

    from rich.console import Console

    from edgecal.core.rules.visit import Visit
    from edgecal.core.target import Target, TargetFacts
    from edgecal.workflows.world import World


def probe(
    *,
    targets: TargetsOption = None,
    on: OnOption = None,
    inventory: InventoryOption = None,
    cached: Annotated[
        bool,
        typer.Option(
            "--cached", help="Show the last answer and do not connect.", show_default=False
        ),
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Ask targets what they are: TensorRT, JetPack, module, DLA, memory, disk; one round trip.

    Names what would cost time later, too. The answer is kept here, for --cached and for audits.

    [bold]Examples[/]

    edgecal probe --target nvidia@xavier.local

    edgecal probe --on 'site-a & !canary' --json
    """
    from edgecal.cli.push import max_exit_code
    from edgecal.cli.selecting import chosen_targets
    from edgecal.cli.several import ask_each, tell_failures
    from edgecal.cli.wiring import machine, remote
    from edgecal.core.access import check_access

    story = Story(as_json=as_json, quiet=quiet, verbose=verbose)
    now = machine.now()
    wanted = chosen_targets(targets, on=on, inventory=inventory, offline=cached, story=story)
    world = None if cached else remote.world()
    visits, errors = ask_each(
        wanted,
        lambda text: (
            _last_visit(wanted[text], story)
            if world is None
            else _new_visit(wanted[text], world, now, story)
        ),
    )
    tell_failures(wanted, errors, story)
    documents: list[dict[str, object]] = [
        _document(text, visits[text], now, cached=cached)
        if text in visits
        else {"target": text, "facts": None, "findings": [], "error": errors[text].to_json()}
        for text in wanted
    ]
    single = len(documents) == 1 and on is None  # who asked for one gets no list
    story.result(
        {"schema": "edgecal.probe/1", **(documents[0] if single else {"targets": documents})},
        lambda console: _show_all(console, visits, now if cached else None, named=not single),
    )
    findings = [finding for visit in visits.values() for finding in check_access(visit)]
    story.findings(findings)
    hidden = sum(finding.severity is Severity.NOTE for finding in findings)
    if hidden and not verbose:
        story.tell(f"[dim]{hidden} {'notes' if hidden > 1 else 'note'} more with -v[/]")
    if errors:
        raise typer.Exit(max_exit_code([error.exit_code for error in errors.values()]))


def _document(text: str, visit: Visit, now: datetime, *, cached: bool) -> dict[str, object]:
    from edgecal.core.access import check_access
    from edgecal.core.probes import facts_to_json

    document: dict[str, object] = {
        "target": text,
        "facts": facts_to_json(visit.facts),
        "findings": [finding.to_json() for finding in check_access(visit)],
    }
    if cached and visit.at is not None:
        age = _age(visit.at, now)
        document.update(asked=visit.at.isoformat(), age_s=round(age.total_seconds()))
    return document


def _age(at: datetime, now: datetime) -> timedelta:
    return max(now - at, now - now)  # our own clock may have been set back


def _show_all(
    console: Console, visits: Mapping[str, Visit], now: datetime | None, *, named: bool
) -> None:
    from rich.text import Text

    for number, (text, visit) in enumerate(visits.items()):
        if number:
            console.print()
        if named:
            console.print(Text(printable(text), style="bold"))
        _show(console, visit, _age(visit.at, now) if now and visit.at else None)


def _new_visit(target: Target, world: World, now: datetime, story: Story) -> Visit:
    from edgecal.cli.wiring import remote
    from edgecal.core.rules.visit import Visit
    from edgecal.workflows.world import ask_target

    answer = ask_target(target, world)
    kept = remote.facts_cache(note=lambda text: story.tell(escape(text)))
    kept.store(target.name, answer.text, now, address=target.address)
    return Visit(target=target, facts=answer.facts, at=now)


def _last_visit(target: Target, story: Story) -> Visit:
    from edgecal.cli.wiring import lookup, remote
    from edgecal.core.probes import parse_probe
    from edgecal.core.rules.visit import Visit
    from edgecal.errors import CommandError, InputError

    kept = remote.facts_cache(note=lambda text: story.tell(escape(text)))
    last = kept.load(target.name, address=target.address)
    ask = f"ask it: 'edgecal probe --target {shlex.quote(target.name)}'"
    if last is None:
        raise InputError("no answer of this target is kept here", where=target.name, remedy=ask)
    text, taken = last
    try:
        facts = parse_probe(text, lookup.platforms(), source=target.name)
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
