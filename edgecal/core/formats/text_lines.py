"""Lines of a name, a separator and a number, as two formats of other tools have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgecal.errors import CacheFormatError

if TYPE_CHECKING:
    from collections.abc import Iterator

_QUOTED: Final = 60


def named_values(
    data: bytes, separator: str, *, called: str, source: str
) -> Iterator[tuple[int, str, str]]:
    """Give line number, tensor and the text of its number; empty lines are passed over.

    Each line is split at its last separator.

    Raises
    ------
    CacheFormatError
        If a line has none.
    """
    text = data.decode("utf-8", "surrogateescape")
    for number, content in enumerate(text.split("\n"), start=1):
        line = content.removesuffix("\r")
        if not line:
            continue
        tensor, found, value = line.rpartition(separator)
        if not found:
            raise CacheFormatError(
                f"expected a tensor, {called} and a number, found {line[:_QUOTED]!r}",
                where=f"{source}:{number}",
                remedy="correct the line; say with --from if the file is of another format",
            )
        yield number, tensor, value
