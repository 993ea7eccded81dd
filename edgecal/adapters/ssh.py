"""SSH to a target by fabric and paramiko: strict host keys, one channel a command.

fabric knows the way to a server (`ssh_route.py`); commands run on paramiko's own channels, since
fabric's `run` costs 0.27 s each.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import shlex
import threading
import time
from typing import TYPE_CHECKING, BinaryIO, Final

from edgecal.adapters.ssh_errors import FAILURES
from edgecal.adapters.ssh_route import (
    Catch,
    Hop,
    KnownAs,
    close_route,
    find_route,
    known_as,
    login_policy,
    open_route,
)
from edgecal.errors import CommandError, ConnectError, TransferError
from edgecal.ports import CommandResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    import paramiko

    from edgecal.adapters.known_hosts import HostKey
    from edgecal.core.target import Target

__all__ = ["KnownAs", "SshTransport", "connect", "fetch_host_key", "known_as"]

_PACKET_BYTES: Final = (32 << 10) - 64
"""What paramiko puts into one packet of OpenSSH's; anything above goes out as a tiny second one."""
_WINDOW_BYTES: Final = 1 << 31
"""How much output of a command may wait here unread: all that fits, so that a command is never
blocked on its output while we still write its input, and no thread has to read meanwhile."""
_GRACE_S: Final = 1.0
_STATUS_OF_THE_KILLED: Final = 255  # what ssh itself returns for a command that a signal ended

# paramiko logs every failed handshake with a traceback; without a handler Python prints them
logging.getLogger("paramiko").addHandler(logging.NullHandler())


def connect(target: Target, *, timeout_s: float | None = None) -> SshTransport:
    """Open a connection to a target, through its gateways.

    Parameters
    ----------
    timeout_s
        Bounds each wait; by default the ConnectTimeout of ssh_config, else 15 s.

    Raises
    ------
    HostKeyError
        If the target or a gateway shows a host key that is not known, or another one.
    ConnectError
        If the target cannot be reached or refuses the login.
    InputError
        If ssh_config, a known_hosts file or the identity file cannot be used.
    """
    route = find_route(target)
    open_route(route, login_policy(route[-1], timeout_s), timeout_s)
    return SshTransport(target.name, route, prefix=target.exec)


def fetch_host_key(target: Target, *, timeout_s: float | None = None) -> HostKey:
    """Ask a target for its host key, without logging in; gateways are checked and logged into.

    Raises
    ------
    ConnectError
        If the target cannot be reached.
    """
    route = find_route(target)
    catcher = Catch(route[-1].attempt(timeout_s))
    try:
        open_route(route, catcher, timeout_s)
    except ConnectError:
        if catcher.key is None:
            raise
        return catcher.key
    raise AssertionError("a server was logged into without a check of its key")


class SshTransport:
    """One connection to one target, for one caller at a time; see `edgecal.ports.Transport`.

    `prefix` is put before every command: what leads into where the application runs.
    """

    def __init__(self, name: str, route: Sequence[Hop], *, prefix: Sequence[str] = ()) -> None:
        self._name = name
        self._route = route
        self._prefix = tuple(prefix)
        self._transport: paramiko.Transport = route[-1].connection.transport
        self._bytes_sent = 0

    @property
    def bytes_sent(self) -> int:
        """Count the bytes of command lines and of their standard input so far."""
        return self._bytes_sent

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float) -> CommandResult:
        """Run one command to its end.

        Raises
        ------
        CommandError
            If it has not ended within `timeout_s`; it may go on running on the target.
        ConnectError
            If the connection is lost.
        """
        try:
            with _Limit(timeout_s, self._route[0].cut, sliding=False) as limit:
                return self._run(argv, io.BytesIO(stdin), limit, None)
        except _LateError as error:
            raise CommandError(
                f"{argv[0]!r} has not ended within {timeout_s:g} s",
                where=self._name,
                remedy="look at the target: it may be overloaded, or the command may hang",
            ) from error
        except _LostError as error:
            raise ConnectError(
                f"the connection was lost while {argv[0]!r} ran: {error}",
                where=self._name,
                remedy="check the target and the network, then run this again",
            ) from error

    def send(
        self,
        argv: Sequence[str],
        stream: BinaryIO,
        *,
        offset: int = 0,
        timeout_s: float,
        progress: Callable[[int], None] | None = None,
    ) -> CommandResult:
        """Run one command with `stream`, from `offset` to its end, as its standard input.

        A command that ends before it has read everything is no error here: its result says why.

        Raises
        ------
        TransferError
            If the connection is lost, or nothing moves for `timeout_s`.
        """
        stream.seek(offset)
        try:
            with _Limit(timeout_s, self._route[0].cut, sliding=True) as limit:
                return self._run(argv, stream, limit, progress)
        except _LateError as error:
            raise TransferError(
                f"the target has taken nothing for {timeout_s:g} s",
                where=self._name,
                remedy="check the target and the network, then run this again: it resumes",
            ) from error
        except _LostError as error:
            raise TransferError(
                f"the connection was lost during the transfer: {error}",
                where=self._name,
                remedy="check the target and the network, then run this again: it resumes",
            ) from error

    def close(self) -> None:
        """End the connection and those to its gateways; safe to call twice."""
        close_route(self._route)

    def _run(
        self,
        argv: Sequence[str],
        stdin: BinaryIO,
        limit: _Limit,
        progress: Callable[[int], None] | None,
    ) -> CommandResult:
        command = shlex.join((*self._prefix, *argv)).encode("utf-8", "surrogateescape")
        with limit.watched():
            channel = self._transport.open_session(_WINDOW_BYTES, timeout=limit.left())
        try:
            with limit.watched():
                channel.exec_command(command)
            self._bytes_sent += len(command)
            while packet := stdin.read(_PACKET_BYTES):
                if not self._write(channel, packet, limit):
                    break  # the command has ended, or reads no more
                if progress is not None:
                    progress(len(packet))
            with limit.watched():
                channel.shutdown_write()
                return self._result(channel, limit)
        finally:
            with contextlib.suppress(_LateError, _LostError), limit.watched():
                channel.close()

    def _write(self, channel: paramiko.Channel, packet: bytes, limit: _Limit) -> bool:
        """Write a packet; say no once the other side has closed the channel."""
        while packet:
            with limit.watched():
                channel.settimeout(limit.left())
                try:
                    sent = channel.send(packet)
                except OSError:
                    if not channel.closed:
                        raise
                    sent = 0
            if sent == 0:
                return False
            self._bytes_sent += sent
            packet = packet[sent:]
        return True

    def _result(self, channel: paramiko.Channel, limit: _Limit) -> CommandResult:
        stdout = b"".join(_read_all(channel, channel.recv, limit))
        stderr = b"".join(_read_all(channel, channel.recv_stderr, limit))
        if not channel.status_event.wait(limit.left()):
            raise TimeoutError
        status = channel.recv_exit_status()
        if status == -1:
            # No status: a signal ended the command, or the connection is gone. paramiko closes the
            # channels first and its own thread after, so give that a moment.
            self._transport.join(_GRACE_S / 4)
            if not self._transport.is_active():
                raise EOFError("the target closed it")
            status = _STATUS_OF_THE_KILLED
        return CommandResult(exit_status=status, stdout=stdout, stderr=stderr)


def _read_all(
    channel: paramiko.Channel, recv: Callable[[int], bytes], limit: _Limit
) -> Iterator[bytes]:
    channel.settimeout(limit.left())
    while part := recv(_WINDOW_BYTES):
        yield part
        limit.moved()
        channel.settimeout(limit.left())


class _LateError(Exception):
    """The target let us wait too long."""


class _LostError(Exception):
    """The connection is gone."""


class _Limit:
    """How long to wait for the target; a little past that, the connection is cut.

    Why a thread that cuts: paramiko bounds its waits for the other side's window and data, but
    neither those for a full socket nor the one for the answer to an exec request.
    """

    def __init__(self, span_s: float, cut: Callable[[], None], *, sliding: bool) -> None:
        self._span_s = span_s
        self._sliding = sliding
        self._end = time.monotonic() + span_s
        self._cut = cut
        self._cut_at = math.inf
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._guard, name="edgecal-ssh-limit", daemon=True)

    def __enter__(self) -> _Limit:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def left(self) -> float:
        """Seconds that may still be waited; raises when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def moved(self) -> None:
        """Begin anew, if it is a limit on standstill."""
        if self._sliding:
            self._end = time.monotonic() + self._span_s
        self._cut_at = self._end + _GRACE_S

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Wait for the target, and make two verdicts of all the ways in which that fails."""
        self.moved()
        try:
            yield
        except TimeoutError as error:
            raise _LateError from error
        except FAILURES as error:
            if time.monotonic() > self._end:  # cut by us, or timed out without saying so
                raise _LateError from error
            raise _LostError(str(error) or type(error).__name__) from error
        finally:
            self._cut_at = math.inf  # the caller's own pauses are not the target's

    def _guard(self) -> None:
        longest_s = self._span_s + _GRACE_S
        wait_s = longest_s
        while wait_s > 0 and not self._done.wait(wait_s):
            wait_s = min(self._cut_at - time.monotonic(), longest_s)
        if wait_s <= 0:
            self._cut()
