"""The running worker: lines to it, answers from it, and its end, whatever happens."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

from edgecal.adapters.trt_places import ASK_DOCKER_S
from edgecal.core.trt_job import Answer, parse_answer
from edgecal.errors import BackendError

if TYPE_CHECKING:
    from pathlib import Path

    from edgecal.adapters.trt_places import Launch

_LONGEST_ANSWER: Final = 2**20
_KILL_S: Final = 10.0
_GLANCE_S: Final = 0.01
_LOOK_UP_S: Final = 0.2
_LAST_WORDS: Final = 4096
_CRASHES: Final = 128
"""Shells and Docker give a signal's number plus this as exit status."""


@dataclass(frozen=True, slots=True)
class Words:
    """What the worker leaves to read: TensorRT's log, and its own stderr."""

    log: Path
    errors: Path

    def last(self) -> str:
        """Give the last line of stderr that says something."""
        with contextlib.suppress(OSError), self.errors.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - _LAST_WORDS))
            lines = stream.read().decode("utf-8", "replace").splitlines()
            said = [line.strip() for line in lines if line.strip()]
            return said[-1][:300] if said else ""
        return ""

    def size(self) -> int:
        """Tell how much there is, as a sign of life."""
        total = 0
        for path in (self.log, self.errors):
            with contextlib.suppress(OSError):
                total += path.stat().st_size
        return total


class Worker:
    """The running worker: lines to it, answers from it, and its end, whatever happens."""

    def __init__(self, launch: Launch, words: Words) -> None:
        self._launch = launch
        self.words = words
        self._answers: queue.SimpleQueue[Answer | BackendError | None] = queue.SimpleQueue()

    def __enter__(self) -> Worker:
        with self.words.errors.open("wb") as errors:
            try:
                self._process = subprocess.Popen(
                    self._launch.argv,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    # a group of its own: Ctrl-C reaches us alone, and we end all of it
                    start_new_session=True,
                )
            except OSError as error:
                raise BackendError(
                    f"cannot start the calibration worker: {error.strerror or error}",
                    where=self._launch.argv[0],
                    remedy="give the path of a Python 3.6 or later that has tensorrt",
                ) from error
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._wait()  # it gave its result, and ends by itself
        self._end()
        self._reader.join(_KILL_S)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError, ValueError):
                    stream.close()

    def tell(self, line: bytes) -> None:
        """Write a line; a worker that has gone is found out by its missing answer."""
        stream = _some(self._process.stdin)
        with contextlib.suppress(BrokenPipeError):
            stream.write(line)
            stream.flush()

    def answer(self, timeout_s: float) -> Answer | None:
        """Wait for the next answer; `None` once the worker has ended.

        Raises
        ------
        TimeoutError
            If there is none in time.
        BackendError
            If it is none.
        """
        found = self._next(time.monotonic() + timeout_s)
        if isinstance(found, BackendError):
            raise found
        return found

    def _next(self, until: float) -> Answer | BackendError | None:
        # an interrupt that comes just before the wait begins does not end it: wait in slices
        while True:
            with contextlib.suppress(queue.Empty):
                return self._answers.get(timeout=_LOOK_UP_S)
            if time.monotonic() > until:
                raise TimeoutError

    def status(self) -> int:
        """Give the exit status of a worker that answers no more; negative for a signal."""
        ended = self._wait()
        if ended is None:
            return 0  # it closed its answers and lives on; whoever called will end it
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def _wait(self, limit_s: float = _KILL_S) -> os.waitid_result | None:
        """Wait a little for the worker's end.

        Nothing is reaped: as long as the worker has its number, no other group can have it.
        """
        until = time.monotonic() + limit_s
        while True:
            ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            if ended is not None or time.monotonic() > until:
                return ended
            time.sleep(_GLANCE_S)

    def _read(self) -> None:
        """Pass answers on, banners over; ends with the worker's last byte."""
        stream = _some(self._process.stdout)
        with contextlib.suppress(OSError, ValueError):
            while line := stream.readline(_LONGEST_ANSWER):
                try:
                    found = parse_answer(line.decode("utf-8", "replace"))
                except BackendError as error:
                    self._answers.put(error)
                    break
                if found is not None:
                    self._answers.put(found)
        self._answers.put(None)

    def _end(self) -> None:
        """End the whole group, gently for a moment, and the container by its name."""
        if self._launch.container is not None and self._wait(0) is None:
            # the client's death would leave the container running
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(
                    [self._launch.argv[0], "rm", "--force", self._launch.container],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=ASK_DOCKER_S,
                    check=False,
                )
        # also where the worker itself has ended: what it started may live on
        self._signal(signal.SIGTERM)
        self._wait()
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def how_it_ended(worker: Worker, log: Path) -> BackendError:
    """Say how a worker ended that gave no result."""
    status = worker.status()
    number = -status if status < 0 else status - _CRASHES
    try:
        how = f"crashed with {signal.Signals(number).name}"
    except ValueError:
        how = f"ended with status {status}"
    said = worker.words.last()
    return BackendError(
        f"the calibration worker {how} and gave no result" + (f": {said}" if said else ""),
        where=str(log),
        remedy="see the end of the log; a crash inside TensorRT often goes with a smaller "
        "--batch-size, or with another patch of the same major.minor",
    )


def _some(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:  # never: both were asked for as pipes
        raise RuntimeError(stream)
    return stream
