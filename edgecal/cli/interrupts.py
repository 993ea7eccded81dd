"""What ends a command from outside: Ctrl-C, and SIGTERM, which is treated like it."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERRUPTED: Final = 130
TERMINATED: Final = 143
SIGNALLED: Final = 128
"""What shells add to a signal's number: 130 is Ctrl-C, 143 SIGTERM."""


class _Terminated(KeyboardInterrupt):
    """A SIGTERM; whoever keeps or lets go of something on Ctrl-C does so here too."""


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C would, unless somebody ignores or handles it already."""
    before = signal.getsignal(signal.SIGTERM)
    if before is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_code_of(error: BaseException | None) -> int | None:
    """Give the exit code of an interrupt, or of what it became on its way; else `None`."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return TERMINATED if isinstance(error, _Terminated) else INTERRUPTED
        error = error.__cause__ or error.__context__
    return None


def _raise(_number: int, _frame: object) -> NoReturn:
    raise _Terminated
