"""A rollout in lines of markup: one for an event, and a few for how it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.markup import escape

from edgecal.cli.printable import printable
from edgecal.cli.rollout.board import ENDED
from edgecal.cli.story import size_text
from edgecal.core.rollout.counts import counts, wave_counts
from edgecal.core.rollout.events import Kind
from edgecal.core.rollout.state import IN_FLIGHT, DevicePhase, Phase
from edgecal.core.rollout.wording import spell_duration, spell_gate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgecal.cli.rollout.board import Board
    from edgecal.core.rollout.events import Event
    from edgecal.core.rollout.state import Rollout

_STYLES: Final = {
    Kind.PUSH_ACTIVATED: "green",
    Kind.PUSH_KEPT: "green",
    Kind.PUSH_FAILED: "bold red",
    Kind.PUSH_REFUSED: "red",
    Kind.PUSH_UNREACHED: "red",
    Kind.PUSH_DEFERRED: "yellow",
    Kind.ROLLBACK_DONE: "yellow",
    Kind.ROLLBACK_FAILED: "bold red",
    Kind.ROLLBACK_DEFERRED: "yellow",
}
NOTABLE: Final = frozenset(Kind) - {
    Kind.PUSH_STARTED,
    Kind.PUSH_ACTIVATED,
    Kind.PUSH_KEPT,
    Kind.PUSH_DEFERRED,
    Kind.PUSH_STOPPED,
    Kind.ROLLBACK_STARTED,
    Kind.ROLLBACK_STOPPED,
    Kind.DEVICE_REQUEUED,
}
"""What stays on the screen above a live table; the table itself shows the rest."""


def plain(text: str) -> str:
    """Make a text from a device or a person fit for the terminal, as markup."""
    return escape(printable(" ".join(text.split())))


def event_line(event: Event, rollout: Rollout) -> str:
    """Say what an event means, in one line of markup."""
    if event.kind in _WORDS:
        return _WORDS[event.kind](event, rollout)
    name = f"[bold]{plain(event.target)}[/]"
    if event.kind is Kind.PUSH_STARTED:
        device = rollout.devices[event.target]
        again = f", try {device.attempts}" if device.attempts > 1 else ""
        return f"{name} begins{again}"
    if event.kind is Kind.ROLLBACK_STARTED:
        return f"{name} is being rolled back"
    if event.kind is Kind.DEVICE_REQUEUED:
        return f"{name} is to be tried again"
    word = ENDED[event.kind]
    style = _STYLES.get(event.kind, "")
    said = f"[{style}]{word}[/]" if style else word
    if event.release:
        said += f": release {plain(event.release)}"
    if event.fault is not None:
        said += f": {plain(event.fault.what)}"
    if event.until_ms:
        said += f"; next try in {wait_text(event.until_ms - event.at_ms)}"
    return f"{name} {said}"


def _planned(_event: Event, rollout: Rollout) -> str:
    plan = rollout.plan
    sizes = ", ".join(str(len(wave)) for wave in plan.waves)
    refused = f"; {len(plan.refused)} refused" if plan.refused else ""
    return f"{plain(plan.rollout)}: {devices(len(rollout.devices))} in waves of {sizes}{refused}"


def _wave_passed(event: Event, rollout: Rollout) -> str:
    found = wave_counts(rollout, event.wave)
    done = found["active"] + found["kept"]
    size = sum(found.values()) - found["refused"]
    missed = [f"{found[key]} {key}" for key in ("failed", "unreachable", "waiting") if found[key]]
    return (
        f"{_wave(event, rollout)} has [green]passed[/]: {done} of {size} succeeded"
        f"{''.join(f', {word}' for word in missed)}"
    )


def _wave(event: Event, rollout: Rollout) -> str:
    return f"wave {event.wave + 1} of {len(rollout.plan.waves)}"


def _wish(word: str) -> Callable[[Event, Rollout], str]:
    def line(event: Event, _rollout: Rollout) -> str:
        return f"[bold]{word}[/]{f' by {plain(event.why)}' if event.why else ''}"

    return line


def _after_failure(what: str) -> Callable[[Event, Rollout], str]:
    def line(event: Event, rollout: Rollout) -> str:
        return f"[bold red]{_wave(event, rollout)} has failed[/]: {plain(event.why)}; {what}"

    return line


_WORDS: Final[Mapping[Kind, Callable[[Event, Rollout], str]]] = {
    Kind.PLANNED: _planned,
    Kind.WAVE_STARTED: lambda event, rollout: (
        f"[bold]{_wave(event, rollout)}[/]: {devices(len(rollout.plan.waves[event.wave]))}"
    ),
    Kind.WAVE_PASSED: _wave_passed,
    Kind.WAVE_HELD: lambda event, rollout: (
        f"{_wave(event, rollout)} is done, and the next one waits for a person: "
        f"edgecal rollout promote {plain(rollout.plan.rollout)}"
    ),
    Kind.WAVE_FAILED: _after_failure("nothing more is started"),
    Kind.WAVE_REVERTED: _after_failure("its devices are rolled back"),
    Kind.WAVE_EXCUSED: _after_failure("the rollout goes on, as --on-failure continue says"),
    Kind.ROLLBACK_ENDED: lambda event, rollout: f"{_wave(event, rollout)} is rolled back",
    Kind.FINISHED: lambda _event, _rollout: "[bold]the rollout is finished[/]",
    Kind.RESUMED: _wish("resumed"),
    Kind.PAUSED: _wish("paused"),
    Kind.PROMOTED: _wish("promoted"),
    Kind.HALTED: _wish("halted"),
    Kind.RETRIED: _wish("to be tried again"),
}


def head_lines(board: Board, *, now_ms: int) -> list[str]:
    """Say how a rollout stands: name and phase, the devices, and the wave's gates."""
    rollout = board.rollout
    lines = [
        f"[bold]{plain(rollout.plan.rollout)}[/]  {phase_text(rollout, now_ms=now_ms)}",
        f"  devices  {tally(rollout)}",
    ]
    if steps := board.steps():
        lines.append(f"  at work  {', '.join(f'{many} {step}' for step, many in steps.items())}")
    if rollout.wave >= 0:
        lines.append(f"  gates    {gates_text(rollout)}")
    if board.bytes_sent:
        rate = board.rate(now_ms)
        lines.append(
            f"  sent     {size_text(board.bytes_sent)}"
            f"{f', {size_text(round(rate))}/s' if rate else ''}"
        )
    return lines


def phase_text(rollout: Rollout, *, now_ms: int) -> str:
    """Say where a rollout stands, and what it waits for."""
    total = len(rollout.plan.waves)
    if rollout.phase is Phase.RUNNING:
        return _running_text(rollout, now_ms=now_ms) if rollout.wave >= 0 else "begins"
    failed = rollout.wave if rollout.failed_wave is None else rollout.failed_wave
    return _PHASES[rollout.phase].format(
        name=plain(rollout.plan.rollout),
        wave=f"wave {rollout.wave + 1} of {total}",
        failed=f"wave {failed + 1} of {total}",
    )


_PHASES: Final = {
    Phase.HELD: "[yellow]held[/] after {wave}: edgecal rollout promote {name}",
    Phase.PAUSED: "[yellow]paused[/] in {wave}: edgecal rollout resume {name}",
    Phase.PAUSED_ROLLING_BACK: "[yellow]paused[/] while rolling back {failed}: "
    "edgecal rollout resume {name}",
    Phase.ROLLING_BACK: "[red]rolling back[/] {failed}",
    Phase.FAILED: "[bold red]failed[/] in {failed}",
    Phase.HALTED: "[bold red]halted[/] in {wave}",
    Phase.FINISHED: "[green]finished[/]",
}


def _running_text(rollout: Rollout, *, now_ms: int) -> str:
    total = len(rollout.plan.waves)
    wave = f"wave {rollout.wave + 1} of {total}"
    soak_ms = (rollout.passed_ms or 0) + rollout.plan.policy.soak_ms - now_ms
    soaks = rollout.wave + 1 < total and not rollout.promoted and soak_ms > 0
    if rollout.passed_ms is not None and soaks:
        return f"{wave} has passed, soaking for {wait_text(soak_ms)} more"
    found = wave_counts(rollout, rollout.wave)
    left = sum(found[key] for key in ("pending", "pushing", "waiting"))
    size = sum(found.values())
    return f"{wave}, {size - left} of {size} done"


def tally(rollout: Rollout) -> str:
    """Count devices by phase."""
    found = counts(rollout)
    at_work = sum(found.pop(phase.value) for phase in IN_FLIGHT)
    parts = [f"{found[phase.value]} {phase.value}" for phase in _ORDER if found[phase.value]]
    return ", ".join([f"{at_work} at work", *parts] if at_work else parts)


_ORDER: Final = (
    DevicePhase.ACTIVE,
    DevicePhase.KEPT,
    DevicePhase.FAILED,
    DevicePhase.UNREACHABLE,
    DevicePhase.REFUSED,
    DevicePhase.ROLLED_BACK,
    DevicePhase.ROLLBACK_FAILED,
    DevicePhase.WAITING,
    DevicePhase.PENDING,
)


def gates_text(rollout: Rollout) -> str:
    """Hold the current wave against its gates."""
    found, policy = wave_counts(rollout, rollout.wave), rollout.plan.policy
    succeeded = found["active"] + found["kept"]
    reached = succeeded + found["failed"]
    parts = [
        f"{found['failed']} of {reached} reached failed (limit {spell_gate(policy.failing)})",
        f"{succeeded} succeeded (needs {spell_gate(policy.passing)})",
    ]
    if policy.missing is not None or found["unreachable"]:
        parts.insert(1, f"{found['unreachable']} unreachable (limit {spell_gate(policy.missing)})")
    return ", ".join(parts)


def devices(count: int) -> str:
    """Count devices in words."""
    return f"{count} device{'' if count == 1 else 's'}"


def clock_text(seconds: float) -> str:
    """Write a time as a stop-watch shows it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def wait_text(milliseconds: int) -> str:
    """Write a wait, to the second below two hours and to the minute above."""
    unit = 1000 if milliseconds < 7_200_000 else 60_000
    whole = max(unit, -(-milliseconds // unit) * unit)
    minutes, rest = divmod(whole // 1000, 60)
    if minutes and rest and whole < 7_200_000:
        return f"{minutes}m {rest}s"
    return spell_duration(whole)
