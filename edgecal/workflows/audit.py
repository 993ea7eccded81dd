"""Probe a fleet side by side, read what is active on it, and hold both against bundles."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from edgecal.core.audit import AuditReport, audit
from edgecal.core.drift import recorded_files
from edgecal.core.probes import parse_probe
from edgecal.core.target_state import ActiveRelease, BundleFacts, Fit, LastFacts, TargetState
from edgecal.errors import CommandError, EdgecalError
from edgecal.workflows.check import check_on, look_at_cache
from edgecal.workflows.device import Device
from edgecal.workflows.waiting import side_by_side
from edgecal.workflows.world import ask_over, reach

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from datetime import datetime

    from edgecal.core.build import BuildOptions
    from edgecal.core.target import Target
    from edgecal.ports import BundleFiles, Transport
    from edgecal.workflows.kept import ModelState
    from edgecal.workflows.world import World

_SHORT_S: Final = 60.0


class Memory(Protocol):
    """What targets last answered."""

    def load(self, target_name: str, *, address: str = "") -> tuple[str, datetime] | None:
        """Give a target's last answer and its time."""
        ...

    def store(self, target_name: str, text: str, now: datetime, *, address: str = "") -> None:
        """Keep a target's answer in place of its last one."""
        ...


def audit_fleet(
    targets: Sequence[Target],
    bundles: Sequence[tuple[str, BundleFiles]],
    options: BuildOptions,
    world: World,
    memory: Memory,
    *,
    workers: int | None,
    progress: Callable[[int], None],
) -> AuditReport:
    """Ask every target, and judge what they say.

    Parameters
    ----------
    bundles
        Each with its path as given.
    workers
        How many targets are asked at once; `None` asks nobody and takes what they last said.
    progress
        Hears how many targets are done.
    """
    by_name: dict[str, TargetState] = {}
    if workers is None:
        for target in targets:
            by_name[target.name] = TargetState(last=recall(target, memory, world), asked=False)
    else:
        for state in examine_all(targets, world, memory, workers=workers):
            by_name[state.name] = state
            progress(len(by_name))
    states = [by_name[target.name] for target in targets]
    looked_at = [
        (bundle_facts(path, bundle), bundle, look_at_cache(bundle, path=path))
        for path, bundle in bundles
    ]
    fits = {
        state.name: [
            Fit(
                bundle=fact,
                findings=check_on(
                    bundle,
                    cache,
                    state.last.target,
                    facts=known,
                    options=options,
                    platforms=world.platforms,
                ).findings,
            )
            for fact, bundle, cache in looked_at
        ]
        for state in states
        if (known := state.last.facts) is not None
    }
    return audit(states, fits, world.platforms)


def examine_all(
    targets: Sequence[Target], world: World, memory: Memory, *, workers: int
) -> Generator[TargetState, None, None]:
    """Ask targets side by side; gives each as it is done."""

    def work(target: Target) -> TargetState:
        world.cancel.check()
        return examine(target, world, memory)

    try:
        yield from side_by_side(targets, work, at_once=workers)
    except BaseException:
        world.cancel.cancel()
        raise


def examine(target: Target, world: World, memory: Memory) -> TargetState:
    """Ask one target what it is and what is active; an error stands in the state.

    Nothing is changed on it. A target that cannot be asked keeps what it last said.
    """
    state = TargetState(last=LastFacts(target=target))
    try:
        with closing(reach(target, world)) as transport:
            last = _ask(transport, target, world, memory)
            state = replace(state, last=last)
            return replace(state, active=_read_active(transport, last, world))
    except EdgecalError as error:
        last = state.last if state.last.live else recall(target, memory, world)
        return replace(state, last=last, error=error)


def examine_facts(
    target: Target, world: World, memory: Memory
) -> tuple[LastFacts, EdgecalError | None]:
    """Ask one target what it is, and no more; what it last said where it cannot be asked."""
    try:
        with closing(reach(target, world)) as transport:
            return _ask(transport, target, world, memory), None
    except EdgecalError as error:
        return recall(target, memory, world), error


def recall(target: Target, memory: Memory, world: World) -> LastFacts:
    """Remember what a target last said; nothing where it never did, or that cannot be read."""
    remembered = memory.load(target.name, address=target.address)
    if remembered is None:
        return LastFacts(target=target)
    text, seen = remembered
    try:
        facts = parse_probe(text, world.platforms, source=target.name)
    except CommandError:  # of an older edgecal
        return LastFacts(target=target)
    return LastFacts(target=target, facts=facts, seen=seen)


def bundle_facts(path: str, bundle: BundleFiles) -> BundleFacts:
    """Take from a bundle what an audit compares."""
    manifest = bundle.manifest
    return BundleFacts(
        name=manifest.name,
        path=path,
        tensorrt=manifest.tensorrt,
        manifest=bundle.manifest_digest,
        network=manifest.model.canonical_digest,
        files={name: record.digest for name, record in manifest.files.items()},
    )


def _ask(transport: Transport, target: Target, world: World, memory: Memory) -> LastFacts:
    answer, now = ask_over(transport, target, world), world.now()
    memory.store(target.name, answer.text, now, address=target.address)
    return LastFacts(target=target, facts=answer.facts, seen=now, live=True)


def _read_active(transport: Transport, last: LastFacts, world: World) -> tuple[ActiveRelease, ...]:
    if last.facts is None:
        return ()
    root = last.facts.root
    models = f"{root}/models"
    if transport.run(("test", "-d", models), timeout_s=_SHORT_S).exit_status != 0:
        return ()  # nothing was ever pushed: leave nothing there either
    device = Device(transport, world.scripts, root, last.target.name)
    device.install_agent()
    return tuple(
        _read_release(device, model, model.current)
        for model in device.models()
        if model.current is not None
    )


def _read_release(device: Device, model: ModelState, release: str) -> ActiveRelease:
    try:
        record = device.record(model.name, release)
    except CommandError:
        return ActiveRelease(model=model.name, release=release, record=None, found={})
    files = list(recorded_files(record))
    folder = device.release_folder(model.name, release)
    return ActiveRelease(
        model=model.name,
        release=release,
        record=record or None,
        found=device.digests(folder, files),
    )
