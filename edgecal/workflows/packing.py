"""Packs golden runs and histograms while INT8 is still judged: that leaves a core idle for long."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Protocol

from edgecal.core.golden import GoldenWriter
from edgecal.core.manifest import GOLDEN_FILE, HISTOGRAMS_FILE
from edgecal.core.statistics import serialize_histograms
from edgecal.workflows.judging import GOLDEN_RUNS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgecal.core.histogram import Histogram
    from edgecal.workflows.collect import JudgingRun
    from edgecal.workflows.judging import Trial


_LOWEST: Final = 19


class Packed(Protocol):
    """What is packed: `Statistics`, or what else has as much."""

    @property
    def histograms(self) -> Mapping[str, Histogram]:
        """Give every tensor's values."""
        ...

    @property
    def runs(self) -> tuple[JudgingRun, ...]:
        """Give the runs that INT8 is judged by; the first ones become golden."""
        ...


class Packing:
    """Files of a bundle in the making; a context around the judging."""

    def __init__(self, statistics: Packed) -> None:
        self._golden = GoldenWriter()
        self._runs = statistics.runs[:GOLDEN_RUNS]
        self._pool = ThreadPoolExecutor(1, initializer=_stand_back)
        self._begun = self._pool.submit(self._begin)
        self._histograms = self._pool.submit(serialize_histograms, statistics.histograms)

    def __enter__(self) -> Packing:
        """Go on meanwhile."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing running."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._golden.close()

    def files(self, trial: Trial) -> dict[str, bytes]:
        """Give the files, with the INT8 outputs of what was chosen."""
        self._begun.result()
        self._golden.add("int8", trial.outputs)
        return {GOLDEN_FILE: self._golden.finish(), HISTOGRAMS_FILE: self._histograms.result()}

    def _begin(self) -> None:
        self._golden.add("inputs", [run.inputs for run in self._runs])
        self._golden.add("fp32", [run.fp32 for run in self._runs])


def _stand_back() -> None:
    """Leave the cores to whoever wants them: this thread has time until the judging is done."""
    if sys.platform == "linux":  # where a thread has a priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST)
