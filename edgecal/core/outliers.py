"""Outliers: targets whose TensorRT is another than that of most of their kind."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from edgecal.core.findings import Finding, Severity
from edgecal.core.hosts import QDQ_COMMAND, takes_caches
from edgecal.core.versions import parse_tensorrt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgecal.core.platforms import Platforms
    from edgecal.core.target_state import TargetState
    from edgecal.core.versions import TensorRTVersion


def outliers(states: Sequence[TargetState], platforms: Platforms) -> dict[str, tuple[Finding, ...]]:
    """Find targets whose TensorRT is another than that of most of their kind.

    A kind is a family of modules, such as `agx-xavier`. More than half of it must agree.
    """
    kinds: dict[str, list[TargetState]] = defaultdict(list)
    for state in states:
        facts = state.last.facts
        module = platforms.module(facts.module) if facts and facts.module else None
        if module is not None and state.tensorrt is not None:
            kinds[module.family].append(state)
    found: dict[str, tuple[Finding, ...]] = {}
    for family, several in kinds.items():
        counts = Counter(one.tensorrt.major_minor for one in several if one.tensorrt)
        common, count = counts.most_common(1)[0]
        if count * 2 <= len(several) or count < 2:
            continue
        for state in several:
            if state.tensorrt is not None and state.tensorrt.major_minor != common:
                message = (
                    f"TensorRT {state.tensorrt}; the rest of the {family} modules has {common} "
                    f"({count} targets)"
                )
                finding = Finding(
                    rule="outlier",
                    severity=Severity.WARNING,
                    subject=state.name,
                    message=message,
                    remedy=_bring_in_line(state, state.tensorrt, common, platforms),
                )
                found[state.name] = (finding,)
    return found


def _bring_in_line(
    state: TargetState, have: TensorRTVersion, common: str, platforms: Platforms
) -> str:
    another = (
        f"edgecal calibrate MODEL.onnx --data DATA --tensorrt {have.major_minor} "
        f"-o NAME-{have.major_minor}.edgecal"
        if takes_caches(have)
        else QDQ_COMMAND
    )
    newest = next(
        (
            release
            for release in reversed(platforms.releases)
            if release.tensorrt_major_minor == common and not release.is_preview
        ),
        None,
    )
    own = state.last.facts.l4t if state.last.facts else None
    release = platforms.release_for_l4t(own) if own else None
    if release is not None and release.tensorrt_major_minor == common:
        first = (
            f"its JetPack {release.jetpack} brings TensorRT {common}: install that again "
            "(package nvidia-tensorrt)"
        )
    elif newest is None:
        first = f"bring it to TensorRT {common}"
    elif have < parse_tensorrt(common):
        first = f"upgrade it to JetPack {newest.jetpack}"
    else:
        first = f"flash it with JetPack {newest.jetpack}"
    return f"{first}; or calibrate another bundle: {another}"
