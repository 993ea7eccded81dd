"""From what the command line and `edgecal.toml` say to the draft of a rollout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgecal.cli.rollout.lines import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgecal.adapters.bundle import Bundle
    from edgecal.cli.cluster import ClusterRequest
    from edgecal.cli.rollout.options import PlanWords
    from edgecal.cli.story import Story
    from edgecal.core.project import Project
    from edgecal.core.rollout.job import Job
    from edgecal.core.rollout.plan import Bound
    from edgecal.core.rollout.settings import RolloutDefaults
    from edgecal.core.rollout.state import Policy
    from edgecal.core.target import Target
    from edgecal.ports import Journal
    from edgecal.workflows.rollout.draft import Draft
    from edgecal.workflows.world import World

T = TypeVar("T")

_WAVES = "1,10%,100%"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A rollout that may begin."""

    draft: Draft
    bundles: Sequence[Bundle]
    targets: Mapping[str, Target]
    """By their names in the plan."""


def prepare(
    words: PlanWords,
    project: Project,
    world: World,
    story: Story,
    *,
    over: ClusterRequest | None = None,
) -> Prepared:
    """Hold the bundles against every target that is meant, and cut the waves.

    Parameters
    ----------
    over
        The cluster whose workers ask the targets.

    Raises
    ------
    EdgecalError
        If something cannot be read, or nobody is left to roll out to.
    """
    from edgecal.cli.building import read_bundles
    from edgecal.cli.selecting import chosen_targets
    from edgecal.cli.wiring import bundling, rollouts
    from edgecal.core.rollout.plan import parse_rollout_name
    from edgecal.workflows.rollout.draft import draft

    name = words.name and parse_rollout_name(words.name, source="--name")
    waves, policy = policy_of(words, project.rollout)
    chosen = chosen_targets(
        words.targets,
        on=words.on,
        inventory=words.inventory,
        probe=words.probe,
        story=story,
        builder=words.builder,
    )
    targets = {one.name: one for one in chosen.values()}
    bundles = read_bundles(words.bundles, project)
    with (
        rollouts.looks(bundles, list(targets), over, lambda text: story.tell(plain(text))) as look,
        story.progress() as progress,
    ):
        seen = 0
        progress("asking targets", seen, len(targets))

        def tell(_report: object) -> None:
            nonlocal seen
            seen += 1
            progress("asking targets", seen, len(targets))

        found = draft(
            name or _default_name(bundles[0]),
            bundles,
            list(targets.values()),
            _job(words, project, bundles, targets),
            waves=waves,
            policy=policy,
            sources={one.manifest_digest: bundling.source_findings(one) for one in bundles},
            world=world,
            look=look,
            tell=tell,
        )
    return Prepared(draft=found, bundles=bundles, targets=targets)


def policy_of(words: PlanWords, defaults: RolloutDefaults) -> tuple[tuple[Bound, ...], Policy]:
    """Read waves and policy: as the command says, else as the project, else as edgecal does.

    Raises
    ------
    InputError
        If an option cannot be read.
    """
    from edgecal.core.rollout import wording
    from edgecal.core.rollout.plan import parse_waves
    from edgecal.core.rollout.state import OnFailure, Policy, Retries

    usual, patience = Policy(), Retries()

    def read(option: str, parse: Callable[..., T], default: T | None, otherwise: T) -> T:
        text = getattr(words, option.replace("-", "_"))
        if text is not None:
            return parse(text, source=f"--{option}")
        return otherwise if default is None else default

    waves = read("waves", parse_waves, defaults.waves, parse_waves(_WAVES))

    def pauses(text: str, *, source: str) -> frozenset[int]:
        return wording.parse_pauses(text, waves=len(waves), source=source)

    pause_after = usual.pause_after
    if defaults.pause_after is not None and words.pause_after is None:
        pause_after = pauses(defaults.pause_after, source="[rollout] pause_after")
    chosen = words.on_failure and OnFailure(words.on_failure)
    return waves, Policy(
        passing=read("success", wording.parse_condition, defaults.success, usual.passing),
        failing=read("failures", wording.parse_gate, defaults.failures, usual.failing),
        missing=read("missing", wording.parse_missing, defaults.missing, usual.missing),
        on_failure=chosen or defaults.on_failure or usual.on_failure,
        soak_ms=read("soak", wording.parse_duration, defaults.soak_ms, usual.soak_ms),
        pause_after=read("pause-after", pauses, None, pause_after),
        in_flight=words.in_flight or defaults.in_flight or usual.in_flight,
        retries=Retries(
            tries=words.tries or defaults.tries or patience.tries,
            deadline_ms=read(
                "deadline", wording.parse_duration, defaults.deadline_ms, patience.deadline_ms
            ),
        ),
    )


def check_new_name(name: str | None, journal: Journal) -> None:
    """Make sure, before the work, that a rollout may be called so.

    Raises
    ------
    InputError
        If it may not.
    """
    from edgecal.core.rollout.plan import parse_rollout_name
    from edgecal.errors import InputError

    if name is None:
        return
    parse_rollout_name(name, source="--name")
    if any(row.rollout == name for row in journal.rollouts()):
        raise InputError(
            f"there is a rollout {name!r} already",
            where="--name",
            remedy=f"go on with it: 'edgecal rollout resume {name}'; or choose another name",
        )


def find_bundles(
    digests: Sequence[str], places: Sequence[str], given: Sequence[Path] | None, *, rollout: str
) -> list[Bundle]:
    """Find a rollout's bundles again, by digest: among those given, else where they lay.

    Raises
    ------
    InputError
        If one is not there any more, or is another one now.
    """
    from edgecal.cli.wiring import bundling
    from edgecal.errors import InputError

    here = {one.manifest_digest: one for one in map(bundling.read_bundle, given or ())}
    found = []
    for digest, place in zip(digests, places, strict=True):
        bundle = next((one for key, one in here.items() if key == digest), None)
        if bundle is None and not given:
            bundle = bundling.read_bundle(Path(place))
        if bundle is None or bundle.manifest_digest != digest:
            raise InputError(
                f"the bundle {digest[:19]}… of this rollout is "
                + ("not among those given" if given else f"not the one that lies at {place}"),
                where=f"rollout {rollout}",
                remedy=f"name it: edgecal rollout resume {rollout} BUNDLE",
            )
        found.append(bundle)
    return found


def find_targets(names: Sequence[str], job: Job, *, inventory: Path | None) -> dict[str, Target]:
    """Find a rollout's targets again; one that has left the inventory is left out.

    Parameters
    ----------
    inventory
        Instead of the file that they came from.
    """
    from dataclasses import replace

    from edgecal.cli.wiring import lookup

    file = inventory or (Path(job.inventory) if job.inventory else None)
    known = lookup.inventory(file).inventory.admitting(names).targets
    found = {}
    for name in names:
        # without an inventory a plain name is a host of ssh_config, as it was in the beginning
        if name in known or not file or "@" in name or ":" in name:
            target = lookup.target(name, known=known)
            found[name] = replace(target, builder=job.builder) if job.builder else target
    return found


def _default_name(bundle: Bundle) -> str:
    from edgecal.cli.wiring import machine

    return f"{bundle.manifest.name.lstrip('._-') or 'rollout'}-{machine.now():%Y%m%d-%H%M%S}"


def _job(
    words: PlanWords, project: Project, bundles: Sequence[Bundle], targets: Mapping[str, Target]
) -> Job:
    from edgecal.cli.building import build_timeout_s, choose_options, choose_profile
    from edgecal.cli.wiring import lookup
    from edgecal.core.manifest import parse_name
    from edgecal.core.rollout.job import Job

    said: dict[str, Any] = {
        "dla_core": words.dla,
        "gpu_fallback": False if words.no_gpu_fallback else None,
        "fp16": False if words.no_fp16 else None,
        "precision": words.precision,
        "workspace_mib": words.workspace,
        "profile": choose_profile(words.profile, project),
        "layout": None,
    }
    known = lookup.inventory(words.inventory)
    drawn = known.inventory.admitting(list(targets)).targets
    return Job(
        places=tuple(str(one.path.resolve()) for one in bundles),
        inventory=str(Path(known.source).resolve())
        if known.source and any(name in drawn for name in targets)
        else "",
        name=parse_name(words.model_name, source="--as") if words.model_name else None,
        builder=words.builder,
        builds={name: choose_options(project, one, said) for name, one in targets.items()},
        accept_unproven=words.accept_unproven,
        accept_restamped=words.accept_restamped,
        thresholds=project.thresholds,
        build_timeout_s=build_timeout_s(words.build_timeout, project),
        activate_within_s=words.activate_within,
    )
