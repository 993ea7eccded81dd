"""Connections that are cut at a certain command, before the device carries it out or after."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from edgecal.adapters.scripts import load_scripts
from edgecal.errors import ConnectError, TransferError
from tests.faults.controller import operation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgecal.core.target import Target
    from edgecal.ports import CommandResult, Transport


@dataclass
class Cut:
    """Where one device's connection is cut, once; later ones hold."""

    target: str
    operation: str = ""
    """Any if it is empty."""
    number: int = 1
    """Of such commands to this device, over all connections."""
    after: bool = False
    """Whether the device has carried it out by then."""
    late_s: float = 0.0
    """How much later it carries it out, if it has not."""
    then: Callable[[], object] = lambda: None
    """What happens at that moment."""
    seen: int = 0
    happened: bool = False


@dataclass
class Cutter:
    """Connects as a fleet does, and cuts."""

    connect: Callable[[Target], Transport]
    cuts: list[Cut] = field(default_factory=list)

    def __call__(self, target: Target) -> Transport:
        """Connect to a target."""
        mine = [one for one in self.cuts if one.target == target.name]
        return _Cutting(self.connect(target), mine)


class _Cutting:
    def __init__(self, inner: Transport, cuts: Sequence[Cut]) -> None:
        self._inner = inner
        self._cuts = cuts
        self._scripts = load_scripts()
        self._is_cut = False

    @property
    def bytes_sent(self) -> int:
        return self._inner.bytes_sent

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float) -> CommandResult:
        cut = self._find(argv)
        if cut is None or cut.after:
            result = self._inner.run(argv, stdin=stdin, timeout_s=timeout_s)
        if cut is not None:
            if cut.late_s:
                run = partial(self._inner.run, argv, stdin=stdin, timeout_s=timeout_s)
                threading.Timer(cut.late_s, run).start()
            raise self._cut(cut)
        return result

    def send(
        self,
        argv: Sequence[str],
        stream: BinaryIO,
        *,
        offset: int = 0,
        timeout_s: float,
        progress: Callable[[int], None] | None = None,
    ) -> CommandResult:
        cut = self._find(argv)
        if cut is None or cut.after:
            result = self._inner.send(
                argv, stream, offset=offset, timeout_s=timeout_s, progress=progress
            )
        if cut is not None:
            error = self._cut(cut)
            raise TransferError(error.what, where=error.where, remedy=error.remedy)
        return result

    def close(self) -> None:
        self._inner.close()

    def _find(self, argv: Sequence[str]) -> Cut | None:
        """Find out whether this is the command; count it."""
        if self._is_cut:
            raise _lost()
        what = operation(tuple(argv), self._scripts)
        for cut in self._cuts:
            if cut.operation in {"", what} and not cut.happened:
                cut.seen += 1
                if cut.seen == cut.number:
                    return cut
        return None

    def _cut(self, cut: Cut) -> ConnectError:
        self._is_cut = cut.happened = True
        cut.then()
        return _lost()


def _lost() -> ConnectError:
    return ConnectError("the connection was cut", where="fleet", remedy="try again")
