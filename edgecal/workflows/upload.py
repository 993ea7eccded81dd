"""Files on their way into a target's store, where each lies by its digest."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from edgecal.core.manifest import Digest, digest_of
from edgecal.errors import InputError, TransferError
from edgecal.workflows.answers import read_number, read_pairs
from edgecal.workflows.refusals import NOT_WRITABLE, last_words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgecal.ports import CommandResult, Transport

_SHORT_S: Final = 60.0
_DAMAGED, _OTHER_PART = 10, 11
_MOST_SENDS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFile:
    """Something the target needs, by digest."""

    digest: Digest
    size: int
    open: Callable[[], BinaryIO]

    @property
    def hex(self) -> str:
        """The digest's 64 digits."""
        return self.digest.removeprefix("sha256:")


def file_of(data: bytes) -> DeviceFile:
    """Make a device file of bytes at hand."""
    if not data:
        raise InputError("an empty file cannot be shipped", remedy="this is a bug in edgecal")
    return DeviceFile(digest=digest_of(data), size=len(data), open=lambda: io.BytesIO(data))


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploader:
    """The target's end of an upload: a script that takes bytes and checks them."""

    transport: Transport
    script: str
    root: str
    target: str

    def upload(
        self, file: DeviceFile, *, offset: int, progress: Callable[[int], None] | None
    ) -> None:
        """Send one file from `offset` on; the target checks its digest before it counts.

        Raises
        ------
        TransferError
            If it could not be written or did not arrive as it was.
        """
        result = self._send(file, offset, progress)
        for _ in range(_MOST_SENDS):
            if result.exit_status == _OTHER_PART:  # somebody else sends the same file
                there = _part(result.stdout.decode("ascii", "replace"))
                offset = there if there < file.size else 0
            elif result.exit_status == _DAMAGED and offset:
                offset = 0  # the part that was there already is to blame
            else:
                break
            result = self._send(file, offset, progress)
        if result.exit_status == 0:
            return
        words = last_words(result)
        if result.exit_status == NOT_WRITABLE:
            raise TransferError(
                f"the target could not write the file: {words}",
                where=self.target,
                remedy=f"free space in {self.root} ('edgecal prune' does), or check its "
                "permissions; nothing was activated, and the next push goes on from here",
            )
        raise TransferError(
            f"a file did not arrive as sent (receiver's status {result.exit_status}: {words})",
            where=self.target,
            remedy="push again; if it happens again, check the target's disk",
        )

    def _send(
        self, file: DeviceFile, offset: int, progress: Callable[[int], None] | None
    ) -> CommandResult:
        with file.open() as stream:
            stream.seek(offset)
            return self.transport.send(
                ("sh", "-c", self.script, "edgecal", *self._words(file, offset)),
                stream,
                offset=offset,
                timeout_s=_SHORT_S,
                progress=progress,
            )

    def _words(self, file: DeviceFile, offset: int) -> Sequence[str]:
        return (self.root, file.hex, str(offset), str(file.size))


def _part(text: str) -> int:
    """Read how much of a file is there, as the script says it."""
    return read_number(read_pairs(text).get("part")) or 0
