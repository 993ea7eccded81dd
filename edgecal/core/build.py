"""What is asked of a builder, and what came of it: the same values for every builder."""

from __future__ import annotations

import enum
import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgecal.core.manifest import Digest
    from edgecal.core.target import BuilderFact, TargetFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """How an engine is to be built; part of a release's identity."""

    dla_core: int | None = None
    gpu_fallback: bool = True
    fp16: bool = True
    """FP16 beside INT8, for layers that have no INT8 implementation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """Everything a builder needs to know; files lie in the job's working directory by name."""

    builder: BuilderFact
    options: BuildOptions
    shapes: Mapping[str, tuple[int, ...]]
    """Of the golden inputs; networks with dynamic dimensions are built for exactly these."""
    dynamic: frozenset[str]
    """Inputs that have dynamic dimensions."""
    outputs: tuple[str, ...]
    model_file: str
    cache_file: str
    workspace_mib: int | None = None


class Proof(enum.Enum):
    """Whether the log shows that the engine was built from the cache."""

    PROVED = "proved"
    REFUTED = "refuted"
    UNPROVEN = "unproven"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """What a build's log says."""

    proof: Proof
    reason: str
    """One clause: what proved, refuted or failed to prove it."""
    used: tuple[str, ...] | None = None
    """Entries of the cache that the builder used; `None` where its log does not say."""
    missing: tuple[str, ...] | None = None
    """Tensors of the network that the builder wanted a scale for and found none."""
    unused: tuple[str, ...] | None = None
    """Entries that matched nothing."""


def count_entries(result: BuildResult) -> dict[str, int | None]:
    """Count what a build used, missed and did not use of its cache; `None` where nobody knows."""
    return {
        key: None if names is None else len(names)
        for key, names in (
            ("used", result.used),
            ("missing", result.missing),
            ("unused", result.unused),
        )
    }


def release_id(
    *,
    manifest: Digest,
    builder: BuilderFact,
    facts: TargetFacts,
    options: BuildOptions,
    again: str | None = None,
) -> str:
    """Name a release after all that decides its engine.

    Parameters
    ----------
    again
        The moment of a rebuild of what is active: the active release is never overwritten, so the
        second build of the same content needs a name of its own.

    Returns
    -------
    str
        16 hex digits of the digest over manifest digest, builder, full TensorRT version, module and
        build options.
    """
    identity = {
        "manifest": manifest,
        "builder": builder.name,
        "tensorrt": str(builder.tensorrt) if builder.tensorrt else None,
        "module": facts.module or facts.model or facts.arch,
        "options": asdict(options),
        **({"again": again} if again else {}),
    }
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
