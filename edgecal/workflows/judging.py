"""Judges scales: INT8 as they would make it, run on what float32 outputs are known of."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgecal.core.golden import cosines_by_sample
from edgecal.core.quant import Sqnr, sqnr

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    from edgecal.ports import Backend, Network
    from edgecal.workflows.collect import Arrays, JudgingRun

GOLDEN_RUNS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How one set of scales does on the judging runs, and the INT8 outputs of the first ones."""

    outputs: tuple[Arrays, ...]
    error: float
    quality: Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """One output of one run, INT8 against float32."""

    wrong: float | None
    """The share of values that differ, where the output is of whole numbers."""
    power: Sqnr
    cosines: tuple[float, ...]


class Judge:
    """Runs the network as INT8 with one set of scales, by tensor, and holds it against float32."""

    def __init__(
        self,
        backend: Backend,
        scales: Mapping[str, np.float32],
        runs: Sequence[JudgingRun],
        workers: int,
    ) -> None:
        self._backend = backend
        self._scales = scales
        self._runs = runs
        self._workers = max(1, workers)
        self._network: Network | None = None
        self._compared: dict[int, dict[str, _Compared]] = {}
        self._outputs: dict[int, Arrays] = {}

    def judge(self, numbers: Iterable[int]) -> None:
        """Do these of the runs, by their place."""
        if self._network is None:
            self._network = self._backend.simulate(
                {name: float(one) for name, one in self._scales.items()}
            )
        network, todo = self._network, list(numbers)
        with ThreadPoolExecutor(self._workers) as pool:
            done = pool.map(lambda number: _run(network, self._runs[number]), todo)
            for number, (compared, outputs) in zip(todo, done, strict=True):
                self._compared[number] = compared
                if number < GOLDEN_RUNS:
                    self._outputs[number] = outputs

    def rest(self) -> None:
        """Let go of what takes memory: networks hold weights, and outputs may be pictures."""
        self._network = None
        self._outputs.clear()

    @property
    def error(self) -> float:
        """Give the mean over outputs of their error relative to float32, on the runs done."""
        return float(np.mean([_error(found) for found in self._by_output().values()]))

    def trial(self) -> Trial:
        """Do the runs that are missing, and say how it went."""
        golden = range(min(GOLDEN_RUNS, len(self._runs)))
        missing = {*golden} - {*self._outputs} | {*range(len(self._runs))} - {*self._compared}
        if missing:
            self.judge(sorted(missing))
        quality = {
            name: _quality(found)
            for name, found in self._by_output().items()
            if found[0].wrong is None
        }
        outputs = tuple(self._outputs[number] for number in golden)
        return Trial(outputs=outputs, error=self.error, quality=quality)

    def _by_output(self) -> dict[str, list[_Compared]]:
        done = [self._compared[number] for number in sorted(self._compared)]
        return {name: [found[name] for found in done] for name in self._runs[0].fp32}


def judge_scales(
    backend: Backend,
    scales: Mapping[str, np.float32],
    runs: Sequence[JudgingRun],
    workers: int,
) -> Trial:
    """Judge one set of scales by all runs."""
    return Judge(backend, scales, runs, workers).trial()


def _error(found: Sequence[_Compared]) -> float:
    wrong = [one.wrong for one in found if one.wrong is not None]
    if wrong:
        return float(np.mean(wrong))
    power = sum((one.power for one in found), Sqnr())
    return float(np.sqrt(power.noise / power.signal)) if power.signal else power.noise


def _quality(found: Sequence[_Compared]) -> dict[str, float | None]:
    power = sum((one.power for one in found), Sqnr())
    cosines = [cosine for one in found for cosine in one.cosines]
    return {
        "cosine_min": min(cosines),
        "cosine_mean": float(np.mean(cosines)),
        "sqnr_db": power.decibel if np.isfinite(power.decibel) else None,
    }


def _run(network: Network, run: JudgingRun) -> tuple[dict[str, _Compared], Arrays]:
    outputs = _only(run.fp32, network.run(run.inputs))
    compared = {}
    for name, value in run.fp32.items():
        want, have = _comparable(value, outputs[name])
        if want.dtype.kind != "f":
            wrong = float(np.mean(want != have)) if want.size else 0.0
            compared[name] = _Compared(wrong=wrong, power=Sqnr(), cosines=())
        else:
            compared[name] = _Compared(
                wrong=None,
                power=sqnr(want, have),
                cosines=cosines_by_sample(want, have, batch=batch_of(run)),
            )
    return compared, outputs


def _only(names: Iterable[str], values: Arrays) -> Arrays:
    return {name: values[name] for name in names}


def _comparable(
    want: npt.NDArray[Any], have: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Put zeros where there is no number, and for all of an output of another shape.

    Masks are infinite, one NaN would hide all the rest, and detectors find one box more or less.
    """
    if have.shape != want.shape:
        have = np.zeros_like(want)
    return (
        np.nan_to_num(want, nan=0.0, posinf=0.0, neginf=0.0),
        np.nan_to_num(have, nan=0.0, posinf=0.0, neginf=0.0),
    )


def batch_of(run: JudgingRun) -> int:
    """Count the samples of one run."""
    return int(next(iter(run.inputs.values())).shape[0])
