"""A process that forks controllers of rollouts: each kills itself when it comes to its place.

A place is before or after the writing of one entry of the journal: what was done until then is on
the devices, and what runs there goes on. See `tests/faults/controller.py` for how they are forked.
"""

from __future__ import annotations

import importlib
import os
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecal.adapters.bundle import read_bundle
from edgecal.adapters.journal import DatabaseJournal
from edgecal.cli.wiring import remote
from edgecal.core.rollout.events import Kind
from edgecal.core.rollout.job import Job
from tests.faults.controller import serve
from tests.fleets import Device, Fleet, Supplies
from tests.workflows.rollout.control import Control

if TYPE_CHECKING:
    from edgecal.core.rollout.events import Event

BACK = "back"
"""A file on the desk: the device that is offline has been looked for, and may come back."""


class DyingJournal(DatabaseJournal):
    """Kills this process where it is told to, with a signal that nobody can catch."""

    def __init__(self, url: str, *, desk: Path, place: int, before: bool) -> None:
        super().__init__(url)
        self._desk = desk
        self._place = place
        self._before = before

    def append(self, rollout: str, event: Event, *, after: int, lease: str = "") -> bool:
        """Write an entry, or die."""
        if event.kind is Kind.PUSH_DEFERRED:
            (self._desk / BACK).touch()
        if self._before and after + 1 == self._place:
            self._die(event)
        written = super().append(rollout, event, after=after, lease=lease)
        if written and after + 1 == self._place:
            self._die(event)
        return written

    def _die(self, event: Event) -> None:
        (self._desk / "died").write_text(event.kind.value)
        os.kill(os.getpid(), signal.SIGKILL)


def control(words: dict[str, Any]) -> None:
    """Drive a rollout to its end, or to the place of this controller's death."""
    desk, bundle = Path(words["desk"]), read_bundle(Path(words["bundle"]))
    names = words["devices"]
    fleet = Fleet(
        desk,
        {name: Device(name, desk.parent / name) for name in names},
        Supplies(old=bundle, new=bundle, programs=desk),
        real=words["real"],
        health=False,
    )
    journal = DyingJournal(
        words["journal"], desk=desk, place=words["place"], before=words["before"]
    )
    Control(fleet, [bundle], Job(), journal).drive()
    journal.close()


if __name__ == "__main__":
    # what every controller would import on its way, which takes longer than driving
    importlib.import_module("edgecal.adapters.ssh")
    remote.world()
    with tempfile.TemporaryDirectory() as somewhere:
        DatabaseJournal(f"sqlite:///{somewhere}/journal.sqlite").close()
    serve(control)
