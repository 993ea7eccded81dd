"""What rules look at: a bundle's cache, and its pairing with a target and build options."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgecal.core.cache import Header
from edgecal.core.document import LegacyHeader
from edgecal.core.oddities import judge_scales

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgecal.core.build import BuildOptions
    from edgecal.core.document import Document
    from edgecal.core.findings import Finding
    from edgecal.core.manifest import CoverageRecord, ExplicitRecord
    from edgecal.core.platforms import HostGpu, JetPackRelease, Module, Platforms
    from edgecal.core.target import BuilderFact, Target, TargetFacts
    from edgecal.core.versions import TensorRTVersion

TRTEXEC: Final = "trtexec"
TENSORRT: Final = "tensorrt"
REFERENCE: Final = "onnxruntime"
BUILDERS: Final = (TRTEXEC, TENSORRT, REFERENCE)
"""What edgecal can drive, the preferred one first."""

FIRST_TRTEXEC: Final = (7, 1)
FIRST_LAYER_PRECISIONS: Final = (8, 4)
FIRST_WITHOUT_CALIBRATION: Final = 11
LEGACY: Final = "LegacyCalibration"
MINMAX: Final = "MinMaxCalibration"

_VERSION_IN_NAME = re.compile(r"-[0-9]{1,2}\.[0-9]{1,2}$")
"""As `calibrate` names the bundles of several TensorRTs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheFacts:
    """A bundle's cache, looked at once for all targets."""

    bundle: str
    """The bundle's name."""
    tensorrt: TensorRTVersion
    """What the manifest says that it is for."""
    header: Header | LegacyHeader | None
    header_text: str
    written_by_tensorrt: bool = False
    path: str | None = None
    """Where the bundle lies, for commands in remedies."""
    scales: tuple[Finding, ...] = ()
    """What is suspicious about its scales."""
    coverage: CoverageRecord | None = None
    """As the manifest counts it, less what has got an entry since."""
    inputs: tuple[str, ...] = ()
    """The network's float inputs."""
    dynamic_inputs: Mapping[str, tuple[int, ...]] | None = None
    """Shapes of inputs with dimensions chosen at run time, which are -1."""
    explicit: ExplicitRecord | None = None
    """Where there is no cache: how the network itself carries the scales, in a bundle `qdq`."""

    @property
    def algorithm(self) -> str | None:
        """The calibrator that the header names; `None` where it cannot be read."""
        if isinstance(self.header, Header):
            return self.header.algorithm
        return LEGACY if isinstance(self.header, LegacyHeader) else None

    @property
    def place(self) -> str:
        """The bundle, as a word of a command line."""
        return shlex.quote(self.path or f"{self.bundle}.edgecal")


def suspicious_scales(document: Document) -> tuple[Finding, ...]:
    """Find the scales of a cache that TensorRT would have to guess about."""
    return tuple(one for one in judge_scales(document) if one.rule == "scale-suspicious")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """A bundle, a target and build options. What is not known is `None` and yields no finding."""

    bundle: str
    bundle_tensorrt: TensorRTVersion
    target: Target
    facts: TargetFacts
    module: Module | None
    """The target's row in the platform tables, where it has one."""
    builder: BuilderFact | None
    """The one that would build; `None` where the target has none that may."""
    options: BuildOptions
    needed_bytes: int | None = None
    """Disk space the push would take."""
    restamped_from: TensorRTVersion | None = None
    """Which TensorRT wrote the cache, where its header was changed since."""
    accept_restamped: bool = False
    cache: CacheFacts | None = None
    release: JetPackRelease | None = None
    """The target's JetPack in the platform tables."""
    model_bytes: int | None = None
    """Size of the network's files."""
    host: HostGpu | None = None
    """A host GPU that is to calibrate for the target by TensorRT itself."""
    platforms: Platforms | None = None
    """Where rules look for what would do instead."""
    signed: bool | None = None
    """Whether the bundle has a signature; nobody but the target has verified it."""
    signed_for: tuple[str, ...] | None = None
    """The devices that its manifest names."""

    @property
    def explicit(self) -> ExplicitRecord | None:
        """What takes the place of a cache in a bundle of form `qdq`."""
        return self.cache.explicit if self.cache is not None else None

    @property
    def tensorrt(self) -> TensorRTVersion | None:
        """The TensorRT that would build; the reference builder has none."""
        if self.builder is None or self.builder.name == REFERENCE:
            return None
        return self.builder.tensorrt

    def builder_is(self, name: str) -> bool:
        """Tell whether that builder would build."""
        return self.builder is not None and self.builder.name == name

    @property
    def place(self) -> str:
        """The bundle, as a word of a command line."""
        return self.cache.place if self.cache else shlex.quote(f"{self.bundle}.edgecal")

    @property
    def device(self) -> str:
        """What the target is, for people."""
        if self.module is not None:
            return self.module.name
        return self.facts.model or self.target.name

    @property
    def dla_cores(self) -> int | None:
        """How many DLA cores the target has: what it says counts, else the tables."""
        if self.facts.dla_cores is not None or self.module is None:
            return self.facts.dla_cores
        return self.module.dla_cores


def choose_builder(
    facts: TargetFacts,
    *,
    asked: str | None,
    tensorrt: TensorRTVersion,
    algorithm: str | None = None,
    fp16_layers: Sequence[str] = (),
    minimum: TensorRTVersion | None = None,
) -> BuilderFact | None:
    """Pick what builds on a target.

    trtexec where it is found; of several, one of the bundle's major.minor before others. TensorRT's
    Python API where there is no trtexec, or where it alone can do what is wanted and is of the
    bundle's major.minor. The reference builder only where it is asked for, or the target is no
    Jetson. A machine that is none may have the Python API without any GPU.

    Parameters
    ----------
    algorithm
        The calibrator that the cache's header names, where the cache is to be used.
    fp16_layers
        Layers that are to be kept out of INT8.
    minimum
        The first TensorRT that takes the bundle, where it is not for one major.minor alone.
    """
    usable = [one for one in facts.builders if asked in {None, one.name}]
    if asked is None and facts.is_jetson:
        usable = [one for one in usable if one.name != REFERENCE]
    elif asked is None and facts.gpu is None:
        usable = [one for one in usable if one.name != TENSORRT]

    def preference(builder: BuilderFact) -> tuple[bool, bool, int, bool]:
        version = builder.tensorrt
        fits = version is not None and (
            version.major_minor == tensorrt.major_minor if minimum is None else version >= minimum
        )
        able = fits if builder.name == TENSORRT else trtexec_can(builder, algorithm, fp16_layers)
        place = BUILDERS.index(builder.name) if builder.name in BUILDERS else 9
        return builder.name == REFERENCE, not able, place, not fits

    return min(usable, key=preference, default=None)


def trtexec_can(
    builder: BuilderFact, algorithm: str | None, fp16_layers: Sequence[str] = ()
) -> bool:
    """Tell whether a trtexec reads this kind of cache and can keep these layers out of INT8.

    Source: github.com/NVIDIA/TensorRT, samples/common: sampleEngines.cpp (its calibrator is of the
    kind Entropy2), sampleOptions.cpp of 8.4 (layer precisions, split at commas and quotes).
    """
    if algorithm == MINMAX:
        return False
    version = builder.tensorrt
    if version is None or not fp16_layers:
        return version is not None
    spelled = not any("," in name or "'" in name for name in fp16_layers)
    return spelled and (version.major, version.minor) >= FIRST_LAYER_PRECISIONS


def other_builder(facts: TargetFacts, builder: BuilderFact) -> BuilderFact | None:
    """Find the Python API of a trtexec's TensorRT: its calibrator knows what a log leaves open."""
    if builder.name != TRTEXEC or builder.tensorrt is None:
        return None
    wanted = builder.tensorrt
    return next(
        (
            one
            for one in facts.builders
            if one.name == TENSORRT
            and one.tensorrt is not None
            and one.tensorrt.major_minor_patch == wanted.major_minor_patch
        ),
        None,
    )


def calibrate_command(tensorrt: TensorRTVersion, bundle: str) -> str:
    """Say how to make a bundle for another TensorRT; a version in the name gives way to it."""
    name = _VERSION_IN_NAME.sub("", bundle)
    return (
        f"edgecal calibrate MODEL.onnx --data DATA --tensorrt {tensorrt.major_minor} "
        f"-o {name}-{tensorrt.major_minor}.edgecal"
    )


def derive_command(tensorrt: TensorRTVersion, pair: Pairing) -> str:
    """Say how to make a bundle for another TensorRT out of one, without a second pass."""
    name = _VERSION_IN_NAME.sub("", pair.bundle)
    return (
        f"edgecal calibrate --from {pair.place} --tensorrt {tensorrt.major_minor} "
        f"-o {name}-{tensorrt.major_minor}.edgecal"
    )
