"""A bundle read back from a target that was built from it, so that it can be built from again."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from edgecal.core.build import parse_build_options
from edgecal.core.golden import GoldenRun, parse_golden, serialize_golden
from edgecal.core.manifest import (
    CACHE_FILE,
    GOLDEN_FILE,
    HOST_ONLY,
    MANIFEST_FILE,
    SIGNATURE_FILE,
    Digest,
    FileRecord,
    digest_of,
    parse_manifest,
)
from edgecal.core.precision import PRECISION_FILE
from edgecal.errors import BundleError, InputError, TransferError
from edgecal.workflows.job_files import BUNDLED_CACHE, GOLDEN_OUTPUTS, GOLDEN_SPEC
from edgecal.workflows.targets import open_device, pick_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    from edgecal.core.build import BuildOptions
    from edgecal.core.manifest import Manifest
    from edgecal.core.target import Target
    from edgecal.workflows.device import Device
    from edgecal.workflows.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBundle:
    """A bundle whose large files stay where they are; see `edgecal.ports.BundleFiles`."""

    where: str
    manifest: Manifest
    manifest_digest: Digest
    contents: Mapping[str, bytes]

    @property
    def on_target(self) -> bool:
        """Say yes: it may be older than what has been active since."""
        return True

    def shipped(self) -> Mapping[str, FileRecord]:
        """Give the files that a target gets, the manifest's signature among them."""
        files = {name: one for name, one in self.manifest.files.items() if name not in HOST_ONLY}
        if (data := self.contents.get(SIGNATURE_FILE)) is not None:
            files[SIGNATURE_FILE] = FileRecord(digest=digest_of(data), size=len(data))
        return files

    def open(self, name: str) -> BinaryIO:
        """Open what was read back.

        Raises
        ------
        TransferError
            If it is one of those that stayed: then the target's store lost it.
        """
        try:
            return io.BytesIO(self.contents[name])
        except KeyError as error:
            raise TransferError(
                f"the target's store has lost {name}",
                where=self.where,
                remedy="push the bundle itself: what is missing is sent again",
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildPlan:
    """What would be built again."""

    name: str
    release: str
    bundle: StoredBundle
    build: BuildOptions
    builder: str | None


def plan_rebuild(
    target: Target, world: World, *, name: str | None, release: str | None
) -> RebuildPlan:
    """Read back what a release was built from: the active one's by default.

    Raises
    ------
    InputError
        If the model or release is not there, or nothing is active.
    TransferError
        If a file of it is gone or damaged.
    """
    with open_device(target, world) as (device, _):
        model = pick_model(device.models(), name, target)
        chosen = release or model.current
        if chosen is None or chosen not in model.releases:
            raise InputError(
                f"release {chosen!r} of {model.name} is not there; it keeps "
                f"{', '.join(model.releases) or 'none'}"
                if chosen
                else f"no release of {model.name} is active",
                where=target.name,
                remedy="name one that is kept with --release",
            )
        record = device.record(model.name, chosen)
        return RebuildPlan(
            name=model.name,
            release=chosen,
            bundle=_read_back(device, record, f"release {chosen} on {target.name}"),
            build=parse_build_options(record.get("options", {})),
            builder=record.get("builder", {}).get("name"),
        )


def _read_back(device: Device, record: Mapping[str, Any], where: str) -> StoredBundle:
    digests: Mapping[str, Digest] = record.get("files", {})

    def read(name: str) -> bytes:
        if name not in digests:
            raise BundleError(
                f"it was built by an edgecal that left no {name} there",
                where=where,
                remedy="push the bundle itself",
            )
        return device.blob(digests[name])

    data = read(MANIFEST_FILE)
    manifest = parse_manifest(data, source=where)
    contents = {MANIFEST_FILE: data, GOLDEN_FILE: serialize_golden(_golden(read, where))}
    for name in (SIGNATURE_FILE, PRECISION_FILE):
        if name in digests:
            contents[name] = read(name)
    if CACHE_FILE in manifest.files:
        contents[CACHE_FILE] = read(BUNDLED_CACHE)
    return StoredBundle(
        where=where,
        manifest=manifest,
        manifest_digest=digests[MANIFEST_FILE],
        contents=contents,
    )


def _golden(read: Callable[[str], bytes], where: str) -> tuple[GoldenRun, ...]:
    """Put the golden runs together: their inputs lie there raw, their outputs in one file."""
    outputs = parse_golden(read(GOLDEN_OUTPUTS), source=where)
    try:
        spec = json.loads(read(GOLDEN_SPEC))
        return tuple(
            replace(run, inputs={one["name"]: _array(one, read) for one in described})
            for run, described in zip(outputs, spec, strict=True)
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"its golden runs cannot be read back: {error}",
            where=where,
            remedy="push the bundle itself",
        ) from error


def _array(described: Mapping[str, Any], read: Callable[[str], bytes]) -> npt.NDArray[Any]:
    flat: npt.NDArray[Any] = np.frombuffer(read(described["file"]), np.dtype(described["dtype"]))
    return flat.reshape(tuple(described["shape"]))
