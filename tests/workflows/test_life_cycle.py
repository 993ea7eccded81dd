"""What comes before, beside and after a push: on a target on this machine, over real scripts."""

from __future__ import annotations

import contextlib
import fcntl
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgecal.core.build import BuildOptions
from edgecal.errors import BusyError, CommandError, InputError, TransferError
from edgecal.workflows.attach import attach, cancel, plan_cancel
from edgecal.workflows.events import ActivationWaits, BuildRuns, EngineActivated, EngineConfirmed
from edgecal.workflows.limits import LimitOptions, shared_limits
from edgecal.workflows.prune import plan_prune, prune
from edgecal.workflows.push import push
from edgecal.workflows.rebuild import plan_rebuild
from edgecal.workflows.report import PushOptions
from edgecal.workflows.targets import list_models, plan_rollback, roll_back
from tests.bundles import make_bundles
from tests.workflows.test_push import Bench

if TYPE_CHECKING:
    from pathlib import Path

    from edgecal.adapters.bundle import Bundle

OTHER = PushOptions(build=BuildOptions(fp16=False))
THIRD = PushOptions(build=BuildOptions(gpu_fallback=False))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundles(tmp_path_factory.mktemp("bundles"), "8.5.2")[0]


@pytest.fixture
def bench(tmp_path: Path, bundle: Bundle) -> Bench:
    made = Bench(tmp_path / "bench")
    made.install_trtexec(bundle)
    return made


def start_slow_build(bench: Bench, bundle: Bundle, options: PushOptions) -> None:
    """Leave a build behind that nobody watches."""
    bench.set("mode", "slow")
    pushing = push([bundle], bench.target, options, bench.world)
    for event in pushing:
        if isinstance(event, BuildRuns):
            pushing.close()
            break
    bench.set("mode", "")


# --- attach, cancel -----------------------------------------------------------------------------


def test_without_a_build_there_is_nothing_to_attach_to_or_to_cancel(
    bench: Bench, bundle: Bundle
) -> None:
    with pytest.raises(InputError, match="no build runs there, and none waits"):
        next(attach(bench.target, bench.world, name=None))
    bench.push(bundle)
    with pytest.raises(InputError, match=r"no build of net-8\.5 runs"):
        plan_cancel(bench.target, bench.world, name="net-8.5")


def test_a_build_is_found_followed_and_ended(bench: Bench, bundle: Bundle) -> None:
    start_slow_build(bench, bundle, PushOptions())
    following = attach(bench.target, bench.world, name=None)
    assert b"RUNNING TensorRT.trtexec" in next(following)
    following.close()  # leaving does no harm
    build = plan_cancel(bench.target, bench.world, name=None)
    assert (build.name, build.owner) == ("net-8.5", "tester@bench")
    before = time.monotonic()
    assert cancel(bench.target, bench.world, build)
    assert time.monotonic() - before < 10
    assert not cancel(bench.target, bench.world, build)
    following = attach(bench.target, bench.world, name="net-8.5")
    while True:
        try:
            next(following)
        except StopIteration as end:
            found, job = end.value
            break
    assert (found.release, job.job, job.status) == (build.release, "done", 143)


# --- beside others ------------------------------------------------------------------------------


def test_a_rollback_needs_no_end_of_a_build(bench: Bench, bundle: Bundle) -> None:
    first, _ = bench.push(bundle)
    bench.push(bundle, options=OTHER)
    start_slow_build(bench, bundle, THIRD)
    plan = plan_rollback(bench.target, bench.world, name=None, to=None)
    roll_back(bench.target, bench.world, plan)
    assert bench.current.resolve().name == first.release
    assert plan_cancel(bench.target, bench.world, name=None).name == "net-8.5"


def test_a_second_push_is_told_who_is_at_work_and_can_end_that(
    bench: Bench, bundle: Bundle
) -> None:
    start_slow_build(bench, bundle, PushOptions())
    report, _ = bench.push(bundle, options=OTHER)
    assert isinstance(report.error, BusyError)
    assert "tester@bench (building release" in report.error.what
    assert "--break-lock" in report.error.remedy
    report, _ = bench.push(bundle, options=replace(OTHER, break_lock=True))
    assert report.state == "active", report.error


def test_an_application_that_says_not_now_leaves_the_engine_built(
    bench: Bench, bundle: Bundle
) -> None:
    first, _ = bench.push(bundle)
    with (bench.current.parent / "not-now").open() as holder:
        fcntl.flock(holder, fcntl.LOCK_SH)
        report, events = bench.push(bundle, options=replace(OTHER, activate_within_s=1))
        assert (report.state, report.exit_code) == ("built", 4)
        assert report.error is not None
        assert report.error.code == "not-now"
        assert any(isinstance(event, ActivationWaits) for event in events)
        assert bench.current.resolve().name == first.release
    again, events = bench.push(bundle, options=OTHER)
    assert (again.state, again.release) == ("active", report.release)
    assert again.build is None


def test_an_activation_goes_on_as_soon_as_the_application_lets_it(
    bench: Bench, bundle: Bundle
) -> None:
    bench.push(bundle)
    holder = (bench.current.parent / "not-now").open()
    fcntl.flock(holder, fcntl.LOCK_SH)
    bench.world = replace(bench.world, sleep=lambda _seconds: holder.close())
    report, _ = bench.push(bundle, options=OTHER)
    assert report.state == "active", report.error


# --- health -------------------------------------------------------------------------------------


def test_a_release_that_is_not_healthy_is_taken_back_by_the_target(
    bench: Bench, bundle: Bundle
) -> None:
    first, _ = bench.push(bundle)
    ill = replace(bench.target, health=("sh", "-c", "exit 3"), soak_s=1)
    report, _ = bench.push(bundle, target=ill, options=OTHER)
    assert (report.state, report.exit_code, report.health) == ("failed", 4, "failed")
    assert report.error is not None
    assert report.error.code == "health"
    assert f"release {first.release} is active again" in report.error.what
    assert bench.current.resolve().name == first.release
    (model,) = list_models(bench.target, bench.world)
    assert model.activations[-1].action == "rollback"
    assert model.activations[-1].reason == "the health command ended with status 3"


def test_a_first_release_that_is_not_healthy_leaves_nothing_active(
    bench: Bench, bundle: Bundle
) -> None:
    ill = replace(bench.target, health=("false",), soak_s=1)
    report, _ = bench.push(bundle, target=ill)
    assert report.error is not None
    assert "nothing is active now" in report.error.what
    assert not bench.current.is_symlink()
    report, _ = bench.push(bundle)
    assert report.state == "active", report.error
    with pytest.raises(InputError, match="no earlier release"):
        plan_rollback(bench.target, bench.world, name=None, to=None)


def test_a_release_that_passed_is_confirmed_and_not_tried_again(
    bench: Bench, bundle: Bundle
) -> None:
    well = replace(bench.target, health=("true",), soak_s=1)
    report, events = bench.push(bundle, target=well)
    assert (report.state, report.health) == ("active", "confirmed")
    assert [type(one) for one in events[-2:]] == [EngineConfirmed, EngineActivated]
    (model,) = list_models(bench.target, bench.world)
    assert [one.action for one in model.activations] == ["activate", "confirm"]
    again, _ = bench.push(bundle, target=well)
    assert (again.state, again.health) == ("active", None)


def test_around_a_build_the_application_is_stopped_and_started(
    bench: Bench, bundle: Bundle
) -> None:
    log = bench.folder / "log"
    target = replace(
        bench.target,
        pre_build=("sh", "-c", 'echo stop >>"$1"', "sh", str(log)),
        post_build=("sh", "-c", 'echo start >>"$1"', "sh", str(log)),
    )
    report, _ = bench.push(bundle, target=target)
    assert report.state == "active", report.error
    assert log.read_text() == "stop\nstart\n"


# --- prune --------------------------------------------------------------------------------------


def test_pruning_keeps_what_is_active_and_what_a_rollback_would_go_to(
    bench: Bench, bundle: Bundle
) -> None:
    releases = [
        bench.push(bundle, options=options)[0].release for options in (PushOptions(), OTHER, THIRD)
    ]
    with pytest.raises(InputError, match="no model 'x'"):
        plan_prune(bench.target, bench.world, name="x", keep=0, break_lock=False)
    doomed, plan = plan_prune(bench.target, bench.world, name=None, keep=0, break_lock=False)
    assert [one.release for one in doomed] == releases[:1]
    done = prune(bench.target, bench.world, doomed, break_lock=False)
    assert done == plan
    assert done.freed_bytes > 0
    (model,) = list_models(bench.target, bench.world)
    assert sorted(model.releases) == sorted(str(one) for one in releases[1:])
    rollback = plan_rollback(bench.target, bench.world, name=None, to=None)
    assert rollback.to == releases[1]
    again, _ = bench.push(bundle, options=THIRD)
    assert again.state == "active", again.error


def test_a_plan_that_an_activation_overtook_removes_nothing(bench: Bench, bundle: Bundle) -> None:
    bench.push(bundle)
    bench.push(bundle, options=OTHER)
    bench.push(bundle, options=THIRD)
    doomed, _ = plan_prune(bench.target, bench.world, name=None, keep=0, break_lock=False)
    roll_back(
        bench.target,
        bench.world,
        plan_rollback(bench.target, bench.world, name=None, to=None),
    )
    with pytest.raises(Exception, match="another release was activated"):
        prune(bench.target, bench.world, doomed, break_lock=False)
    assert len(list_models(bench.target, bench.world)[0].releases) == 3


def test_pruning_beside_a_push_lets_it_come_through(bench: Bench, bundle: Bundle) -> None:
    bench.push(bundle)
    stop = threading.Event()

    def keep_pruning() -> None:
        while not stop.is_set():
            doomed, _ = plan_prune(bench.target, bench.world, name=None, keep=0, break_lock=False)
            with contextlib.suppress(CommandError):  # another one is active since it was planned
                prune(bench.target, bench.world, doomed, break_lock=False)

    pruning = threading.Thread(target=keep_pruning)
    pruning.start()
    try:
        report, _ = bench.push(bundle, options=OTHER)
    finally:
        stop.set()
        pruning.join()
    assert report.state == "active", report.error


# --- rebuild ------------------------------------------------------------------------------------


def test_an_engine_is_built_again_without_a_bundle_after_an_upgrade(
    bench: Bench, bundle: Bundle
) -> None:
    first, _ = bench.push(bundle, options=OTHER)
    bench.set("version", "8503")
    with pytest.raises(InputError, match="no model 'x'"):
        plan_rebuild(bench.target, bench.world, name="x", release=None)
    with pytest.raises(InputError, match="is not there"):
        plan_rebuild(bench.target, bench.world, name=None, release="0" * 16)
    plan = plan_rebuild(bench.target, bench.world, name=None, release=None)
    assert (plan.name, plan.release, plan.builder) == ("net-8.5", first.release, "trtexec")
    assert plan.build == OTHER.build
    options = PushOptions(name=plan.name, build=plan.build, rebuild=True)
    pushing = push([plan.bundle], bench.target, options, bench.world)
    while True:
        try:
            next(pushing)
        except StopIteration as end:
            report = end.value
            break
    assert report.state == "active", report.error
    assert report.verification is not None
    assert report.verification.passed
    assert report.release != first.release
    assert (bench.current / "calibration.cache").read_text().startswith("TRT-8503-")
    assert report.bytes_sent < 150_000  # scripts and the cache with its new header


def test_what_was_lost_there_cannot_be_built_from(bench: Bench, bundle: Bundle) -> None:
    bench.push(bundle)
    (bench.current / "golden" / "outputs.npz").resolve().unlink()
    with pytest.raises(TransferError, match="cannot be read back"):
        plan_rebuild(bench.target, bench.world, name=None, release=None)


# --- uploads ------------------------------------------------------------------------------------


def test_a_part_that_rotted_is_sent_again_whole(bench: Bench, bundle: Bundle) -> None:
    record = bundle.manifest.files["model.onnx"]
    store = bench.root / "blobs" / "sha256"
    store.mkdir(parents=True)
    part = store / f"{record.digest.removeprefix('sha256:')}.part"
    part.write_bytes(b"\0" * (record.size // 2))
    report, _ = bench.push(bundle)
    assert report.state == "active", report.error


def test_uploads_keep_to_the_rate_that_all_targets_share(bench: Bench, bundle: Bundle) -> None:
    slept: list[float] = []
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    options = LimitOptions(rate=100_000)
    limits = shared_limits(options, bastion=lambda _one: "", clock=lambda: now, sleep=sleep)
    bench.world = replace(bench.world, limits=limits)
    report, _ = bench.push(bundle)
    assert report.state == "active", report.error
    assert sum(slept) == pytest.approx(report.bytes_to_send / 100_000 - 0.25, abs=0.1)
