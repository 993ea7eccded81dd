"""The hands of a cluster: each task is done by a worker that has the target on its list.

What is under way on a worker that is lost is unclear: the driver asks the device, by another worker
or by that one once it is back. Nothing is done twice behind its back.
"""

from __future__ import annotations

import contextlib
import itertools
import pickle
import secrets
import threading
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING

from edgecal.core.manifest import MANIFEST_FILE, SIGNATURE_FILE
from edgecal.errors import ClusterError, ConnectError, EdgecalError, WorkerError
from edgecal.workflows.bringing import bring
from edgecal.workflows.report import PushReport
from edgecal.workflows.rollout.post import STILL_S, Order
from edgecal.workflows.rollout.tasks import Action, Outcome, Result
from edgecal.workflows.rollout.work import fault_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from typing import BinaryIO

    from edgecal.core.rollout.job import Job
    from edgecal.core.target import Target
    from edgecal.ports import BundleFiles, Cluster, ClusterWorker
    from edgecal.workflows.events import PushEvent
    from edgecal.workflows.report import PushOptions
    from edgecal.workflows.rollout.tasks import DeviceTask


def without_worker(cluster: Cluster, targets: Collection[str]) -> tuple[str, ...]:
    """Name the targets that no worker has on its list now.

    Raises
    ------
    WorkerError
        If the scheduler cannot say.
    """
    known = set(itertools.chain.from_iterable(one.targets for one in cluster.workers()))
    return tuple(name for name in targets if name not in known)


class ClusterHands:
    """Gives tasks to workers; a context. See `edgecal.workflows.rollout.tasks.Hands`.

    Parameters
    ----------
    tell
        Hears what a device at work says, from any thread.
    """

    def __init__(
        self,
        cluster: Cluster,
        job: Job,
        bundles: Sequence[BundleFiles],
        *,
        tell: Callable[[str, PushEvent | int], object],
    ) -> None:
        self._cluster = cluster
        # a worker has no use for where things lie on this machine
        self._job = replace(job, places=(), inventory="", builds={})
        self._builds = job.builds
        self._bundles = [_Files(one) for one in bundles]
        self._tell = tell
        self._name = f"edgecal-{secrets.token_hex(16)}"
        self._turn = 0
        self._lock = threading.Lock()
        self._busy: dict[str, int] = {}
        """Tasks by the address of the worker that is at them."""
        self._brought: dict[str, threading.Lock | None] = {}
        """Workers that have the bundles, by address; a lock while they are on their way."""
        self._ended = threading.Event()
        cluster.listen(self._name, self._hear)
        threading.Thread(target=self._stay, daemon=True).start()

    def begin(self, task: DeviceTask) -> Future[Outcome]:
        """Begin a task."""
        future: Future[Outcome] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            turn = self._turn
        threading.Thread(target=self._run, args=(task, turn, future), daemon=True).start()
        return future

    def look(self, target: Target, options: PushOptions) -> PushReport:
        """Have the worker of a target find out what a push would do to it."""
        try:
            with self._chosen(target.name) as worker:
                self._bring(worker)
                bundles = tuple(one.digests for one in self._bundles)
                report: PushReport = self._cluster.call(
                    worker.address, "look", target.name, options, bundles
                )
                return report
        except EdgecalError as error:
            if isinstance(error, WorkerError | ClusterError):
                error = ConnectError(error.what, where=target.name, remedy=error.remedy)
            return PushReport(target=target.name, state="unreachable", error=error)

    def stop(self) -> None:
        """Stop what was begun until now."""
        with self._lock:
            turn, busy = self._turn, tuple(self._busy)
            self._turn += 1
        for address in busy:
            threading.Thread(target=self._halt, args=(address, turn), daemon=True).start()

    def close(self) -> None:
        """Say no more that we are here; what is under way is stopped by its worker in a while."""
        self._ended.set()

    def __enter__(self) -> ClusterHands:
        """Be ready already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Go."""
        self.close()

    def _run(self, task: DeviceTask, turn: int, future: Future[Outcome]) -> None:
        try:
            outcome = self._do(task, turn)
        except BaseException as error:  # noqa: BLE001 - raised again by who asks for the result
            future.set_exception(error)
        else:
            future.set_result(outcome)

    def _do(self, task: DeviceTask, turn: int) -> Outcome:
        order = Order(
            hands=self._name,
            turn=turn,
            task=task,
            job=self._job_of(task.target),
            bundles=tuple(one.digests for one in self._bundles),
        )
        begun = False
        try:
            with self._chosen(task.target) as worker:
                self._bring(worker)
                begun = True
                outcome: Outcome = self._cluster.call(worker.address, "work", order)
                return outcome
        except EdgecalError as error:
            if not begun:
                return _not_begun(task, error)
            lost = isinstance(error, WorkerError)
            return Outcome(result=Result.UNCLEAR if lost else Result.FAULT, fault=fault_of(error))

    @contextlib.contextmanager
    def _chosen(self, target: str) -> Iterator[ClusterWorker]:
        """Take the worker with the least to do among those that have the target."""
        worker = self._choose(target)
        try:
            yield worker
        finally:
            with self._lock:
                self._busy[worker.address] -= 1
                if not self._busy[worker.address]:
                    del self._busy[worker.address]

    def _choose(self, target: str) -> ClusterWorker:
        workers = [one for one in self._cluster.workers() if target in one.targets]
        with self._lock:
            if workers:
                chosen = min(workers, key=lambda one: self._busy.get(one.address, 0))
                self._busy[chosen.address] = self._busy.get(chosen.address, 0) + 1
                return chosen
        raise ConnectError(
            "no worker that may touch it is there",
            where=target,
            remedy="start 'edgecal worker' near it, with an inventory that has it",
        )

    def _bring(self, worker: ClusterWorker) -> None:
        """Make sure that a worker has the bundles; the first task for it waits, others with it."""
        with self._lock:
            under_way = self._brought.setdefault(worker.address, threading.Lock())
        if under_way is None:
            return
        with under_way:
            if self._brought[worker.address] is None:
                return
            for one in self._bundles:
                bring(self._cluster, worker.address, one.openers(), sender=self._name[8:])
            self._brought[worker.address] = None

    def _job_of(self, target: str) -> Job:
        builds = {target: self._builds[target]} if target in self._builds else {}
        return replace(self._job, builds=builds)

    def _halt(self, address: str, turn: int) -> None:
        with contextlib.suppress(EdgecalError):  # who is lost has stopped, or will
            self._cluster.call(address, "halt", self._name, turn)

    def _stay(self) -> None:
        while not self._ended.wait(STILL_S):
            with self._lock:
                busy = tuple(self._busy)
            for address in busy:
                with contextlib.suppress(EdgecalError):
                    self._cluster.call(address, "still-there", self._name)

    def _hear(self, said: bytes) -> None:
        target, news = pickle.loads(said)  # noqa: S301 - of our own workers
        for one in news:
            self._tell(target, one)


class _Files:
    """A bundle's files by digest."""

    def __init__(self, bundle: BundleFiles) -> None:
        self._bundle = bundle
        shipped = bundle.shipped()
        self.digests: dict[str, str] = {
            MANIFEST_FILE: bundle.manifest_digest,
            **{name: record.digest for name, record in bundle.manifest.files.items()},
        }
        if SIGNATURE_FILE in shipped:
            self.digests[SIGNATURE_FILE] = shipped[SIGNATURE_FILE].digest

    def openers(self) -> dict[str, Callable[[], BinaryIO]]:
        return {digest: self._opener(name) for name, digest in self.digests.items()}

    def _opener(self, name: str) -> Callable[[], BinaryIO]:
        return lambda: self._bundle.open(name)


def _not_begun(task: DeviceTask, error: EdgecalError) -> Outcome:
    """Say that the device was not touched: it is as good as offline until a worker can do it."""
    fault = fault_of(error)
    if isinstance(error, WorkerError | ClusterError):
        fault = replace(fault, code=ConnectError.code)
    asked = task.action is Action.ASK
    return Outcome(result=Result.UNCLEAR if asked else Result.FAULT, fault=fault)
