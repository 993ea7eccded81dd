"""Fleets without sshds, and rollouts over them that are driven in this process."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from edgecal.adapters.journal import DatabaseJournal
from edgecal.core.rollout.job import Job
from tests.fleets import Fleet, Supplies, make_supplies, start_fleet
from tests.workflows.rollout.control import Control

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def supplies(tmp_path_factory: pytest.TempPathFactory) -> Supplies:
    return make_supplies(tmp_path_factory.mktemp("supplies"))


@pytest.fixture
def fleet(tmp_path: Path, supplies: Supplies) -> Iterator[Fleet]:
    """Four devices."""
    if sys.platform != "linux" or not shutil.which("setsid"):
        pytest.skip("needs Linux and setsid, as a target has them")
    with start_fleet(tmp_path / "fleet", 4, real=False, supplies=supplies) as fleet:
        yield fleet


@pytest.fixture
def control(fleet: Fleet, tmp_path: Path) -> Iterator[Control]:
    """A rollout of the older bundle, not planned yet."""
    journal = DatabaseJournal(f"sqlite:///{tmp_path / 'journal.sqlite'}")
    yield Control(fleet, [fleet.supplies.old], Job(), journal)
    journal.close()
