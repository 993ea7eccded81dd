"""Listeners of a rollout as commands put them together."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from edgecal.cli.wiring import remote, rollouts
from edgecal.core.rollout.events import Event, Kind
from edgecal.core.rollout.state import Plan, Policy, begin
from edgecal.core.target import Target
from edgecal.errors import InputError
from edgecal.workflows.rollout.tasks import Journaled
from edgecal.workflows.world import CancelToken

if TYPE_CHECKING:
    from pathlib import Path

PLAN = Plan(rollout="spring", bundles=("sha256:ab",), waves=(("a",),), refused={}, policy=Policy())
PLANNED = Journaled(Event(kind=Kind.PLANNED, at_ms=1, plan=PLAN), begin(PLAN), 1)


def test_a_wrong_file_is_refused_before_anything_is_told(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("x")
    with pytest.raises(InputError, match="lines of JSON"):
        rollouts.listeners(
            events=tmp_path / "model", hook=["x"], metrics=tmp_path / "x.prom", warn=pytest.fail
        )
    with pytest.raises(InputError, match="figures"):
        rollouts.listeners(events=None, hook=(), metrics=tmp_path / "model", warn=pytest.fail)


def test_nobody_needs_to_listen() -> None:
    nobody = rollouts.listeners(events=None, hook=(), metrics=None, warn=pytest.fail)
    nobody.hear(PLANNED)
    nobody.close()


def test_lines_command_and_figures_tell_the_same(tmp_path: Path) -> None:
    events, seen, figures = (tmp_path / name for name in ("events.jsonl", "seen", "x.prom"))
    told = rollouts.listeners(
        events=str(events),
        hook=["sh", "-c", 'echo "$EDGECAL_ROLLOUT $EDGECAL_EVENT"; cat', "hook"],
        metrics=figures,
        warn=pytest.fail,
    )
    told.hear(PLANNED)
    told.close()
    told = rollouts.listeners(
        events=str(events),
        hook=["sh", "-c", f'(echo "$EDGECAL_ROLLOUT $EDGECAL_EVENT"; cat) > {seen}'],
        metrics=figures,
        warn=pytest.fail,
    )
    told.hear(PLANNED)
    told.close()
    first, second = events.read_text().splitlines()
    assert json.loads(first) == json.loads(second)
    assert json.loads(first)["plan"]["waves"] == [["a"]]
    assert seen.read_text() == f"spring planned\n{first}\n"
    assert 'edgecal_rollout_journal_entries{rollout="spring"} 1\n' in figures.read_text()


def test_the_world_of_a_command_has_limits() -> None:
    limits = remote.world(connections=1, transfers=1, builds=1).limits
    target, stopped = Target(name="a", host="127.0.0.1"), CancelToken()
    for slot in (limits.connections, limits.transfers, limits.builds):
        with slot(target, CancelToken()):
            stopped.cancel()
            with pytest.raises(Exception, match="stopped on request"), slot(target, stopped):
                pytest.fail("there was no place")
