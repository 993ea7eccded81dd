"""What to do next: from a rollout, the clock and the work at hand; the driver only obeys.

The driver's loop: write and apply `record`, if there is one, and decide again. Else write
`push-started` or `rollback-started` for each named device, and only then begin with it; ask the
devices in `ask` what they run; sleep until `wake_ms`, until work ends, or until there is news in
the journal, whichever comes first.

A push that was cut off when it may have activated the release already is not to be reported as
deferred: the driver leaves the device as it is, under way and not at hand, and is told to ask.
Rolling back takes back only what still runs this rollout's release, for it too may be repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgecal.core.rollout.events import Event, Kind
from edgecal.core.rollout.state import SUCCEEDED, DevicePhase, OnFailure, Phase

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from edgecal.core.rollout.state import Rollout

_COUNTED: Final = tuple(phase for phase in DevicePhase if phase is not DevicePhase.REFUSED)
_ON_FAILURE: Final = {
    OnFailure.HALT: Kind.WAVE_FAILED,
    OnFailure.ROLLBACK: Kind.WAVE_REVERTED,
    OnFailure.CONTINUE: Kind.WAVE_EXCUSED,
}
_OVER: Final = frozenset({Phase.FAILED, Phase.HALTED, Phase.FINISHED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do now."""

    record: Event | None = None
    """To be written and applied; then decide anew. Nothing else stands beside it."""
    push: tuple[str, ...] = ()
    roll_back: tuple[str, ...] = ()
    ask: tuple[str, ...] = ()
    """Devices that the journal has under way and this controller has not: what do they run?"""
    wake_ms: int | None = None
    over: bool = False
    """Nothing is left to do, and nothing is under way."""


def decide(rollout: Rollout, *, now_ms: int, at_hand: Collection[str]) -> Decision:
    """Say what to do now.

    Parameters
    ----------
    now_ms
        Milliseconds since 1970.
    at_hand
        Devices that this controller is at work on, asking included.
    """
    event = _next_event(rollout, now_ms)
    if event is not None:
        return Decision(record=event)
    busy = rollout.busy()
    ask = tuple(name for name in busy if name not in at_hand)
    room = rollout.plan.policy.in_flight - len(busy)
    if rollout.phase in {Phase.RUNNING, Phase.HELD}:
        push = tuple(_startable(rollout, now_ms, room))
        return Decision(push=push, ask=ask, wake_ms=_wake(rollout, now_ms))
    if rollout.phase is Phase.ROLLING_BACK:
        due = _revertible(rollout, now_ms)
        return Decision(roll_back=due[: max(room, 0)], ask=ask, wake_ms=_wake(rollout, now_ms))
    return Decision(ask=ask, over=rollout.phase in _OVER and not busy and not at_hand)


def _next_event(rollout: Rollout, now_ms: int) -> Event | None:
    """Find what is to be written about the rollout as a whole."""
    if rollout.phase is Phase.ROLLING_BACK:
        return _rollback_end(rollout, now_ms)
    if rollout.phase not in {Phase.RUNNING, Phase.HELD}:
        return None
    for wave in range(rollout.wave + 1):
        why = "" if wave in rollout.excused else _tripped(rollout, wave)
        if why:
            return _failure(rollout, wave, why, now_ms)
    return _step(rollout, now_ms) if rollout.phase is Phase.RUNNING else None


def _step(rollout: Rollout, now_ms: int) -> Event | None:
    """Find the current wave's next step: passed, failed, held, the one after it, or the end."""
    wave = rollout.wave
    if wave < 0:
        return Event(kind=Kind.WAVE_STARTED, at_ms=now_ms, wave=0)
    if rollout.count(wave, DevicePhase.PENDING, DevicePhase.PUSHING):
        return None
    if rollout.passed_ms is None:
        size, succeeded = rollout.count(wave, *_COUNTED), rollout.count(wave, *SUCCEEDED)
        if wave in rollout.excused or rollout.plan.policy.passing.holds(succeeded, size):
            return Event(kind=Kind.WAVE_PASSED, at_ms=now_ms, wave=wave)
        if rollout.count(wave, DevicePhase.WAITING):
            return None
        return _failure(rollout, wave, f"{succeeded} of {size} succeeded", now_ms)
    return _after_passing(rollout, now_ms)


def _after_passing(rollout: Rollout, now_ms: int) -> Event | None:
    last = rollout.wave + 1 == len(rollout.plan.waves)
    if last:
        left = (DevicePhase.PENDING, DevicePhase.PUSHING, DevicePhase.WAITING)
        unfinished = any(rollout.count(wave, *left) for wave in range(rollout.wave + 1))
        return None if unfinished else Event(kind=Kind.FINISHED, at_ms=now_ms)
    if not rollout.promoted:
        if now_ms < _soaked_ms(rollout):
            return None
        if rollout.wave in rollout.plan.policy.pause_after:
            return Event(kind=Kind.WAVE_HELD, at_ms=now_ms, wave=rollout.wave)
    return Event(kind=Kind.WAVE_STARTED, at_ms=now_ms, wave=rollout.wave + 1)


def _soaked_ms(rollout: Rollout) -> int:
    return (rollout.passed_ms or 0) + rollout.plan.policy.soak_ms


def _failure(rollout: Rollout, wave: int, why: str, now_ms: int) -> Event:
    kind = _ON_FAILURE[rollout.plan.policy.on_failure]
    return Event(kind=kind, at_ms=now_ms, wave=wave, why=why)


def _bad(rollout: Rollout, wave: int) -> tuple[int, int, int]:
    """Count a wave's failed, unreachable and succeeded devices."""
    return (
        rollout.count(wave, DevicePhase.FAILED),
        rollout.count(wave, DevicePhase.UNREACHABLE),
        rollout.count(wave, *SUCCEEDED),
    )


def _tripped(rollout: Rollout, wave: int) -> str:
    """Say which gate a wave has tripped, or nothing."""
    policy = rollout.plan.policy
    failed, unreachable, succeeded = _bad(rollout, wave)
    reached = failed + succeeded
    if policy.failing.trips(failed, reached):
        return f"{failed} of {reached} devices reached have failed"
    ended = reached + unreachable
    if policy.missing is not None and policy.missing.trips(unreachable, ended):
        return f"{unreachable} of {ended} devices could not be reached"
    return ""


def _gate_room(rollout: Rollout, wave: int) -> int:
    """Say how many more devices of a wave may start so that its gates can still hold them back."""
    policy = rollout.plan.policy
    if policy.on_failure is OnFailure.CONTINUE:
        return policy.in_flight  # nothing is held back
    failed, unreachable, succeeded = _bad(rollout, wave)
    reached = failed + succeeded
    room = policy.failing.room(failed, reached)
    if policy.missing is not None:
        room = min(room, policy.missing.room(unreachable, reached + unreachable))
    return room - rollout.count(wave, DevicePhase.PUSHING)


def _startable(rollout: Rollout, now_ms: int, room: int) -> Iterator[str]:
    """Name the devices to push to now, earlier waves first, and second tries before first ones."""
    for wave in range(rollout.wave + 1):
        spare = min(room, _gate_room(rollout, wave))
        if spare <= 0:
            continue
        for name in _due(rollout, wave, now_ms):
            yield name
            room -= 1
            spare -= 1
            if spare == 0:
                break


def _due(rollout: Rollout, wave: int, now_ms: int) -> Iterator[str]:
    for name in rollout.members.get((wave, DevicePhase.WAITING), ()):
        if rollout.devices[name].not_before_ms <= now_ms:
            yield name
    yield from rollout.members.get((wave, DevicePhase.PENDING), ())


def _revertible(rollout: Rollout, now_ms: int) -> tuple[str, ...]:
    wave = -1 if rollout.failed_wave is None else rollout.failed_wave
    return tuple(
        name
        for name in rollout.members.get((wave, DevicePhase.ACTIVE), ())
        if rollout.devices[name].not_before_ms <= now_ms
    )


def _rollback_end(rollout: Rollout, now_ms: int) -> Event | None:
    """End the rolling back when none of the wave's devices runs the release or is on its way."""
    wave = -1 if rollout.failed_wave is None else rollout.failed_wave
    left = (DevicePhase.ACTIVE, DevicePhase.PUSHING, DevicePhase.ROLLING_BACK)
    if rollout.count(wave, *left):
        return None
    return Event(kind=Kind.ROLLBACK_ENDED, at_ms=now_ms, wave=wave)


def _wake(rollout: Rollout, now_ms: int) -> int | None:
    """Say when the clock alone will change the decision."""
    phase = DevicePhase.ACTIVE if rollout.phase is Phase.ROLLING_BACK else DevicePhase.WAITING
    times = [
        rollout.devices[name].not_before_ms
        for wave in range(rollout.wave + 1)
        for name in rollout.members.get((wave, phase), ())
    ]
    if rollout.phase is Phase.RUNNING and rollout.passed_ms is not None:
        times.append(_soaked_ms(rollout))
    return min((time for time in times if time > now_ms), default=None)
