"""Rollouts for people to read: a draft to say yes or no to, how one stands, which there are."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

from edgecal.cli.printable import printable
from edgecal.cli.rollout.documents import time_text, wave_state
from edgecal.cli.rollout.faults import remedy, troubled, way_on
from edgecal.cli.rollout.lines import devices, phase_text, plain, tally, wait_text
from edgecal.cli.rollout.standing import OVER
from edgecal.cli.selecting import some_names
from edgecal.cli.story import size_text
from edgecal.cli.targets import print_grid
from edgecal.core.findings import Severity, refused
from edgecal.core.rollout.counts import wave_counts
from edgecal.core.rollout.state import DevicePhase
from edgecal.core.rollout.wording import spell_duration, spell_gate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from edgecal.cli.rollout.standing import Standing
    from edgecal.core.findings import Finding
    from edgecal.core.rollout.state import Plan, Rollout
    from edgecal.ports import JournalRow
    from edgecal.workflows.report import PushReport
    from edgecal.workflows.rollout.draft import Draft

_LISTED: Final = 20
"""So many devices that are not fine are listed before the rest is counted; -v lists all."""


def show_draft(console: Console, draft: Draft, *, verbose: bool) -> None:
    """Show who is in which wave, what goes there, who is left out, and when it stops."""
    plan, reports = draft.plan, draft.reports
    meant = [reports[name] for wave in plan.waves for name in wave]
    console.print(
        f"[bold]{plain(plan.rollout)}[/]: {devices(len(meant))} in {_waves(len(plan.waves))}, "
        f"{size_text(sum(one.bytes_to_send for one in meant))} to send, "
        f"{_engines(sum(bool(one.to_build) for one in meant))} to build"
    )
    table = _grid("wave", "devices", "to send", "to build", "builder", "who", right=4)
    for at, wave in enumerate(plan.waves):
        there = [reports[name] for name in wave]
        builders = Counter(one.builder or "not known yet" for one in there)
        _add(
            table,
            str(at + 1),
            str(len(wave)),
            size_text(sum(one.bytes_to_send for one in there)),
            str(sum(bool(one.to_build) for one in there)),
            ", ".join(
                name if len(builders) == 1 else f"{name}: {many}" for name, many in builders.items()
            ),
            some_names(wave, verbose=verbose),
        )
    print_grid(console, table)
    _show_refused(console, draft, verbose=verbose)
    _show_unanswered(console, draft, verbose=verbose)
    _show_warnings(console, draft, verbose=verbose)
    for line in _policy_lines(plan):
        console.print(line)


def _engines(count: int) -> str:
    return f"{count} engine{'' if count == 1 else 's'}"


def _waves(count: int) -> str:
    return f"{count} wave{'' if count == 1 else 's'}"


def _show_refused(console: Console, draft: Draft, *, verbose: bool) -> None:
    """Name the refused by the rules that refuse them."""
    if not draft.plan.refused:
        return
    console.print(f"[red]refused[/], and in no wave: {devices(len(draft.plan.refused))}")
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, rules in draft.plan.refused.items():
        groups.setdefault(rules, []).append(name)
    for rules, names in groups.items():
        console.print(f"  {plain(', '.join(rules))}: {plain(some_names(names, verbose=verbose))}")
        what, way = _why(draft.reports[names[0]])
        first = f"{names[0]}: " if len(names) > 1 else ""
        console.print(f"    {plain(first + what)}")
        console.print(f"    try: {plain(way)}")


def _show_warnings(console: Console, draft: Draft, *, verbose: bool) -> None:
    """Name what rules warn of, once for all targets that it concerns; notes only if verbose."""
    severities = {Severity.WARNING, Severity.NOTE} if verbose else {Severity.WARNING}
    groups: dict[tuple[Severity, str], dict[str, Finding]] = {}
    for name, report in draft.reports.items():
        for finding in report.findings:
            if finding.severity in severities and name not in draft.plan.refused:
                groups.setdefault((finding.severity, finding.rule), {}).setdefault(name, finding)
    for (severity, rule), found in groups.items():
        style = "yellow" if severity is Severity.WARNING else "cyan"
        names = some_names(tuple(found), verbose=verbose)
        first = next(iter(found.values()))
        console.print(f"[{style}]{severity.value}[/] {plain(rule)}: {plain(names)}")
        console.print(f"    {plain(first.message)}")
        console.print(f"    try: {plain(first.remedy)}")


def _why(report: PushReport) -> tuple[str, str]:
    for finding in report.findings:
        if refused([finding]):
            return finding.message, finding.remedy
    return (report.error.what, report.error.remedy) if report.error else ("", "")


def _show_unanswered(console: Console, draft: Draft, *, verbose: bool) -> None:
    """Name those of whom nothing is known yet, by what kept them from answering."""
    groups: dict[str, list[PushReport]] = {}
    for name, report in draft.reports.items():
        if report.error is not None and name not in draft.plan.refused:
            groups.setdefault(report.error.code, []).append(report)
    if not groups:
        return
    patience = spell_duration(draft.plan.policy.retries.deadline_ms)
    console.print(
        f"[yellow]not known yet[/]: {devices(sum(map(len, groups.values())))}; each is tried in "
        f"its wave"
        + ("" if patience == "0" else f", and waited for {patience} if it is offline then")
    )
    for code, group in groups.items():
        names = some_names([one.target for one in group], verbose=verbose)
        console.print(f"  {plain(code)}: {plain(names)}")
        error = group[0].error
        if error is not None:
            first = f"{group[0].target}: " if len(group) > 1 else ""
            console.print(f"    {plain(first + error.what)}")
            console.print(f"    try: {plain(error.remedy)}")


def _policy_lines(plan: Plan) -> list[str]:
    policy = plan.policy
    missing = "" if policy.missing is None else f", or {spell_gate(policy.missing)} are unreachable"
    gates = (
        f"a wave passes at {spell_gate(policy.passing)} succeeded, and fails once "
        f"{spell_gate(policy.failing)} have failed{missing}; then: {policy.on_failure.value}"
    )
    lines = [gates]
    last = len(plan.waves) - 1
    held = sorted(wave + 1 for wave in policy.pause_after if wave < last)
    if held:
        lines.append(f"after wave {', '.join(map(str, held))} it waits until a person promotes")
    if policy.soak_ms and last:
        lines.append(f"between waves it soaks for {spell_duration(policy.soak_ms)}")
    return lines


def show_rollout(console: Console, standing: Standing, *, now_ms: int, verbose: bool) -> None:
    """Show how a rollout stands: the waves, and every device that is not fine."""
    rollout, driver = standing.rollout, standing.row.driver
    reason = f": {plain(standing.reason)}" if standing.reason else ""
    driven = f"; driven by {plain(driver)}" if driver else ""
    if not driver and (rollout.phase not in OVER or rollout.busy()):
        driven = f"; nobody drives it: edgecal rollout resume {plain(rollout.plan.rollout)}"
    console.print(
        f"[bold]{plain(rollout.plan.rollout)}[/]  {phase_text(rollout, now_ms=now_ms)}"
        f"{reason}{driven}"
    )
    used = [phase for phase in _COLUMNS if any(_wave_has(rollout, phase))]
    table = _grid("wave", "state", "devices", *(phase.value for phase in used), right=0)
    for column in table.columns[2:]:
        column.justify = "right"
    for at, wave in enumerate(rollout.plan.waves):
        found = wave_counts(rollout, at)
        cells = [str(found[phase.value] or "-") for phase in used]
        _add(table, str(at + 1), wave_state(rollout, at), str(len(wave)), *cells)
    print_grid(console, table)
    if rollout.plan.refused:
        names = some_names(tuple(rollout.plan.refused), verbose=verbose)
        console.print(f"refused by the plan, and in no wave: {plain(names)}")
    show_trouble(console, rollout, now_ms=now_ms, verbose=verbose)


_COLUMNS: Final = (
    DevicePhase.PENDING,
    DevicePhase.PUSHING,
    DevicePhase.WAITING,
    DevicePhase.ACTIVE,
    DevicePhase.KEPT,
    DevicePhase.FAILED,
    DevicePhase.REFUSED,
    DevicePhase.UNREACHABLE,
    DevicePhase.ROLLING_BACK,
    DevicePhase.ROLLED_BACK,
    DevicePhase.ROLLBACK_FAILED,
)


def _wave_has(rollout: Rollout, phase: DevicePhase) -> Iterable[int]:
    return (rollout.count(wave, phase) for wave in range(len(rollout.plan.waves)))


def show_trouble(console: Console, rollout: Rollout, *, now_ms: int, verbose: bool) -> None:
    """Name every device that is not fine, why, and what to do; then how to go on."""
    found = troubled(rollout)
    for name, device in found if verbose else found[:_LISTED]:
        what = f": {plain(device.fault.what)}" if device.fault else ""
        style = "yellow" if device.phase is DevicePhase.WAITING else "red"
        again = ""
        if device.not_before_ms > now_ms and rollout.phase not in OVER:
            again = f"; next try in {wait_text(device.not_before_ms - now_ms)}"
        console.print(f"[{style}]{device.phase.value}[/] [bold]{plain(name)}[/]{what}{again}")
        if way := remedy(device, target=name):
            console.print(f"  try: {plain(way)}")
    if len(found) > _LISTED and not verbose:
        console.print(f"and {len(found) - _LISTED} more that are not fine: -v names them")
    if way := way_on(rollout):
        console.print(f"to try them again: {plain(way)}")


def show_list(console: Console, rows: Sequence[tuple[JournalRow, Rollout]], *, hidden: int) -> None:
    """Show which rollouts there are, and how many others."""
    if not rows:
        console.print("there is no rollout yet")
        return
    table = _grid("rollout", "begun", "state", "wave", "devices", "driven by", right=0)
    for row, rollout in rows:
        _add(
            table,
            row.rollout,
            time_text(row.created_ms),
            rollout.phase.value,
            f"{rollout.wave + 1}/{len(rollout.plan.waves)}",
            tally(rollout),
            row.driver or "-",
        )
    print_grid(console, table)
    if hidden:
        console.print(f"and {hidden} before these: -v lists them")


def _grid(*titles: str, right: int) -> Table:
    """Make a table whose first columns are numbers."""
    table = Table(box=None, pad_edge=False)
    for at, title in enumerate(titles):
        justify: Any = "right" if at < right else "left"
        table.add_column(title, justify=justify, overflow="fold")
    return table


def _add(table: Table, *cells: str) -> None:
    table.add_row(*(Text(printable(cell)) for cell in cells))
