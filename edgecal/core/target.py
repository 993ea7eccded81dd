"""A target as values: how to reach it, and what it says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

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
    dla: int | None = None
    """The DLA core to build for there; the project's choice by default, likewise the next two."""
    precision: str | None = None
    workspace_mib: int | None = None
    python: str | None = None
    """The Python that the reference builder runs on; `python3` of the session by default."""
    identity_file: str | None = None
    known_hosts: str | None = None
    """Read instead of the user's own known_hosts files."""
    exec: tuple[str, ...] = ()
    """What leads into where the application runs, such as `docker exec -i app`: every command on
    the target is put behind these words."""
    pre_build: tuple[str, ...] = ()
    """Run on the target before each build; a build does not begin if it fails."""
    post_build: tuple[str, ...] = ()
    """Run after each build, however that ended."""
    health: tuple[str, ...] = ()
    """Run again and again after an activation; if it fails, the target goes back by itself."""
    soak_s: int = 10
    """For how long."""
    require_signature: bool = False
    """Whether nothing unsigned is built there, even if its own policy would let it pass."""

    @property
    def address(self) -> str:
        """Where its answers come from, to tell it from others of the same name."""
        login = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        inside = f" {' '.join(self.exec)}" if self.exec else ""
        return f"{login}{self.host}{port}{inside}"


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
    tensorrt_folder: str | None = None
    """Where that package is installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedNode:
    """A device node of the GPU that the user cannot open, and the group that owns it."""

    path: str
    group: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerFact:
    """A container that runs on the target."""

    engine: str
    name: str
    image: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningFacts:
    """What a target has in /etc/edgecal for judging signatures, as its user sees it."""

    present: bool
    """Whether there is anything at all."""
    openssl: bool = False
    required: bool = False
    name: str | None = None
    """What its policy calls this device."""
    problem: str | None = None
    """Why its policy cannot be followed."""
    keys: tuple[str, ...] = ()
    """Fingerprints of the public keys: `sha256:` over their DER form."""
    unusable_keys: tuple[str, ...] = ()
    """Files that openssl does not take for a public key."""
    writable: tuple[str, ...] = ()
    """What the user could change there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFacts:
    """What one probe learnt. Unknown is `None`, never a guess."""

    root: str
    """Absolute path of edgecal's folder on the target."""
    is_jetson: bool
    root_writable: bool | None = None
    """Whether the user may write there, or into the nearest folder above that exists."""
    root_filesystem: str | None = None
    """What that folder lies on, such as `ext4`, `nfs4`, or `overlay` inside a container."""
    root_mount_options: tuple[str, ...] = ()
    tensorrt: TensorRTVersion | None = None
    builders: tuple[BuilderFact, ...] = ()
    libraries: tuple[TensorRTVersion, ...] = ()
    """The TensorRT libraries of the system, each version once, the oldest first."""
    trtexec_on_path: bool | None = None
    """Whether a session finds `trtexec` by its name; `None` where there is none at all."""
    silent_trtexecs: tuple[str, ...] = ()
    """Paths of those that run but do not name their version, as before TensorRT 8."""
    broken_trtexecs: tuple[tuple[str, str], ...] = ()
    """Paths of those that do not start, each with what it said."""
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
    gpu: str | None = None
    """What nvidia-smi calls it, on a machine that is no Jetson."""
    gpu_access: bool | None = None
    """Whether the user can open the GPU's device nodes; `None` where there are none."""
    closed_nodes: tuple[ClosedNode, ...] = ()
    arch: str | None = None
    user: str | None = None
    groups: tuple[str, ...] = ()
    hostname: str | None = None
    container: str | None = None
    """What kind of container answered, such as `docker`; `None` outside of any."""
    container_engines: tuple[str, ...] = ()
    """Programs that run containers; asked for only where the system itself has no TensorRT."""
    containers: tuple[ContainerFact, ...] = ()
    containers_hidden: bool = False
    """Whether the user may not ask the engine what runs."""
    disk_free_bytes: int | None = None
    memory_bytes: int | None = None
    memory_available_bytes: int | None = None
    swap_bytes: int | None = None
    clock: datetime | None = None
    """What the target's own clock said when it answered."""
    power_mode: str | None = None
    missing_tools: tuple[str, ...] = ()
    """Programs edgecal needs on every target (GNU coreutils) that are not there."""
    signing: SigningFacts | None = None
    """What it has for judging signatures; `None` where nobody asked."""
