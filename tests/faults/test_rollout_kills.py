"""A controller killed at every entry of a rollout's journal, and another that goes on from there.

Twelve devices: healthy ones with an older release and without, one that no rule lets take part, one
that has the release, one whose builds fail, one that is offline at first, one with a health check.
Controllers are real processes, killed by SIGKILL before or after they write an entry, the database
is a real one, and what a device was told to do goes on without its controller, as on a Jetson.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.bench import Controllers
from tests.faults.rollout_walk import copy_of, reset, set_scene, walk
from tests.fleets import make_supplies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.rollout_walk import End, Scene
    from tests.fleets import Supplies

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("setsid"),
    reason="needs Linux and setsid, as a target has them",
)

_AT_ONCE = 3
"""A rollout waits for its devices, so more than one has room."""
_FIRST = 2
"""The plan is written already."""
_ROLLBACK = 11
"""Entries from a wave's last push over the rollback of four devices to the end."""
_EVERYWHERE = {"wave-started", "push-started", "push-activated", "push-failed", "wave-passed"}
Death = tuple[tuple[int, ...], bool]
"""At which places controllers die one after the other, and whether before they write."""


@pytest.fixture(scope="module")
def controllers() -> Iterator[Controllers]:
    made = Controllers("tests.faults.rollout_controller")
    yield made
    made.close()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="edgecal-kills-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def supplies(folder: Path) -> Supplies:
    return make_supplies(folder / "supplies")


def walk_all(
    scene: Scene, controllers: Controllers, folder: Path, deaths: list[Death], undisturbed: End
) -> set[str]:
    """Walk copies of a fleet, several at a time; gives at which events controllers died."""

    def one(death: Death) -> list[str]:
        copy = folder / f"died {death}"[:80]
        places, before = death
        died, end = walk(copy_of(scene, copy), controllers, places, before=before)
        assert end == undisturbed, death
        shutil.rmtree(copy)
        return died

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return {kind for died in pool.map(one, deaths) for kind in died}


def again_and_again(seed: int, entries: int) -> tuple[int, ...]:
    """Choose places for controllers that all die, after a few entries each."""
    chance = random.Random(seed)
    places = [_FIRST]
    while places[-1] < 2 * entries:
        places.append(places[-1] + chance.randint(1, 6))
    return tuple(places)


def test_a_rollout_goes_on_wherever_its_controller_is_killed(
    folder: Path, supplies: Supplies, controllers: Controllers, request: pytest.FixtureRequest
) -> None:
    step = 1 if request.config.getoption("--slow") else 12
    with set_scene(folder / "scene", supplies) as scene:
        undisturbed = walk(copy_of(scene, folder / "undisturbed"), controllers, (), before=True)[1]
        assert undisturbed.phase == "finished"
        places = range(_FIRST, undisturbed.entries + 1)
        deaths: list[Death] = [((place,), True) for place in places]
        deaths += [((place,), False) for place in places[::step]]
        deaths += [(again_and_again(seed, len(places)), bool(seed)) for seed in range(2)]
        died = walk_all(scene, controllers, folder, deaths, undisturbed)
    assert died >= {*_EVERYWHERE, "push-kept", "push-deferred", "finished"}
    standing = undisturbed.devices
    assert sorted(one.phase for one in standing.values()) == ["active"] * 9 + ["failed", "kept"]


def test_a_wave_that_fails_is_taken_back_wherever_the_controller_is_killed(
    folder: Path, supplies: Supplies, controllers: Controllers, request: pytest.FixtureRequest
) -> None:
    slow = request.config.getoption("--slow")
    with set_scene(folder / "failing", supplies, failing=True) as scene:
        copy = copy_of(scene, folder / "undisturbed failing")
        undisturbed = walk(copy, controllers, (), before=True)[1]
        assert undisturbed.phase == "failed"
        places = range(_FIRST, undisturbed.entries + 1)
        rollback = places if slow else places[-_ROLLBACK:]
        deaths: list[Death] = [((place,), True) for place in rollback]
        deaths += [((place,), False) for place in rollback[:: 1 if slow else 5]]
        deaths += [(again_and_again(0, len(places)), True)]
        died = walk_all(scene, controllers, folder, deaths, undisturbed)
    assert died >= {"wave-reverted", "rollback-started", "rollback-done", "rollback-ended"}
    phases = Counter(one.phase for one in undisturbed.devices.values())
    assert phases == {"active": 2, "kept": 1, "failed": 2, "rolled-back": 4, "pending": 2}


def test_a_rollout_over_sshd_goes_on_wherever_its_controller_is_killed(
    folder: Path, supplies: Supplies, controllers: Controllers, request: pytest.FixtureRequest
) -> None:
    slow = request.config.getoption("--slow")
    with set_scene(folder / "sshd", supplies, real=True) as scene:
        undisturbed = walk(reset(scene), controllers, (), before=True)[1]
        places = range(_FIRST, undisturbed.entries + 1)
        step = 1 if slow else -(-len(places) // 12)
        for number, place in enumerate(places[::step]):
            end = walk(reset(scene), controllers, (place,), before=slow or number % 2 == 0)[1]
            assert end == undisturbed, place
