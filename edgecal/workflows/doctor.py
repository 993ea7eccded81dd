"""What a host can calibrate for natively: every JetPack's TensorRT, and those of given targets."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from edgecal.core.hosts import (
    HostFacts,
    NativeWay,
    Verdict,
    container_for,
    native_way,
    takes_caches,
    wheel_for,
)
from edgecal.core.platforms import jetpack_choices, newest_patch
from edgecal.core.versions import TensorRTVersion, parse_tensorrt
from edgecal.workflows.world import utc_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgecal.core.platforms import Platforms
    from edgecal.core.target_state import LastFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetNeed:
    """What one target wants of a host."""

    last: LastFacts
    way: NativeWay | None
    """`None` where its TensorRT is not known."""

    def to_json(self) -> dict[str, Any]:
        """Give the keys scripts rely on."""
        facts, seen = self.last.facts, self.last.seen
        return {
            "target": self.last.target.name,
            "asked": "live" if self.last.live else "cached" if facts else None,
            "seen": utc_text(seen) if seen else None,
            "module": facts.module if facts else None,
            "jetpack": facts.jetpack if facts else None,
            "tensorrt": str(facts.tensorrt) if facts and facts.tensorrt else None,
            "native": way_to_json(self.way) if self.way else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What a host is and can, beside what targets want."""

    host: HostFacts
    ways: tuple[tuple[str | None, NativeWay], ...]
    """Per TensorRT major.minor, oldest first: the JetPacks that have it, and the way to it."""
    targets: tuple[TargetNeed, ...]
    commands: Mapping[str, tuple[str, ...]]
    """Per TensorRT major.minor that this host can calibrate for natively: how, once it is there."""

    def to_json(self) -> dict[str, Any]:
        """Give the keys scripts rely on (`edgecal.doctor/1`)."""
        return {
            "schema": "edgecal.doctor/1",
            "host": {
                **asdict(self.host),
                "installed": [str(one) for one in self.host.installed()],
            },
            "native": [
                {
                    "jetpack": jetpack,
                    **way_to_json(way),
                    "commands": list(self.commands.get(way.tensorrt.major_minor, ())),
                }
                for jetpack, way in self.ways
            ],
            "targets": [target.to_json() for target in self.targets],
        }


def diagnose(
    host: HostFacts,
    platforms: Platforms,
    targets: Sequence[LastFacts] = (),
    *,
    only_targets: bool = False,
) -> Diagnosis:
    """Judge a host against the JetPacks of the tables and against targets.

    Parameters
    ----------
    targets
        With what is known of each; nothing is asked here.
    only_targets
        Leave out the JetPacks that no target has.
    """
    needs = tuple(
        TargetNeed(
            last=last,
            way=native_way(host, last.facts.tensorrt, platforms)
            if last.facts is not None and last.facts.tensorrt is not None
            else None,
        )
        for last in targets
    )
    jetpacks = {version: names for names, version in jetpack_choices(platforms)}
    wanted = {need.way.tensorrt.major_minor: need.way.tensorrt for need in needs if need.way}
    if not only_targets:
        wanted.update({text: _of_minor(platforms, text) for text in jetpacks if text not in wanted})
    ways = tuple(
        (jetpacks.get(version.major_minor), native_way(host, version, platforms))
        for version in sorted(wanted.values())
    )
    return Diagnosis(
        host=host,
        ways=ways,
        targets=needs,
        commands={
            way.tensorrt.major_minor: native_commands(way, host, platforms) for _, way in ways
        },
    )


def native_commands(way: NativeWay, host: HostFacts, platforms: Platforms) -> tuple[str, ...]:
    """Say how TensorRT itself calibrates, in each place that it may lie in.

    A library of the system is of use only to a Python that has its bindings, which nobody knows.
    """
    version = way.tensorrt.major_minor
    places = []
    if way.verdict is Verdict.READY:
        package = host.tensorrt_package
        here = package is not None and parse_tensorrt(package).major_minor == version
        places.append("--backend tensorrt" if here else "--trt-python PYTHON")
    elif way.verdict is Verdict.INSTALLABLE:
        container = container_for(platforms, way.tensorrt)
        if wheel_for(way.tensorrt) is not None:
            places.append("--trt-python python3")
        if container is not None:
            places.append(f"--trt-container {container.image}")
    return tuple(
        f"edgecal calibrate MODEL.onnx --data DATA --tensorrt {version} {place} "
        f"-o NAME-{version}.edgecal"
        for place in places
    )


def cpu_command(version: str) -> str:
    """Say how ONNX Runtime calibrates for a TensorRT major.minor on any CPU."""
    return (
        f"edgecal calibrate MODEL.onnx --data DATA --tensorrt {version} -o NAME-{version}.edgecal"
    )


def way_to_json(way: NativeWay) -> dict[str, Any]:
    """Give the keys scripts rely on."""
    return {
        "tensorrt": way.tensorrt.major_minor,
        "verdict": way.verdict.value,
        "reason": way.reason,
        "steps": list(way.steps),
        "cpu": cpu_command(way.tensorrt.major_minor) if takes_caches(way.tensorrt) else None,
    }


def _of_minor(platforms: Platforms, text: str) -> TensorRTVersion:
    version = parse_tensorrt(text)
    patch = newest_patch(platforms, version.major, version.minor)
    return TensorRTVersion(version.major, version.minor, patch)
