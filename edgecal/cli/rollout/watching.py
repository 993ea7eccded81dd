"""A rollout while it runs: a live table on a terminal, lines where there is none."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich.console import Console

from edgecal.cli.rollout.board import Board
from edgecal.cli.rollout.lines import NOTABLE, event_line, head_lines, plain
from edgecal.cli.rollout.picture import draw
from edgecal.workflows.events import StepDue
from edgecal.workflows.rollout.tasks import Journaled, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from rich.console import RenderableType

    from edgecal.cli.story import Story
    from edgecal.core.rollout.state import Rollout
    from edgecal.workflows.rollout.tasks import Happening

_PER_SECOND: Final = 4
_HEARTBEAT_S: Final = 10.0
"""Without a terminal, whoever waits hears something at least this often."""
_LOOK_UP_S: Final = 0.25


class Watch:
    """Shows what it hears. The board is drawn by a thread of its own, under `_lock`.

    The lock is never held while something is printed: rich has locks of its own.
    """

    def __init__(
        self, rollout: Rollout, story: Story, *, now_ms: Callable[[], int], driving: bool
    ) -> None:
        self._board = Board(rollout)
        self._story = story
        self._now_ms = now_ms
        self._lock = threading.Lock()
        self._spoke = time.monotonic()
        self._driving = driving
        self._stopping = False
        self.live = story.err.is_terminal and not story.quiet
        self._console = (
            Console(stderr=True, highlight=False, emoji=False) if self.live else story.err
        )

    def hear(self, happening: Happening) -> None:
        """Take in what happened, and say it if it stays on the screen."""
        with self._lock:
            self._board.hear(happening, now_ms=self._now_ms())
        if isinstance(happening, Journaled):
            if not self.live or happening.event.kind in NOTABLE:
                self._say(event_line(happening.event, happening.rollout))
        elif isinstance(happening, Progress) and isinstance(happening.news, StepDue):
            step, detail = happening.news.step.value, happening.news.detail
            if self._story.verbose and not self.live:
                self._say(f"[bold]{plain(happening.target)}[/] {step} {plain(detail)}")

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Show the board while the block runs; who drives says at once that it is to stop."""
        with self._hearing_signals():
            if self._story.quiet:
                yield
            elif self.live:
                with self._table():
                    yield
            else:
                with self._heartbeat():
                    yield

    @contextmanager
    def _table(self) -> Iterator[None]:
        """Keep the table below whatever else is said: whoever has the story speaks above it."""
        from rich.live import Live

        before, self._story.err = self._story.err, self._console
        try:
            with Live(
                console=self._console,
                get_renderable=self._draw,
                refresh_per_second=_PER_SECOND,
                transient=True,
                redirect_stdout=False,
            ):
                yield
        finally:
            self._story.err = before

    def _say(self, markup: str) -> None:
        if not self._story.quiet:
            self._spoke = time.monotonic()
            self._console.print(markup, soft_wrap=True)

    def _draw(self) -> RenderableType:
        width, height = self._console.size
        with self._lock:
            return draw(
                self._board,
                now_ms=self._now_ms(),
                width=width,
                height=height,
                stopping=self._stopping,
            )

    @contextmanager
    def _heartbeat(self) -> Iterator[None]:
        """Say how it stands when nothing else was said for a while."""
        over = threading.Event()

        def beat() -> None:
            told = False
            while not over.wait(_LOOK_UP_S):
                if self._stopping and not told:
                    told = True
                    self._say("stopping where nothing is half-done")
                if time.monotonic() - self._spoke > _HEARTBEAT_S:
                    with self._lock:
                        head, *more = head_lines(self._board, now_ms=self._now_ms())
                    self._say("; ".join([head, *(" ".join(line.split()) for line in more)]))

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    @contextmanager
    def _hearing_signals(self) -> Iterator[None]:
        """Note an interrupt before it does what it does: stopping may take some seconds."""
        before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}

        def note(number: int, frame: FrameType | None) -> None:
            self._stopping = True
            former = before[signal.Signals(number)]
            if callable(former):
                former(number, frame)

        here = self._driving and threading.current_thread() is threading.main_thread()
        caught = [one for one, former in before.items() if here and callable(former)]
        for one in caught:
            signal.signal(one, note)
        try:
            yield
        finally:
            for one in caught:
                signal.signal(one, before[one])
