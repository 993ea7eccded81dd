"""`edgecal rollout --cluster`: real devices behind sshd, touched by their site's worker alone."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

from tests.clusters import make_identity, start_scheduler, start_worker, wait_for
from tests.fleets import start_fleet

if TYPE_CHECKING:
    from pathlib import Path

    from tests.clusters import Process


def test_sites_are_rolled_out_to_and_a_lost_worker_s_devices_are_asked(tmp_path: Path) -> None:
    identity = make_identity(tmp_path / "tls")
    with start_fleet(tmp_path / "fleet", 4) as fleet, ExitStack() as stack:
        url, _ = stack.enter_context(start_scheduler(tmp_path / "scheduler", *identity.of_dask))
        # the controller has their names, and no way to reach them
        near = tmp_path / "near.toml"
        near.write_text(fleet.toml.read_text())
        fleet.toml.write_text(fleet.toml.read_text().replace("127.0.0.1", "192.0.2.1"))

        def start_site(site: str, name: str) -> Process:
            words = (url, "--inventory", str(near), "--on", site, "--name", name)
            return stack.enter_context(
                start_worker(*words, *identity.options, folder=tmp_path / name)
            )

        first = start_site("site-a", "a")
        bundle = (str(fleet.supplies.old.path), "--on", "all", "--cluster", url)
        code, _, said = fleet.ask("rollout", "plan", *bundle, *identity.options)
        assert code == 0, said
        assert "no worker may touch cam-03, cam-04: as good as offline" in said
        assert fleet.active("cam-01") is None
        second = start_site("site-b", "b")

        fleet.spoil("cam-03", "hang")
        options = ("--waves", "2,100%", "--name", "r1", "--yes", *identity.options)
        with fleet.begin("rollout", "start", *bundle, *options, "--json") as command:
            stack.callback(command.kill)
            wait_for(lambda: fleet.builds("cam-03") == 1)
            assert fleet.active("cam-01") == fleet.active("cam-02") is not None
            second.end(signal.SIGKILL)
            start_site("site-b", "again")
            fleet.mend("cam-03", "hang")
            _, said = command.communicate(timeout=120)
        assert command.returncode == 0, said
        assert len({fleet.active(name) for name in fleet.names}) == 1
        assert [fleet.builds(name) for name in fleet.names] == [1, 1, 1, 1]
        assert all(
            [one.action for one in fleet.activations(name)] == ["activate"] for name in fleet.names
        )
        # nobody but its own worker has touched a device
        assert "cam-03" not in "".join(first.said)
        assert first.end(signal.SIGINT) == 130
        assert "worker a has ended" in "".join(first.said)
