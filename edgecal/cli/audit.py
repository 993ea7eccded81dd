"""`edgecal audit`: which targets of a fleet match which bundles, and who has drifted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from edgecal.cli.options import (
    InventoryOption,
    JsonOption,
    OnOption,
    QuietOption,
    VerboseOption,
)
from edgecal.cli.printable import printable
from edgecal.cli.push import max_exit_code
from edgecal.cli.story import Story

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from rich.console import Console

    from edgecal.core.audit import AuditReport, Group
    from edgecal.core.project import Project
    from edgecal.core.target_state import TargetState
    from edgecal.ports import BundleFiles
    from edgecal.workflows.selecting import Asking

_WORKERS: Final = 16
_NAMED: Final = 8
"""So many names stand in a line before the rest is counted; -v names all."""


def audit(
    *,
    inventory: InventoryOption = None,
    on: OnOption = None,
    bundles: Annotated[
        list[Path] | None,
        typer.Option(
            "--bundle",
            "-b",
            metavar="BUNDLE",
            help="What targets should match; repeatable.",
            show_default="as edgecal.toml says",
        ),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Ask nobody: take what each target last said of itself."),
    ] = False,
    workers: Annotated[
        int, typer.Option(min=1, max=256, metavar="N", help="How many to ask at once.")
    ] = _WORKERS,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Ask the whole inventory what it is, and hold it against bundles and against what was pushed.

    What is active stays as it is. Exit code 3 where something does not fit, 4 where a target could
    not be asked.

    [bold]Examples[/]

    edgecal audit --bundle net-8.5.edgecal --bundle net-10.3.edgecal

    edgecal audit --inventory fleet.toml --offline --json

    edgecal audit --on 'site-a & tensorrt=8.5'
    """
    from rich.markup import escape

    from edgecal.cli.selecting import hit_targets
    from edgecal.cli.wiring import lookup, machine, remote
    from edgecal.core.build import BuildOptions
    from edgecal.workflows.audit import audit_fleet

    story = Story(as_json=as_json, quiet=quiet, verbose=verbose)
    project = lookup.inventory(inventory)
    _need_targets(project, inventory)
    targets = list(project.targets.values())
    if on is not None:
        asking: Asking = "nobody" if offline else "strangers"
        targets = list(hit_targets(on, project.inventory, story, asking=asking).values())
    read = _read(bundles, project, story)
    push = project.push
    with story.progress() as progress:
        report = audit_fleet(
            targets,
            read,
            BuildOptions(dla_core=push.dla, gpu_fallback=push.gpu_fallback, fp16=push.fp16),
            remote.world(),
            remote.facts_cache(lambda text: story.detail(escape(text))),
            workers=None if offline else workers,
            progress=lambda done: progress("asking targets", done, len(targets)),
        )
    now = machine.now()
    story.result(_document(report), lambda console: _show(console, report, now, story))
    raise typer.Exit(max_exit_code(sorted(report.exit_codes())))


def _need_targets(project: Project, inventory: Path | None) -> None:
    from edgecal.errors import InventoryError

    if not project.targets and not project.inventory.patterns:
        raise InventoryError(
            "no target is named" if project.source else "no edgecal.toml was found",
            where=str(inventory or project.source or Path.cwd()),
            remedy="write a table [targets.NAME] with host = ... for each, or pass --inventory",
        )


def _read(
    given: list[Path] | None, project: Project, story: Story
) -> list[tuple[str, BundleFiles]]:
    """Read the bundles; one that only edgecal.toml names may still have to be made."""
    from rich.markup import escape

    from edgecal.cli.wiring import bundling

    if given:
        return [(str(path), bundling.read_bundle(path)) for path in given]
    found: list[tuple[str, BundleFiles]] = []
    for text in project.push.bundle:
        path = Path(text)
        if path.exists():
            found.append((text, bundling.read_bundle(path)))
        else:
            story.tell(
                f"[yellow]warning[/] {escape(printable(text))}, which \\[push] names, is not there"
            )
    return found


def _document(report: AuditReport) -> dict[str, Any]:
    from edgecal.core.probes import facts_to_json
    from edgecal.workflows.world import utc_text

    return {
        "schema": "edgecal.audit/1",
        "targets": [
            {
                "target": state.name,
                "reachable": state.reachable,
                "seen": utc_text(state.last.seen) if state.last.seen else None,
                "facts": facts_to_json(state.last.facts) if state.last.facts else None,
                "active": [{"name": one.model, "release": one.release} for one in state.active],
                "findings": [one.to_json() for one in report.findings[state.name]],
                "error": state.error.to_json() if state.error else None,
            }
            for state in report.states
        ],
        "groups": [_group_document(group) for group in report.groups],
        "summary": report.summary(),
    }


def _group_document(group: Group) -> dict[str, Any]:
    choice = group.calibrators
    container = choice.container if choice else None
    return {
        "tensorrt": group.tensorrt,
        "versions": list(group.versions),
        "jetpack": group.jetpack,
        "targets": list(group.targets),
        "bundles": [
            {
                "bundle": bundle.name,
                "path": bundle.path,
                "tensorrt": str(bundle.tensorrt),
                "fits": list(fits),
                "refused": list(refuses),
            }
            for bundle, fits, refuses in group.bundles
        ],
        "host_gpus": [
            {
                "gpu": one.gpu.gpu,
                "compute_capability": one.gpu.compute_capability,
                "verified": one.verified,
            }
            for one in (choice.gpus if choice else ())
        ],
        "container": {
            "image": container.image,
            "tensorrt": str(container.tensorrt) if container.tensorrt else None,
            "verified": container.verified,
        }
        if container
        else None,
        "wheel": choice.wheel if choice else None,
        "without_int8": list(group.without_int8),
    }


def _show(console: Console, report: AuditReport, now: datetime, story: Story) -> None:
    from rich.text import Text

    seen = [state.last.seen for state in report.states if state.last.seen is not None]
    if seen and all(state.reachable is None for state in report.states):
        console.print(f"by what each target last said, {age_text(min(seen), now)} at the oldest\n")
    for group in report.groups:
        _show_group(console, group, verbose=story.verbose)
    apart = [(state, state.error) for state in report.states if state.error is not None]
    if apart:
        console.print("[bold]could not be asked, or not everything[/]")
        for state, error in apart:
            console.print(Text(f"  {_plain(state.name)}: {_plain(error.what)}"))
            console.print(Text(f"    {_last_known(state, now)}"))
            console.print(Text(f"    try: {_plain(error.remedy)}"))
        console.print()
    _show_findings(console, report, story)
    counts = report.summary()
    console.print(
        f"{_count(counts['targets'], 'target')} in {_count(counts['groups'], 'group')}: "
        f"{counts['with_errors']} with errors, {counts['drifted']} drifted, "
        f"{counts['outliers']} unlike their kind, {counts['unreachable']} unreachable"
    )


def _show_group(console: Console, group: Group, *, verbose: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from edgecal.cli.targets import print_grid

    grid = Table(box=None, show_header=False, pad_edge=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    jetpack = f", JetPack {group.jetpack}" if group.jetpack else ""
    name = f"TensorRT {group.tensorrt}{jetpack}" if group.tensorrt else "no TensorRT"
    console.print(Text(f"{name}: {_count(len(group.targets), 'target')}", style="bold"))
    for key, value in (*_who(group, verbose=verbose), *_with_what(group)):
        grid.add_row(f"  {key}", Text(value))
    print_grid(console, grid)
    console.print()


def _who(group: Group, *, verbose: bool) -> Iterator[tuple[str, str]]:
    """Tell who is in a group, and which bundles fit them."""
    yield "targets", _names(group.targets, verbose=verbose)
    if len(group.versions) > 1:
        yield "versions", ", ".join(group.versions)
    if group.without_int8:
        yield "without INT8", _names(group.without_int8, verbose=verbose)
    matching = [one for one in group.bundles if one[1]]
    for bundle, fits, refuses in matching:
        part = f", on {len(fits)} of {len(fits) + len(refuses)}" if refuses else ""
        yield "matches", f"{_plain(bundle.path)}{part}"
    if group.bundles and not matching:
        yield "matches", "none of the bundles given"


def _with_what(group: Group) -> Iterator[tuple[str, str]]:
    """Tell what can calibrate for a group."""
    from edgecal.core.hosts import (
        QDQ_COMMAND,
        container_step,
        gpu_names,
        takes_caches,
        wheel_command,
    )
    from edgecal.core.versions import parse_tensorrt

    choice = group.calibrators
    if choice is None or group.tensorrt is None:
        return
    if not takes_caches(parse_tensorrt(group.tensorrt)):
        yield "takes", f"no cache, but a network with Q/DQ nodes: {QDQ_COMMAND}"
        return
    yield "calibrate on", f"any CPU, by ONNX Runtime; natively on {gpu_names(choice.gpus)}"
    if choice.container is not None:
        yield "container", container_step(choice.container)
    if choice.wheel is not None:
        yield "or", wheel_command(choice.wheel)


def _show_findings(console: Console, report: AuditReport, story: Story) -> None:
    """Print findings, the same one of many targets once."""
    from rich.text import Text

    from edgecal.core.findings import Severity

    styles = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
    same: dict[tuple[Severity, str, str, str], list[str]] = {}
    old = {state.name for state in report.states if state.reachable is False}
    for state in report.states:
        for one in report.findings[state.name]:
            remedy = one.remedy.replace(f"--target {one.subject}", "--target T")
            same.setdefault((one.severity, one.rule, one.message, remedy), []).append(state.name)
    order = list(Severity)
    shown = 0
    for (severity, rule, message, remedy), names in sorted(
        same.items(), key=lambda one: order.index(one[0][0])
    ):
        if severity is Severity.NOTE and not story.verbose:
            continue
        shown += 1
        who = _names(
            [f"{name} as last seen" if name in old else name for name in names],
            verbose=story.verbose,
        )
        single = names[0] if len(names) == 1 else "T"
        line = Text(severity.value, style=styles[severity])
        line.append(f" {rule} ({who}): {_plain(message)}", style="default")
        console.print(line)
        console.print(Text(f"  try: {_plain(remedy.replace('--target T', f'--target {single}'))}"))
    if shown:
        console.print()


def _last_known(state: TargetState, now: datetime) -> str:
    facts, seen = state.last.facts, state.last.seen
    if facts is None or seen is None:
        return "never answered from here"
    version = f"TensorRT {facts.tensorrt}" if facts.tensorrt else "no TensorRT"
    what = facts.module or facts.model or "a machine"
    jetpack = f", JetPack {facts.jetpack}" if facts.jetpack else ""
    return f"last seen {age_text(seen, now)}: {what}{jetpack}, {version}"


def age_text(seen: datetime, now: datetime) -> str:
    """Write how long ago something was, for people."""
    seconds = max(0, int((now - seen).total_seconds()))
    for size, word in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = seconds // size
            return f"{_count(count, word)} ago"
    return "just now"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _names(names: Sequence[str], *, verbose: bool) -> str:
    shown = names if verbose else names[:_NAMED]
    more = f" and {len(names) - len(shown)} more" if len(shown) < len(names) else ""
    return ", ".join(_plain(name) for name in shown) + more


def _plain(text: str) -> str:
    return printable(text)
