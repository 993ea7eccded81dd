"""The worker's side of a rollout: does tasks on the targets of its own list, for who asks."""

from __future__ import annotations

import pickle
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from edgecal.errors import InventoryError
from edgecal.workflows.rollout.draft import look_at
from edgecal.workflows.rollout.outcomes import NEVER_BEGUN
from edgecal.workflows.rollout.work import Crew, do
from edgecal.workflows.world import CancelToken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from edgecal.core.rollout.job import Job
    from edgecal.core.target import Target
    from edgecal.ports import BundleFiles
    from edgecal.workflows.events import PushEvent
    from edgecal.workflows.report import PushOptions, PushReport
    from edgecal.workflows.rollout.tasks import DeviceTask, Outcome
    from edgecal.workflows.world import World

STILL_S: Final = 10.0
"""How often a controller says that it is still there."""
_SILENT_S: Final = 60.0
"""Of a controller that is silent for longer nothing more is begun: what it would have decided
meanwhile, a halt perhaps, nobody knows."""
_TOLD_S: Final = 0.5
"""How often bytes sent are told of: they are counted up in between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A task on its way to a worker. It holds names and values only: no host, no key."""

    hands: str
    """Whose; what is told of it goes under this topic."""
    turn: int
    """Stopping means every order of this turn and those before."""
    task: DeviceTask
    job: Job
    bundles: tuple[dict[str, str], ...]
    """Of each, the digests of its files by name; they were sent before."""


@dataclass(slots=True)
class _Controller:
    """What is known of whoever gives orders."""

    heard: float
    stopped: int = -1
    at_work: dict[CancelToken, int] = field(default_factory=dict)
    """Turns, by what stops them."""


class Post:
    """Takes orders.

    Parameters
    ----------
    targets
        Those that may be touched.
    bundle
        Opens the bundle of these files.
    say
        Says something under a topic.
    tell
        Hears in words what is done.
    """

    def __init__(
        self,
        targets: Mapping[str, Target],
        world: World,
        bundle: Callable[[Mapping[str, str]], BundleFiles],
        *,
        say: Callable[[str, bytes], object],
        tell: Callable[[str], object],
    ) -> None:
        self._targets = targets
        self._world = world
        self._bundle = bundle
        self._say = say
        self._tell = tell
        self._lock = threading.Lock()
        self._controllers: dict[str, _Controller] = {}
        self._ending = False

    def work(self, order: Order) -> Outcome:
        """Do a task, and come back when it is over.

        Raises
        ------
        InventoryError
            If the target is not on this worker's list.
        """
        name = order.task.target
        self._known(name)
        token = CancelToken()
        with self._lock:
            controller = self._hear(order.hands)
            if self._ending or order.turn <= controller.stopped:
                return NEVER_BEGUN
            controller.at_work[token] = order.turn
        try:
            with _Told(self._say, order.hands, name, self._world.clock) as told:
                crew = Crew(
                    job=order.job,
                    bundles=[self._bundle(files) for files in order.bundles],
                    targets=self._targets,
                    world=replace(self._world, cancel=token),
                    tell=told,
                )
                self._tell(f"{name}: {order.task.action.value} of rollout {order.task.rollout}")
                outcome = do(order.task, crew)
        finally:
            with self._lock:
                del controller.at_work[token]
        self._tell(f"{name}: {_words(outcome)}")
        return outcome

    def look(
        self, target: str, options: PushOptions, bundles: tuple[dict[str, str], ...]
    ) -> PushReport:
        """Find out what a push would do to a target.

        Raises
        ------
        InventoryError
            If the target is not on this worker's list.
        """
        known = self._known(target)
        return look_at([self._bundle(files) for files in bundles], known, options, self._world)

    def halt(self, hands: str, turn: int) -> None:
        """Stop a controller's orders of this turn and those before, begun or not."""
        with self._lock:
            controller = self._hear(hands)
            controller.stopped = max(controller.stopped, turn)
            _cancel(token for token, given in controller.at_work.items() if given <= turn)

    def still_there(self, hands: str) -> None:
        """Hear that a controller is."""
        with self._lock:
            self._hear(hands)

    def stop(self) -> bool:
        """Stop everything, and begin nothing; tells whether nothing is at work any more."""
        with self._lock:
            self._ending = True
            everything = [one for each in self._controllers.values() for one in each.at_work]
            _cancel(everything)
            return not everything

    def _known(self, target: str) -> Target:
        if target not in self._targets:
            raise InventoryError(
                "this worker may not touch that target",
                where=target,
                remedy="add it to the inventory that the worker was started with",
            )
        return self._targets[target]

    def _hear(self, hands: str) -> _Controller:
        now = self._world.clock()
        found = self._controllers.get(hands)
        if found is None:
            found = self._controllers[hands] = _Controller(now)
            threading.Thread(target=self._watch, args=(hands,), daemon=True).start()
        found.heard = now
        return found

    def _watch(self, hands: str) -> None:
        """Stop what a controller has begun, once it is silent for too long."""
        while True:
            self._world.sleep(STILL_S)
            with self._lock:
                controller = self._controllers[hands]
                if self._world.clock() - controller.heard <= _SILENT_S:
                    continue
                _cancel(controller.at_work)
                left = len(controller.at_work)
                if not left:
                    del self._controllers[hands]
                    return
            self._tell(f"a controller is silent: {left} tasks of it stop where they may")


class _Told:
    """Tells a controller what a device at work says, bytes sent summed up; a context."""

    def __init__(
        self,
        say: Callable[[str, bytes], object],
        topic: str,
        target: str,
        clock: Callable[[], float],
    ) -> None:
        self._say = say
        self._topic = topic
        self._target = target
        self._clock = clock
        self._lock = threading.Lock()
        self._bytes = 0
        self._spoke = clock()

    def __call__(self, _target: str, news: PushEvent | int) -> None:
        """Hear something, from any thread."""
        with self._lock:
            if isinstance(news, int):
                self._bytes += news
                if self._clock() - self._spoke >= _TOLD_S:
                    self._speak()
            else:
                self._speak(news)

    def __enter__(self) -> _Told:
        """Have nothing to tell yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Tell the rest."""
        with self._lock:
            self._speak()

    def _speak(self, *events: PushEvent) -> None:
        news = (*([self._bytes] if self._bytes else []), *events)
        self._bytes = 0
        self._spoke = self._clock()
        if news:
            self._say(self._topic, pickle.dumps((self._target, news)))


def _cancel(tokens: Iterable[CancelToken]) -> None:
    for token in tokens:
        token.cancel()


def _words(outcome: Outcome) -> str:
    fault = f": {outcome.fault.code}: {outcome.fault.what}" if outcome.fault else ""
    return f"{outcome.result.value}{fault}"
