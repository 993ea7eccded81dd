"""Calibration caches on disk: read from a file or a bundle, written only as whole new files."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgecal.adapters.bundle import Bundle, check_destination, read_bundle, write_bundle
from edgecal.adapters.whole_files import write_whole
from edgecal.core.edit_record import RECORD_SUFFIX
from edgecal.core.manifest import (
    CACHE_FILE,
    MANIFEST_FILE,
    QDQ_FILE,
    QDQ_FORM,
    SCHEMA,
    Manifest,
)
from edgecal.errors import BundleError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_SCHEMA_WITHIN: Final = 4096
"""How far into a manifest its schema may stand; ours put it first."""

_LARGEST_RECORD: Final = 1 << 28


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheFile:
    """A calibration cache as it lies on disk; nothing is known yet of what it holds."""

    path: Path
    """As the user gave it: a file, or the bundle that holds the cache."""
    data: bytes
    manifest: Manifest | None
    """What the bundle says of itself; `None` for a file of its own."""


def read_cache_file(path: Path) -> CacheFile:
    """Read a file, or the cache of a bundle after checking every file of it.

    Raises
    ------
    InputError
        If it is missing or unreadable.
    BundleError
        If it is a folder, and no bundle or a corrupt one, or one without a cache.
    """
    try:
        if path.is_dir():
            bundle = read_bundle(path)
            if bundle.manifest.form == QDQ_FORM:
                raise _without_cache(path)
            data = (path / CACHE_FILE).read_bytes()
            return CacheFile(path=path, data=data, manifest=bundle.manifest)
        return CacheFile(path=path, data=path.read_bytes(), manifest=None)
    except OSError as error:
        raise InputError(
            f"cannot read the file: {error.strerror or error}",
            where=str(path),
            remedy="check the path; a calibration cache or a bundle is wanted",
        ) from error


def _without_cache(path: Path) -> BundleError:
    network = shlex.quote(str(path / QDQ_FILE))
    return BundleError(
        f"a bundle of form 'qdq' holds no calibration cache: its scales are in {QDQ_FILE}",
        where=str(path),
        remedy=f"take them out of the network: edgecal cache convert {network} --to json "
        "-o scales.json; or make a cache for an earlier TensorRT: edgecal calibrate --from "
        f"{shlex.quote(str(path))} --tensorrt X.Y -o OUT.edgecal",
    )


def write_new_file(path: Path, data: bytes, *, inputs: Sequence[Path] = ()) -> None:
    """Write a file aside and rename it into place, so that it is whole or not there.

    Raises
    ------
    InputError
        If it is one of the inputs, lies in a bundle, or cannot be written.
    """
    check_new_file(path, inputs=inputs)
    final = path.resolve()
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        write_whole(final, data)
    except OSError as error:
        raise InputError(
            f"cannot write the file: {error.strerror or error}",
            where=str(path),
            remedy="check free space and permissions; nothing was changed",
        ) from error


def check_new_file(path: Path, *, inputs: Sequence[Path] = ()) -> None:
    """Find out before the work whether a file may be written there.

    Raises
    ------
    InputError
        If it is one of the inputs, a folder, or lies in a bundle.
    """
    final = path.resolve()
    if any(final == one.resolve() for one in inputs):
        raise _is_input(path)
    if final.is_dir():
        raise InputError(
            "the output is a folder", where=str(path), remedy="give the name of a file with -o"
        )
    _check_outside(path)


def record_path(path: Path) -> Path:
    """Name the record of a cache, or of a bundle's: it lies beside it, wherever links lead."""
    final = path.resolve()
    return final.with_name(f"{final.name}{RECORD_SUFFIX}")


def read_record(path: Path) -> bytes | None:
    """Read what lies beside a cache as its record; `None` if nothing readable does."""
    try:
        file = record_path(path)
        if not file.is_file() or file.stat().st_size > _LARGEST_RECORD:
            return None
        return file.read_bytes()
    except OSError:
        return None


def write_with_record(
    path: Path, data: bytes, record: bytes, *, inputs: Sequence[Path] = ()
) -> None:
    """Write a cache and its record; the record first, so that no cache is ever without one.

    Raises
    ------
    InputError
        If either is one of the inputs or an input's record, lies in a bundle, or cannot be written.
    """
    kept = [*inputs, *map(record_path, inputs)]
    check_new_file(path, inputs=kept)
    write_new_file(record_path(path), record, inputs=kept)
    write_new_file(path, data, inputs=kept)


def write_bundle_with_record(
    path: Path, manifest: Manifest, data: bytes, record: bytes, *, source: Path
) -> Bundle:
    """Write a bundle that has another one's files, with another cache and manifest.

    Raises
    ------
    InputError
        If it would replace its source, lies in a bundle, or cannot be written.
    """
    check_new_bundle(path, source=source)
    write_new_file(record_path(path), record, inputs=[record_path(source)])
    contents: dict[str, bytes | Path] = {name: source / name for name in manifest.files}
    contents[CACHE_FILE] = data
    return write_bundle(path, manifest, contents)


def check_new_bundle(path: Path, *, source: Path) -> None:
    """Find out before the work whether a bundle may be written there.

    Raises
    ------
    InputError
        If it would replace its source, lies in a bundle, or its folder cannot be written.
    """
    final = path.resolve()
    if final == source.resolve():
        raise _is_input(path)
    _check_outside(path)
    check_destination(path)


def _check_outside(path: Path) -> None:
    for folder in path.resolve().parents:
        if _is_bundle(folder):
            raise InputError(
                f"the output lies in the bundle {folder.name}, which its manifest vouches for",
                where=str(path),
                remedy="give a name outside of the bundle with -o",
            )


def _is_input(path: Path) -> InputError:
    return InputError(
        "the output is also an input, and inputs are never changed",
        where=str(path),
        remedy="give another name with -o",
    )


def _is_bundle(folder: Path) -> bool:
    try:
        with (folder / MANIFEST_FILE).open("rb") as stream:
            return SCHEMA.encode() in stream.read(_SCHEMA_WITHIN)
    except OSError:
        return False
