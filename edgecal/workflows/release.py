"""One release on one target that may have it: the steps of a push, in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgecal.core.activations import activated_by, previous_release
from edgecal.core.manifest import CACHE_FILE
from edgecal.core.rules.pairing import other_builder
from edgecal.errors import CommandError, VerificationError
from edgecal.workflows.activation import UNCONFIRMED, Activation, activate
from edgecal.workflows.building import MismatchError, UnprovenError, build
from edgecal.workflows.events import CacheReheaded, EngineActivated, PushEvent
from edgecal.workflows.plan import make_plan
from edgecal.workflows.recording import record_of
from edgecal.workflows.shipping import look_ahead, ship
from edgecal.workflows.signing import SignatureStep
from edgecal.workflows.verifying import measure, verify
from edgecal.workflows.world import utc_text

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from edgecal.core.target import BuilderFact
    from edgecal.ports import BundleFiles
    from edgecal.workflows.building import Built
    from edgecal.workflows.plan import Plan
    from edgecal.workflows.site import Site


def release_bundle(bundle: BundleFiles, builder: BuilderFact, site: Site) -> Iterator[PushEvent]:
    """Go through the steps; the report is filled in on the way.

    A build that its log does not prove is done once more by TensorRT's Python API, where the
    target has the same TensorRT for it. The first job stays, so the next push need not repeat
    it to come to the same end.
    """
    try:
        yield from _release(bundle, builder, site)
    except UnprovenError:
        other = other_builder(site.facts, builder)
        if other is None or site.target.builder is not None:
            raise
        yield from _release(bundle, other, site)


def _release(bundle: BundleFiles, builder: BuilderFact, site: Site) -> Iterator[PushEvent]:
    plan = make_plan(
        bundle,
        builder,
        site.world.builders[builder.name],
        facts=site.facts,
        options=site.options.build,
        name=site.report.name,
    )
    yield from _Steps(plan, site).go()


class _Steps:
    """Ships, builds, verifies and activates, as far as each is still to be done."""

    def __init__(self, plan: Plan, site: Site) -> None:
        self._plan = plan
        self._site = site
        self._report = site.report
        self._device = site.device
        self._signature = SignatureStep(site.device, plan.bundle, site.facts, site.target)
        self._report.builder = plan.builder.name

    def go(self) -> Iterator[PushEvent]:
        identity = self._plan.release_id()
        self._report.release = identity
        if self._site.options.dry_run:
            look_ahead(self._plan, self._site)
            self._report.state = "planned"
            return
        self._device.install_agent()
        state = self._device.state(self._plan.name, identity)
        active, release = state.current, identity
        # a release whose record is gone is known by its name at least
        if active is not None and identity in {active, self._record_of(active).get("identity")}:
            if not self._site.options.rebuild and self._is_intact(active):
                self._report.release = active
                unconfirmed = bool(self._site.target.health) and state.trial in UNCONFIRMED
                yield from self._keep(active, unconfirmed=unconfirmed)
                return
            release = self._plan.release_id(again=utc_text(self._site.world.now()))
        self._report.release = release
        record = yield from self._make(release, identity)
        yield from self._activate(release, record, active)

    def _keep(self, active: str, *, unconfirmed: bool) -> Iterator[PushEvent]:
        """Leave the active release as it is, but for a health check whose end nobody has seen."""
        self._report.state = "active"
        self._report.bytes_present = sum(file.size for file in self._plan.files.values())
        folder = self._device.release_folder(self._plan.name, active)
        yield from measure(self._plan, folder, self._site)
        if unconfirmed:
            yield from self._signature.check(self._plan.files, building=False)
            yield from self._activate(active, self._record_of(active), active)
        else:
            if self._site.options.rollout:
                kept = next(one for one in self._device.models() if one.name == self._plan.name)
                self._report.rollout = activated_by(kept.activations, active)
            yield EngineActivated(active, changed=False)

    def _make(self, release: str, identity: str) -> Generator[PushEvent, None, dict[str, Any]]:
        """Have the release on the target, verified; gives its record."""
        plan, site = self._plan, self._site
        state = self._device.state(plan.name, release)
        if state.ready and not site.options.rebuild and self._is_intact(release):
            yield from self._signature.check(plan.files, building=False)
            folder = self._device.release_folder(plan.name, release)
            yield from verify(plan, folder, site)
            yield from measure(plan, folder, site)
            return self._record_of(release)
        if state.job != "none":
            plan = self._plan_of_job(release)
        finished = state.job == "done" and state.status == 0 and not site.options.rebuild
        try:
            built = yield from self._build(plan, release, finished=finished)
        except MismatchError:
            again = plan.reheaded()
            if again is None:
                raise
            yield CacheReheaded(again.builder)
            plan = again
            built = yield from self._build(plan, release, finished=False)
        folder = self._device.job_folder(plan.name, release)
        try:
            verification = yield from verify(plan, folder, site)
        except VerificationError:
            self._device.reject(plan.name, release)
            raise
        yield from measure(plan, folder, site)
        record = record_of(
            plan, built, site, release=release, identity=identity, verification=verification
        )
        if self._signature.verdict is not None:
            record["signature"] = self._signature.verdict.to_json()
        self._device.install(plan.name, release, record)
        return record

    def _build(
        self, plan: Plan, release: str, *, finished: bool
    ) -> Generator[PushEvent, None, Built]:
        if not finished:
            yield from ship(plan, release, self._site)
        yield from self._signature.check(plan.files, building=not finished)
        return (yield from build(plan, release, self._site, started_already=finished))

    def _plan_of_job(self, release: str) -> Plan:
        """Find out whether a job that is there was given the cache as it is, or re-headed."""
        again = self._plan.reheaded()
        if again is None:
            return self._plan
        folder = self._device.job_folder(self._plan.name, release)
        found = self._device.digest(folder, CACHE_FILE)
        return again if found == again.files[CACHE_FILE].digest else self._plan

    def _record_of(self, release: str) -> dict[str, Any]:
        """Read a release's record; empty if it is damaged, so that the release is built anew."""
        try:
            return self._device.record(self._plan.name, release)
        except CommandError:
            return {}

    def _is_intact(self, release: str) -> bool:
        recorded = self._record_of(release).get("engine", {}).get("digest")
        folder = self._device.release_folder(self._plan.name, release)
        return recorded is not None and recorded == self._device.digest(
            folder, self._plan.kind.engine_file
        )

    def _activate(
        self, release: str, record: Mapping[str, Any], active: str | None
    ) -> Iterator[PushEvent]:
        back = active
        if active == release:  # its health check never ended
            kept = next(one for one in self._device.models() if one.name == self._plan.name)
            back = previous_release(kept.activations, release)
        self._site.world.cancel.check()
        on_trial = bool(self._site.target.health)
        if not on_trial:  # else it is not known yet whether this one stays
            self._signature.keep()
        yield from activate(
            Activation(
                name=self._plan.name,
                release=release,
                active=active,
                back=back,
                engine=self._plan.kind.engine_file,
                digest=record["engine"]["digest"],
                bundle=self._plan.bundle.manifest_digest,
            ),
            self._site,
        )
        if on_trial:
            self._signature.keep()
