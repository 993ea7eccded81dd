"""The hands of one machine: a thread for each task, as many as the rollout has under way."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING

from edgecal.workflows.rollout.work import do
from edgecal.workflows.world import CancelToken

if TYPE_CHECKING:
    from edgecal.workflows.rollout.tasks import DeviceTask, Outcome
    from edgecal.workflows.rollout.work import Crew


class ThreadHands:
    """Does tasks in threads of its own and no pool: an interrupt must not wait for a dead target.

    See `edgecal.workflows.rollout.tasks.Hands`.
    """

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._renew()

    def begin(self, task: DeviceTask) -> Future[Outcome]:
        """Begin a task."""
        future: Future[Outcome] = Future()
        future.set_running_or_notify_cancel()
        threading.Thread(target=_work, args=(task, self._crew, future), daemon=True).start()
        return future

    def stop(self) -> None:
        """Stop what was begun until now."""
        self._crew.world.cancel.cancel()
        self._renew()

    def _renew(self) -> None:
        world = replace(self._crew.world, cancel=CancelToken())
        self._crew = replace(self._crew, world=world)


def _work(task: DeviceTask, crew: Crew, future: Future[Outcome]) -> None:
    try:
        outcome = do(task, crew)
    except BaseException as error:  # noqa: BLE001 - raised again by whoever asks for the result
        future.set_exception(error)
    else:
        future.set_result(outcome)
