"""Bundles on disk: written aside and renamed, read with every file checked."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shlex
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO, Final

from edgecal.adapters.whole_files import sync_folder
from edgecal.core.manifest import (
    HOST_ONLY,
    MANIFEST_FILE,
    MODEL_FILE,
    SCALES_FILE,
    SIGNATURE_FILE,
    Digest,
    FileRecord,
    Manifest,
    digest_of,
    parse_manifest,
    serialize_manifest,
)
from edgecal.errors import BundleError, EdgecalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_CHUNK: Final = 1 << 20
_MOST_SIGNATURE: Final = 1 << 12
"""Bytes; a signature by P-256 has about 72."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle on disk whose files were checked against its manifest."""

    path: Path
    manifest: Manifest
    manifest_digest: Digest
    signature: FileRecord | None = None
    """The file that signs the manifest, where there is one; nobody has verified it yet."""

    @property
    def on_target(self) -> bool:
        """Say no: it comes from this machine."""
        return False

    def open(self, name: str) -> BinaryIO:
        """Open one of the bundle's files, the manifest among them."""
        return (self.path / name).open("rb")

    def shipped(self) -> dict[str, FileRecord]:
        """Give the files that a target gets, the manifest's signature among them."""
        files = {name: one for name, one in self.manifest.files.items() if name not in HOST_ONLY}
        if self.signature is not None:
            files[SIGNATURE_FILE] = self.signature
        return files


def read_bundle(path: Path) -> Bundle:
    """Open a bundle.

    Raises
    ------
    BundleError
        If it is missing, or a file differs from its manifest: then the bundle is corrupt.
    """
    file = path / MANIFEST_FILE
    try:
        data = file.read_bytes()
    except OSError as error:
        raise BundleError(
            f"this is no bundle: {MANIFEST_FILE} cannot be read ({error.strerror})",
            where=str(path),
            remedy="give the folder NAME.edgecal that 'edgecal calibrate' wrote",
        ) from error
    manifest = parse_manifest(data, source=str(file))
    for name in (MODEL_FILE, SCALES_FILE[manifest.form]):
        if name not in manifest.files:
            raise BundleError(
                f"the bundle is corrupt: its manifest is of form {manifest.form!r} and lists no "
                f"{name}",
                where=str(file),
                remedy="copy the bundle again, or calibrate again; never edit inside a bundle",
            )
    for name, record in manifest.files.items():
        found = _digest_file(path / name)
        if found != record.digest:
            raise BundleError(
                "the bundle is corrupt: this file is missing"
                if found is None
                else f"the bundle is corrupt: manifest says {record.digest}, the file is {found}",
                where=str(path / name),
                remedy="copy the bundle again, or calibrate again; never edit inside a bundle",
            )
    return Bundle(
        path=path,
        manifest=manifest,
        manifest_digest=digest_of(data),
        signature=_read_signature(path / SIGNATURE_FILE),
    )


def _read_signature(file: Path) -> FileRecord | None:
    try:
        with file.open("rb") as stream:
            data = stream.read(_MOST_SIGNATURE + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(
            f"the signature cannot be read: {error.strerror}",
            where=str(file),
            remedy="check permissions, or sign the bundle again",
        ) from error
    if not 0 < len(data) <= _MOST_SIGNATURE:
        raise BundleError(
            f"the bundle is corrupt: a signature has about 72 bytes, this file "
            f"{len(data) if not data else f'more than {_MOST_SIGNATURE}'}",
            where=str(file),
            remedy="copy the bundle again, or sign it again",
        )
    return FileRecord(digest=digest_of(data), size=len(data))


def place_signature(bundle: Bundle, manifest: bytes, signature: bytes) -> Bundle:
    """Put a signature and the manifest that it signs into a bundle.

    Killed in between it leaves a bundle without a signature, never one with a wrong one.

    Raises
    ------
    BundleError
        If it cannot be written, or somebody replaced the bundle since it was read.
    """
    folder = bundle.path.resolve()
    try:
        with _only_writer(folder.parent):
            if digest_of((folder / MANIFEST_FILE).read_bytes()) != bundle.manifest_digest:
                raise BundleError(
                    "the bundle was replaced while it was signed",
                    where=str(bundle.path),
                    remedy="look at what it is now, then sign again",
                )
            if digest_of(manifest) != bundle.manifest_digest:
                (folder / SIGNATURE_FILE).unlink(missing_ok=True)
                sync_folder(folder)
                _replace(folder / MANIFEST_FILE, manifest)
            _replace(folder / SIGNATURE_FILE, signature)
    except OSError as error:
        raise BundleError(
            f"cannot write the signature: {error.strerror or error}",
            where=str(bundle.path),
            remedy="check free space and permissions, then sign again",
        ) from error
    return read_bundle(bundle.path)


def _replace(file: Path, data: bytes) -> None:
    aside = file.with_name(f".{file.name}.new")
    aside.unlink(missing_ok=True)
    _put(aside, data)
    aside.replace(file)
    sync_folder(file.parent)


def check_destination(path: Path) -> None:
    """Find out before the work whether a bundle can be written there.

    Raises
    ------
    BundleError
        If `path` is something else than a bundle, or it or its folder cannot be written.
    """
    final = path.resolve()
    _previous_counter(final, path)
    folder = next(one for one in final.parents if one.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise BundleError(
            f"cannot write the bundle: {folder} is no folder that may be written",
            where=str(path),
            remedy="choose another place with -o, or check permissions",
        )


def write_bundle(path: Path, manifest: Manifest, contents: Mapping[str, bytes | Path]) -> Bundle:
    """Write a bundle beside `path` and rename it into place, so that it is whole or not there.

    Parameters
    ----------
    manifest
        Its `files` are filled in here, and `counter` is raised above a replaced bundle's.
    contents
        What goes in by name: bytes, or a file to copy.

    Raises
    ------
    BundleError
        If it cannot be written, or `path` is something else than a bundle.
    """
    try:
        final = path.resolve()  # through a link: the bundle it points to is replaced
        final.parent.mkdir(parents=True, exist_ok=True)
        with _only_writer(final.parent):
            return _write(final, path, manifest, contents)
    except OSError as error:
        raise BundleError(
            f"cannot write the bundle: {error.strerror or error}",
            where=str(path),
            remedy="check free space and permissions; nothing was changed",
        ) from error


def _write(
    final: Path, shown: Path, manifest: Manifest, contents: Mapping[str, bytes | Path]
) -> Bundle:
    aside = final.with_name(f".{final.name}.new")
    old = final.with_name(f".{final.name}.old")
    if old.exists() and not final.exists():
        old.rename(final)  # a writer was killed between its two renames
    for leftover in (aside, old):
        shutil.rmtree(leftover, ignore_errors=True)
    counter = max(manifest.counter, _previous_counter(final, shown) + 1)
    try:
        aside.mkdir()
        files = {name: _put(aside / name, content) for name, content in contents.items()}
        whole = replace(manifest, files=files, counter=counter)
        _check_model(aside, whole, shown)
        data = serialize_manifest(whole)
        _put(aside / MANIFEST_FILE, data)
        sync_folder(aside)
        if final.exists():
            final.rename(old)
        aside.rename(final)
        sync_folder(final.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        if old.exists() and not final.exists():
            old.rename(final)
        raise
    shutil.rmtree(old, ignore_errors=True)
    return Bundle(path=shown, manifest=whole, manifest_digest=digest_of(data))


def _check_model(aside: Path, manifest: Manifest, shown: Path) -> None:
    """Compare the copied network with the one that was calibrated, which took a while."""
    digest = hashlib.sha256((aside / MODEL_FILE).read_bytes())
    for name in manifest.model.external_data:
        digest.update(bytes.fromhex(manifest.files[name].digest.removeprefix("sha256:")))
    if f"sha256:{digest.hexdigest()}" != manifest.model.digest:
        raise BundleError(
            f"the model changed while it was calibrated: {manifest.model.source.path}",
            where=str(shown),
            remedy="calibrate again",
        )


def _previous_counter(final: Path, shown: Path) -> int:
    if not final.exists():
        return 0
    if final.is_dir() and not os.access(final, os.R_OK | os.W_OK | os.X_OK):
        allow = f"chmod u+rwx {shlex.quote(str(shown))}"
        raise BundleError(  # what is in it could not be removed afterwards
            "this exists and is write-protected, so it is not replaced",
            where=str(shown),
            remedy=f"choose another name with -o, or allow it if it is yours: {allow}",
        )
    if not (final / MANIFEST_FILE).is_file() and (not final.is_dir() or any(final.iterdir())):
        raise BundleError(
            "this exists and is no bundle, so it is not replaced",
            where=str(shown),
            remedy="choose another name with -o",
        )
    try:
        return parse_manifest(
            (final / MANIFEST_FILE).read_bytes(), source=str(shown / MANIFEST_FILE)
        ).counter
    except (OSError, EdgecalError):
        return 0  # a damaged bundle may be replaced


def _put(file: Path, content: bytes | Path) -> FileRecord:
    file.parent.mkdir(parents=True, exist_ok=True)
    whole, size = hashlib.sha256(), 0
    with file.open("xb") as out:
        for chunk in _chunks(content):
            out.write(chunk)
            whole.update(chunk)
            size += len(chunk)
        out.flush()
        os.fsync(out.fileno())
    return FileRecord(digest=Digest(f"sha256:{whole.hexdigest()}"), size=size)


def _chunks(content: bytes | Path) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


def _digest_file(file: Path) -> Digest | None:
    whole = hashlib.sha256()
    try:
        for chunk in _chunks(file):
            whole.update(chunk)
    except OSError:
        return None
    return Digest(f"sha256:{whole.hexdigest()}")


@contextlib.contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Keep two processes from writing bundles into one folder at once; ends with the process."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
