"""A push against the real scripts on this machine, and against a world that breaks."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from edgecal.adapters.reference_builder import ReferenceBuilder
from edgecal.adapters.scripts import load_scripts
from edgecal.adapters.tables import load_platforms
from edgecal.adapters.trtexec_builder import TrtexecBuilder
from edgecal.core.build import BuildOptions
from edgecal.core.target import Target
from edgecal.core.verification import Thresholds
from edgecal.core.versions import parse_tensorrt
from edgecal.errors import InputError
from edgecal.workflows.events import (
    BuildRuns,
    CacheShipped,
    EngineActivated,
    EngineBuilt,
    EngineVerified,
    PairingChecked,
    PushEvent,
    Step,
    StepDue,
    StepFailed,
    TargetProbed,
)
from edgecal.workflows.push import push
from edgecal.workflows.report import PushOptions, PushReport
from edgecal.workflows.targets import list_models, plan_rollback, roll_back
from edgecal.workflows.world import World
from tests.bundles import install_trtexec, make_bundles
from tests.fakes import LocalTransport

if TYPE_CHECKING:
    from pathlib import Path

    from edgecal.adapters.bundle import Bundle


@dataclass
class Bench:
    """A target on this machine with a trtexec of our own, and whatever else a test needs."""

    folder: Path
    world: World = field(init=False)
    transports: list[LocalTransport] = field(default_factory=list)
    cut_after: int | None = None
    clock: datetime = datetime(2026, 11, 21, 12, 0, tzinfo=timezone.utc)

    def __post_init__(self) -> None:
        self.bin = self.folder / "bin"
        self.bin.mkdir(parents=True)
        self.root = self.folder / "a root"
        self.world = World(
            connect=self._connect,
            scripts=load_scripts(),
            builders={one.name: one for one in (TrtexecBuilder(), ReferenceBuilder())},
            platforms=load_platforms(),
            now=self._now,
            owner="tester@bench",
        )

    def _connect(self, _target: Target) -> LocalTransport:
        path = f"{self.bin}:{os.environ['PATH']}"
        home = str(self.folder)
        transport = LocalTransport({"PATH": path, "HOME": home}, cut_after=self.cut_after)
        self.transports.append(transport)
        return transport

    def _now(self) -> datetime:
        self.clock += timedelta(seconds=1)
        return self.clock

    @property
    def target(self) -> Target:
        return Target(name="bench", host="bench", root=str(self.root), python=sys.executable)

    def install_trtexec(self, bundle: Bundle, version: str = "8502", mode: str = "") -> None:
        install_trtexec(self.bin, bundle, version=version, mode=mode)

    def set(self, name: str, value: str) -> None:
        (self.bin / name).write_text(value)

    def push(
        self, *bundles: Bundle, target: Target | None = None, options: PushOptions | None = None
    ) -> tuple[PushReport, list[PushEvent]]:
        pushing = push(bundles, target or self.target, options or PushOptions(), self.world)
        events: list[PushEvent] = []
        while True:
            try:
                events.append(next(pushing))
            except StopIteration as end:
                return end.value, events

    @property
    def current(self) -> Path:
        return self.root / "models" / "net-8.5" / "current"

    def record(self) -> dict[str, object]:
        document: dict[str, object] = json.loads((self.current / "build.json").read_text())
        return document


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    return make_bundles(tmp_path_factory.mktemp("bundles"), "8.5.2", "10.3.0")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "bench")


def test_the_reference_builder_goes_through_every_step(bench: Bench, bundles: list[Bundle]) -> None:
    report, events = bench.push(bundles[0])
    assert report.state == "active", report.error
    happened = [type(event) for event in events if not isinstance(event, (StepDue, BuildRuns))]
    assert happened[-4:] == [CacheShipped, EngineBuilt, EngineVerified, EngineActivated]
    due = [event.step for event in events if isinstance(event, StepDue)]
    assert due == [step for step in Step if step is not Step.SIGNATURE]
    assert (bench.current / "model.int8.onnx").is_file()
    assert report.build is not None
    assert report.build.proof.value == "proved"
    assert not report.build.unused
    assert report.verification is not None
    assert report.verification.passed
    assert bench.transports[0].closed


def test_trtexec_builds_from_a_cache_headed_for_its_exact_version(
    bench: Bench, bundles: list[Bundle]
) -> None:
    bench.install_trtexec(bundles[0], "8510")
    report, _ = bench.push(bundles[0])
    assert report.state == "active", report.error
    assert report.builder == "trtexec"
    assert (bench.current / "calibration.cache").read_text().startswith("TRT-8510-")
    assert (bench.current / "model.engine").is_file()
    record = bench.record()
    cache = record["cache"]
    assert isinstance(cache, dict)
    assert cache["bundled"] != cache["built_from"]
    assert cache["used"] == 34
    assert any(finding.rule == "tensorrt-version" for finding in report.findings)


def test_the_same_steps_are_taken_whichever_builder_there_is(
    bench: Bench, tmp_path: Path, bundles: list[Bundle]
) -> None:
    bench.install_trtexec(bundles[0])
    other = Bench(tmp_path / "other")
    kinds = []
    for one in (bench, other):
        _, events = one.push(bundles[0])
        kinds.append([type(event) for event in events if not isinstance(event, BuildRuns)])
    assert kinds[0] == kinds[1]


def test_pushing_what_is_active_and_intact_does_nothing(
    bench: Bench, bundles: list[Bundle]
) -> None:
    first, _ = bench.push(bundles[0])
    second, events = bench.push(bundles[0])
    assert second.state == "active"
    assert second.release == first.release
    assert [event.changed for event in events if isinstance(event, EngineActivated)] == [False]
    assert second.bytes_sent < 10_000 + first.bytes_sent / 5
    assert not any(isinstance(event, CacheShipped) for event in events)


def test_a_damaged_active_engine_is_built_again_beside_it(
    bench: Bench, bundles: list[Bundle]
) -> None:
    first, _ = bench.push(bundles[0])
    with (bench.current / "model.int8.onnx").open("ab") as engine:
        engine.write(b"rot")
    second, _ = bench.push(bundles[0])
    assert second.state == "active", second.error
    assert second.release != first.release
    third, events = bench.push(bundles[0])
    assert third.release == second.release
    assert [event.changed for event in events if isinstance(event, EngineActivated)] == [False]


@pytest.mark.parametrize("rebuild", [False, True])
def test_an_active_release_whose_record_is_gone_is_built_again_beside_it(
    bench: Bench, bundles: list[Bundle], *, rebuild: bool
) -> None:
    first, _ = bench.push(bundles[0])
    (bench.current / "build.json").unlink()
    again, _ = bench.push(bundles[0], options=PushOptions(rebuild=rebuild))
    assert again.state == "active", again.error
    assert again.release != first.release


def test_rebuild_builds_again_although_nothing_changed(bench: Bench, bundles: list[Bundle]) -> None:
    first, _ = bench.push(bundles[0])
    second, events = bench.push(bundles[0], options=PushOptions(rebuild=True))
    assert second.state == "active", second.error
    assert any(isinstance(event, EngineBuilt) for event in events)
    assert second.release != first.release


def test_another_tensorrt_minor_is_refused_before_anything_is_sent(
    bench: Bench, bundles: list[Bundle]
) -> None:
    bench.install_trtexec(bundles[0], "8601")
    report, events = bench.push(bundles[0])
    assert report.state == "refused"
    assert report.exit_code == 3
    assert report.error is not None
    assert "8.5" in report.error.what
    assert "8.6.1" in report.error.what
    assert "--tensorrt 8.6" in report.error.remedy
    assert isinstance(events[-1], StepFailed)
    assert not bench.root.exists()


@pytest.mark.parametrize("written", [True, False])
def test_a_forced_header_must_be_accepted_where_tensorrt_wrote_the_cache(
    bench: Bench, bundles: list[Bundle], *, written: bool
) -> None:
    forced = replace(
        bundles[0],
        manifest=replace(
            bundles[0].manifest,
            written_by_tensorrt=written,
            restamped_from=parse_tensorrt("8.4.1"),
        ),
    )
    bench.install_trtexec(forced)
    report, _ = bench.push(forced)
    assert report.state == ("refused" if written else "active"), report.error
    if written:
        assert report.error is not None
        assert "--accept-restamped" in report.error.remedy
        assert bench.transports[0].bytes_sent < 20_000
        report, _ = bench.push(forced, options=PushOptions(accept_restamped=True))
    assert report.state == "active", report.error
    bundle = bench.record()["bundle"]
    assert isinstance(bundle, dict)
    assert bundle["restamped_from"] == "8.4.1"


def test_of_several_bundles_the_fitting_one_is_taken(bench: Bench, bundles: list[Bundle]) -> None:
    bench.install_trtexec(bundles[0], "100300")
    report, _ = bench.push(*bundles)
    assert report.state == "active", report.error
    assert report.name == "net-10.3"


def test_a_dry_run_leaves_nothing_behind(bench: Bench, bundles: list[Bundle]) -> None:
    report, events = bench.push(bundles[0], options=PushOptions(dry_run=True))
    assert report.state == "planned"
    assert report.bytes_to_send > 100_000
    assert any(isinstance(event, PairingChecked) for event in events)
    assert not bench.root.exists()


def test_a_dry_run_tells_what_is_there_already(bench: Bench, bundles: list[Bundle]) -> None:
    assert bench.push(bundles[0])[0].state == "active"
    before = sorted(bench.root.rglob("*"))
    report, _ = bench.push(bundles[0], options=PushOptions(dry_run=True))
    assert (report.state, report.bytes_to_send) == ("planned", 0)
    assert report.bytes_present > 100_000
    assert sorted(bench.root.rglob("*")) == before


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("fail", "Could not find any implementation"),
        ("silent", "nothing proves"),
        ("mismatch", "does not match"),
        ("calibrates", "Starting Calibration"),
        ("wrong", "is wrong"),
    ],
)
def test_a_bad_build_leaves_the_old_engine_active(
    bench: Bench, bundles: list[Bundle], mode: str, words: str
) -> None:
    bench.install_trtexec(bundles[0])
    first, _ = bench.push(bundles[0])
    bench.set("mode", mode)
    report, _ = bench.push(bundles[0], options=PushOptions(build=BuildOptions(fp16=False)))
    assert report.state == "failed"
    assert report.exit_code == 4
    assert report.error is not None
    assert words in report.error.what
    assert bench.current.resolve().name == first.release
    bench.set("mode", "")
    # an unproven engine is kept, for somebody may still accept it
    options = PushOptions(build=BuildOptions(fp16=False), rebuild=mode == "silent")
    again, _ = bench.push(bundles[0], options=options)
    assert again.state == "active", again.error


def test_an_unproven_build_passes_where_that_is_accepted(
    bench: Bench, bundles: list[Bundle]
) -> None:
    bench.install_trtexec(bundles[0], mode="silent")
    report, _ = bench.push(bundles[0], options=PushOptions(accept_unproven=True))
    assert report.state == "active", report.error
    assert bench.record()["proof"] == {
        "verdict": "unproven",
        "reason": "the log does not mention the calibration cache",
    }


def test_a_threshold_nobody_reaches_fails_the_verification(
    bench: Bench, bundles: list[Bundle]
) -> None:
    strict = PushOptions(thresholds=Thresholds(ceiling=2.0, margin=-1.0))
    report, _ = bench.push(bundles[0], options=strict)
    assert report.state == "failed"
    assert report.error is not None
    assert report.error.code == "verification"
    assert not bench.current.exists()


def test_a_build_that_takes_too_long_is_ended(bench: Bench, bundles: list[Bundle]) -> None:
    bench.install_trtexec(bundles[0], mode="slow")
    report, _ = bench.push(bundles[0], options=PushOptions(build_timeout_s=2))
    assert report.error is not None
    assert "longer than 2 s" in report.error.what
    bench.set("mode", "")
    assert bench.push(bundles[0])[0].state == "active"


def test_a_push_cut_off_anywhere_is_finished_by_the_next_one(
    tmp_path: Path, bundles: list[Bundle]
) -> None:
    whole = Bench(tmp_path / "whole")
    whole.push(bundles[0])
    commands = len(whole.transports[0].commands)
    assert commands > 10
    steps = (
        range(commands) if os.environ.get("EDGECAL_SLOW") else (1, 4, commands - 4, commands - 1)
    )
    for cut_after in steps:
        bench = Bench(tmp_path / f"cut {cut_after}")
        bench.cut_after = cut_after
        report, _ = bench.push(bundles[0])
        assert report.exit_code == 4
        assert not bench.current.exists()
        bench.cut_after = None
        again, _ = bench.push(bundles[0])
        assert again.state == "active", again.error
        shutil.rmtree(bench.folder)


def test_a_running_build_is_found_again_and_not_started_twice(
    bench: Bench, bundles: list[Bundle]
) -> None:
    bench.install_trtexec(bundles[0], mode="slow")
    pushing = push(bundles[:1], bench.target, PushOptions(), bench.world)
    for event in pushing:
        if isinstance(event, BuildRuns):
            pushing.close()  # the controller goes away, the build stays
            break
    bench.set("mode", "")
    report, _ = bench.push(bundles[0], options=PushOptions(build_timeout_s=3))
    assert report.error is not None
    assert "longer than 3 s" in report.error.what
    starts = [c for one in bench.transports for c in one.commands if "start" in c]
    assert len(starts) == 2
    argvs = list((bench.root / "models").glob("*/jobs/*/argv"))
    assert len(argvs) == 1


def test_a_cancelled_push_stops_before_its_next_step(bench: Bench, bundles: list[Bundle]) -> None:
    pushing = push(bundles[:1], bench.target, PushOptions(), bench.world)
    for event in pushing:
        if isinstance(event, StepDue) and event.step is Step.ACTIVATE:
            bench.world.cancel.cancel()
    assert not bench.current.exists()
    fresh = Bench(bench.folder.parent / "fresh")
    fresh.root = bench.root
    report, events = fresh.push(bundles[0])
    assert report.state == "active", report.error
    assert not any(isinstance(event, EngineBuilt) for event in events)


def test_a_file_that_rotted_on_the_target_is_sent_anew(bench: Bench, bundles: list[Bundle]) -> None:
    bench.push(bundles[0])
    blob = (bench.current / "model.onnx").resolve()
    blob.chmod(0o644)
    blob.write_bytes(b"rotten")
    options = PushOptions(build=BuildOptions(fp16=False))
    report, _ = bench.push(bundles[0], options=options)
    assert report.error is not None
    assert "damaged" in report.error.what
    again, _ = bench.push(bundles[0], options=options)
    assert again.state == "active", again.error


def test_the_model_may_have_another_name_there(bench: Bench, bundles: list[Bundle]) -> None:
    bench.push(bundles[0], options=PushOptions(name="detector-dla0"))
    assert [model.name for model in list_models(bench.target, bench.world)] == ["detector-dla0"]


def test_rollback_goes_back_step_by_step_and_never_toggles(
    bench: Bench, bundles: list[Bundle]
) -> None:
    bench.install_trtexec(bundles[0])
    releases = []
    for options in (BuildOptions(), BuildOptions(fp16=False), BuildOptions(gpu_fallback=False)):
        report, _ = bench.push(bundles[0], options=PushOptions(build=options))
        assert report.state == "active", report.error
        releases.append(report.release)
    for expected in (releases[1], releases[0]):
        plan = plan_rollback(bench.target, bench.world, name=None, to=None)
        roll_back(bench.target, bench.world, plan)
        assert bench.current.resolve().name == expected
    with pytest.raises(InputError, match="no earlier release"):
        plan_rollback(bench.target, bench.world, name=None, to=None)
    plan = plan_rollback(bench.target, bench.world, name="net-8.5", to=releases[2])
    roll_back(bench.target, bench.world, plan)
    assert bench.current.resolve().name == releases[2]


def test_rollback_refuses_an_engine_of_another_tensorrt_and_a_damaged_one(
    bench: Bench, bundles: list[Bundle]
) -> None:
    bench.install_trtexec(bundles[0])
    first, _ = bench.push(bundles[0])
    bench.push(bundles[0], options=PushOptions(build=BuildOptions(fp16=False)))
    bench.set("version", "8503")
    with pytest.raises(Exception, match=r"built with TensorRT 8\.5\.2"):
        plan_rollback(bench.target, bench.world, name=None, to=None)
    bench.set("version", "8502")
    assert first.release is not None
    engine = bench.current.parent / "releases" / first.release / "model.engine"
    engine.write_bytes(b"rotten")
    with pytest.raises(Exception, match="not the one that was verified"):
        plan_rollback(bench.target, bench.world, name=None, to=None)


def test_after_a_rollback_the_same_push_makes_it_active_again_without_a_build(
    bench: Bench, bundles: list[Bundle]
) -> None:
    bench.install_trtexec(bundles[0])
    bench.push(bundles[0])
    second, _ = bench.push(bundles[0], options=PushOptions(build=BuildOptions(fp16=False)))
    plan = plan_rollback(bench.target, bench.world, name=None, to=None)
    roll_back(bench.target, bench.world, plan)
    report, events = bench.push(bundles[0], options=PushOptions(build=BuildOptions(fp16=False)))
    assert report.state == "active", report.error
    assert report.release == second.release
    assert not any(isinstance(event, EngineBuilt) for event in events)


def test_a_target_that_cannot_build_is_refused_with_what_is_missing(
    bench: Bench, bundles: list[Bundle]
) -> None:
    report, _ = bench.push(bundles[0], target=replace(bench.target, python="/nowhere/python3"))
    assert report.state == "refused"
    assert report.error is not None
    assert "builder-missing" in report.error.what


def test_the_caller_is_told_before_each_step_and_may_walk_away(
    bench: Bench, bundles: list[Bundle]
) -> None:
    pushing = push(bundles[:1], bench.target, PushOptions(), bench.world)
    event = next(pushing)
    assert event == StepDue(Step.CONNECT, "bench")
    assert not bench.transports
    assert isinstance(next(pushing), TargetProbed)
    pushing.close()
    assert bench.transports[0].closed
