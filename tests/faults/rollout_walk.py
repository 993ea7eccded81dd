"""What a walk through a rollout's journal needs: a fleet of every kind, copied for each kill."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from edgecal.adapters.journal import DatabaseJournal
from edgecal.core.rollout.gates import Condition, Gate
from edgecal.core.rollout.job import Job
from edgecal.core.rollout.machine import replay
from edgecal.core.rollout.state import DevicePhase, OnFailure, Retries
from tests.faults.bench import wait_until
from tests.faults.rollout_controller import BACK
from tests.fleets import start_fleet
from tests.workflows.rollout.control import NAME, Control, policy, push_by_hand

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from edgecal.core.rollout.state import Rollout
    from tests.faults.bench import Controller, Controllers
    from tests.fleets import Fleet, Supplies

FORMER = ("cam-01", "cam-05", "cam-09", "cam-12")
"""Have an older release, to go back to."""
REFUSED, KEPT, BROKEN, AWAY, ILL = "cam-03", "cam-04", "cam-05", "cam-06", "cam-07"
"""No builder there; has the release; its builds fail; offline at first; has a health command."""
BROKEN_TOO = "cam-08"
"""Where a wave is to fail, its builds fail as well."""
_RETRIES = Retries(tries=3, first_ms=50, longest_ms=200, deadline_ms=60_000)
_AWAY_S = 0.5
_POLL_S = 0.01


@dataclass(frozen=True)
class Scene:
    """One fleet and plan, from before the rollout."""

    fleet: Fleet
    prepared: Path
    """Copies of the devices' roots and of the journal."""


@dataclass(frozen=True)
class Standing:
    """How one device ended: in the journal's words, and in its own."""

    phase: str
    release: str
    active: str | None
    actions: tuple[tuple[str, str, str | None], ...]
    """What became active there: action, release, rollout. A release whose health check was not
    followed to its end is activated again, to be checked again, and stands here once."""
    built: bool


@dataclass(frozen=True)
class End:
    """How a rollout ended."""

    phase: str
    devices: dict[str, Standing]
    entries: int = field(compare=False)


@contextlib.contextmanager
def set_scene(
    folder: Path, supplies: Supplies, *, failing: bool = False, real: bool = False
) -> Iterator[Scene]:
    """Make a fleet of twelve, and plan a rollout over it; a failing one is rolled back."""
    with start_fleet(folder, 12, real=real, supplies=supplies) as fleet:
        toml = fleet.toml.read_text()
        ill = f"[targets.{ILL}]\n"
        assert toml.count(ill) == 1
        fleet.toml.write_text(toml.replace(ill, f'{ill}health = ["true"]\nsoak_s = 1\n'))
        (fleet.devices[REFUSED].folder / "bin" / "trtexec").unlink()
        for bundle, names in ((supplies.old, FORMER), (supplies.new, (KEPT,))):
            for name in names:
                push_by_hand(fleet, bundle, name)
        for name in (BROKEN, BROKEN_TOO) if failing else (BROKEN,):
            fleet.spoil(name, "build")
        scene = Scene(fleet, folder / "prepared")
        for device in fleet.devices.values():
            device.root.mkdir(exist_ok=True)
            shutil.copytree(device.root, scene.prepared / device.name, symlinks=True)
            (device.folder / "builds").unlink(missing_ok=True)
        fleet.stop(AWAY)
        journal = DatabaseJournal(url_of(fleet))
        # the wave is judged once all have ended, so its end does not depend on who is quicker
        draft = Control(fleet, [supplies.new], Job(), journal).plan(
            waves="2,9,100%" if failing else "2,7,100%",
            settings=policy(
                retries=_RETRIES,
                passing=Condition(minimum=1, percent=80),
                failing=Gate(minimum=3, percent=60),
                on_failure=OnFailure.ROLLBACK,
            ),
        )
        assert list(draft.plan.refused) == [REFUSED]
        journal.close()
        shutil.copy(fleet.folder / "journal.sqlite", scene.prepared)
        yield scene


def url_of(fleet: Fleet) -> str:
    """Say where a fleet's journal is."""
    return f"sqlite:///{fleet.folder / 'journal.sqlite'}"


def copy_of(scene: Scene, folder: Path) -> Fleet:
    """Make another fleet as it stood before the rollout."""
    fleet = scene.fleet
    assert not fleet.real
    desk = folder / fleet.folder.name
    desk.mkdir(parents=True)
    names = [str(one.folder) for one in fleet.devices.values()]
    subprocess.run(["cp", "-a", *names, str(folder)], check=True)
    shutil.copy(scene.prepared / "journal.sqlite", desk)
    text = fleet.toml.read_text().replace(str(fleet.folder.parent), str(folder))
    devices = {name: replace(one, folder=folder / name) for name, one in fleet.devices.items()}
    made = replace(fleet, folder=desk, devices=devices)
    made.toml.write_text(text)
    return made


def reset(scene: Scene) -> Fleet:
    """Have a fleet behind real sshds stand again as before the rollout."""
    fleet = scene.fleet
    for device in fleet.devices.values():
        shutil.rmtree(device.root)
        shutil.copytree(scene.prepared / device.name, device.root, symlinks=True)
        (device.folder / "builds").unlink(missing_ok=True)
    for old in fleet.folder.glob("journal.sqlite*"):
        old.unlink()
    shutil.copy(scene.prepared / "journal.sqlite", fleet.folder)
    for name in (BACK, "died"):
        (fleet.folder / name).unlink(missing_ok=True)
    for answers in fleet.folder.glob("answers *"):
        shutil.rmtree(answers)
    fleet.stop(AWAY)
    return fleet


def walk(
    fleet: Fleet, controllers: Controllers, deaths: Iterable[int], *, before: bool
) -> tuple[list[str], End]:
    """Kill a controller at each of these places, one after the other, and have another one go on.

    Gives what each was about to write, or had just written, and how the rollout ended. A place that
    the journal never comes to kills nobody.
    """
    died = []
    for number, place in enumerate([*deaths, 0]):
        answers = fleet.folder / f"answers {number}"
        controller = controllers.start(
            answers,
            desk=str(fleet.folder),
            bundle=str(fleet.supplies.new.path),
            devices=fleet.names,
            journal=url_of(fleet),
            real=fleet.real,
            place=place,
            before=before,
        )
        _await(controller, fleet, is_first=number == 0)
        if place and controller.status() == -signal.SIGKILL:
            died.append((fleet.folder / "died").read_text())
        else:
            assert (controller.status(), (answers / "err").read_text()) == (0, "")
            break
    return died, _end(fleet)


def _await(controller: Controller, fleet: Fleet, *, is_first: bool) -> None:
    """Wait for its end; the device that is away comes back when it was looked for.

    It may have been looked for by somebody who died of it, so others find it back anyway.
    """
    back = fleet.folder / BACK
    limit = time.monotonic() + _AWAY_S
    while not controller.ended:
        if not back.exists() and not is_first and time.monotonic() > limit:
            back.touch()
        if back.exists() and back.read_text() == "":
            fleet.start(AWAY)
            back.write_text("it is")
        time.sleep(_POLL_S)


def _end(fleet: Fleet) -> End:
    """Read how a rollout ended, once nothing runs any more; the journal must be whole."""
    wait_until(lambda: not processes(fleet), "the devices' peace")
    journal = DatabaseJournal(url_of(fleet))
    try:
        assert journal.verify(NAME) == ""
        assert [one.driver for one in journal.rollouts()] == [""]
        events = journal.read(NAME)
    finally:
        journal.close()
    rollout = replay(events, source=NAME)
    assert fleet.activations(REFUSED) == []
    # a command that answers a dead controller may die of that (SIGPIPE): its lock is nobody's then
    locks = [lock for one in fleet.devices.values() for lock in _locks(one.root)]
    assert [one for one in locks if _is_alive(one.split()[1])] == []
    return End(
        phase=rollout.phase.value,
        devices={name: _standing(fleet, rollout, name) for name in rollout.devices},
        entries=len(events),
    )


def _locks(root: Path) -> list[str]:
    files = [*root.rglob("*.lock"), *root.glob("models/*/lock")]
    return [one.read_text() for one in files]


def _is_alive(pid: str) -> bool:
    with contextlib.suppress(OSError):
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def _standing(fleet: Fleet, rollout: Rollout, name: str) -> Standing:
    device = rollout.devices[name]
    done = [one for one in fleet.activations(name) if one.action != "confirm"]
    actions = [key for key, _ in groupby((one.action, one.release, one.rollout) for one in done)]
    assert len(actions) == len(done) or name == ILL, done
    builds = fleet.builds(name)
    # whether a build fails for good, nobody knows who did not see it fail
    assert builds == (device.phase is not DevicePhase.KEPT and device.attempts > 0) or (
        name in {BROKEN, BROKEN_TOO} and builds > 0
    ), (name, builds)
    return Standing(
        phase=device.phase.value,
        release=device.release,
        active=fleet.active(name),
        actions=tuple(actions),
        built=builds > 0,
    )


def processes(fleet: Fleet) -> list[str]:
    """List what runs for a fleet: builds, health checks, whatever a killed controller began."""
    roots = [os.fsencode(one.root) for one in fleet.devices.values()]
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes()
            folder = os.fsencode((entry / "cwd").readlink())
            if any(root in words or folder.startswith(root) for root in roots):
                found.append(words.decode("utf-8", "replace"))
    return found
