"""What is tried again, when, and what is not: a fault's code becomes the device's next event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgecal.core.rollout.events import Event, Kind

if TYPE_CHECKING:
    from edgecal.core.rollout.state import Device, Fault, Retries

OFFLINE: Final = frozenset({"connect"})
"""Waited for until the deadline, and then unreachable."""
OCCUPIED: Final = frozenset({"busy", "not-now"})
"""Waited for until the deadline, and then failed."""
BROKEN_OFF: Final = frozenset({"transfer", "command", "worker"})
"""Tried so many times. Whether a command failed for good cannot be told from outside."""
UNREACHED: Final = frozenset({"host-key"})
"""Unreachable at once: no waiting makes a host key known."""
REFUSED: Final = frozenset({"incompatible"})
STOPPED: Final = frozenset({"cancelled"})


def backoff_ms(retries: Retries, tries: int) -> int:
    """Say how long to wait after so many tries: doubled each time, up to the longest.

    >>> from edgecal.core.rollout.state import Retries
    >>> [backoff_ms(Retries(first_ms=5, longest_ms=60), tries) for tries in (1, 2, 3, 4, 5, 99)]
    [5, 10, 20, 40, 60, 60]
    """
    return min(retries.first_ms << min(max(tries - 1, 0), 40), retries.longest_ms)


def push_fault(
    target: str, device: Device, fault: Fault, *, now_ms: int, retries: Retries
) -> Event:
    """Say what follows from a push that did not succeed.

    Whoever waits for a deadline is tried a last time when it comes, so that a controller that was
    away meanwhile gives nobody up unasked.
    """
    if fault.code in OFFLINE | OCCUPIED:
        deadline = device.first_ms + retries.deadline_ms
        if now_ms < deadline:
            until = min(now_ms + backoff_ms(retries, device.attempts), deadline)
            return _deferred(Kind.PUSH_DEFERRED, target, fault, now_ms, until)
        kind = Kind.PUSH_UNREACHED if fault.code in OFFLINE else Kind.PUSH_FAILED
    elif fault.code in BROKEN_OFF and device.broken_off + 1 < retries.tries:
        until = now_ms + backoff_ms(retries, device.broken_off + 1)
        return _deferred(Kind.PUSH_DEFERRED, target, fault, now_ms, until)
    else:
        kind = Kind.PUSH_FAILED
        for codes, other in _AT_ONCE:
            kind = other if fault.code in codes else kind
    return Event(kind=kind, at_ms=now_ms, target=target, fault=fault)


_AT_ONCE: Final = (
    (UNREACHED, Kind.PUSH_UNREACHED),
    (REFUSED, Kind.PUSH_REFUSED),
    (STOPPED, Kind.PUSH_STOPPED),
)


def rollback_fault(
    target: str, device: Device, fault: Fault, *, now_ms: int, retries: Retries
) -> Event:
    """Say what follows from a rollback that did not succeed: what can pass has its tries."""
    if fault.code in STOPPED:
        return Event(kind=Kind.ROLLBACK_STOPPED, at_ms=now_ms, target=target, fault=fault)
    if fault.code in OFFLINE | OCCUPIED | BROKEN_OFF and device.rollbacks < retries.tries:
        until = now_ms + backoff_ms(retries, device.rollbacks)
        return _deferred(Kind.ROLLBACK_DEFERRED, target, fault, now_ms, until)
    return Event(kind=Kind.ROLLBACK_FAILED, at_ms=now_ms, target=target, fault=fault)


def _deferred(kind: Kind, target: str, fault: Fault, now_ms: int, until_ms: int) -> Event:
    return Event(kind=kind, at_ms=now_ms, target=target, fault=fault, until_ms=until_ms)
