"""The driver: asks the machine what to do, writes that down, does it, and listens.

It decides nothing itself (`edgecal.core.rollout.decide` does) and does nothing on devices (its
hands do). Its own business is what neither can know: which tasks are under way here, which devices
must be asked before the journal can go on, and when to look who else has written.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections import deque
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from edgecal.core.rollout.decide import decide
from edgecal.core.rollout.events import WISHES, Event, Kind
from edgecal.core.rollout.machine import advance, replay
from edgecal.core.rollout.retries import OFFLINE, STOPPED, backoff_ms
from edgecal.core.rollout.state import Phase
from edgecal.errors import EdgecalError, InputError
from edgecal.workflows.rollout.outcomes import NEVER_BEGUN, event_of, given_up
from edgecal.workflows.rollout.tasks import (
    Action,
    Begun,
    DeviceTask,
    Ended,
    Happening,
    Journaled,
    Progress,
    Result,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from edgecal.core.rollout.decide import Decision
    from edgecal.core.rollout.state import Device, Fault, Retries, Rollout
    from edgecal.ports import Journal
    from edgecal.workflows.rollout.tasks import Hands, Outcome

_LOOK_S: Final = 0.5
"""How often the journal is read for what others wrote: a halt is heard of within this time."""
_LEASE_S: Final = 10.0
"""How often the lease is renewed."""
_STOP_S: Final = 10.0
"""How long an interrupted driver waits for its tasks, so that the journal has their outcomes."""
_STOPPING: Final = frozenset({Kind.HALTED, Kind.WAVE_REVERTED})
"""After these no push that is under way is wanted any more."""
_OVER: Final = frozenset({Phase.HALTED, Phase.FAILED, Phase.FINISHED})


def drive(
    rollout: str,
    journal: Journal,
    hands: Hands,
    *,
    inbox: queue.SimpleQueue[Progress | Ended],
    now_ms: Callable[[], int],
) -> Generator[Happening, None, Rollout]:
    """Drive a rollout to its end from wherever its journal stands; yields what happens.

    Closing the generator, or an interrupt, stops every task at a point where nothing is half-done;
    what was not written down by then is asked of the devices when somebody drives it again.

    Parameters
    ----------
    inbox
        Where the hands put `Progress`; the driver adds what ended.
    now_ms
        Milliseconds since 1970.

    Raises
    ------
    InputError
        If there is no such rollout, somebody else drives it, or its journal was changed.
    """
    driver = _Driver(rollout, journal, hands, inbox, now_ms)
    lease = journal.acquire(rollout)
    try:
        yield from driver.run(lease)
    finally:
        driver.stop()
        journal.release(rollout, lease)
    return driver.rollout


@dataclass(slots=True, kw_only=True)
class _Doubt:
    """A device of which nobody knows what it runs."""

    fault: Fault | None = None
    """Of the task that broke off."""
    ask_ms: int = 0
    asked: int = 0


def _broke(ended: Ended) -> bool:
    """Tell whether a task ended by a bug, which was or will be told elsewhere."""
    return not ended.future.cancelled() and ended.future.exception() is not None


class _Driver:
    rollout: Rollout

    def __init__(
        self,
        name: str,
        journal: Journal,
        hands: Hands,
        inbox: queue.SimpleQueue[Progress | Ended],
        now_ms: Callable[[], int],
    ) -> None:
        self._name = name
        self._journal = journal
        self._hands = hands
        self._inbox = inbox
        self._now_ms = now_ms
        self._lease = ""
        self._renewed = 0.0
        self._looked = 0.0
        self._entries = 0
        self._wake_ms: int | None = None
        self._at_work: dict[str, DeviceTask] = {}
        self._doubts: dict[str, _Doubt] = {}

    def run(self, lease: str) -> Iterator[Happening]:
        """Go on until nothing is left to do."""
        self._lease = lease
        self._renewed = time.monotonic()
        events = self._journal.read(self._name)
        self.rollout = replay(events, source=f"rollout {self._name}")
        self._entries = len(events)
        yield Begun(self.rollout, self._entries)
        while (yield from self._act()):
            yield from self._listen()

    def stop(self) -> None:
        """Stop what is under way, and write down how it ended as far as that is soon."""
        if not self._at_work:
            return
        self._hands.stop()
        until = time.monotonic() + _STOP_S
        with contextlib.suppress(EdgecalError):  # the lease may be lost: then others will ask
            while self._changes() and time.monotonic() < until:
                message = self._next(0.2)
                if isinstance(message, Ended):
                    self._at_work.pop(message.task.target, None)
                    if not _broke(message):
                        deque(self._end(message), maxlen=0)

    def _changes(self) -> bool:
        """Tell whether a task under way changes its device."""
        return any(task.action is not Action.ASK for task in self._at_work.values())

    def _next(self, wait_s: float) -> Progress | Ended | None:
        with contextlib.suppress(queue.Empty):
            return self._inbox.get(timeout=wait_s) if wait_s > 0 else self._inbox.get_nowait()
        return None

    def _act(self) -> Generator[Happening, None, bool]:
        """Do what the machine says; tells whether there is more to come."""
        while True:
            self._keep_lease()
            now = self._now_ms()
            decision = decide(self.rollout, now_ms=now, at_hand=self._at_hand(now))
            if decision.record is not None:
                yield from self._write(decision.record)
            elif decision.over:
                return False
            elif (yield from self._obey(decision, now)):
                return True

    def _obey(self, decision: Decision, now: int) -> Generator[Happening, None, bool]:
        """Begin what is to be begun; says no if there was news, which may be a halt."""
        for name in decision.ask:
            self._begin(name, Action.ASK)
        work = [(Kind.PUSH_STARTED, Action.PUSH, name) for name in decision.push]
        work += [(Kind.ROLLBACK_STARTED, Action.ROLL_BACK, name) for name in decision.roll_back]
        for kind, action, name in work:
            if not (yield from self._write(Event(kind=kind, at_ms=now, target=name))):
                return False
            self._begin(name, action)
        questions = (one.ask_ms for one in self._doubts.values() if one.ask_ms > now)
        times = (decision.wake_ms, *questions)
        self._wake_ms = min((one for one in times if one is not None), default=None)
        return True

    def _at_hand(self, now: int) -> set[str]:
        return {*self._at_work, *(name for name, one in self._doubts.items() if one.ask_ms > now)}

    def _begin(self, name: str, action: Action) -> None:
        device = self.rollout.devices[name]
        task = DeviceTask(
            rollout=self._name,
            target=name,
            action=action,
            release=device.release,
            since_ms=device.first_ms,
        )
        self._at_work[name] = task
        future = self._hands.begin(task)
        future.add_done_callback(lambda ended: self._inbox.put(Ended(task, ended)))

    def _listen(self) -> Iterator[Happening]:
        """Wait until something ends, others have written, or the clock says so."""
        wait_s = self._looked + _LOOK_S - time.monotonic()
        if self._wake_ms is not None:
            wait_s = min(wait_s, (self._wake_ms - self._now_ms()) / 1000)
        message = self._next(wait_s)
        while message is not None:
            if isinstance(message, Ended):
                yield from self._end(message)
            else:
                yield message
            if time.monotonic() - self._looked >= _LOOK_S:
                break
            message = self._next(0)
        if time.monotonic() - self._looked >= _LOOK_S:
            yield from self._read_news()

    def _read_news(self) -> Iterator[Happening]:
        """Apply what others wrote: wishes, for anything else takes the lease."""
        self._looked = time.monotonic()
        for event in self._journal.read(self._name, since=self._entries):
            if event.kind not in WISHES:
                raise self._lost()
            yield self._apply(event)

    def _write(self, event: Event) -> Generator[Happening, None, bool]:
        """Write and apply an event; if others wrote first, apply that instead and say no."""
        advance(self.rollout, event)
        if not self._journal.append(self._name, event, after=self._entries, lease=self._lease):
            yield from self._read_news()
            return False
        yield self._apply(event)
        return True

    def _apply(self, event: Event) -> Journaled:
        self.rollout = advance(self.rollout, event)
        self._entries += 1
        if event.kind in _STOPPING:
            self._hands.stop()
            for one in self._doubts.values():
                one.ask_ms = 0
        return Journaled(event, self.rollout, self._entries)

    def _keep_lease(self) -> None:
        if time.monotonic() - self._renewed < _LEASE_S:
            return
        if not self._journal.renew(self._name, self._lease):
            raise self._lost()
        self._renewed = time.monotonic()

    def _lost(self) -> InputError:
        return InputError(
            "somebody else drives it now: this controller was away for too long",
            where=f"rollout {self._name}",
            remedy="see 'edgecal rollout status'",
        )

    def _end(self, ended: Ended) -> Iterator[Happening]:
        """Write down how a task ended, or leave the device to be asked."""
        self._at_work.pop(ended.task.target, None)
        try:
            outcome = ended.future.result()
        except CancelledError:
            outcome = NEVER_BEGUN
        event = self._event_of(ended.task, outcome)
        while event is not None and not (yield from self._write(event)):
            pass

    def _event_of(self, task: DeviceTask, outcome: Outcome) -> Event | None:
        """Say what an outcome means for its device; nothing if that is to be asked."""
        now, device = self._now_ms(), self.rollout.devices[task.target]
        doubt = self._doubts.pop(task.target, _Doubt())
        if task.action is Action.ASK and outcome.fault and outcome.fault.code in STOPPED:
            self._doubts[task.target] = replace(doubt, ask_ms=now)  # by a halt: ask again, at once
            return None
        if outcome.result is not Result.UNCLEAR:
            return event_of(
                task,
                outcome,
                device,
                before=doubt.fault,
                now_ms=now,
                retries=self._retries,
            )
        if task.action is not Action.ASK:
            self._doubts[task.target] = _Doubt(fault=outcome.fault, ask_ms=now)
            return None
        asked = doubt.asked + 1
        if self._is_enough(device, asked, outcome.fault, now):
            return given_up(task.target, device, outcome.fault, now_ms=now)
        ask_ms = now + backoff_ms(self._retries, asked)
        self._doubts[task.target] = _Doubt(fault=doubt.fault, ask_ms=ask_ms, asked=asked)
        return None

    @property
    def _retries(self) -> Retries:
        return self.rollout.plan.policy.retries

    def _is_enough(self, device: Device, asked: int, fault: Fault | None, now: int) -> bool:
        """Tell whether a device that gives no answer is asked no more."""
        if self.rollout.phase in _OVER or now >= device.first_ms + self._retries.deadline_ms:
            return True
        is_away = fault is not None and fault.code in OFFLINE
        return not is_away and asked >= self._retries.tries
