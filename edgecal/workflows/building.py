"""The step that builds an engine on the target, and reads from its log what it was built from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgecal.core.build import Proof, split_log, with_pairs, without_cache
from edgecal.core.cache import parse_cache
from edgecal.errors import BuildError
from edgecal.workflows.events import BuildRuns, EngineBuilt, PushEvent, Step, StepDue
from edgecal.workflows.world import utc_text

if TYPE_CHECKING:
    from collections.abc import Generator

    from edgecal.core.build import BuildResult
    from edgecal.core.manifest import Digest
    from edgecal.workflows.answers import JobState
    from edgecal.workflows.plan import Plan
    from edgecal.workflows.site import Site

_WAIT_S: Final = 2
_LAST_WORDS: Final = 4096
"""Of a log, quoted where a build failed: its end."""
_ROTTEN_BLOB: Final = 21
_TIMED_OUT: Final = 124


class UnprovenError(BuildError):
    """The engine is there, but its log does not show what it was built from."""


class MismatchError(BuildError):
    """TensorRT did not take the cache, for the version in its header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An engine in its job's folder."""

    result: BuildResult
    seconds: float
    time: str
    digest: Digest


def build(
    plan: Plan, release: str, site: Site, *, started_already: bool
) -> Generator[PushEvent, None, Built]:
    """Build, or watch the end of a build that somebody started.

    Raises
    ------
    UnprovenError
        If nothing shows that the engine was built from the cache, and that is not accepted.
    MismatchError
        If TensorRT refused the cache for its header.
    BuildError
        If there is no engine, or it was built from something else.
    """
    yield StepDue(Step.BUILD, plan.kind.name)
    site.world.cancel.check()
    folder = site.device.job_folder(plan.name, release)
    begun = site.world.clock()
    with site.world.limits.builds(site.target, site.world.cancel):
        if not started_already:
            _start(plan, release, site)
        job, log = yield from _follow(plan, release, site)
    seconds = site.world.clock() - begun
    if job.job != "done" or job.status != 0:
        if plan.request.timing_cache is not None:  # a damaged one would fail every later build too
            site.device.remove(plan.request.timing_cache)
        raise _failure(plan, site, folder, job.status, log)
    result = _read_log(plan, log)
    site.report.build, site.report.build_seconds = result, seconds
    _judge(result, release, plan, site)
    digest = site.device.digest(folder, plan.kind.engine_file)
    if digest is None:
        raise BuildError(
            f"the build succeeded, but left no {plan.kind.engine_file}",
            where=site.target.name,
            remedy=f"read the log in {folder} there",
        )
    site.report.state = "built"
    yield EngineBuilt(release, result, seconds)
    return Built(result=result, seconds=seconds, time=utc_text(site.world.now()), digest=digest)


def _start(plan: Plan, release: str, site: Site) -> None:
    if plan.request.timing_cache is not None:
        site.device.make_folder(plan.request.timing_cache.rpartition("/")[0])
    site.device.start(
        plan.name,
        release,
        owner=site.world.owner,
        links={name: file.hex for name, file in plan.files.items()},
        argv=plan.argv,
        timeout_s=site.options.build_timeout_s,
        before=site.target.pre_build,
        after=site.target.post_build,
    )


def _follow(
    plan: Plan, release: str, site: Site
) -> Generator[PushEvent, None, tuple[JobState, bytes]]:
    """Wait for the build's end; gives how it ended, and its whole log."""
    log = bytearray()
    begun = site.world.clock()
    while True:
        job = site.device.wait(plan.name, release, offset=len(log), seconds=_WAIT_S)
        log += job.log
        if not job.log and job.job != "running":
            return job, bytes(log)
        seconds = site.world.clock() - begun
        yield BuildRuns(seconds, job.log.decode("utf-8", "replace"))
        site.world.cancel.check()
        if seconds > site.options.build_timeout_s and job.job == "running":
            site.device.cancel(plan.name, release)
            raise BuildError(
                f"the build took longer than {site.options.build_timeout_s:.0f} s and was ended",
                where=site.target.name,
                remedy="allow more time, or stop other programs on the target",
            )


def _read_log(plan: Plan, log: bytes) -> BuildResult:
    if plan.cache is None:
        weigh = with_pairs if plan.options.int8 else without_cache
        return weigh(plan.kind.read_log(split_log(log), ()))
    entries = [entry.tensor for entry in parse_cache(plan.cache).entries]
    return plan.kind.read_log(split_log(log), entries)


def _judge(result: BuildResult, release: str, plan: Plan, site: Site) -> None:
    folder = site.device.job_folder(plan.name, release)
    if result.proof is Proof.REFUTED:
        site.device.reject(plan.name, release)
        raise (MismatchError if result.mismatch else BuildError)(
            f"the engine was not built from the cache: {result.reason}",
            where=site.target.name,
            remedy=f"compare the bundle's TensorRT with the target's; the log is kept in {folder}",
        )
    if result.proof is Proof.UNPROVEN and not site.options.accept_unproven:
        claim = "computes in INT8" if plan.cache is None else "was built from the cache"
        raise UnprovenError(
            f"nothing proves that the engine {claim}: {result.reason}",
            where=site.target.name,
            remedy=f"read the log in {folder} there; "
            "--accept-unproven lets it pass, --rebuild builds again",
        )


def _failure(plan: Plan, site: Site, folder: str, status: int | None, log: bytes) -> BuildError:
    last = log[-_LAST_WORDS:].decode("utf-8", "replace").splitlines()
    words = " / ".join([line.strip() for line in last if line.strip()][-3:])
    what = f"the build failed with status {status}: {words[:600]}"
    remedy = f"read the whole log on the target: {folder}/log"
    if status is None:
        what = (
            "the build vanished without a result: the target rebooted, or its supervisor was "
            "killed (out of memory?)"
        )
        remedy = "push again; if memory is short, stop other programs there first"
    elif status == _ROTTEN_BLOB:
        what = f"a stored file on the target was damaged and was removed: {words}"
        remedy = "push again: it is sent anew; check the target's disk"
    elif status == _TIMED_OUT and "edgecal: the build took longer" in words:
        what = words.rpartition("edgecal: ")[2]
        remedy = "allow more time, or stop other programs on the target"
    elif (result := _read_log(plan, log)).proof is Proof.REFUTED:
        what = f"TensorRT refused the cache, and the build failed: {result.reason}"
        remedy = f"compare the bundle's TensorRT with the target's; the log is kept in {folder}"
        if result.mismatch:
            return MismatchError(what, where=site.target.name, remedy=remedy)
    return BuildError(what, where=site.target.name, remedy=remedy)
