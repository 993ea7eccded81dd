"""Pictures in a tar archive, read in passing: nothing is unpacked to disk."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final, cast

from edgecal.adapters.images import is_image
from edgecal.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from pathlib import Path

TAR_SUFFIXES: Final = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")

_LARGEST_PICTURE: Final = 64 << 20
"""Bytes of one encoded picture: the largest photographs have a third of it."""
_LARGEST_HEADER: Final = 1 << 20
"""Bytes of a member's extended header, which tarfile reads whole."""
_MOST_PADDING: Final = 1 << 20
"""Bytes behind the archive's end that are read to have a checksum compared."""
_CHUNK: Final = 1 << 16
_BROKEN: Final = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, ValueError)
_EXTENDED: Final = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_OPENERS: Final[dict[bytes, Callable[[IO[bytes]], Any]]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"BZh": bz2.BZ2File,
}
"""By the first bytes: names lie. tarfile's own decompression does not compare checksums."""


class _Header(tarfile.TarInfo):
    """A member's header, where a damaged one is an error: tarfile takes it for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        if len(buf) == tarfile.BLOCKSIZE and not any(buf):
            return super().frombuf(buf, encoding, errors)  # raises: a block of zeros is the end
        try:
            found = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} where a member or the end should be") from error
        if found.type in _EXTENDED and found.size > _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {found.size} bytes")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureMember:
    """A picture of an archive."""

    name: str
    where: str
    data: bytes | None
    """Nothing where it is too large to be a picture."""
    size: int
    label: None = None

    def read(self) -> bytes:
        """Give what was read in passing."""
        if self.data is None:
            raise DatasetError(
                f"the image has {self.size} bytes, and a picture at most {_LARGEST_PICTURE}",
                where=self.where,
                remedy="make it smaller, leave it out, or pass --skip-unreadable",
            )
        return self.data


@dataclass(frozen=True)
class ImageArchive:
    """The pictures of a tar archive, plain or compressed, in the order of its members.

    Only ordinary files whose names are those of pictures count; links, devices and hidden files are
    passed over. Names serve as names only: no path is opened, so none can lead outside.
    """

    path: Path

    @property
    def where(self) -> str:
        """Name it in messages."""
        return str(self.path)

    @property
    def files(self) -> Sequence[Path]:
        """Name every file that the pictures depend on."""
        return [self.path]

    def __post_init__(self) -> None:
        """Stop here if there is no picture; reads as far as the first one."""
        with closing(self._members()) as members:
            if next(members, None) is None:
                raise DatasetError(
                    "there is no image in this archive",
                    where=self.where,
                    remedy="put PNG, JPEG, BMP, WebP or TIFF files into it",
                )

    def __len__(self) -> int:
        """Give 0: the members are counted in passing."""
        return 0

    def __iter__(self) -> Iterator[PictureMember]:
        """Read from the first member on."""
        return self._members()

    def _members(self) -> Generator[PictureMember, None, None]:
        try:
            with ExitStack() as opened:
                raw = opened.enter_context(self.path.open("rb"))
                stream = self._decompress(raw, opened)
                archive = opened.enter_context(
                    tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header)
                )
                while (member := archive.next()) is not None:
                    # tarfile would remember every header: memory would grow with the archive
                    cast("Any", archive).members = []
                    name = _clean(member.name)
                    if member.isreg() and name is not None:
                        yield self._picture(archive, member, name)
                left = _MOST_PADDING
                while left > 0 and (data := stream.read(_CHUNK)):
                    left -= len(data)
        except _BROKEN as error:
            reason = getattr(error, "strerror", None) or error
            raise DatasetError(
                f"cannot read the archive: {reason}",
                where=self.where,
                remedy="copy or pack it again; tar -tf shows how far it can be read",
            ) from error

    @staticmethod
    def _decompress(raw: IO[bytes], opened: ExitStack) -> IO[bytes]:
        start = raw.read(8)
        raw.seek(0)
        for magic, opener in _OPENERS.items():
            if start.startswith(magic):
                stream: IO[bytes] = opened.enter_context(opener(raw))
                return stream
        return raw

    def _picture(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, name: str
    ) -> PictureMember:
        data = None
        if 0 <= member.size <= _LARGEST_PICTURE:
            stream = archive.extractfile(member)
            data = stream.read() if stream is not None else b""
            if len(data) != member.size:
                raise tarfile.ReadError("unexpected end of data")
        return PictureMember(name=name, where=f"{self.path}[{name}]", data=data, size=member.size)


def _clean(name: str) -> str | None:
    """Give the name of a picture without what means nothing; `None` if it is none, or hidden."""
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if not parts or not is_image(parts[-1]):
        return None
    if any(part.startswith(".") and part != ".." for part in parts):
        return None
    # as in folders: a name need not be text
    text = "/".join(parts)
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
