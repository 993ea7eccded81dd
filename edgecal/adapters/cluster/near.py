"""A connection to a cluster, and calls to its workers."""

from __future__ import annotations

import contextlib
import pickle
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from edgecal.adapters.cluster import far
from edgecal.adapters.cluster.security import knock, load_dask, make_security
from edgecal.core.clusters import check_secure, parse_cluster
from edgecal.errors import ClusterError, InputError, WorkerError
from edgecal.ports import ClusterWorker

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgecal.core.clusters import Certificates, ClusterAddress

_CONNECT_S: Final = 10.0
_ANSWER_S: Final = 5.0
"""For so long a worker that has come is waited for to say who it is; later it is heard as well."""
_FRESH_S: Final = 1.0
"""For so long what is known of who is there is relied on."""


def open_cluster(
    address: ClusterAddress,
    certificates: Certificates,
    *,
    insecure: bool,
    version: str,
    note: Callable[[str], object],
) -> DaskCluster:
    """Connect to a scheduler.

    Parameters
    ----------
    version
        Of edgecal; workers must have the same.
    note
        Hears of workers that cannot be used.

    Raises
    ------
    DependencyError
        If Dask is not installed.
    ClusterError
        If the scheduler cannot be reached or trusted.
    """
    distributed = load_dask()
    security = make_security(address, certificates)
    knock(address, security)
    import dask.config  # noqa: PLC0415 - comes with distributed

    # whoever does not answer within this time is lost; Dask's own half a minute keeps a rollout
    # from hearing of it
    dask.config.set({"distributed.comm.timeouts.connect": f"{_CONNECT_S:g}s"})
    try:
        client = distributed.Client(
            str(address),
            security=security,
            timeout=_CONNECT_S,
            set_as_default=False,
            name="edgecal",
        )
    except Exception as error:  # whatever breaks off in Dask and the layers below it
        raise ClusterError(
            f"no connection to the scheduler: {error}",
            where=str(address),
            remedy="look at what the scheduler says, and start it again",
        ) from error
    return DaskCluster(client, address, insecure=insecure, version=version, note=note)


class DaskCluster:
    """See `edgecal.ports.Cluster`."""

    def __init__(
        self,
        client: Any,
        address: ClusterAddress,
        *,
        insecure: bool,
        version: str,
        note: Callable[[str], object],
    ) -> None:
        self._client = client
        self._address = address
        self._insecure = insecure
        self._version = version
        self._note = note
        self._noted: set[str] = set()
        self._lock = threading.Lock()
        self._known: dict[str, ClusterWorker | None] = {}
        self._greetings: dict[str, threading.Thread] = {}
        self._there: frozenset[str] = frozenset()
        self._asked = float("-inf")

    def workers(self) -> tuple[ClusterWorker, ...]:
        """Ask who is there now."""
        there = self._present()
        with self._lock:
            for address in there - self._greetings.keys():
                greeting = threading.Thread(target=self._greet, args=(address,), daemon=True)
                self._greetings[address] = greeting
                greeting.start()
        latest = time.monotonic() + _ANSWER_S
        for address in there:  # one that hangs must not keep the others from working
            self._greetings[address].join(max(0.0, latest - time.monotonic()))
        known = [self._known.get(address) for address in sorted(there)]
        return tuple(one for one in known if one is not None)

    def call(self, worker: str, operation: str, *args: object) -> Any:
        """Have a worker do something once, and wait for what it gives."""
        if worker not in self._present():
            raise self._lost(worker, "it is not there any more")
        answers = self._run(
            far.perform, operation, pickle.dumps(args, protocol=5), workers=[worker]
        )
        answer = answers.get(worker)
        if not isinstance(answer, bytes):
            self._asked = float("-inf")
            raise self._lost(worker, f"{type(answer).__name__}: {answer}") from (
                answer if isinstance(answer, BaseException) else None
            )
        good, value = far.unpack(answer)
        if good:
            return value
        raise value

    def listen(self, topic: str, hear: Callable[[bytes], object]) -> None:
        """Hear what workers say under a topic."""
        self._client.subscribe_topic(topic, lambda event: hear(event[1]))

    def close(self) -> None:
        """Hang up."""
        self._client.close(timeout=5)

    def __enter__(self) -> DaskCluster:
        """Be connected already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up."""
        self.close()

    def _present(self) -> frozenset[str]:
        """Name the workers that the scheduler has; two threads may ask it at once."""
        if time.monotonic() - self._asked > _FRESH_S:
            try:
                self._there = frozenset(self._client.nthreads())
            except Exception as error:  # whatever breaks off in Dask and the layers below it
                raise self._gone(error) from error
            self._asked = time.monotonic()
        return self._there

    def _greet(self, address: str) -> None:
        with contextlib.suppress(WorkerError):  # who is gone need not be known
            answers = self._run(far.greet, workers=[address])
            self._known[address] = self._understand(address, answers.get(address))

    def _understand(self, address: str, answer: object) -> ClusterWorker | None:
        try:
            check_secure(parse_cluster(address), insecure=self._insecure, source="worker")
        except InputError as error:
            self._tell(f"the worker at {address} is not used: {error.what}; {error.remedy}")
            return None
        if not isinstance(answer, bytes) or not answer:
            why = f" ({answer})" if isinstance(answer, Exception) else ""
            self._tell(f"the worker at {address} is not one that 'edgecal worker' started{why}")
            return None
        # written by a worker that has proved itself, or is on this machine
        about = pickle.loads(answer)  # noqa: S301
        if about["edgecal"] != self._version:
            self._tell(
                f"worker {about['name']} is not used: it is edgecal {about['edgecal']}, and this "
                f"is {self._version}"
            )
            return None
        return ClusterWorker(
            address=address,
            name=about["name"],
            targets=frozenset(about["targets"]),
            threads=about["threads"],
            edgecal=about["edgecal"],
            onnxruntime=about["onnxruntime"],
        )

    def _run(self, function: Callable[..., Any], *args: Any, workers: list[str]) -> dict[str, Any]:
        try:
            answers: dict[str, Any] = self._client.run(
                function, *args, workers=workers, on_error="return"
            )
        except Exception as error:  # whatever breaks off in Dask and the layers below it
            raise self._gone(error) from error
        return answers

    def _tell(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            self._note(text)

    def _lost(self, worker: str, why: str) -> WorkerError:
        known = self._known.get(worker)
        name = known.name if known else worker
        return WorkerError(
            f"the worker was lost: {why}",
            where=name,
            remedy="start it again with 'edgecal worker'; what it was at is found at the device",
        )

    def _gone(self, error: Exception) -> WorkerError:
        return WorkerError(
            f"the scheduler was lost: {error!s:.200}",
            where=str(self._address),
            remedy="start scheduler and workers again, then go on",
        )
