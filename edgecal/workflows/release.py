"""One release on one target that may have it: the steps of a push, over what they share."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from edgecal import __version__
from edgecal.core.build import BuildRequest, Proof, count_entries, release_id
from edgecal.core.cache import parse_cache, restamp_cache, serialize_cache
from edgecal.core.golden import GoldenRun, parse_golden
from edgecal.core.manifest import CACHE_FILE, GOLDEN_FILE, MANIFEST_FILE, MODEL_FILE, digest_of
from edgecal.core.verification import Verification, verify_outputs
from edgecal.errors import BuildError, CommandError, EdgecalError, VerificationError
from edgecal.ports import RunFiles
from edgecal.workflows.device import Device, DeviceFile, file_of
from edgecal.workflows.events import (
    BuildRuns,
    CacheShipped,
    EngineActivated,
    EngineBuilt,
    EngineVerified,
    PushEvent,
    Step,
    StepDue,
)
from edgecal.workflows.world import World, utc_text

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping
    from datetime import datetime

    from edgecal.core.build import BuildResult
    from edgecal.core.target import BuilderFact, Target, TargetFacts
    from edgecal.ports import BundleFiles, Transport
    from edgecal.workflows.report import PushOptions, PushReport

_WAIT_S: Final = 2
_ROTTEN_BLOB: Final = 21
_OUTPUT: Final = "verify.out"
_SPEC: Final = "golden/runs.json"


class ReleaseMaker:
    """Ships, builds, verifies and activates, as far as each is still to be done."""

    def __init__(
        self,
        *,
        bundle: BundleFiles,
        builder: BuilderFact,
        facts: TargetFacts,
        target: Target,
        options: PushOptions,
        world: World,
        transport: Transport,
        report: PushReport,
    ) -> None:
        self._bundle = bundle
        self._builder = builder
        self._facts = facts
        self._target = target
        self._options = options
        self._world = world
        self._report = report
        self._name = report.name
        self._device = Device(transport, world.scripts, facts.root, target.name)
        self._kind = world.builders[builder.name]
        self._golden = _read_golden(bundle)
        self._cache = self._cache_for_target()
        self._files = self._job_files()
        self._request = BuildRequest(
            builder=builder,
            options=options.build,
            shapes={name: value.shape for name, value in self._golden[0].inputs.items()},
            dynamic=frozenset(one.name for one in bundle.manifest.model.inputs if -1 in one.shape),
            outputs=tuple(one.name for one in bundle.manifest.model.outputs),
            model_file=MODEL_FILE,
            cache_file=CACHE_FILE,
        )
        report.builder = builder.name

    def steps(self) -> Iterator[PushEvent]:
        """Go through the steps; the report is filled in on the way."""
        identity = self._release_id()
        self._report.release = identity
        if self._options.dry_run:
            # the agent may not be there yet, and a dry run leaves nothing behind
            self._report.bytes_to_send = sum(
                {f.digest: f.size for f in self._files.values()}.values()
            )
            self._report.state = "planned"
            return
        agent = self._world.scripts.agent.encode()
        self._device.install_agent(file_of(agent, digest_of(agent)))

        active = self._device.state(self._name, identity).current
        # a release whose record is gone is known by its name at least
        if active is not None and identity in {active, self._record_of(active).get("identity")}:
            if not self._options.rebuild and self._is_intact(active):
                self._report.release, self._report.state = active, "active"
                self._report.bytes_present = sum(file.size for file in self._files.values())
                yield EngineActivated(active, changed=False)
                return
            release = self._release_id(again=utc_text(self._world.now()))
        else:
            release = identity
        self._report.release = release
        record = yield from self._make(release, identity)
        yield from self._activate(release, record, active)

    def _release_id(self, again: str | None = None) -> str:
        return release_id(
            manifest=self._bundle.manifest_digest,
            builder=self._builder,
            facts=self._facts,
            options=self._options.build,
            again=again,
        )

    def _make(self, release: str, identity: str) -> Generator[PushEvent, None, dict[str, Any]]:
        """Have the release on the target, verified; gives its record."""
        state = self._device.state(self._name, release)
        if state.ready and not self._options.rebuild and self._is_intact(release):
            folder = self._device.release_folder(self._name, release)
            yield from self._verify(folder)
            return self._record_of(release)
        finished = state.job == "done" and state.status == 0 and not self._options.rebuild
        if not finished:
            yield from self._ship()
        record = yield from self._build(release, started_already=finished)
        try:
            verification = yield from self._verify(self._device.job_folder(self._name, release))
        except VerificationError:
            self._device.reject(self._name, release)
            raise
        record["identity"] = identity
        record["verification"] = {**verification.to_json(), "time": utc_text(self._world.now())}
        self._device.install(self._name, release, record)
        return record

    def _record_of(self, release: str) -> dict[str, Any]:
        """Read a release's record; empty if it is damaged, so that the release is built anew."""
        try:
            return self._device.record(self._name, release)
        except CommandError:
            return {}

    def _is_intact(self, release: str) -> bool:
        recorded = self._record_of(release).get("engine", {}).get("digest")
        folder = self._device.release_folder(self._name, release)
        return recorded is not None and recorded == self._device.digest(
            folder, self._kind.engine_file
        )

    def _cache_for_target(self) -> bytes:
        """Head the cache for the target's exact TensorRT, unless TensorRT itself wrote it."""
        with self._bundle.open(CACHE_FILE) as stream:
            data = stream.read()
        if self._bundle.manifest.written_by_tensorrt or self._builder.tensorrt is None:
            return data
        return serialize_cache(restamp_cache(parse_cache(data), self._builder.tensorrt))

    def _job_files(self) -> dict[str, DeviceFile]:
        """List what the job's folder holds: bundle, its cache for this target, golden inputs."""
        files: dict[str, DeviceFile] = {}
        for name, record in self._bundle.shipped().items():
            if name not in {CACHE_FILE, GOLDEN_FILE}:
                files[name] = DeviceFile(
                    digest=record.digest, size=record.size, open=_opener(self._bundle, name)
                )
        with self._bundle.open(MANIFEST_FILE) as stream:
            contents = {MANIFEST_FILE: stream.read()}
        contents[CACHE_FILE] = self._cache
        contents.update(self._kind.support_files())
        spec = []
        for number, run in enumerate(self._golden):
            inputs = []
            for position, (name, value) in enumerate(run.inputs.items()):
                file = _golden_file(number, position)
                little = value.astype(value.dtype.newbyteorder("<"), copy=False)
                contents[file] = little.tobytes()
                inputs.append(
                    {"name": name, "file": file, "dtype": little.dtype.str, "shape": value.shape}
                )
            spec.append(inputs)
        contents[_SPEC] = json.dumps(spec).encode()
        files.update({name: file_of(data, digest_of(data)) for name, data in contents.items()})
        return files

    def _ship(self) -> Iterator[PushEvent]:
        distinct = {file.hex: file for file in self._files.values()}
        there = self._device.have(list(distinct.values()))
        wanted = [file for digest, file in distinct.items() if there[digest] is not None]
        self._report.bytes_to_send = sum(file.size for file in wanted)
        self._report.bytes_present = sum(
            file.size for digest, file in distinct.items() if there[digest] is None
        )
        yield StepDue(Step.SHIP, str(self._report.bytes_to_send))
        with self._world.limits.transfers:
            for file in wanted:
                self._world.cancel.check()
                part = there[file.hex] or 0
                # a whole part that was never renamed has nothing left to send: begin anew
                offset = part if part < file.size else 0
                self._device.store(file, offset=offset, progress=self._sent)
        yield CacheShipped(self._report.bytes_to_send, self._report.bytes_present)

    def _sent(self, count: int) -> None:
        self._world.cancel.check()
        if self._options.upload_progress is not None:
            self._options.upload_progress(count)

    def _build(
        self, release: str, *, started_already: bool
    ) -> Generator[PushEvent, None, dict[str, Any]]:
        argv = self._kind.build_argv(self._request)
        yield StepDue(Step.BUILD, self._kind.name)
        self._world.cancel.check()
        started = self._world.now()
        with self._world.limits.builds:
            if not started_already:
                self._device.start(
                    self._name,
                    release,
                    owner=self._world.owner,
                    links={name: file.hex for name, file in self._files.items()},
                    argv=argv,
                )
            log = yield from self._follow(release, started)
        seconds = (self._world.now() - started).total_seconds()
        entries = [entry.tensor for entry in parse_cache(self._cache).entries]
        result = self._kind.read_log(log.splitlines(), entries)
        self._report.build, self._report.build_seconds = result, seconds
        if result.proof is Proof.REFUTED:
            self._device.reject(self._name, release)
            raise BuildError(
                f"the engine was not built from the cache: {result.reason}",
                where=self._target.name,
                remedy="compare the bundle's TensorRT with the target's; the log is kept in "
                f"{self._device.job_folder(self._name, release)}",
            )
        if result.proof is Proof.UNPROVEN and not self._options.accept_unproven:
            raise BuildError(
                f"nothing proves that the engine was built from the cache: {result.reason}",
                where=self._target.name,
                remedy=f"read the log in {self._device.job_folder(self._name, release)} there; "
                "--accept-unproven lets it pass, --rebuild builds again",
            )
        digest = self._device.digest(
            self._device.job_folder(self._name, release), self._kind.engine_file
        )
        if digest is None:
            raise BuildError(
                f"the build succeeded, but left no {self._kind.engine_file}",
                where=self._target.name,
                remedy=f"read the log in {self._device.job_folder(self._name, release)} there",
            )
        self._report.state = "built"
        yield EngineBuilt(release, result, seconds)
        return {
            **self._record(release, argv, result, seconds),
            "engine": {"file": self._kind.engine_file, "digest": digest},
        }

    def _follow(self, release: str, started: datetime) -> Generator[PushEvent, None, str]:
        """Wait for the build's end and give its whole log."""
        log = bytearray()
        while True:
            job = self._device.wait(self._name, release, offset=len(log), seconds=_WAIT_S)
            log += job.log
            seconds = (self._world.now() - started).total_seconds()
            if job.log or job.job == "running":
                yield BuildRuns(seconds, job.log.decode("utf-8", "replace"))
            else:
                break
            self._world.cancel.check()
            if seconds > self._options.build_timeout_s and job.job == "running":
                self._device.cancel(self._name, release)
                raise BuildError(
                    f"the build took longer than {self._options.build_timeout_s:.0f} s "
                    "and was ended",
                    where=self._target.name,
                    remedy="allow more time, or stop other programs on the target",
                )
        text = log.decode("utf-8", "replace")
        if job.job == "done" and job.status == 0:
            return text
        raise self._build_failure(release, job.status, text)

    def _build_failure(self, release: str, status: int | None, log: str) -> EdgecalError:
        words = " / ".join([line.strip() for line in log.splitlines() if line.strip()][-3:])
        if status is None:
            return BuildError(
                "the build vanished without a result: the target rebooted, or its supervisor was "
                "killed (out of memory?)",
                where=self._target.name,
                remedy="push again; if memory is short, stop other programs there first",
            )
        if status == _ROTTEN_BLOB:
            return BuildError(
                f"a stored file on the target was damaged and was removed: {words}",
                where=self._target.name,
                remedy="push again: it is sent anew; check the target's disk",
            )
        return BuildError(
            f"the build failed with status {status}: {words[:600]}",
            where=self._target.name,
            remedy="read the whole log on the target: "
            f"{self._device.job_folder(self._name, release)}/log",
        )

    def _record(
        self, release: str, argv: tuple[str, ...], result: BuildResult, seconds: float
    ) -> dict[str, Any]:
        """Write down what was built from what; lies beside the engine as build.json."""
        manifest = self._bundle.manifest
        return {
            "schema": "edgecal.build/1",
            "release": release,
            "name": self._name,
            "bundle": {
                "name": manifest.name,
                "manifest": self._bundle.manifest_digest,
                "tensorrt": str(manifest.tensorrt),
                "restamped_from": str(manifest.restamped_from) if manifest.restamped_from else None,
                "created": manifest.created.isoformat(),
                "counter": manifest.counter,
            },
            "cache": {
                "bundled": manifest.files[CACHE_FILE].digest,
                "built_from": digest_of(self._cache),
                **count_entries(result),
            },
            "builder": {
                "name": self._builder.name,
                "path": self._builder.path,
                "tensorrt": str(self._builder.tensorrt) if self._builder.tensorrt else None,
            },
            "argv": list(argv),
            "options": asdict(self._options.build),
            "proof": {"verdict": result.proof.value, "reason": result.reason},
            "missing": list(result.missing or ()),
            "unused": list(result.unused or ()),
            "files": {name: file.digest for name, file in self._files.items()},
            "target": {
                "l4t": self._facts.l4t,
                "module": self._facts.module or self._facts.model,
            },
            "built": utc_text(self._world.now()),
            "seconds": round(seconds, 3),
            "by": self._world.owner,
            "edgecal": __version__,
        }

    def _verify(self, folder: str) -> Generator[PushEvent, None, Verification]:
        yield StepDue(Step.VERIFY, f"{len(self._golden)} golden runs")
        runs = [
            RunFiles(
                inputs={
                    name: _golden_file(number, position) for position, name in enumerate(run.inputs)
                },
                spec=_SPEC,
            )
            for number, run in enumerate(self._golden)
        ]
        outputs: list[Mapping[str, Any]] = []
        for argv in self._kind.run_argvs(self._request, runs, _OUTPUT):
            self._world.cancel.check()
            data = self._device.run_engine(folder, output=_OUTPUT, argv=argv)
            outputs += self._kind.parse_outputs(data, source=self._target.name)
        verification = verify_outputs(
            self._golden,
            outputs,
            batch=self._bundle.manifest.golden.batch,
            thresholds=self._options.thresholds,
            dla=self._options.build.dla_core is not None,
        )
        self._report.verification = verification
        if not verification.passed:
            bad = next(output for output in verification.outputs if not output.passed)
            why = bad.problem or (
                f"cosine to FP32 is {bad.cosine_min:.4f}, at least {bad.threshold:.4f} is needed"
            )
            raise VerificationError(
                f"output {bad.name!r} of the engine is wrong: {why}",
                where=self._target.name,
                remedy="what was active stays active; check the bundle's quality on the host, or "
                "set [verify] margin in edgecal.toml if this is good enough for you",
            )
        yield EngineVerified(verification)
        return verification

    def _activate(
        self, release: str, record: Mapping[str, Any], active: str | None
    ) -> Iterator[PushEvent]:
        yield StepDue(Step.ACTIVATE, release)
        self._world.cancel.check()
        self._device.activate(
            self._name,
            release,
            expected=active,
            engine=self._kind.engine_file,
            digest=record["engine"]["digest"],
            record={
                "action": "activate",
                "release": release,
                "from": active,
                "bundle": self._bundle.manifest_digest,
                "by": self._world.owner,
                "time": utc_text(self._world.now()),
            },
        )
        self._report.state = "active"
        yield EngineActivated(release, changed=True)


def _read_golden(bundle: BundleFiles) -> tuple[GoldenRun, ...]:
    with bundle.open(GOLDEN_FILE) as stream:
        return parse_golden(stream.read(), source=f"{bundle.manifest.name}/{GOLDEN_FILE}")


def _opener(bundle: BundleFiles, name: str) -> Callable[[], Any]:
    return lambda: bundle.open(name)


def _golden_file(run: int, position: int) -> str:
    return f"golden/{run}.{position}.bin"
