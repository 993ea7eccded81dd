"""Tasks done by workers: told of, stopped, and unclear when a worker is lost; devices are real."""

from __future__ import annotations

import pickle
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgecal.adapters.cluster.store import Store
from edgecal.cli.wiring import lookup
from edgecal.core.build import BuildOptions
from edgecal.core.rollout.job import Job
from edgecal.errors import InventoryError
from edgecal.workflows.events import EngineActivated
from edgecal.workflows.rollout.afar import ClusterHands, without_worker
from edgecal.workflows.rollout.post import Order, Post
from edgecal.workflows.rollout.tasks import Action, DeviceTask, Outcome, Result
from tests.clusters import HereCluster, wait_for
from tests.fleets import make_supplies, start_fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgecal.workflows.events import PushEvent
    from edgecal.workflows.world import World
    from tests.fleets import Fleet, Supplies

WAIT_S = 30
JOB = Job(places=("/somewhere/net.edgecal",), inventory="/home/me/fleet.toml")


@pytest.fixture(scope="module")
def supplies(tmp_path_factory: pytest.TempPathFactory) -> Supplies:
    return make_supplies(tmp_path_factory.mktemp("supplies"))


@pytest.fixture
def fleet(tmp_path: Path, supplies: Supplies) -> Iterator[Fleet]:
    with start_fleet(tmp_path, 2, real=False, supplies=supplies) as started:
        yield started


def task(target: str, action: Action = Action.PUSH) -> DeviceTask:
    return DeviceTask(rollout="r1", target=target, action=action)


def post_of(
    fleet: Fleet, name: str, cluster: HereCluster, *targets: str, world: World | None = None
) -> Post:
    known = lookup.inventory(fleet.toml).inventory.targets
    return Post(
        {one: known[one] for one in targets or fleet.names},
        world or fleet.world(),
        Store(fleet.folder / name).bundle,
        say=cluster.say,
        tell=lambda _text: None,
    )


def join(fleet: Fleet, name: str, cluster: HereCluster, *targets: str) -> str:
    store = Store(fleet.folder / name)
    post = post_of(fleet, name, cluster, *targets)
    return cluster.join(
        name,
        {
            "missing": store.missing,
            "put": store.put,
            "work": post.work,
            "halt": post.halt,
            "still-there": post.still_there,
        },
        targets=frozenset(targets or fleet.names),
    )


@contextmanager
def hands_of(
    fleet: Fleet,
    cluster: HereCluster,
    tell: Callable[[str, PushEvent | int], object] = lambda _target, _news: None,
) -> Iterator[ClusterHands]:
    with ClusterHands(cluster, JOB, [fleet.supplies.old], tell=tell) as hands:
        yield hands


def fault(outcome: Outcome) -> str:
    assert outcome.fault is not None
    return outcome.fault.code


def test_a_target_that_no_worker_has_is_as_good_as_offline(fleet: Fleet) -> None:
    cluster = HereCluster()
    join(fleet, "a", cluster, "cam-01")
    assert without_worker(cluster, fleet.names) == ("cam-02",)
    with hands_of(fleet, cluster) as hands:
        pushed = hands.begin(task("cam-02")).result(WAIT_S)
        asked = hands.begin(task("cam-02", Action.ASK)).result(WAIT_S)
    assert (pushed.result, fault(pushed)) == (Result.FAULT, "connect")
    assert (asked.result, fault(asked)) == (Result.UNCLEAR, "connect")
    assert [what for _, what in cluster.calls] == []


def test_a_worker_refuses_a_target_that_is_not_on_its_list(fleet: Fleet) -> None:
    post = post_of(fleet, "a", HereCluster(), "cam-01")
    order = Order(hands="x", turn=0, task=task("cam-02"), job=JOB, bundles=())
    with pytest.raises(InventoryError, match="may not touch"):
        post.work(order)


def test_a_bundle_that_does_not_arrive_whole_changes_no_device(fleet: Fleet) -> None:
    cluster = HereCluster()
    store = Store(fleet.folder / "a")

    def put(digest: str, sender: str, offset: int, data: bytes, last: bool) -> None:  # noqa: FBT001 - as called
        store.put(digest, sender, offset, data + b"!", last)

    cluster.join("a", {"missing": store.missing, "put": put}, targets=frozenset(fleet.names))
    with hands_of(fleet, cluster) as hands:
        outcome = hands.begin(task("cam-01")).result(WAIT_S)
    assert (outcome.result, fault(outcome)) == (Result.FAULT, "connect")
    assert outcome.fault is not None
    assert "arrived damaged" in outcome.fault.what
    assert not list((fleet.folder / "a").rglob("*.part"))


def test_a_worker_lost_in_mid_push_leaves_it_unclear_and_another_one_finds_out(
    fleet: Fleet,
) -> None:
    cluster = HereCluster()
    addresses = [join(fleet, "a", cluster)]
    fleet.spoil("cam-01", "hang")
    with hands_of(fleet, cluster) as hands:
        under_way = hands.begin(task("cam-01"))
        wait_for(lambda: fleet.builds("cam-01") == 1)
        cluster.lose(addresses[0])
        lost = under_way.result(WAIT_S)
        assert (lost.result, fault(lost)) == (Result.UNCLEAR, "worker")
        join(fleet, "b", cluster)
        asked = hands.begin(task("cam-01", Action.ASK)).result(WAIT_S)
        assert asked.result is Result.NOT_OURS
        fleet.mend("cam-01", "hang")  # what the lost worker began goes on at the device
        wait_for(lambda: fleet.active("cam-01") is not None)
        again = hands.begin(task("cam-01", Action.ASK)).result(WAIT_S)
    assert (again.result, again.release) == (Result.ACTIVE, fleet.active("cam-01"))
    assert fleet.builds("cam-01") == 1


def test_stopping_reaches_what_runs_and_what_comes_late_but_nothing_new(fleet: Fleet) -> None:
    cluster = HereCluster()
    join(fleet, "a", cluster)
    fleet.spoil("cam-01", "hang")
    with hands_of(fleet, cluster) as hands:
        under_way = hands.begin(task("cam-01"))
        wait_for(lambda: fleet.builds("cam-01") == 1)
        begun = time.monotonic()
        hands.stop()
        stopped = under_way.result(WAIT_S)
        assert (stopped.result, fault(stopped)) == (Result.FAULT, "cancelled")
        assert time.monotonic() - begun < 5
        assert hands.begin(task("cam-02")).result(WAIT_S).result is Result.ACTIVE
        fleet.mend("cam-01", "hang")

    post = post_of(fleet, "b", cluster)
    post.halt("x", 3)
    for turn, result in ((2, "cancelled"), (3, "cancelled")):
        order = Order(hands="x", turn=turn, task=task("cam-02"), job=JOB, bundles=())
        assert fault(post.work(order)) == result
    asked = task("cam-02", Action.ASK)
    assert post.work(Order(hands="x", turn=4, task=asked, job=JOB, bundles=())).fault is None
    assert post.stop()
    order = Order(hands="x", turn=5, task=asked, job=JOB, bundles=())
    assert fault(post.work(order)) == "cancelled"


def test_what_a_controller_began_stops_once_it_is_silent(fleet: Fleet) -> None:
    cluster = HereCluster()
    cluster.listen("x", lambda _said: None)
    now = [0.0]
    world = replace(fleet.world(), clock=lambda: now[0], sleep=lambda _seconds: time.sleep(0.01))
    post = post_of(fleet, "a", cluster, world=world)
    store = Store(fleet.folder / "a")
    files: dict[str, str] = {}
    bundle = fleet.supplies.old
    for name in ("manifest.json", *bundle.manifest.files):
        with bundle.open(name) as stream:
            data = stream.read()
        files[name] = (
            bundle.manifest_digest
            if name == "manifest.json"
            else bundle.manifest.files[name].digest
        )
        store.put(files[name], "0", 0, data, last=True)
    fleet.spoil("cam-01", "hang")
    order = Order(hands="x", turn=0, task=task("cam-01"), job=JOB, bundles=(files,))
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(post.work(order)))
    thread.start()
    wait_for(lambda: fleet.builds("cam-01") == 1)
    now[0] = 50.0
    post.still_there("x")
    now[0] = 100.0
    thread.join(0.3)
    assert not outcomes
    now[0] = 111.0
    thread.join(WAIT_S)
    assert fault(outcomes[0]) == "cancelled"
    fleet.mend("cam-01", "hang")


def test_devices_are_pushed_to_and_told_of_and_bundles_come_once(fleet: Fleet) -> None:
    heard: list[tuple[str, PushEvent | int]] = []
    cluster = HereCluster()
    join(fleet, "a", cluster)
    with hands_of(fleet, cluster, lambda target, news: heard.append((target, news))) as hands:
        outcomes = [one.result(WAIT_S) for one in [hands.begin(task(n)) for n in fleet.names]]
        assert [one.result for one in outcomes] == [Result.ACTIVE, Result.ACTIVE]
        kept = hands.begin(replace(task("cam-01"), rollout="r2")).result(WAIT_S)
    assert kept.result is Result.KEPT
    assert {fleet.active(name) for name in fleet.names} == {outcomes[0].release}
    files = {one.digest for one in fleet.supplies.old.manifest.files.values()}
    assert sum(what == "put" for _, what in cluster.calls) == len(files) + 1
    for name in fleet.names:
        news = [one for target, one in heard if target == name]
        assert any(isinstance(one, EngineActivated) for one in news)
        sent = [one for one in news if isinstance(one, int)]
        assert sum(sent) > 0
        assert len(sent) < 20  # counted up, not told block by block


def test_a_task_holds_no_host_no_key_and_nobody_else_s_options(fleet: Fleet) -> None:
    orders: list[bytes] = []
    store = Store(fleet.folder / "a")
    cluster = HereCluster()

    def work(order: Order) -> Outcome:
        orders.append(pickle.dumps(order))
        assert list(order.job.builds) == [order.task.target]
        return Outcome(result=Result.KEPT)

    cluster.join(
        "a",
        {"missing": store.missing, "put": store.put, "work": work},
        targets=frozenset(fleet.names),
    )
    builds = {
        name: BuildOptions(workspace_mib=number + 1) for number, name in enumerate(fleet.names)
    }
    job = replace(JOB, builds=builds)
    with ClusterHands(cluster, job, [fleet.supplies.old], tell=lambda *_: None) as hands:
        hands.begin(task("cam-01")).result(WAIT_S)
    for word in (b"127.0.0.1", b"identity", b"/home/me", b"/somewhere", b"cam-02"):
        assert word not in orders[0]
