"""A rollout to sixty-four real sshds, each with a host key, a root and a trtexec of its own."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from tests.fleets import start_fleet

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 64


def test_each_of_64_devices_builds_once_and_is_activated_once_in_its_wave(tmp_path: Path) -> None:
    with start_fleet(tmp_path, COUNT) as fleet:
        bundle = str(fleet.supplies.old.path)
        words = ("rollout", "start", bundle, "--on", "all", "--waves", "1,10%,100%", "--yes")
        code, document, said = fleet.ask(*words, timeout_s=300)
        assert code == 0, said
        assert [wave["devices"] for wave in document["waves"]] == [1, 6, 57]
        assert document["counts"]["active"] == COUNT
        reported = {one["target"]: one for one in document["targets"]}
        assert sorted(reported) == fleet.names
        times: dict[int, list[int]] = {1: [], 2: [], 3: []}
        for name in fleet.names:
            # what the device itself says
            (activation,) = fleet.activations(name)
            assert fleet.builds(name) == 1
            assert fleet.active(name) == activation.release
            times[reported[name]["wave"]].append(activation.target_time_s)
            # and the report
            assert reported[name]["release"] == activation.release
            assert (reported[name]["phase"], reported[name]["attempts"]) == ("active", 1)
        for before, after in pairwise(times.values()):
            assert max(before) <= min(after)
