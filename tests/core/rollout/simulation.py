"""Drives the machine over devices in memory, as a controller would; it can die at any entry."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from edgecal.core.rollout.decide import decide
from edgecal.core.rollout.events import Event, Kind
from edgecal.core.rollout.gates import Condition, Gate
from edgecal.core.rollout.machine import advance, replay
from edgecal.core.rollout.retries import push_fault
from edgecal.core.rollout.state import (
    DevicePhase,
    Fault,
    OnFailure,
    Phase,
    Plan,
    Policy,
    Retries,
    Rollout,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class ControllerDiedError(Exception):
    """The process is gone: what was not written is not known."""


@dataclass
class World:
    """The devices' truth: what a push does there, time after time, and what they ran through."""

    scripts: dict[str, tuple[str, ...]]
    """Codes of faults; "" succeeds, "kept" has it already. The last one repeats."""
    pushes: dict[str, int] = field(default_factory=dict)
    activated: dict[str, int] = field(default_factory=dict)
    rolled_back: dict[str, int] = field(default_factory=dict)

    def runs_it(self, name: str) -> bool:
        return self.activated.get(name, 0) > self.rolled_back.get(name, 0)

    def push(self, name: str) -> str:
        if self.runs_it(name):
            return ""  # a push that finds its release active does nothing
        script = self.scripts.get(name, ("",))
        code = script[min(self.pushes.get(name, 0), len(script) - 1)]
        self.pushes[name] = self.pushes.get(name, 0) + 1
        if not code:
            self.activated[name] = self.activated.get(name, 0) + 1
        return code

    def roll_back(self, name: str) -> None:
        if self.runs_it(name):
            self.rolled_back[name] = self.rolled_back.get(name, 0) + 1


class Controller:
    """One process that drives a rollout from its journal."""

    def __init__(
        self, journal: list[Event], world: World, *, dies_at: int = -1, now_ms: int = 1_000
    ) -> None:
        self.journal = journal
        self.world = world
        self.dies_at = dies_at
        self.now_ms = now_ms
        self.rollout = replay(journal, source="the test")
        self.work: deque[tuple[str, str]] = deque()
        self.watch: Callable[[Controller], None] = lambda _one: None

    def write(self, event: Event) -> None:
        if len(self.journal) == self.dies_at:
            raise ControllerDiedError
        self.rollout = advance(self.rollout, event)
        self.journal.append(event)
        self.watch(self)

    def tell(self, kind: Kind, target: str = "", fault: Fault | None = None) -> None:
        self.write(Event(kind=kind, at_ms=self.now_ms, target=target, fault=fault))

    def run(self, *, promotes: bool = True, steps: int = 1_000_000) -> Rollout:
        """Drive it until it is over, or waits for a person."""
        for _step in range(steps):
            at_hand = {name for _what, name in self.work}
            found = decide(self.rollout, now_ms=self.now_ms, at_hand=at_hand)
            if found.record is not None:
                self.write(found.record)
                continue
            self.work.extend(("ask", name) for name in found.ask)
            for name in found.push:
                self.tell(Kind.PUSH_STARTED, name)
                self.work.append(("push", name))
            for name in found.roll_back:
                self.tell(Kind.ROLLBACK_STARTED, name)
                self.work.append(("roll back", name))
            if self.work:
                self.do(*self.work.popleft())
            elif found.push or found.roll_back:
                continue
            elif found.wake_ms is not None:
                self.now_ms = found.wake_ms
            elif self.rollout.phase is Phase.HELD and promotes:
                self.tell(Kind.PROMOTED)
            else:
                assert found.over or self.rollout.phase in {
                    Phase.HELD,
                    Phase.PAUSED,
                    Phase.PAUSED_ROLLING_BACK,
                }
                return self.rollout
        raise AssertionError("it does not come to an end")

    def do(self, what: str, name: str) -> None:
        device = self.rollout.devices[name]
        if what == "ask" and device.phase is DevicePhase.PUSHING:
            kept = self.world.scripts.get(name) == ("kept",)
            active = Kind.PUSH_KEPT if kept else Kind.PUSH_ACTIVATED
            self.tell(active if self.world.runs_it(name) else Kind.PUSH_STOPPED, name)
        elif what == "ask":
            back = not self.world.runs_it(name)
            self.tell(Kind.ROLLBACK_DONE if back else Kind.ROLLBACK_STOPPED, name)
        elif what == "roll back":
            self.world.roll_back(name)
            self.tell(Kind.ROLLBACK_DONE, name)
        else:
            code = self.world.push(name)
            if code in {"", "kept"}:
                self.tell(Kind.PUSH_KEPT if code else Kind.PUSH_ACTIVATED, name)
            else:
                retries = self.rollout.plan.policy.retries
                fault = Fault(code=code, what=f"it is {code}")
                self.write(push_fault(name, device, fault, now_ms=self.now_ms, retries=retries))


def planned(plan: Plan) -> list[Event]:
    """Begin a journal."""
    return [Event(kind=Kind.PLANNED, at_ms=1, plan=plan)]


def plan_of(waves: Sequence[Sequence[str]], policy: Policy | None = None) -> Plan:
    return Plan(
        rollout="r1",
        bundles=("sha256:00",),
        waves=tuple(map(tuple, waves)),
        refused={"old": ("tensorrt-too-old",)},
        policy=policy or Policy(),
    )


def policies() -> st.SearchStrategy[Policy]:
    """Draw policies, patient and not."""
    gates = st.builds(Gate, minimum=st.integers(1, 6), percent=st.integers(0, 100))
    return st.builds(
        Policy,
        passing=st.builds(Condition, minimum=st.integers(1, 6), percent=st.integers(0, 100)),
        failing=gates,
        missing=st.none() | gates,
        on_failure=st.sampled_from(OnFailure),
        soak_ms=st.sampled_from([0, 60_000]),
        pause_after=st.frozensets(st.integers(0, 3)),
        in_flight=st.integers(1, 8),
        retries=st.builds(
            Retries, tries=st.integers(1, 3), deadline_ms=st.sampled_from([0, 1_000_000])
        ),
    )


CODES = st.sampled_from(["", "build", "connect", "transfer", "host-key", "busy", "incompatible"])


def worlds(names: Sequence[str], *, steady: bool) -> st.SearchStrategy[dict[str, tuple[str, ...]]]:
    """Draw what pushes do; on a steady device always the same."""
    scripts = st.lists(CODES, min_size=1, max_size=1 if steady else 3).map(tuple)
    anything = scripts | st.just(("kept",)) | st.just(("",))
    return st.fixed_dictionaries(dict.fromkeys(names, anything))
