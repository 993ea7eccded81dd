"""What is asked of a builder, and what came of it: the same values for every builder."""

from __future__ import annotations

import enum
import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edgecal.core.manifest import Digest
    from edgecal.core.target import BuilderFact, TargetFacts


_INT8: Final = "Int8"
"""As TensorRT's logs spell the type."""


@dataclass(frozen=True, slots=True)
class ShapeRange:
    """The shapes that an engine takes at one input: least, usual, largest."""

    least: tuple[int, ...]
    usual: tuple[int, ...]
    largest: tuple[int, ...]

    def holds(self, other: ShapeRange) -> bool:
        """Tell whether every shape of another range is one of this."""
        return len(self.least) == len(other.least) and all(
            low <= least and largest <= high
            for low, least, largest, high in zip(
                self.least, other.least, other.largest, self.largest, strict=True
            )
        )


def span_of(shapes: Sequence[tuple[int, ...]]) -> ShapeRange:
    """Give the range of shapes of one rank; usual is what comes most often, else first."""
    sides = list(zip(*shapes, strict=True))
    return ShapeRange(
        least=tuple(map(min, sides)),
        usual=max(shapes, key=shapes.count),
        largest=tuple(map(max, sides)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """How an engine is to be built; part of a release's identity."""

    precision: Literal["int8", "fp16"] = "int8"
    """FP16 leaves the cache unused: for devices that have no INT8."""
    dla_core: int | None = None
    gpu_fallback: bool = True
    fp16: bool = True
    """FP16 beside INT8, for layers that have no INT8 implementation."""
    workspace_mib: int | None = None
    """Memory that the builder may take for trying kernels; its own choice by default."""
    profile: tuple[tuple[str, ShapeRange], ...] = ()
    """Shapes by input, where they are to vary; else those that the golden inputs have."""
    layout: Literal["plain", "deepstream"] = "plain"
    """What else lies beside the engine: with `deepstream` what an nvinfer configuration needs."""

    @property
    def int8(self) -> bool:
        """Tell whether the engine may run in INT8."""
        return self.precision == "int8"


def parse_build_options(recorded: Mapping[str, Any]) -> BuildOptions:
    """Read options as `asdict` and JSON left them; words of a later edgecal are passed over."""
    known = {one.name for one in fields(BuildOptions)}
    values: dict[str, Any] = {key: value for key, value in recorded.items() if key in known}
    values = {key: tuple(one) if isinstance(one, list) else one for key, one in values.items()}
    if "profile" in values:
        values["profile"] = tuple(
            (name, ShapeRange(**{key: tuple(shape) for key, shape in shapes.items()}))
            for name, shapes in values["profile"]
        )
    return BuildOptions(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """Everything a builder needs to know; files lie in the job's working directory by name."""

    builder: BuilderFact
    options: BuildOptions
    shapes: Mapping[str, ShapeRange]
    """Of the golden inputs: the engine is to take them all."""
    dynamic: frozenset[str]
    """Inputs that have dynamic dimensions."""
    outputs: tuple[str, ...]
    model_file: str
    cache_file: str | None
    """`None` where no cache is used: an FP16 build, or a network with Q/DQ pairs of its own."""
    fp16_layers: tuple[str, ...] = ()
    """Layers to keep out of INT8, by name."""
    timing_cache: str | None = None
    """Absolute path of a file on the target that the builder reads, if it is there, and writes."""

    def profile(self) -> dict[str, ShapeRange]:
        """Give the shapes of every dynamic input: as asked for, else those of the golden inputs."""
        asked = dict(self.options.profile)
        return {
            name: asked.get(name, golden)
            for name, golden in self.shapes.items()
            if name in self.dynamic
        }


class Proof(enum.Enum):
    """Whether the log shows that the engine was built from the cache."""

    PROVED = "proved"
    REFUTED = "refuted"
    UNPROVEN = "unproven"
    NOT_APPLICABLE = "not-applicable"
    """No cache was to be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """What a build's log says."""

    proof: Proof
    reason: str
    """One clause: what proved, refuted or failed to prove it."""
    mismatch: bool = False
    """TensorRT says that the cache's header is not the one it looks for."""
    used: tuple[str, ...] | None = None
    """Entries of the cache that the builder used; `None` where its log does not say."""
    missing: tuple[str, ...] | None = None
    """Tensors of the network that the builder wanted a scale for and found none."""
    unused: tuple[str, ...] | None = None
    """Entries that matched nothing."""
    fell_back: tuple[str, ...] = ()
    """Layers that the DLA refused and the GPU runs."""
    precisions: Mapping[str, int] | None = None
    """Layers of the engine by the type of what they give, such as `Int8`; `None` where the log
    does not list them."""


def split_log(data: bytes) -> Iterator[str]:
    """Give the lines of a log; names that are not UTF-8 come out as a cache's reader spells them.

    Lines end at line feeds alone: a name may hold what else Python takes for a line's end.
    """
    start = 0
    while start < len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        yield data[start:end].decode("utf-8", "surrogateescape").removesuffix("\r")
        start = end + 1


def without_cache(result: BuildResult) -> BuildResult:
    """Give what a log says of a build that was to use no cache: there is nothing to prove."""
    return replace(
        result,
        proof=Proof.NOT_APPLICABLE,
        reason="the engine was built without a calibration cache, as asked",
        used=None,
        missing=None,
        unused=None,
    )


def with_pairs(result: BuildResult) -> BuildResult:
    """Weigh what a log says of a network that carries its scales as Q/DQ pairs.

    There is no cache whose use could be shown. That INT8 came of the pairs is shown by the types of
    the engine's layers, where the log lists them.
    """
    types = result.precisions
    if types is None:
        proof = Proof.NOT_APPLICABLE
        reason = "the network carries the scales, and the log does not list the engine's layers"
    else:
        layers, int8 = sum(types.values()), types.get(_INT8, 0)
        proof = Proof.PROVED if int8 else Proof.UNPROVEN
        reason = (
            f"the network carries the scales; {int8 or 'none'} of the {layers} layers that the log "
            "lists give INT8"
        )
    return replace(result, proof=proof, reason=reason, used=None, missing=None, unused=None)


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
        those build options that differ from the defaults: an edgecal with more options still knows
        the releases of one with fewer.
    """
    usual = asdict(BuildOptions())
    identity = {
        "manifest": manifest,
        "builder": builder.name,
        "tensorrt": str(builder.tensorrt) if builder.tensorrt else None,
        "module": facts.module or facts.model or facts.arch,
        "options": {key: one for key, one in asdict(options).items() if one != usual[key]},
        **({"again": again} if again else {}),
    }
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
