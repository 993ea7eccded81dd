"""What a user calls a target, read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgecal.core.target import Target
from edgecal.errors import InventoryError

if TYPE_CHECKING:
    from collections.abc import Mapping

_ADDRESS = re.compile(
    r"(?:(?P<user>[^@\s]+)@)?(?:\[(?P<bracketed>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^:@\s\[\]]+))"
    r"(?::(?P<port>[0-9]{1,5}))?"
)


def parse_target(text: str, known: Mapping[str, Target]) -> Target:
    """Read a target: a name of `edgecal.toml`, or `[user@]host[:port]`, ssh_config hosts included.

    Raises
    ------
    InventoryError
        If it is neither.
    """
    if text in known:
        return known[text]
    match = _ADDRESS.fullmatch(text)
    host = match and (match["bracketed"] or match["host"])
    port = int(match["port"]) if match and match["port"] else None
    if match is None or not host or host.startswith("-") or port == 0 or (port or 0) > 65535:
        raise InventoryError(
            f"expected [user@]host[:port], found {text!r}",
            where="--target",
            remedy="write for example nvidia@xavier.local, or a name of [targets] in edgecal.toml",
        )
    return Target(name=text, host=host, user=match["user"], port=port)
