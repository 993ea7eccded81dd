"""What a command shows: the result on stdout, the story on stderr."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from edgecal.cli.printable import printable
from edgecal.core.findings import Finding, Severity
from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from edgecal.errors import EdgecalError

_HEARTBEAT_S = 5.0
_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}


@dataclass
class Story:
    """Where a command's words go. Colours follow NO_COLOR and whether there is a terminal."""

    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    out: Console = field(
        default_factory=lambda: Console(highlight=False, soft_wrap=True, emoji=False)
    )
    err: Console = field(
        default_factory=lambda: Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
    )

    def tell(self, markup: str) -> None:
        """Say something on stderr, unless told to be quiet."""
        if not self.quiet:
            self.err.print(markup)

    def detail(self, markup: str) -> None:
        """Say something on stderr that only `-v` wants to hear."""
        if self.verbose and not self.quiet:
            self.err.print(markup)

    def result(self, document: Mapping[str, Any], show: Callable[[Console], None]) -> None:
        """Give the result on stdout: one JSON document, or what `show` prints.

        Raises
        ------
        InputError
            If it cannot be written there, to a full disk for example.
        """
        try:
            if self.as_json:
                self._print(document)
            else:
                show(self.out)
            self.out.file.flush()
        except BrokenPipeError:  # whoever read it has read enough
            raise
        except OSError as error:
            _drop_stdout()
            raise InputError(
                f"cannot write the result: {error.strerror or error}",
                where="stdout",
                remedy="the work itself is done; check free space where its output goes",
            ) from error

    def error(self, code: int, name: str, what: str, *, where: str = "", remedy: str) -> None:
        """Give the document that stands for a result that could not be had.

        Where it cannot be written, what goes to stderr has to do.
        """
        error = {"code": name, "what": what, "where": where, "remedy": remedy}
        try:
            self._print({"schema": "edgecal.error/1", "exit_code": code, "error": error})
            self.out.file.flush()
        except OSError:
            _drop_stdout()

    def failure(self, error: EdgecalError) -> None:
        """Say what went wrong, on stderr, however quiet it is to be."""
        head = f"[bold]{escape(printable(error.where))}[/]: " if error.where else ""
        self.err.print(f"[bold red]error[/] {head}{escape(error.what)}")
        self.err.print(f"  try: {escape(error.remedy)}")

    def _print(self, document: Mapping[str, Any]) -> None:
        self.out.file.write(json.dumps(document, indent=2) + "\n")

    def findings(self, findings: Sequence[Finding]) -> None:
        """Show findings, worst first; notes only with `-v`."""
        order = list(Severity)
        for finding in sorted(findings, key=lambda one: order.index(one.severity)):
            if finding.severity is Severity.NOTE and not self.verbose:
                continue
            style = _STYLES[finding.severity]
            subject, message, remedy = (
                escape(printable(text))
                for text in (finding.subject, finding.message, finding.remedy)
            )
            self.tell(
                f"[{style}]{finding.severity.value}[/] {escape(finding.rule)} "
                f"({subject}): {message}"
            )
            self.tell(f"  try: {remedy}")

    @contextmanager
    def progress(self) -> Iterator[Callable[[str, int, int], None]]:
        """Show a bar with rate and time left while the block runs.

        Without a terminal it is a line every few seconds.

        Gives a function that takes what is being done, how much is done, and how much there is.
        """
        if self.quiet or not self.err.is_terminal:
            yield self._plain_progress()
            return
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.err, transient=True) as bar:
            tasks: dict[str, Any] = {}

            def show(what: str, done: int, total: int) -> None:
                if what not in tasks:
                    tasks[what] = bar.add_task(what, total=total or None, rate="")
                task = bar.tasks[bar.task_ids.index(tasks[what])]
                speed = f"{task.speed:.0f}/s" if task.speed else ""
                bar.update(tasks[what], completed=done, rate=speed)

            yield show

    def _plain_progress(self) -> Callable[[str, int, int], None]:
        spoke = time.monotonic()

        def show(what: str, done: int, total: int) -> None:
            nonlocal spoke
            if time.monotonic() - spoke > _HEARTBEAT_S:
                spoke = time.monotonic()
                self.tell(f"{escape(what)}: {done}{f' of {total}' if total else ''}")

        return show


def _drop_stdout() -> None:
    """Let what could not be written go, so that Python's own last flush does not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@cache
def warn_once(text: str) -> None:
    """Warn on stderr, and of the same thing only once, however often it is met."""
    Story().tell(f"[yellow]warning[/] {escape(text)}")


def size_text(count: int) -> str:
    """Write a number of bytes for people."""
    if count < 1000:
        return f"{count} B"
    value = count / 1000
    for unit in ("kB", "MB"):
        if value < 1000:
            return f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
