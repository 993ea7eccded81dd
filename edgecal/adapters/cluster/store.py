"""What a worker was sent, by digest: files, and bundles put together of them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import threading
import time
from typing import TYPE_CHECKING, BinaryIO, Final

from edgecal.adapters.bundle import Bundle, read_bundle
from edgecal.adapters.user_folders import cache_folder
from edgecal.core.manifest import MANIFEST_FILE, SIGNATURE_FILE, Digest, digest_of, parse_manifest
from edgecal.errors import BundleError, ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_TOKEN: Final = re.compile(r"[0-9a-f]{1,64}")
_KEPT_S: Final = 30 * 24 * 3600.0
"""For so long unused files are kept."""
_CHUNK: Final = 1 << 20


def store_folder() -> Path:
    """Name the user's folder for what can be fetched again."""
    return cache_folder() / "worker"


class Store:
    """A folder of files by digest. Several controllers may send the same file at once.

    Parameters
    ----------
    folder
        Made when the first file comes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bundles: dict[str, Bundle] = {}
        self._lock = threading.Lock()

    def missing(self, digests: Sequence[str]) -> tuple[str, ...]:
        """Name the files that are not here."""
        return tuple(one for one in digests if not self.file(one).is_file())

    def put(self, digest: str, sender: str, offset: int, data: bytes, last: bool) -> None:  # noqa: FBT001 - called from afar
        """Take a part of a file; with the last one the whole is checked and takes its place.

        Parameters
        ----------
        sender
            Hex digits of its own for every one who may be sending this file.

        Raises
        ------
        ClusterError
            If it cannot be written, or is not what its digest says.
        """
        final = self.file(digest)
        if _TOKEN.fullmatch(sender) is None:
            raise ClusterError(f"no sender: {sender!r:.80}", remedy="use edgecal to send files")
        part = final.with_name(f"{final.name}.{sender}.part")
        try:
            final.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with part.open("r+b" if offset else "wb") as out:
                out.seek(offset)
                out.write(data)
                out.truncate()
            if not last:
                return
            with part.open("rb") as stream:
                found = _digest(stream)
            if found != digest:
                part.unlink()
                raise ClusterError(
                    f"a file arrived damaged: expected {digest}, found {found}",
                    where=str(part),
                    remedy="run it again; if it stays so, check the disk",
                )
            part.replace(final)
        except OSError as error:
            raise ClusterError(
                f"the worker cannot keep what it is sent: {error.strerror or error}",
                where=str(part),
                remedy="make room or give permissions, or set XDG_CACHE_HOME for the worker",
            ) from error

    def file(self, digest: str) -> Path:
        """Name the place of a file, and remember that it was of use."""
        match = _DIGEST.fullmatch(digest)
        if match is None:
            raise ClusterError(f"no digest: {digest!r:.80}", remedy="use edgecal to send files")
        path = self._folder / "files" / match[1]
        with contextlib.suppress(OSError):
            os.utime(path)
        return path

    def read(self, digest: str) -> bytes:
        """Read a file that was sent."""
        try:
            return self.file(digest).read_bytes()
        except OSError as error:
            raise ClusterError(
                f"a file that was sent is gone: {error.strerror or error}",
                where=str(self.file(digest)),
                remedy="leave the worker's folder alone while it runs",
            ) from error

    def bundle(self, files: Mapping[str, str]) -> Bundle:
        """Give the bundle of these files, by name; checked as one that lies on disk is.

        Raises
        ------
        BundleError
            If these are not the files of a bundle.
        """
        listed = "".join(f"{name}\0{files[name]}\n" for name in sorted(files))
        key = digest_of(listed.encode("utf-8", "surrogateescape")).removeprefix("sha256:")
        with self._lock:
            known = self._bundles.get(key)
            if known is None or not known.path.is_dir():
                known = self._bundles[key] = self._made(self._folder / "bundles" / key, files)
            return known

    def tidy(self) -> None:
        """Remove what was of no use for a month."""
        before = time.time() - _KEPT_S
        for path in (*self._folder.glob("files/*"), *self._folder.glob("bundles/*")):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < before:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _made(self, final: Path, files: Mapping[str, str]) -> Bundle:
        manifest = parse_manifest(self.read(files[MANIFEST_FILE]), source=MANIFEST_FILE)
        wanted = {name: record.digest for name, record in manifest.files.items()}
        others = {MANIFEST_FILE, SIGNATURE_FILE}
        if wanted != {name: one for name, one in files.items() if name not in others}:
            raise BundleError(
                "the files that were sent are not those that the manifest lists",
                where=manifest.name,
                remedy="do not replace a bundle while it is rolled out",
            )
        try:
            if final.is_dir():
                os.utime(final)
                with contextlib.suppress(BundleError):
                    return read_bundle(final)
            shutil.rmtree(final, ignore_errors=True)
            aside = final.with_name(f".{final.name}.{os.getpid()}")
            shutil.rmtree(aside, ignore_errors=True)
            for name, digest in files.items():
                (aside / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.file(digest), aside / name)
            read_bundle(aside)
            aside.replace(final)
            return read_bundle(final)
        except OSError as error:
            raise ClusterError(
                f"the worker cannot keep the bundle: {error.strerror or error}",
                where=str(final),
                remedy="make room or give permissions, or set XDG_CACHE_HOME for the worker",
            ) from error


def _digest(stream: BinaryIO) -> Digest:
    whole = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        whole.update(chunk)
    return Digest(f"sha256:{whole.hexdigest()}")
