"""Examining targets: the real scripts on this machine, and a world that breaks."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pytest

from edgecal.adapters.scripts import load_scripts
from edgecal.adapters.tables import load_platforms
from edgecal.adapters.trtexec_builder import TrtexecBuilder
from edgecal.core.build import BuildOptions
from edgecal.core.target import Target
from edgecal.errors import Cancelled, ConnectError
from edgecal.workflows.audit import audit_fleet, examine, examine_all, examine_facts, recall
from edgecal.workflows.events import EngineActivated
from edgecal.workflows.push import push
from edgecal.workflows.report import PushOptions
from edgecal.workflows.world import World
from tests.bundles import install_trtexec, make_bundles
from tests.fakes import LocalTransport

if TYPE_CHECKING:
    from pathlib import Path

    from edgecal.adapters.bundle import Bundle

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=timezone.utc)


@dataclass
class Notes:
    """A memory in memory."""

    answers: dict[str, tuple[str, datetime]] = field(default_factory=dict)

    def load(self, target_name: str, *, address: str = "") -> tuple[str, datetime] | None:
        assert address
        return self.answers.get(target_name)

    def store(self, target_name: str, text: str, now: datetime, *, address: str = "") -> None:
        assert address
        self.answers[target_name] = (text, now)


class Yard:
    """Targets on this machine, each with a folder and a trtexec of its own."""

    def __init__(self, folder: Path, bundle: Bundle) -> None:
        self.folder = folder
        self.bundle = bundle
        self.away: set[str] = set()
        self.cut_after: int | None = None
        self.memory = Notes()
        self.transports: list[LocalTransport] = []
        self.world = World(
            connect=self._connect,
            scripts=load_scripts(),
            builders={"trtexec": TrtexecBuilder()},
            platforms=load_platforms(),
            now=lambda: datetime.now(timezone.utc),
            owner="tester",
        )

    def target(self, name: str, version: str = "8502") -> Target:
        programs = self.folder / name / "bin"
        programs.mkdir(parents=True, exist_ok=True)
        install_trtexec(programs, self.bundle, version=version)
        return Target(name=name, host=name, root=str(self.folder / name / "a root"))

    def push(self, target: Target) -> None:
        pushing = push([self.bundle], target, PushOptions(), self.world)
        assert any(isinstance(event, EngineActivated) for event in pushing)

    def _connect(self, target: Target) -> LocalTransport:
        if target.name in self.away:
            raise ConnectError("no route", where=target.name, remedy="plug it in")
        home = self.folder / target.name
        made = LocalTransport(
            {"PATH": f"{home / 'bin'}:{os.environ['PATH']}", "HOME": str(home)},
            cut_after=self.cut_after,
        )
        self.transports.append(made)
        return made


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundles(tmp_path_factory.mktemp("bundle"), "8.5.2")[0]


@pytest.fixture
def yard(tmp_path: Path, bundle: Bundle) -> Yard:
    return Yard(tmp_path, bundle)


def test_a_target_that_is_away_keeps_what_it_last_said(yard: Yard) -> None:
    bench = yard.target("bench")
    yard.away.add("bench")
    state = examine(bench, yard.world, yard.memory)
    assert state.reachable is False
    assert state.last.facts is None
    yard.away.clear()
    assert examine(bench, yard.world, yard.memory).last.live
    yard.away.add("bench")
    state = examine(bench, yard.world, yard.memory)
    assert (state.reachable, state.last.live) == (False, False)
    assert state.last.seen is not None
    assert str(state.tensorrt) == "8.5.2"
    last, error = examine_facts(bench, yard.world, yard.memory)
    assert isinstance(error, ConnectError)
    assert str(last.facts and last.facts.tensorrt) == "8.5.2"


def test_an_answer_that_no_longer_can_be_read_counts_as_none(yard: Yard) -> None:
    yard.memory.answers["bench"] = ("edgecal:schema=0\nedgecal:probe=complete\n", NOW)
    assert recall(yard.target("bench"), yard.memory, yard.world).facts is None


@pytest.mark.parametrize("commands", range(1, 6))
def test_a_connection_that_is_cut_ends_in_an_error_with_what_was_learnt(
    yard: Yard, commands: int
) -> None:
    bench = yard.target("bench")
    yard.push(bench)
    yard.cut_after = commands
    state = examine(bench, yard.world, yard.memory)
    assert isinstance(state.error, ConnectError)
    assert state.last.live
    assert state.active == ()
    assert all(one.closed for one in yard.transports)


def test_what_is_active_is_read_with_the_digests_of_now(yard: Yard) -> None:
    bench = yard.target("bench")
    yard.push(bench)
    (active,) = examine(bench, yard.world, yard.memory).active
    assert active.record is not None
    assert active.found["model.engine"] == active.record["engine"]["digest"]
    assert all(active.found[name] == one for name, one in active.record["files"].items())
    current = yard.folder / "bench" / "a root" / "models" / "net-8.5" / "current"
    (current / "model.engine").unlink()
    (current / "model.onnx").unlink()
    (current / "model.onnx").mkdir()
    (active,) = examine(bench, yard.world, yard.memory).active
    assert active.found["model.engine"] is None
    assert active.found["model.onnx"] is None
    assert active.found["calibration.cache"] is not None
    (current / "build.json").write_text("[]")
    (active,) = examine(bench, yard.world, yard.memory).active
    assert active.record is None


def test_nothing_is_left_on_a_target_that_was_never_pushed_to(yard: Yard) -> None:
    state = examine(yard.target("bench"), yard.world, yard.memory)
    assert state.error is None
    assert state.active == ()
    assert not (yard.folder / "bench" / "a root").exists()


def test_a_fleet_is_asked_side_by_side_and_comes_out_in_its_order(yard: Yard) -> None:
    names = [f"one-{number}" for number in range(6)]
    targets = [yard.target(name) for name in names]
    yard.away.add("one-3")
    heard: list[int] = []
    report = audit_fleet(
        targets,
        [("net-8.5.edgecal", yard.bundle)],
        BuildOptions(),
        yard.world,
        yard.memory,
        workers=3,
        progress=heard.append,
    )
    assert [state.name for state in report.states] == names
    assert heard == [1, 2, 3, 4, 5, 6]
    assert report.exit_codes() == {4}
    assert "not-active" in [one.rule for one in report.findings["one-0"]]
    assert "not-active" not in [one.rule for one in report.findings["one-3"]]
    (group,) = report.groups
    assert "one-3" not in group.targets
    yard.away.update(names)
    offline = audit_fleet(
        targets,
        [("net-8.5.edgecal", yard.bundle)],
        BuildOptions(dla_core=0),
        yard.world,
        yard.memory,
        workers=None,
        progress=heard.append,
    )
    assert offline.exit_codes() == frozenset()
    assert heard[6:] == []
    assert len(offline.groups[0].targets) == 5


def test_a_stop_starts_no_further_target(yard: Yard) -> None:
    targets = [yard.target(f"one-{number}") for number in range(4)]
    examined = examine_all(targets, yard.world, yard.memory, workers=1)
    next(examined)
    yard.world.cancel.cancel()
    with pytest.raises(Cancelled):
        list(examined)
    assert len(yard.transports) < 4


def test_leaving_early_tells_the_threads_to_stop(yard: Yard) -> None:
    targets = [yard.target(f"one-{number}") for number in range(4)]
    examined = examine_all(targets, yard.world, yard.memory, workers=2)
    next(examined)
    examined.close()
    with pytest.raises(Cancelled):
        yard.world.cancel.check()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and thread.daemon:
            thread.join(timeout=10)


def test_a_bug_in_a_thread_is_not_lost(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_words: object, **_more: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(yard.memory, "store", fail)
    with pytest.raises(ZeroDivisionError):
        list(examine_all([yard.target("bench")], yard.world, yard.memory, workers=8))
