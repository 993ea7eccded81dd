"""Fleets to test against: many devices on this machine, each behind an sshd of its own or none.

A device has a root folder, a stand-in for trtexec, and faults that can be switched on. Behind real
sshds each has its own host key and port; without, commands run as processes of this machine, which
costs less. Either is driven alike: by `run`, a real `edgecal`, or by `world`, in this process.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from unittest import mock

import pytest

from edgecal.adapters import loopback, ssh
from edgecal.adapters.bundle import read_bundle
from edgecal.cli.app import main
from edgecal.cli.wiring import remote
from edgecal.core.activations import parse_activation
from edgecal.errors import DependencyError
from tests.bundles import make_bundles, record_trtexec
from tests.faults.controller import Job, LocalTransport

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgecal.adapters.bundle import Bundle
    from edgecal.adapters.loopback import LoopbackServer
    from edgecal.core.activations import Activation
    from edgecal.core.target import Target
    from edgecal.ports import Transport
    from edgecal.workflows.world import World

CHECKOUT = Path(__file__).resolve().parents[1]
MODEL = "net-8.5"
Fault = Literal["build", "verification", "health", "space", "hang"]
"""Builds fail; engines compute nonsense; the health command fails; nothing can be stored; builds
run on until this is mended."""

_AT_ONCE = 8
_DEADLINE_S = 10.0
_POLL_S = 0.01
_HOOK = """\
device=${here%/*}
if [ "$engine" ]; then
    echo "$$" >>"$device/builds"
    while [ -e "$device/faults/hang" ]; do sleep 0.05; done
    [ ! -e "$device/build_s" ] || sleep "$(cat "$device/build_s")"
    [ ! -e "$device/faults/build" ] || { echo 'Error[10]: no implementation for conv1'; exit 1; }
elif [ -e "$device/faults/verification" ]; then
    here=$here/wrong
fi
"""
_DD = """\
#!/bin/sh
[ ! -e "${0%/*}/../faults/space" ] || { echo 'dd: No space left on device' >&2; exit 1; }
exec /bin/dd "$@"
"""


@dataclass(frozen=True)
class Supplies:
    """What several fleets may share: two bundles of one network, and a trtexec for both."""

    old: Bundle
    new: Bundle
    programs: Path


@dataclass(frozen=True)
class Device:
    """One device; its folder has its root, its programs, its faults and its sshd's files."""

    name: str
    folder: Path

    @property
    def root(self) -> Path:
        """What `root` in the inventory says."""
        return self.folder / "root"

    @property
    def model(self) -> Path:
        """The model's folder there."""
        return self.root / "models" / MODEL

    def environment(self) -> dict[str, str]:
        """Give what its commands have."""
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return {"PATH": path, "HOME": str(self.folder)}

    def connect(self) -> Transport:
        """Run commands here, until the device is stopped."""
        job = Job(
            folder=self.folder,
            argv=[],
            etc="",
            breakpoint=str(self.folder / "wire"),
            place="",
            environment=self.environment(),
            user=None,
            clock="",
        )
        transport = LocalTransport(job)
        transport.check()
        return transport


@dataclass
class Fleet:
    """Devices that run, the inventory that has them, and bundles to bring to them."""

    folder: Path
    """Where `edgecal` runs: `fleet.toml` lies there, and whatever edgecal keeps."""
    devices: dict[str, Device]
    supplies: Supplies
    real: bool
    """Whether each is behind an sshd."""
    health: bool
    """Whether each has a health command."""
    servers: dict[str, LoopbackServer] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Name the devices in the order of the inventory."""
        return list(self.devices)

    @property
    def toml(self) -> Path:
        """The inventory: groups `site-a` and `site-b`, and `canary`, the first of each."""
        return self.folder / "fleet.toml"

    # --- what is true of a device, by its own records

    def active(self, name: str) -> str | None:
        """Give the release that is active; `None` if none is."""
        current = self.devices[name].model / "current"
        return current.readlink().name if current.is_symlink() else None

    def activations(self, name: str) -> list[Activation]:
        """Give its record of what was active when, and of who did that."""
        parsed = map(parse_activation, _lines(self.devices[name].model / "activations"))
        return [one for one in parsed if one is not None]

    def builds(self, name: str) -> int:
        """Count the builds that began there, whoever asked for them and however they ended."""
        return len(_lines(self.devices[name].folder / "builds"))

    # --- what may go wrong

    def spoil(self, name: str, fault: Fault) -> None:
        """Have something fail from now on."""
        assert self.health or fault != "health", "start the fleet with health=True"
        (self.devices[name].folder / "faults" / fault).touch()

    def mend(self, name: str, fault: Fault) -> None:
        """Have it work again."""
        (self.devices[name].folder / "faults" / fault).unlink()

    def slow(self, name: str, seconds: float) -> None:
        """Have builds take so long there."""
        (self.devices[name].folder / "build_s").write_text(f"{seconds}")

    @contextlib.contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Be the application there that wants nothing to be activated now."""
        file = self.devices[name].model / "not-now"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as held:
            fcntl.flock(held, fcntl.LOCK_SH)
            yield

    def stop(self, name: str) -> None:
        """Take the device off the network; what runs there goes on."""
        if self.real:
            self.servers[name].close()
        else:
            (self.devices[name].folder / "wire" / "cut").touch()

    def start(self, name: str) -> None:
        """Bring it back, under its address and with its host key."""
        if self.real:
            self.servers[name] = _start_again(self.devices[name], self.servers[name])
        else:
            (self.devices[name].folder / "wire" / "cut").unlink()

    # --- edgecal

    def world(self) -> World:
        """Give what workflows need to reach the devices from this process."""
        made = remote.world()
        return made if self.real else replace(made, connect=self.connect)

    def connect(self, target: Target) -> Transport:
        """Reach a device that has no sshd."""
        return self.devices[target.name].connect()

    @contextlib.contextmanager
    def begin(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Start `edgecal` without a terminal, in a home of its own; kill it if it outlives this."""
        program = (
            ["-m", "edgecal"] if self.real else ["-m", "tests.fleets", str(self.folder.parent)]
        )
        kept = {key: value for key, value in os.environ.items() if key != "SSH_AUTH_SOCK"}
        with subprocess.Popen(
            [sys.executable, *program, *words],
            cwd=self.folder,
            env={
                **kept,
                "HOME": str(self.folder),
                "PYTHONPATH": str(CHECKOUT),
                "XDG_STATE_HOME": str(self.folder / "state"),
                "XDG_CACHE_HOME": str(self.folder / "cache"),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()  # does nothing to one that has been waited for

    def run(self, *words: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run `edgecal` to its end."""
        with self.begin(*words) as process:
            out, err = process.communicate(timeout=timeout_s)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def ask(self, *words: str, timeout_s: float = 120) -> tuple[int, dict[str, Any], str]:
        """Run it with `--json`; gives the exit code, the document and what went to stderr."""
        done = self.run(*words, "--json", timeout_s=timeout_s)
        assert done.stdout, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return done.returncode, document, done.stderr


def make_supplies(folder: Path) -> Supplies:
    """Calibrate the small network that ships with edgecal."""
    (old,) = make_bundles(folder / "made", "8.5.2", name="net")
    return supplies_of(old, folder)


def supplies_of(old: Bundle, folder: Path) -> Supplies:
    """Make the rest beside a bundle; the newer one differs in its counter."""
    path = folder / "new" / old.path.name
    shutil.copytree(old.path, path)
    text = (path / "manifest.json").read_text()
    assert text.count('"counter": 1') == 1
    (path / "manifest.json").write_text(text.replace('"counter": 1', '"counter": 2'))
    programs = folder / "programs"
    programs.mkdir()
    record_trtexec(folder / "strict", programs, old)
    (programs / "breakpoint").write_text(_HOOK)
    (programs / "dd").write_text(_DD)
    (programs / "dd").chmod(0o755)
    wrong = programs / "wrong" / "outputs"
    wrong.mkdir(parents=True)
    for file in (programs / "outputs").iterdir():
        (wrong / file.name).write_text(
            re.sub(r'(?<="values" : \[ ).*(?= \])', _negated, file.read_text())
        )
    return Supplies(old=old, new=read_bundle(path), programs=programs)


def _negated(values: re.Match[str]) -> str:
    return ", ".join(str(-float(one)) for one in values[0].split(", "))


@contextlib.contextmanager
def start_fleet(
    folder: Path,
    count: int,
    *,
    real: bool = True,
    supplies: Supplies | None = None,
    health: bool = False,
    build_s: float = 0.0,
) -> Iterator[Fleet]:
    """Start devices named `cam-01` and so on; skips the test where there is no sshd for real ones.

    Parameters
    ----------
    supplies
        Made here, in two seconds, unless they are given.
    health
        Whether devices have a health command; each activation then takes its soak time, a second.
    build_s
        How long every build takes at least.
    """
    folder = folder.resolve()
    desk = folder / "desk"
    desk.mkdir(parents=True)
    supplies = supplies or make_supplies(folder / "supplies")
    devices = {
        name: Device(name, folder / name) for name in (f"cam-{one + 1:02}" for one in range(count))
    }
    fleet = Fleet(desk, devices, supplies, real=real, health=health)
    for device in devices.values():
        _furnish(device, supplies, build_s)
    try:
        if real:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                waiting = [pool.submit(_start_sshd, fleet, name) for name in devices]
            for future in waiting:  # all of them: what has started is stopped in the end
                future.result()
            _write_keys(fleet)
        _write_toml(fleet)
        yield fleet
    finally:
        for device in devices.values():
            (device.folder / "faults" / "hang").unlink(missing_ok=True)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(loopback.LoopbackServer.close, fleet.servers.values()))


def _furnish(device: Device, supplies: Supplies, build_s: float) -> None:
    """Give it its programs, in a folder of its own: they look beside themselves for faults."""
    for name in ("faults", "wire", "bin"):
        (device.folder / name).mkdir(parents=True)
    for one in supplies.programs.iterdir():
        if one.name in {"trtexec", "dd"}:
            shutil.copy(one, device.folder / "bin")
        else:
            (device.folder / "bin" / one.name).symlink_to(one)
    if build_s:
        (device.folder / "build_s").write_text(f"{build_s}")


def _start_sshd(fleet: Fleet, name: str) -> None:
    device = fleet.devices[name]
    try:
        fleet.servers[name] = loopback.start_loopback(
            device.folder / "sshd", prefer="sshd", environment=device.environment()
        )
    except DependencyError as error:
        if os.environ.get("EDGECAL_REQUIRE_SSHD") == "1":
            raise
        pytest.skip(f"needs a working sshd: {error.what}")


def _start_again(device: Device, server: LoopbackServer) -> LoopbackServer:
    """Start a stopped sshd with the files it had."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    assert sshd
    config = device.folder / "sshd" / "sshd_config"
    with (device.folder / "sshd" / "sshd.log").open("ab") as log:
        process = subprocess.Popen(
            [sshd, "-D", "-e", "-f", str(config)], stdin=subprocess.DEVNULL, stderr=log
        )
    again = replace(server, _stop=partial(loopback._stop_sshd, process))
    limit = time.monotonic() + _DEADLINE_S
    while not loopback._listens(server.port):
        assert process.poll() is None, "its port was taken meanwhile"
        assert time.monotonic() < limit
        time.sleep(_POLL_S)
    return again


def _write_keys(fleet: Fleet) -> None:
    """Let one key in everywhere, and know every host: an operator has one of each."""
    first = fleet.servers[fleet.names[0]]
    shutil.copy(first.identity_file, fleet.folder / "identity")
    public = first.identity_file.with_suffix(".pub").read_bytes()
    for server in fleet.servers.values():
        server.identity_file.with_suffix(".pub").write_bytes(public)
    known = b"".join(server.known_hosts.read_bytes() for server in fleet.servers.values())
    (fleet.folder / "known_hosts").write_bytes(known)


def _write_toml(fleet: Fleet) -> None:
    half = (len(fleet.devices) + 1) // 2
    sites = {"site-a": fleet.names[:half], "site-b": fleet.names[half:]}
    groups = {**sites, "canary": [names[0] for names in sites.values() if names]}
    # no Python there: that the probe looks for TensorRT in it is the longest part of a push
    common: dict[str, object] = {"python": "/bin/false"}
    if fleet.real:
        common["user"] = fleet.servers[fleet.names[0]].user
        common["identity_file"] = str(fleet.folder / "identity")
        common["known_hosts"] = str(fleet.folder / "known_hosts")
    lines = ["[groups.all]", *_keys(common)]
    for name, targets in groups.items():
        lines += [f"[groups.{name}]", *_keys({"targets": targets})]
    for device in fleet.devices.values():
        own: dict[str, object] = {"host": loopback.HOST, "root": str(device.root)}
        if fleet.real:
            own["port"] = fleet.servers[device.name].port
        if fleet.health:
            health = ["sh", "-c", '[ ! -e "$0" ]', str(device.folder / "faults" / "health")]
            own |= {"health": health, "soak_s": 1}
        lines += [f"[targets.{device.name}]", *_keys(own)]
    fleet.toml.write_text("\n".join(lines) + "\n")


def _keys(table: dict[str, object]) -> list[str]:
    return [f"{key} = {json.dumps(value)}" for key, value in table.items()]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _edgecal(fleet: Path, words: list[str]) -> None:
    """Be `edgecal`, with devices that have no sshd."""

    def connect(target: Target) -> Transport:
        return Device(target.name, fleet / target.name).connect()

    with mock.patch.object(ssh, "connect", connect):
        main(words)


if __name__ == "__main__":
    _edgecal(Path(sys.argv[1]), sys.argv[2:])
