"""What a host can calibrate for natively: every JetPack's TensorRT, and those of given targets."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from edgecal.core.hosts import HostFacts, NativeWay, native_way, takes_caches
from edgecal.core.platforms import jetpack_choices, newest_patch
from edgecal.core.versions import TensorRTVersion, parse_tensorrt
from edgecal.workflows.world import utc_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgecal.core.audit import LastFacts
    from edgecal.core.platforms import Platforms


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

    def to_json(self) -> dict[str, Any]:
        """Give the keys scripts rely on (`edgecal.doctor/1`)."""
        return {
            "schema": "edgecal.doctor/1",
            "host": {
                **asdict(self.host),
                "installed": [str(one) for one in self.host.installed()],
            },
            "native": [{"jetpack": jetpack, **way_to_json(way)} for jetpack, way in self.ways],
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
    return Diagnosis(
        host=host,
        ways=tuple(
            (jetpacks.get(version.major_minor), native_way(host, version, platforms))
            for version in sorted(wanted.values())
        ),
        targets=needs,
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
