"""Passes that are stopped and gone on with, on the real ONNX Runtime and a real file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecal.adapters.checkpoints import CheckpointFile, checkpoint_path
from edgecal.adapters.onnx_model import read_model
from edgecal.adapters.ort_backend import OrtBackend
from edgecal.core.preprocess import Preprocess
from edgecal.core.sweep import Sweep
from edgecal.core.versions import parse_tensorrt
from edgecal.errors import DatasetError, InputError, ModelError
from edgecal.workflows.calibrate import calibrate
from edgecal.workflows.collect import CalibrateOptions
from edgecal.workflows.resume import Keeper
from tests.networks import save
from tests.workflows.test_collect import Pictures, images, moving_net

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from edgecal.ports import Network, Sample

Array = npt.NDArray[np.float32]

JETPACK_5 = parse_tensorrt("8.5.2")


class Counted:
    """A network that counts its runs, and stops everything at one of them if told so."""

    def __init__(self, network: Network, bench: Bench) -> None:
        self._network = network
        self._bench = bench

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        self._bench.runs += 1
        if self._bench.runs == self._bench.fails_at:
            raise ModelError("the network cannot run on this", remedy="none")
        return self._network.run(feeds)


class Backend(OrtBackend):
    """The real one, watched."""

    bench: Bench

    def expose(  # type: ignore[override]
        self, tensors: Sequence[str], *, any_order: bool = False
    ) -> Counted:
        return Counted(super().expose(tensors, any_order=any_order), self.bench)

    def simulate(self, scales: Mapping[str, float]) -> Any:  # noqa: ANN401 - as it comes
        if self.bench.judging_stops:
            raise KeyboardInterrupt
        return super().simulate(scales)


@dataclass
class Data(Pictures):
    """Pictures with somebody at the keyboard."""

    stop_at: int | None = None
    error: type[BaseException] = KeyboardInterrupt
    names: str = ""

    def __iter__(self) -> Iterator[Sample]:
        for number, sample in enumerate(super().__iter__()):
            if number == self.stop_at:
                if self.error is DatasetError:
                    raise DatasetError("it cannot be read", remedy="none")
                raise self.error
            yield replace(sample, name=self.names + sample.name)


@dataclass
class Bench:
    """Runs passes over the same data in one folder."""

    folder: Path
    batch_size: int = 1
    of: dict[str, str] = field(default_factory=lambda: {"network": "this one"})
    seconds: float = 0.0
    per_look: float = 0.0
    runs: int = 0
    fails_at: int | None = None
    judging_stops: bool = False
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        path = self.folder / "net.onnx"
        if not path.exists():
            save(moving_net(), path)
        self.backend = Backend(read_model(path))
        self.backend.bench = self
        self.store = CheckpointFile(
            checkpoint_path(self.folder / "net.edgecal"), warn=self.told.append
        )

    @property
    def file(self) -> Path:
        return self.folder / "net.edgecal.checkpoint"

    def clock(self) -> float:
        self.seconds += self.per_look
        return self.seconds

    def keeper(self, *, resume: bool) -> Keeper:
        return Keeper(
            self.store, of=self.of, resume=resume, clock=self.clock, tell=self.told.append
        )

    def calibrate(
        self,
        data: Pictures,
        *,
        workers: int = 2,
        resume: bool = False,
        progress: Callable[[str, int, int], None] = lambda *_: None,
        keeper: Keeper | None = None,
    ) -> dict[str, bytes]:
        self.runs = 0
        _, (made,) = calibrate(
            self.backend,
            data,
            [JETPACK_5],
            CalibrateOptions(workers=workers, batch_size=self.batch_size, algorithm="entropy2"),
            progress,
            keeper=keeper or self.keeper(resume=resume),
        )
        return dict(made.files)

    def interrupt(self, data: Pictures, stop_at: int, **how: Any) -> None:  # noqa: ANN401
        stopped = Data(data.arrays, stop_at=stop_at)
        with pytest.raises(KeyboardInterrupt):
            self.calibrate(stopped, **how)

    def kept(self) -> tuple[int, int]:
        """Give how many samples were read and how many batches measured."""
        found = self.store.load()
        assert found is not None
        return found.reading.samples, len(found.done)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


class TestWhatIsNotTheSame:
    """A pass that is gone on with must be the one that was begun."""

    def refuse(self, bench: Bench, data: Pictures, error: type[InputError] = InputError) -> str:
        before = bench.file.read_bytes()
        bench.seconds += 1000  # long enough to be kept, if there were something
        with pytest.raises(error) as caught:
            bench.calibrate(data, resume=True)
        assert bench.file.read_bytes() == before
        assert "--resume" in caught.value.remedy
        assert caught.value.where
        return caught.value.what

    @pytest.fixture
    def stopped(self, bench: Bench) -> Bench:
        bench.interrupt(Pictures(images(30)), 12)
        assert bench.kept()[0] in {11, 12}
        return bench

    def test_in_a_sample_that_was_measured(self, stopped: Bench) -> None:
        changed = images(30)
        changed[5, 0, 0, 0] += 1e-3
        assert "content" in self.refuse(stopped, Pictures(changed), DatasetError)

    def test_in_a_name(self, stopped: Bench) -> None:
        self.refuse(stopped, Data(images(30), names="x"), DatasetError)

    def test_in_what_became_of_the_same_files(self, stopped: Bench) -> None:
        class Brighter(Pictures):
            def __iter__(self) -> Iterator[Sample]:
                for sample in super().__iter__():
                    yield replace(
                        sample, arrays={"image": np.float32(1.01) * sample.arrays["image"]}
                    )

        self.refuse(stopped, Brighter(images(30)), DatasetError)

    def test_in_order(self, stopped: Bench) -> None:
        swapped = images(30)
        swapped[[2, 3]] = swapped[[3, 2]]
        self.refuse(stopped, Pictures(swapped), DatasetError)

    def test_in_how_many_there_are(self, stopped: Bench) -> None:
        assert "ends after 8" in self.refuse(stopped, Pictures(images(30)[:8]), DatasetError)

    def test_in_network_or_version(self, stopped: Bench) -> None:
        stopped.of = {"network": "another"}
        what = self.refuse(stopped, Pictures(images(30)))
        assert what == "the unfinished pass has another network: this one, and now it is another"

    def test_in_batch_size(self, stopped: Bench) -> None:
        stopped.batch_size = 3
        assert "batch size: 1, and now it is 3" in self.refuse(stopped, Pictures(images(30)))

    def test_in_the_runtime(self, stopped: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stopped.backend, "version", "0.1", raising=False)
        assert "and now it is onnxruntime 0.1" in self.refuse(stopped, Pictures(images(30)))

    def test_in_how_pictures_are_prepared(self, stopped: Bench) -> None:
        data = Pictures(images(30))
        data.preprocess = Preprocess(resize=(8, 8), color="bgr")  # type: ignore[assignment]
        with pytest.raises(InputError, match="has another resize: none, and now it is") as caught:
            stopped.calibrate(data, resume=True)
        assert caught.value.where == str(stopped.file)

    def test_in_the_tensors_that_are_looked_at(self, stopped: Bench) -> None:
        found = stopped.store.load()
        assert found is not None
        less = dict(found.histograms)
        less.pop(next(view for view in less if view.clamp.high < np.inf))
        assert stopped.store.save(replace(found, histograms=less))
        assert "other tensors" in self.refuse(stopped, Pictures(images(30)))

    def test_since_data_came_after_its_end(self, bench: Bench) -> None:
        bench.judging_stops = True
        with pytest.raises(KeyboardInterrupt):
            bench.calibrate(Pictures(images(15)[:14]))
        bench.judging_stops = False
        assert "that was all then" in self.refuse(bench, Pictures(images(15)), DatasetError)


@pytest.mark.parametrize(
    ("count", "batch_size", "workers"),
    [(18, 1, (7, 2)), (13, 1, (2, 7)), (18, 3, (2, 1)), (13, 5, (1, 2))],
)
def test_after_any_batch_it_ends_with_the_same_bits(
    tmp_path: Path, count: int, batch_size: int, workers: tuple[int, int]
) -> None:
    bench = Bench(tmp_path, batch_size=batch_size)
    data = Pictures(images(count))
    whole = bench.calibrate(data)
    assert not bench.file.exists()
    first, second = workers
    for stop_at in range(batch_size, count):
        bench.interrupt(data, stop_at, workers=first)
        batches = bench.kept()[1]
        alone = 1 + count // batch_size
        assert bench.calibrate(data, workers=second, resume=True) == whole
        assert bench.runs <= alone - batches + count  # those that judge are run again
        bench.store.remove()


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    stops=st.lists(st.tuples(st.integers(1, 39), st.sampled_from([1, 2, 7])), max_size=6),
    last=st.sampled_from([1, 2, 7]),
)
def test_after_any_stops_it_ends_with_the_same_bits(
    bench: Bench, stops: list[tuple[int, int]], last: int
) -> None:
    data = Pictures(images(40))
    whole = bench.calibrate(data)
    for stop_at, workers in stops:
        before = bench.kept() if bench.file.exists() else (0, 0)
        bench.interrupt(data, stop_at, workers=workers, resume=True)
        assert bench.kept() >= before
    assert bench.calibrate(data, workers=last, resume=True) == whole
    bench.store.remove()


def test_what_is_done_is_not_run_again(bench: Bench) -> None:
    data = Pictures(images(40))
    whole = bench.calibrate(data, workers=1)
    all_runs = bench.runs
    bench.interrupt(data, 30, workers=1)
    steps: list[str] = []
    assert bench.calibrate(data, resume=True, progress=lambda *step: steps.append(step[0])) == whole
    _, done = bench.kept()
    assert done > 20
    assert bench.runs == all_runs - done
    assert steps.count("reading again") == done


def test_with_more_samples_asked_for_it_is_as_if_they_had_been_there(bench: Bench) -> None:
    whole = bench.calibrate(Pictures(images(40)))
    few = Pictures(images(40)[:25])
    bench.interrupt(few, 20)
    assert bench.calibrate(Pictures(images(40)), resume=True) == whole


def test_an_interrupt_while_scales_are_tried_loses_nothing(bench: Bench) -> None:
    data = Pictures(images(20))
    whole = bench.calibrate(data)
    all_runs = bench.runs
    bench.judging_stops = True
    with pytest.raises(KeyboardInterrupt):
        bench.calibrate(data)
    bench.judging_stops = False
    assert bench.calibrate(data, resume=True) == whole
    assert bench.runs == all_runs - 16  # held-out ones alone


def test_a_second_interrupt_while_it_is_kept_loses_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, impatient = bench.store.save, [True]

    def save_or_stop(checkpoint: Any) -> bool:  # noqa: ANN401 - handed on
        if impatient.pop():
            impatient.append(False)
            raise KeyboardInterrupt
        return save(checkpoint)

    monkeypatch.setattr(bench.store, "save", save_or_stop)
    bench.interrupt(Pictures(images(30)), 20)
    assert bench.kept()[0] == 20
    assert "is kept in" in bench.told[-1]


def test_an_interrupt_before_the_first_batch_leaves_nothing(bench: Bench) -> None:
    bench.interrupt(Pictures(images(20)), 0)
    assert not bench.file.exists()
    assert bench.told == []
    bench.calibrate(Pictures(images(20)), resume=True)
    assert bench.told == [
        f"nothing to resume: there is no {bench.file}; starting at the first sample"
    ]


def test_an_interrupt_while_reading_again_keeps_what_was(bench: Bench) -> None:
    data = Pictures(images(30))
    whole = bench.calibrate(data)
    bench.interrupt(data, 20)
    before = bench.file.read_bytes()
    for stop_at in (0, 1, 9, 17):
        bench.interrupt(data, stop_at, resume=True)
        assert bench.file.read_bytes() == before
        assert f"kept in {bench.file}" in bench.told[-1]
    assert bench.calibrate(data, resume=True) == whole


class TestWithoutResume:
    """What lies there is never used, and not thrown away at once."""

    def test_it_begins_anew_and_says_so(self, bench: Bench) -> None:
        data = Pictures(images(20))
        whole = bench.calibrate(data)
        all_runs = bench.runs
        bench.interrupt(Pictures(images(30)[::-1]), 20)
        assert bench.calibrate(data) == whole
        assert bench.runs == all_runs
        assert f"an unfinished pass is kept in {bench.file}: --resume goes on" in bench.told[-1]

    def test_whoever_thinks_better_of_it_finds_it_as_it_was(self, bench: Bench) -> None:
        data = Pictures(images(30))
        bench.interrupt(data, 25)
        before = bench.file.read_bytes()
        bench.interrupt(data, 5)
        assert bench.file.read_bytes() == before
        assert "before this one is still kept" in bench.told[-1]

    def test_its_place_is_taken_later(self, bench: Bench) -> None:
        data = Pictures(images(30))
        bench.interrupt(data, 25)
        bench.per_look = 7
        bench.interrupt(data, 20)
        assert bench.kept()[0] < 25


class TestNowAndThen:
    """Whoever is killed loses half a minute."""

    def saves(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, took: float = 0.0
    ) -> list[float]:
        times: list[float] = []
        real = bench.store.save

        def save_and_note(checkpoint: Any) -> bool:  # noqa: ANN401 - handed on
            times.append(bench.seconds)
            bench.seconds += took
            return real(checkpoint)

        monkeypatch.setattr(bench.store, "save", save_and_note)
        return times

    def advance(self, bench: Bench, step: float) -> Callable[[str, int, int], None]:
        def progress(what: str, _done: int, _total: int) -> None:
            bench.seconds += step if what == "calibrating" else 0

        return progress

    def test_it_is_kept_twice_a_minute_and_at_the_end(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        times = self.saves(bench, monkeypatch)
        bench.batch_size = 2
        data = Pictures(images(40))
        whole = bench.calibrate(data, progress=self.advance(bench, 7))
        assert times == [35, 70, 105, bench.seconds]
        bench.runs = 0
        assert bench.kept()[0] == 40
        assert bench.calibrate(data, resume=True) == whole

    def test_it_takes_a_twentieth_of_the_time_at_most(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        times = self.saves(bench, monkeypatch, took=2)
        bench.calibrate(Pictures(images(60)), progress=self.advance(bench, 10))
        assert times[:3] == [30, 72, 114]

    def test_a_short_pass_leaves_nothing(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        times = self.saves(bench, monkeypatch)
        bench.calibrate(Pictures(images(20)), progress=self.advance(bench, 1))
        assert times == []


class TestAnError:
    """A picture that cannot be read, or a network that cannot run, late in a long pass."""

    def test_soon_after_the_start_leaves_nothing(self, bench: Bench) -> None:
        with pytest.raises(DatasetError, match="it cannot be read"):
            bench.calibrate(Data(images(30), stop_at=20, error=DatasetError))
        assert not bench.file.exists()

    def test_late_in_the_data_loses_nothing(self, bench: Bench) -> None:
        data = Pictures(images(30))
        whole = bench.calibrate(data)
        bench.per_look = 2
        with pytest.raises(DatasetError, match="it cannot be read"):
            bench.calibrate(Data(images(30), stop_at=20, error=DatasetError))
        assert f"kept in {bench.file}" in bench.told[-1]
        assert bench.kept()[0] >= 19
        assert bench.calibrate(data, resume=True) == whole

    @pytest.mark.parametrize("workers", [1, 2, 7])
    def test_of_one_batch_leaves_that_one_out(self, bench: Bench, workers: int) -> None:
        data = Pictures(images(30))
        whole = bench.calibrate(data)
        bench.per_look = 2
        bench.fails_at = 18
        with pytest.raises(ModelError):
            bench.calibrate(data, workers=workers)
        bench.fails_at = None
        assert bench.kept()[1] >= 17
        assert bench.calibrate(data, resume=True) == whole

    def test_in_the_middle_of_counting_keeps_the_last_whole_one(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = Pictures(images(30))
        whole = bench.calibrate(data)
        bench.per_look = 3
        calls = 0

        class Breaks(Sweep):
            def count(self, *given: Any) -> int:  # noqa: ANN401 - handed on
                nonlocal calls
                calls += 1
                if calls == 20 * 4 + 2:
                    raise MemoryError
                return super().count(*given)

        with monkeypatch.context() as patch:
            patch.setattr(bench.backend, "sweep", lambda: Breaks)
            with pytest.raises(MemoryError):
                bench.calibrate(data, workers=1)
        assert bench.calibrate(data, resume=True) == whole


def test_a_full_disk_does_not_stop_the_pass(bench: Bench) -> None:
    data = Pictures(images(30))
    whole = bench.calibrate(data)
    bench.file.mkdir()  # nothing can be put in its place
    bench.per_look = 5
    assert bench.calibrate(data) == whole
    assert sum("no checkpoint can be kept" in one for one in bench.told) == 1


def test_what_is_done_is_thrown_away(bench: Bench) -> None:
    data = Pictures(images(20))
    bench.interrupt(data, 15)
    keeper = bench.keeper(resume=True)
    bench.calibrate(data, keeper=keeper)
    assert bench.file.exists()  # the bundle is not written yet
    keeper.finish()
    assert [one.name for one in bench.folder.iterdir()] == ["net.onnx"]
