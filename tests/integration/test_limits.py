"""A bastion that drops connections, as every sshd does, and limits that keep below that."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgecal.cli.wiring import remote
from edgecal.core.target import Target
from edgecal.errors import ConnectError
from edgecal.workflows.world import Limits, reach

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgecal.adapters.loopback import LoopbackServer
    from edgecal.workflows.world import World

TARGETS = 10


@pytest.fixture
def behind_bastion(
    sshd: LoopbackServer, home: Path, tmp_path: Path
) -> Iterator[tuple[Target, ...]]:
    """Targets behind an sshd that drops every connection beyond two that are not logged in."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = (sshd.identity_file.parent / "sshd_config").read_text()
    config = tmp_path / "sshd_config"
    # of several such lines the last one counts, unlike with other settings
    own = settings.replace("MaxStartups 500", "MaxStartups 2:100:2")
    assert own != settings
    config.write_text(own.replace(f"Port {sshd.port}", f"Port {port}"))
    hosts = sshd.known_hosts.read_text()
    login = f'  HostName 127.0.0.1\n  User {sshd.user}\n  IdentityFile "{sshd.identity_file}"\n'
    folder = home / ".ssh"
    folder.mkdir(mode=0o700)
    (folder / "known_hosts").write_text(hosts + hosts.replace(str(sshd.port), str(port)))
    (folder / "config").write_text(
        f"Host bastion\n{login}  Port {port}\n"
        f"Host t-*\n{login}  Port {sshd.port}\n  ProxyJump bastion\n"
    )
    binary = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin:/usr/bin")
    assert binary is not None
    process = subprocess.Popen([binary, "-D", "-e", "-f", config], stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.01)
        yield tuple(Target(name=f"t-{n}", host=f"t-{n}") for n in range(TARGETS))
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


def dropped(targets: tuple[Target, ...], world: World) -> int:
    """Connect to all of them at once; gives how many could not be reached."""

    def work(target: Target) -> bool:
        try:
            reach(target, world).close()
        except ConnectError:
            return True
        return False

    with ThreadPoolExecutor(len(targets)) as pool:
        return sum(pool.map(work, targets))


def test_a_bastion_drops_what_is_opened_beyond_its_limit(
    behind_bastion: tuple[Target, ...],
) -> None:
    assert dropped(behind_bastion, replace(remote.world(), limits=Limits())) > 0


def test_nothing_is_dropped_below_the_bastions_limit(behind_bastion: tuple[Target, ...]) -> None:
    assert dropped(behind_bastion, remote.world(connections=1)) == 0
