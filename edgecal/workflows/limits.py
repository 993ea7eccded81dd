"""What all pushes of one command share: places to connect, send and build, and bandwidth.

A *bastion* is the first server on the way to a target that lies behind others; it sees every
connection of its site, and OpenSSH's sshd begins to drop new ones when ten are not logged in yet
(`MaxStartups 10:30:100`, sshd_config(5)). Targets that are reached directly share what is called
the bastion `""`: each has an sshd of its own, so more of them may be under way.

Limits hold within one process: workers of a cluster each have their own.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from edgecal.workflows.pace import Pace
from edgecal.workflows.world import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from edgecal.core.target import Target
    from edgecal.workflows.world import CancelToken, Slot

T = TypeVar("T")

BASTION_CONNECTIONS: Final = 8
"""By default: two less than what sshd begins to drop at, for a person who logs in meanwhile."""
DIRECT_CONNECTIONS: Final = 32
"""By default: a target that is off holds its place for all of the time that connecting may take."""
_LOOK_UP_S: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitOptions:
    """How much of each. `None` means the default of connections, and no limit of the others."""

    connections: int | None = None
    """Being opened at once through one bastion."""
    transfers: int | None = None
    builds: int | None = None
    rate: float | None = None
    """Bytes a second that all uploads may take together."""
    bastion_rate: float | None = None
    """Bytes a second through one bastion."""


def shared_limits(
    options: LimitOptions,
    *,
    bastion: Callable[[Target], str],
    clock: Callable[[], float],
    sleep: Callable[[float], object],
) -> Limits:
    """Make limits for all pushes of a command.

    Parameters
    ----------
    bastion
        Names the bastion that a target lies behind, `""` without one. Asked once for each target;
        where it raises, so does whoever would have waited.
    """
    way = cache(bastion)
    counts = _Each(
        lambda name: _Slots(
            options.connections or (BASTION_CONNECTIONS if name else DIRECT_CONNECTIONS)
        )
    )
    rate, bastion_rate = options.rate, options.bastion_rate
    total = Pace(rate, clock=clock) if rate else None
    paces = _Each(lambda _name: Pace(bastion_rate, clock=clock)) if bastion_rate else None

    def connections(target: Target, cancel: CancelToken) -> AbstractContextManager[object]:
        return counts.of(way(target)).one(cancel)

    def pace(target: Target, count: int, cancel: CancelToken) -> None:
        wait_s = 0.0 if total is None else total.take(count)
        if paces is not None:
            wait_s = max(wait_s, paces.of(way(target)).take(count))
        while wait_s > 0:
            cancel.check()
            sleep(min(wait_s, _LOOK_UP_S))
            wait_s -= _LOOK_UP_S

    return Limits(
        connections=connections,
        transfers=_slot(options.transfers),
        builds=_slot(options.builds),
        pace=pace,
    )


def _slot(count: int | None) -> Slot:
    if count is None:
        return lambda _target, _cancel: nullcontext()
    slots = _Slots(count)
    return lambda _target, cancel: slots.one(cancel)


class _Slots:
    """So many places; who waits for one looks up now and then whether to go on waiting."""

    def __init__(self, count: int) -> None:
        self._free = threading.Semaphore(count)

    @contextmanager
    def one(self, cancel: CancelToken) -> Iterator[None]:
        cancel.check()
        while not self._free.acquire(timeout=_LOOK_UP_S):
            cancel.check()
        try:
            cancel.check()
            yield
        finally:
            self._free.release()


class _Each(Generic[T]):
    """One thing for each bastion, made when it is first asked for."""

    def __init__(self, make: Callable[[str], T]) -> None:
        self._make = make
        self._made: dict[str, T] = {}
        self._lock = threading.Lock()

    def of(self, bastion: str) -> T:
        with self._lock:
            if bastion not in self._made:
                self._made[bastion] = self._make(bastion)
            return self._made[bastion]
