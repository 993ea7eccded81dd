"""Whether a bundle still belongs to the network and the data that it was made from.

Somebody who looked at the files hands in what was found; here it is held against the manifest.
"""

from __future__ import annotations

import posixpath
import shlex
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from edgecal.core.findings import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from edgecal.core.manifest import DataRecord, Digest, Manifest
    from edgecal.core.project import Project

_ELSEWHERE: Final = "nothing to do on another machine; 'edgecal check' takes it with"
_MODEL: Final = f"{_ELSEWHERE} --model"
_DATA: Final = f"{_ELSEWHERE} --data"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundModel:
    """The file that is said to be the bundle's network, as it lies there now."""

    path: str
    """As it was named."""
    problem: str | None = None
    """Why it could not be looked at."""
    digest: Digest | None = None
    """`None` where size and time of change are those of the manifest, so that nobody read it."""
    canonical_digest: Digest | None = None
    """Without doc strings; known only where the digest differs and the file is a network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundData:
    """What is said to be the bundle's data, as it lies there now."""

    source: str
    """As it was named."""
    kind: str | None = None
    problem: str | None = None
    """Why it could not be looked at."""
    mismatch: str | None = None
    """Why it cannot be the bundle's data."""
    samples: int | None = None
    """How many there are; unreadable ones that the bundle skipped are left out."""
    first: tuple[str, ...] = ()
    """Names of the first samples."""
    digest: Digest | None = None
    """Of as many samples as the bundle used; `None` where nothing changed since it was made."""


def judge_model(manifest: Manifest, found: FoundModel) -> Iterator[Finding]:
    """Refuse a bundle whose source network is another one by now.

    A network that differs in doc strings, producer and metadata alone is the same network.

    Severity: error.
    Source: IInt8Calibrator::readCalibrationCache in NvInfer.h of release/10.16 (calibrate again
    when the network changes); github.com/NVIDIA/TensorRT/issues/3137 (new weights count too).
    Remedy: calibrate again.
    """
    record = manifest.model
    if found.problem is not None:
        yield source_not_checked(manifest, f"the network {found.path}: {found.problem}", _MODEL)
    elif found.digest not in {None, record.digest} and (
        found.canonical_digest != record.canonical_digest
    ):
        yield Finding(
            rule="stale-model",
            severity=Severity.ERROR,
            subject=manifest.name,
            message=f"the network {found.path} changed since this bundle was made of "
            f"{record.source.path}: now {_short(found.digest)}, the manifest says "
            f"{_short(record.digest)}",
            remedy=f"{_again(manifest, model=found.path)}{_another('network', '--model')}",
        )


def judge_data(manifest: Manifest, found: FoundData) -> Iterator[Finding]:
    """Refuse a bundle whose calibration data is another by now.

    What counts is the name, the order and the content of the samples that the bundle used. Data
    that only grew at its end is another, unless --samples left the rest out on purpose; where an
    older manifest does not tell, it passes.

    Severity: error.
    Source: IInt8Calibrator::readCalibrationCache in NvInfer.h of release/10.16 (calibrate again
    when the data changes).
    Remedy: calibrate again.
    """
    record = manifest.data
    if found.problem is not None:
        yield source_not_checked(manifest, f"the data {found.source}: {found.problem}", _DATA)
        return
    changed = _what_changed(manifest, found)
    if changed is not None:
        yield Finding(
            rule="stale-data",
            severity=Severity.ERROR,
            subject=manifest.name,
            message=f"the data {found.source} changed since this bundle was made of "
            f"{record.source}: {changed}",
            remedy=f"{_again(manifest, data=found.source)}{_another('data', '--data')}",
        )
    elif found.samples is not None and found.samples > record.samples and record.limit is None:
        yield source_not_checked(
            manifest,
            f"the data {found.source} holds {found.samples} samples, and the bundle used the first "
            f"{record.samples}",
            "nothing to do where --samples chose them; otherwise calibrate again",
        )


def source_not_checked(manifest: Manifest, what: str, remedy: str) -> Finding:
    """Say that a source of the bundle is not there, or cannot be compared as a whole.

    On another machine the files are missing, and what a generator yields cannot be known without
    running it. Of data that is more than the bundle used, the rest is not compared.

    Severity: note.
    Source: the manifest, which keeps the paths as they were given.
    Remedy: name the source with --model or --data where it lies here.
    """
    return Finding(
        rule="source-not-checked",
        severity=Severity.NOTE,
        subject=manifest.name,
        message=f"not compared with the bundle: {what}",
        remedy=remedy,
    )


FRESHNESS_RULES: Final[Mapping[str, Callable[..., object]]] = MappingProxyType(
    {
        "stale-model": judge_model,
        "stale-data": judge_data,
        "source-not-checked": source_not_checked,
    }
)


def named_sources(
    manifest: Manifest, project: Project, *, model: str | None, data: str | None
) -> tuple[str, str]:
    """Choose which network and which data a bundle is compared with.

    What is given comes first; then what `edgecal.toml` names, if it has the name that the manifest
    has (a project may push bundles of several networks); else the manifest's own path.
    """
    wanted = project.calibrate
    return (
        model or _same_name(wanted.model, manifest.model.source.path),
        data or _same_name(wanted.data, manifest.data.source),
    )


def _same_name(of_project: str | None, recorded: str) -> str:
    if of_project is not None and _last(of_project) == _last(recorded):
        return of_project
    return recorded


def _last(path: str) -> str:
    return posixpath.basename(path.rstrip("/"))


def _what_changed(manifest: Manifest, found: FoundData) -> str | None:
    record = manifest.data
    if found.mismatch is not None:
        return found.mismatch
    if found.kind is not None and found.kind != record.kind:
        return f"it holds {found.kind}, the manifest says {record.kind}"
    if found.samples is not None and found.samples < record.samples:
        return f"it holds {found.samples} samples, the manifest says {record.samples}"
    for number, (have, want) in enumerate(zip(found.first, record.first, strict=False), start=1):
        if have != want:
            return f"sample {number} is {have!r}, the manifest says {want!r}"
    if found.digest not in {None, record.digest}:
        return (
            f"its first {record.samples} samples are {_short(found.digest)}, the manifest says "
            f"{_short(record.digest)}"
        )
    return _grown(record, found.samples)


def _grown(record: DataRecord, samples: int | None) -> str | None:
    """Say that there are more samples, where those would have been used too."""
    if samples is None or record.limit is None:
        return None
    if min(samples, record.limit or samples) <= record.samples:
        return None
    return f"it grew to {samples} samples from the {record.samples} of the manifest"


def _again(manifest: Manifest, *, model: str | None = None, data: str | None = None) -> str:
    samples = f"--samples {manifest.data.limit} " if manifest.data.limit else ""
    return (
        "calibrate again, with the same preprocessing: edgecal calibrate "
        f"{shlex.quote(model or manifest.model.source.path)} "
        f"--data {shlex.quote(data or manifest.data.source)} {samples}"
        f"--tensorrt {manifest.tensorrt.major_minor} -o {manifest.name}.edgecal"
    )


def _another(what: str, option: str) -> str:
    return f"; where this is another {what}, 'edgecal check' takes the right one with {option}"


def _short(digest: Digest | None) -> str:
    return str(digest)[:19]
