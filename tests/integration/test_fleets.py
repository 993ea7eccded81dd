"""The fleets that other tests stand on: each fault does what it says, with an sshd and without."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.fleets import make_supplies, start_fleet

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fleets import Fault, Fleet, Supplies


@pytest.fixture(scope="module")
def supplies(tmp_path_factory: pytest.TempPathFactory) -> Supplies:
    return make_supplies(tmp_path_factory.mktemp("supplies"))


def codes(document: dict[str, Any]) -> dict[str, str | None]:
    return {one["target"]: one["error"] and one["error"]["code"] for one in document["targets"]}


def test_every_fault_hits_its_device_alone_and_can_be_mended(
    tmp_path: Path, supplies: Supplies
) -> None:
    with start_fleet(tmp_path, 6, supplies=supplies, health=True) as fleet:
        walk_through_faults(fleet)


def walk_through_faults(fleet: Fleet) -> None:
    faults: dict[str, Fault] = {
        "cam-01": "build",
        "cam-02": "verification",
        "cam-03": "space",
        "cam-04": "health",
    }
    for name, fault in faults.items():
        fleet.spoil(name, fault)
    fleet.stop("cam-05")
    words = ("push", str(fleet.supplies.old.path), "--on")
    code, document, said = fleet.ask(*words, "all")
    assert code == 4, said
    expected = ["build", "verification", "transfer", "health", "connect", None]
    assert codes(document) == dict(zip(fleet.names, expected, strict=True))
    assert [name for name in fleet.names if fleet.active(name)] == ["cam-06"]
    assert [one.action for one in fleet.activations("cam-04")] == ["activate", "deactivate"]
    assert [fleet.builds(name) for name in fleet.names] == [1, 1, 0, 1, 0, 1]

    for name, fault in faults.items():
        fleet.mend(name, fault)
    fleet.start("cam-05")
    code, document, said = fleet.ask(*words, "site-a | site-b")
    assert code == 0, said
    assert {fleet.active(name) for name in fleet.names} == {document["targets"][0]["release"]}
    assert [fleet.builds(name) for name in fleet.names] == [2, 2, 1, 1, 1, 1]


def test_the_newer_bundle_makes_another_release_once_the_application_lets_it(
    tmp_path: Path, supplies: Supplies
) -> None:
    with start_fleet(tmp_path, 2, real=False, supplies=supplies) as fleet:
        push_twice(fleet)


def push_twice(fleet: Fleet) -> None:
    canary = ("--on", "canary", "--activate-within", "0.1")
    assert fleet.run("push", str(fleet.supplies.old.path), *canary).returncode == 0
    old = fleet.active("cam-01")
    newer = ("push", str(fleet.supplies.new.path), *canary)
    with fleet.hold("cam-01"):
        _, document, said = fleet.ask(*newer)
        assert codes(document) == {"cam-01": "not-now", "cam-02": None}, said
    assert fleet.active("cam-01") == old != fleet.active("cam-02")
    fleet.stop("cam-02")
    assert codes(fleet.ask(*newer)[1]) == {"cam-01": None, "cam-02": "connect"}
    assert fleet.active("cam-01") == fleet.active("cam-02")


def test_a_build_hangs_until_it_is_mended(tmp_path: Path, supplies: Supplies) -> None:
    with start_fleet(tmp_path, 1, real=False, supplies=supplies) as fleet:
        fleet.spoil("cam-01", "hang")
        with fleet.begin("push", str(fleet.supplies.old.path), "--on", "canary") as process:
            while not fleet.builds("cam-01"):
                assert process.poll() is None
                time.sleep(0.02)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
            fleet.mend("cam-01", "hang")
            assert process.wait(30) == 0
        assert fleet.active("cam-01") is not None
