"""Where a rollout's lines, commands and figures go: none of them can hold the rollout up or end it.

Each does its work in a thread of its own, and warns once of what goes wrong.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from typing import IO, TYPE_CHECKING, Final

from edgecal.adapters.aside import Aside
from edgecal.core.rollout.exposition import FIRST_LINE
from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_DRAIN_S: Final = 5.0
_HOOK_S: Final = 10.0
"""How long one run of a hook may take."""
_HOOKS_DRAIN_S: Final = 30.0
_SAID_BYTES: Final = 2000
_AGAIN_S: Final = 0.05


class Lines:
    """Texts as lines of a stream. What cannot be written is left out; half a line is ended."""

    def __init__(
        self, stream: IO[bytes], name: str, *, warn: Callable[[str], object], close: bool
    ) -> None:
        self._stream = stream
        self._name = name
        self._warn = warn
        self._close = close
        self._lost = False
        self._begun = False
        self._aside: Aside[str] = Aside(self._write, drain_s=_DRAIN_S)

    def put(self, text: str) -> None:
        """Write a text, later."""
        self._aside.put(text)

    def close(self) -> None:
        """Wait until all is written, but not for a reader that hangs."""
        left = self._aside.close()
        if left:
            self._warn(f"{self._name}: nobody took the last {left} lines")
        elif self._close:
            with contextlib.suppress(OSError):
                self._stream.close()

    def _write(self, text: str) -> None:
        rest = memoryview(b"\n" * self._begun + text.encode() + b"\n")
        try:
            while rest:  # a file without a buffer may take a part
                written = self._stream.write(rest) or 0
                rest = rest[written:]
                self._begun = len(rest) > 0
                if not written:  # a stream that does not block is full
                    time.sleep(_AGAIN_S)
            self._stream.flush()
        except (OSError, ValueError) as error:  # ValueError: somebody has closed it
            if not self._lost:
                self._lost = True
                self._warn(f"{self._name}: lines are lost: {error}")


def open_lines(path: Path, *, warn: Callable[[str], object]) -> Lines:
    """Open a file to append lines of JSON to.

    Raises
    ------
    InputError
        If it cannot be written, or holds something else.
    """
    # a named pipe that nobody reads would otherwise be waited for, for ever
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        _check_begins(path, b"{", "lines of JSON")
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        raise InputError(
            f"cannot write events: {error.strerror or error}",
            where=str(path),
            remedy="check the path; a named pipe wants a reader first",
        ) from error
    os.set_blocking(descriptor, True)
    return Lines(os.fdopen(descriptor, "wb", buffering=0), str(path), warn=warn, close=True)


def stdout_lines(*, warn: Callable[[str], object]) -> Lines:
    """Write lines of JSON to standard output, past its buffer: that would be lost with the pipe."""
    sys.stdout.flush()
    stream = getattr(sys.stdout.buffer, "raw", sys.stdout.buffer)
    return Lines(stream, "standard output", warn=warn, close=False)


def _check_begins(path: Path, start: bytes, what: str) -> None:
    """Refuse to write to a file that was plainly meant for something else."""
    if not path.exists() or not stat.S_ISREG(path.stat().st_mode):
        return
    with path.open("rb") as stream:
        found = stream.read(len(start))
    if found and found != start:
        raise InputError(
            f"the file is there already, and holds no {what}: it begins with {found!r}",
            where=str(path),
            remedy="give another name, or remove it",
        )


class TextFile:
    """A file whose whole text is replaced at once, readable for everybody."""

    def __init__(self, path: Path, *, warn: Callable[[str], object]) -> None:
        self._path = path
        self._warn = warn
        self._lost = False
        self._text = ""
        self._kept = ""
        self._aside: Aside[None] = Aside(self._replace, drain_s=_DRAIN_S)

    def put(self, text: str) -> None:
        """Replace the text, later; of several that wait the last one counts."""
        self._text = text
        self._aside.put(None)

    def close(self) -> None:
        """Wait until the last text is there."""
        if self._aside.close():
            self._warn(f"{self._path}: the last figures are not there: the disk does not answer")

    def _replace(self, _due: None) -> None:
        text = self._text
        if text == self._kept:
            return
        # one that ends in .prom would be read half-written
        aside = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        try:
            try:
                aside.unlink(missing_ok=True)  # of a process that was killed
                with aside.open("x", encoding="utf-8") as stream:
                    stream.write(text)
                aside.replace(self._path)
                self._kept = text
            finally:
                aside.unlink(missing_ok=True)
        except OSError as error:
            if not self._lost:
                self._lost = True
                self._warn(f"{self._path}: the figures are not kept up: {error}")


def open_figures(path: Path, *, warn: Callable[[str], object]) -> TextFile:
    """Make a file for Prometheus.

    Raises
    ------
    InputError
        If it is there already and holds something else, or its folder cannot be written.
    """
    try:
        if not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
            raise InputError(
                "cannot keep figures there: its folder is missing, or may not be written",
                where=str(path),
                remedy="make the folder, or give another one",
            )
        if path.exists() and not path.is_file():
            raise InputError("it is no file", where=str(path), remedy="give the name of a file")
        _check_begins(path, FIRST_LINE.encode(), "figures of a rollout")
    except OSError as error:
        raise InputError(
            f"cannot keep figures there: {error.strerror}", where=str(path), remedy="check the path"
        ) from error
    if path.suffix != ".prom":
        warn(f"{path}: node_exporter's textfile collector reads files named *.prom only")
    return TextFile(path, warn=warn)


class Hooks:
    """Runs a command again and again: in order, one at a time, none longer than some seconds."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        warn: Callable[[str], object],
        timeout_s: float = _HOOK_S,
        drain_s: float = _HOOKS_DRAIN_S,
    ) -> None:
        self._argv = tuple(argv)
        self._warn = warn
        self._timeout_s = timeout_s
        self._failed = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._aside: Aside[tuple[str, Mapping[str, str]]] = Aside(self._run, drain_s=drain_s)

    def put(self, text: str, environment: Mapping[str, str]) -> None:
        """Run it, later, with a text as its standard input and more in its environment."""
        self._aside.put((text, environment))

    def close(self) -> None:
        """Wait until all are run, or too much time went by."""
        left = self._aside.close()
        if left:
            _kill(self._process)
            self._warn(f"the hook {self._argv[0]!r} was too slow: {left} events were not told")
        if self._failed > 1:
            self._warn(f"the hook {self._argv[0]!r} failed {self._failed} times in all")

    def _run(self, piece: tuple[str, Mapping[str, str]]) -> None:
        text, environment = piece
        try:
            wrong = self._outcome(text, {**os.environ, **environment})
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the environment
            wrong = f"cannot be run: {error}"
        if wrong:
            self._failed += 1
            if self._failed == 1:
                self._warn(
                    f"the hook {self._argv[0]!r}, told of {environment['EDGECAL_EVENT']}, {wrong}"
                )

    def _outcome(self, text: str, environment: Mapping[str, str]) -> str:
        """Run it once; gives what went wrong. Files and no pipes: nothing can block on those."""
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as said:
            stdin.write(text.encode())
            stdin.seek(0)
            # a session of its own: an interrupt of the rollout leaves it alone, and what it
            # started ends with it
            with subprocess.Popen(
                self._argv,
                stdin=stdin,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env=environment,
                start_new_session=True,
            ) as process:
                self._process = process
                try:
                    status = process.wait(self._timeout_s)
                except subprocess.TimeoutExpired:
                    _kill(process)
                    return f"has not ended within {self._timeout_s:g} s"
            said.seek(0)
            words = said.read(_SAID_BYTES).decode("utf-8", "replace").strip()
        return "" if status == 0 else f"ended with status {status}{words and ': '}{words}"


def _kill(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None and process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
