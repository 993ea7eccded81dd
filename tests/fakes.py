"""Fakes of the ports: what workflows talk to in tests."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, BinaryIO

from edgecal.errors import CommandError, ConnectError
from edgecal.ports import CommandResult

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class LocalTransport:
    """Runs a target's commands on this machine, as its own login would; no SSH.

    `cut_after` ends the connection after so many commands, as a cable does.
    """

    def __init__(self, environment: Mapping[str, str], *, cut_after: int | None = None) -> None:
        self._environment = dict(environment)
        self._left = cut_after
        self.bytes_sent = 0
        self.commands: list[tuple[str, ...]] = []
        self.closed = False

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float) -> CommandResult:
        """Run one command to its end."""
        if self._left is not None:
            if self._left == 0:
                raise ConnectError("the connection was cut", where="fake", remedy="push again")
            self._left -= 1
        self.commands.append(tuple(argv))
        self.bytes_sent += sum(len(word) for word in argv) + len(stdin)
        try:
            done = subprocess.run(
                list(argv),
                input=stdin,
                capture_output=True,
                timeout=timeout_s,
                env=self._environment,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise CommandError("timed out", where="fake", remedy="wait longer") from error
        return CommandResult(exit_status=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def send(
        self,
        argv: Sequence[str],
        stream: BinaryIO,
        *,
        offset: int = 0,
        timeout_s: float,
        progress: Callable[[int], None] | None = None,
    ) -> CommandResult:
        """Run one command with the stream's rest as its input."""
        stream.seek(offset)
        data = stream.read()
        if progress is not None:
            progress(len(data))
        return self.run(argv, stdin=data, timeout_s=timeout_s)

    def close(self) -> None:
        """Count as closed."""
        self.closed = True
