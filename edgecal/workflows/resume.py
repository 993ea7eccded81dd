"""Keeps what an unfinished pass has measured: now and then, and when it is stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgecal.core.checkpoint import check_same_pass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from edgecal.core.checkpoint import Checkpoint
    from edgecal.ports import Checkpoints

EVERY_S: Final = 30.0
_LEAST_WORK: Final = 20
"""Times what keeping took, before it is done again: on a slow disk it costs a twentieth at most.
Workers go on meanwhile, until they have nothing left to do."""


class Keeper:
    """Decides when a pass is kept, and what it goes on from; a context around the whole work.

    What one process did in less than `every_s` is kept only if it was interrupted: an error is
    better met again than answered with a file nobody asked for.

    Parameters
    ----------
    of
        What the bits depend on that the pass itself does not know: network and edgecal.
    resume
        Whether to go on from what the store holds. Else what lies there is left alone for
        `every_s`, in which whoever wanted it may still think better of it.
    clock
        Seconds since some moment, never going back.
    tell
        Hears where things are kept and how to go on.
    """

    def __init__(
        self,
        store: Checkpoints,
        *,
        of: Mapping[str, str],
        resume: bool,
        clock: Callable[[], float],
        tell: Callable[[str], object],
        every_s: float = EVERY_S,
    ) -> None:
        self._store = store
        self.of = dict(of)
        self._resume = resume
        self._clock = clock
        self._tell = tell
        self._every_s = every_s
        self._due = clock() + every_s
        self._long_enough = self._due
        self._spared = False
        self._resumed = False
        self._measured: Callable[[], Checkpoint | None] = lambda: None

    @property
    def where(self) -> str:
        """Say what users call the place."""
        return self._store.where

    def begin(self, of: Mapping[str, str]) -> Checkpoint | None:
        """Give what to go on from, if anything.

        Parameters
        ----------
        of
            What the bits depend on beside what is known here.

        Raises
        ------
        InputError
            If what is kept is damaged, or is of another pass.
        """
        self.of = {**self.of, **of}
        if not self._resume:
            self._spared = self._store.exists()
            if self._spared:
                self._tell(
                    f"an unfinished pass is kept in {self.where}: --resume goes on from it, "
                    f"without it this pass takes its place after {self._every_s:g} s"
                )
            return None
        found = self._store.load()
        if found is None:
            self._tell(f"nothing to resume: there is no {self.where}; starting at the first sample")
            return None
        check_same_pass(found, self.of, source=self.where)
        self._resumed = True
        self._tell(
            f"going on from {self.where}: {found.reading.samples} samples are measured, and only "
            "read again to see that they are the same"
        )
        return found

    def watch(self, measured: Callable[[], Checkpoint | None]) -> None:
        """Remember how to find out what was measured so far; nothing where it is not known yet."""
        self._measured = measured

    def tick(self) -> None:
        """Keep what was measured, if it is time."""
        started = self._clock()
        if started < self._due:
            return
        self._keep()
        took = self._clock() - started
        self._due = started + took + max(self._every_s, _LEAST_WORK * took)

    def settle(self, whole: Checkpoint) -> None:
        """Keep all of a pass that took long: there is work to do yet that can be stopped."""
        self._measured = lambda: whole
        if self._clock() >= self._long_enough:
            self._keep()

    def finish(self) -> None:
        """Throw away what was kept: the work is done."""
        self._store.remove()

    def __enter__(self) -> Keeper:
        """Begin nothing yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Keep what was measured, if the work was stopped."""
        if error is None:
            return
        long_enough = self._clock() >= self._long_enough
        stopped = isinstance(error, KeyboardInterrupt)
        kept = (long_enough or (stopped and not self._spared)) and self._keep_at_last()
        if kept or (stopped and self._resumed):
            self._tell(
                f"what was measured is kept in {self.where}; the same command with --resume goes "
                "on from there"
            )
        elif stopped and self._spared:
            self._tell(f"the unfinished pass before this one is still kept in {self.where}")

    def _keep_at_last(self) -> bool:
        try:
            return self._keep()
        except KeyboardInterrupt:  # the impatient press Ctrl-C twice: the second is no new wish
            return self._keep()

    def _keep(self) -> bool:
        measured = self._measured()
        # without a tensor there is nothing to keep, and the pass is about to say so
        return measured is not None and bool(measured.histograms) and self._store.save(measured)


class _Nowhere:
    """Keeps nothing."""

    where = "nowhere"

    def exists(self) -> bool:
        return False

    def load(self) -> None:
        return None

    def save(self, checkpoint: Checkpoint) -> bool:
        del checkpoint
        return False

    def remove(self) -> None:
        return None


def unkept() -> Keeper:
    """Make one for a pass that nobody goes on with."""
    return Keeper(_Nowhere(), of={}, resume=False, clock=lambda: 0.0, tell=lambda _text: None)
