"""The one door for JSON: bytes to plain values, whatever the bytes are."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Final

from edgecal.errors import CacheFormatError

if TYPE_CHECKING:
    from typing import NoReturn

_QUOTED: Final = 60


def read_object(data: bytes, *, source: str) -> dict[str, object]:
    """Read a JSON object; every number in it becomes a float.

    The words `NaN`, `Infinity` and `-Infinity` are read as what they say: Python and its like write
    them, although JSON has none. Bytes that are no UTF-8 are kept as surrogates, as in a cache.

    Raises
    ------
    CacheFormatError
        If it is no JSON, no object, names a key twice in one object, or is nested beyond reason.
    """

    def refuse(what: str, remedy: str) -> NoReturn:
        raise CacheFormatError(what, where=source, remedy=remedy)

    def number(text: str) -> float:
        value = float(text)
        if math.isinf(value):
            refuse(
                f"a number is beyond what any float holds: {text[:_QUOTED]}", "correct the number"
            )
        return value

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        members: dict[str, object] = {}
        for key, value in pairs:
            if key in members:
                refuse(
                    f"the key {key[:_QUOTED]!r} stands twice in one object",
                    "delete the one that is not meant",
                )
            members[key] = value
        return members

    text = data.decode("utf-8-sig", "surrogateescape")
    try:
        value = json.loads(text, object_pairs_hook=once, parse_float=number, parse_int=number)
    except json.JSONDecodeError as error:
        raise CacheFormatError(
            f"expected JSON: {error.msg} at column {error.colno}",
            where=f"{source}:{error.lineno}",
            remedy="copy the file again; say with --from if it is of another format",
        ) from error
    except RecursionError as error:
        raise CacheFormatError(
            "objects are nested too deeply for a table of scales",
            where=source,
            remedy="pass the table; this is something else",
        ) from error
    if not isinstance(value, dict):
        refuse(
            f"expected a JSON object, found {text.strip()[:_QUOTED]!r}",
            "pass the table; say with --from if it is of another format",
        )
    return value


def member(members: object, key: str, *, of: str, source: str) -> dict[str, object]:
    """Give an object that is a member of an object.

    Raises
    ------
    CacheFormatError
        If there is none, or it is no object.
    """
    value = members.get(key) if isinstance(members, dict) else None
    if not isinstance(value, dict):
        raise CacheFormatError(
            f"expected an object {key!r} in {of}, found {quoted(value)}",
            where=source,
            remedy="pass the whole file; say with --from if it is of another format",
        )
    return value


def number_of(value: object, *, tensor: str, source: str) -> float:
    """Give a number that stands for a tensor.

    Raises
    ------
    CacheFormatError
        If it is none.
    """
    if not isinstance(value, float):  # the door made every number one; a bool is none
        raise CacheFormatError(
            f"expected a number for tensor {tensor[:_QUOTED]!r}, found {quoted(value)}",
            where=source,
            remedy="correct the value",
        )
    return value


def quoted(value: object) -> str:
    """Say what was found, shortly, whatever it is."""
    if isinstance(value, dict):
        return f"an object of {len(value)}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "nothing" if value is None else repr(value)[:_QUOTED]
