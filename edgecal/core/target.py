"""A target as values: how to reach it, and what it says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgecal.core.versions import TensorRTVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Somewhere to ship to. `None` leaves the choice to ssh_config or to the probe."""

    name: str
    host: str
    user: str | None = None
    port: int | None = None
    root: str | None = None
    """Where edgecal keeps its files on the target; `~/.edgecal` of the SSH user by default."""
    builder: str | None = None
    python: str | None = None
    """The Python that the reference builder runs on; `python3` of the session by default."""
    identity_file: str | None = None
    known_hosts: str | None = None
    """Read instead of the user's own known_hosts files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuilderFact:
    """A program on the target that can build engines, and the TensorRT it builds with."""

    name: str
    path: str
    tensorrt: TensorRTVersion | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonFact:
    """A Python on the target and the packages of the reference builder it has."""

    path: str
    version: str
    numpy: str | None = None
    onnx: str | None = None
    onnxruntime: str | None = None
    tensorrt: str | None = None
    """What this Python would import: it may differ from the system's library."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFacts:
    """What one probe learnt. Unknown is `None`, never a guess."""

    root: str
    """Absolute path of edgecal's folder on the target."""
    is_jetson: bool
    root_writable: bool | None = None
    """Whether the user may write there, or into the nearest folder above that exists."""
    tensorrt: TensorRTVersion | None = None
    builders: tuple[BuilderFact, ...] = ()
    l4t: str | None = None
    jetpack: str | None = None
    module: str | None = None
    """Slug of the platform tables, where the device is known there."""
    model: str | None = None
    """What `/proc/device-tree/model` says."""
    soc: str | None = None
    compute_capability: str | None = None
    dla_cores: int | None = None
    cuda: str | None = None
    python: PythonFact | None = None
    gpu_access: bool | None = None
    arch: str | None = None
    user: str | None = None
    hostname: str | None = None
    disk_free_bytes: int | None = None
    memory_bytes: int | None = None
    memory_available_bytes: int | None = None
    power_mode: str | None = None
    missing_tools: tuple[str, ...] = ()
    """Programs edgecal needs on every target (GNU coreutils) that are not there."""
