"""Times bringing one bundle to many targets beside Ansible and scp, and prints ratios.

Targets are real sshds on loopback, each with its own host key, port and folders. All contenders run
the same stand-in for trtexec there, which takes as long as it is told. edgecal is `edgecal push
--on all`, and `edgecal rollout start` with all targets at once. Ansible runs a playbook that
does what people do by hand: a folder, `copy`, trtexec where there is no engine yet, sha256sum, the
link; with pipelining, without facts, and with a fork for each target. scp is a script that does the
same, for all targets at once by `xargs -P`.

They are run in turn, again and again, each on targets that have nothing, and then once more on
what it has just left there. Shown are medians of the rounds, and the median of each round's ratio
to push. Bytes are all that went to a target through its connections, as sshd says of edgecal's and
ssh of the others'. pip installs ansible-core once, in the workplace.

What this does not show: targets share the cores with their controller, so that a shell there costs
what it would cost a fleet nothing; loopback has no latency, and every build takes the same time.

    .venv/bin/python scripts/bench/fleet.py --targets 8 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from _workplace import CHECKOUT, Workplace, add_workplace
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(CHECKOUT))
from edgecal.adapters.bundle import read_bundle
from tests.fleets import MODEL, Fleet, Supplies, start_fleet, supplies_of

if TYPE_CHECKING:
    from collections.abc import Callable

_ANSIBLE: Final = ("ansible-core==2.19.14",)
"""The last one for Python 3.11 as a controller."""
_FILES: Final = ("model.onnx", "calibration.cache", "manifest.json")
_PYTHON: Final = "/usr/bin/python3"
_SETTLED_S: Final = 0.5
"""After which connections that were ended have said so in a log."""
_TRTEXEC: Final = (
    "trtexec",
    "--onnx=model.onnx",
    "--int8",
    "--fp16",
    "--calib=calibration.cache",
    "--saveEngine=engine",
)
_NOT_DONE: Final = """\
What each does beside shipping, building and switching:
  push      asks targets what they are and refuses what does not fit; reads from the log that the
            cache was used; runs the engine on golden inputs; stores by digest, resumes uploads
  rollout   the same, after asking all for a plan; journals every event before it acts
  Ansible   compares checksums of what it copies, and of the files before it switches
  scp       sha256sum before it switches; whatever happens, it sends everything again"""


@dataclass(frozen=True, slots=True)
class Bench:
    """A fleet, and what its peers need to know of it."""

    fleet: Fleet
    files: Path
    """The folder that the peers bring to the targets."""
    sockets: Path
    """Where Ansible's ssh keeps connections; a socket's path must be short."""
    workplace: Workplace

    @property
    def log(self) -> Path:
        """Where ssh says how many bytes it sent."""
        return self.desk / "ssh.log"

    @property
    def desk(self) -> Path:
        """Where everybody's own files lie."""
        return self.fleet.folder

    def folder(self, target: str, peer: str) -> Path:
        """Give where a peer keeps its releases on a target."""
        return self.fleet.devices[target].folder / peer


@dataclass(frozen=True, slots=True)
class Contender:
    """Somebody who brings files to targets."""

    name: str
    run: Callable[[Bench], None]
    engine: Callable[[Bench, str], Path]
    """Where the engine of a target lies that is in use."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run."""

    seconds: float
    sent: int
    """Bytes, to all targets."""
    builds: int


# --- the network and its bundle ------------------------------------------------------------------


def make_bundle(folder: Path, size_mb: float) -> Supplies:
    """Calibrate a network whose weights are random and take so many millions of bytes."""
    rng = np.random.default_rng(0)
    inputs, outputs = 3 * 32 * 32, 10
    hidden = max(1, round(size_mb * 1e6 / 4 / (inputs + outputs)))
    weights = {
        "w1": rng.normal(0, 0.02, (inputs, hidden)).astype(np.float32),
        "w2": rng.normal(0, 0.02, (hidden, outputs)).astype(np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"], "flatten"),
            helper.make_node("MatMul", ["flat", "w1"], ["first"], "first"),
            helper.make_node("Relu", ["first"], ["active"], "relu"),
            helper.make_node("MatMul", ["active", "w2"], ["logits"], "second"),
        ],
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, outputs])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, folder / "net.onnx")
    np.save(folder / "pictures.npy", rng.normal(0, 1, (24, 3, 32, 32)).astype(np.float32))
    output = folder / f"{MODEL}.edgecal"
    words = ("calibrate", "net.onnx", "--data", "pictures.npy", "--tensorrt", "8.5.2")
    call(
        [sys.executable, "-m", "edgecal", *words, "--output", output.name],
        folder,
        PYTHONPATH=str(CHECKOUT),
    )
    return supplies_of(read_bundle(output), folder)


# --- the contenders ------------------------------------------------------------------------------


def push(bench: Bench) -> None:
    """Be edgecal."""
    edgecal(bench, "push")


def roll_out(bench: Bench) -> None:
    """Be edgecal, with a journal and a plan; gates that hold devices back would make it wait."""
    count = str(len(bench.fleet.names))
    one_wave = ("--waves", "100%", "--on-failure", "continue", "--in-flight", count)
    edgecal(bench, "rollout", "start", *one_wave, "--yes")


def edgecal(bench: Bench, *words: str) -> None:
    """Run a command for all targets."""
    done = bench.fleet.run(*words, str(bench.fleet.supplies.old.path), "--on", "all", "--quiet")
    if done.returncode:
        raise SystemExit(f"edgecal {words[0]}: exit status {done.returncode}\n{done.stderr}")


def play(bench: Bench) -> None:
    """Be Ansible."""
    ansible = bench.workplace.python.with_name("ansible-playbook")
    call([str(ansible), "playbook.yml"], bench.desk, ANSIBLE_CONFIG=str(bench.desk / "ansible.cfg"))


def copy(bench: Bench) -> None:
    """Be a script around scp."""
    names = "\n".join(bench.fleet.names)
    at_once = str(len(bench.fleet.names))
    call(["xargs", "-P", at_once, "-n", "1", "sh", "scp.sh"], bench.desk, stdin=names)


CONTENDERS: Final = (
    Contender("push", push, lambda bench, name: _current(bench, name) / "model.engine"),
    Contender("rollout", roll_out, lambda bench, name: _current(bench, name) / "model.engine"),
    Contender(
        "Ansible", play, lambda bench, name: bench.folder(name, "ansible") / "current/engine"
    ),
    Contender("scp", copy, lambda bench, name: bench.folder(name, "scp") / "current/engine"),
)


def _current(bench: Bench, name: str) -> Path:
    return bench.fleet.devices[name].model / "current"


def prepare(bench: Bench) -> None:
    """Write what the peers run, and let sshd serve them."""
    fleet, desk = bench.fleet, bench.desk
    bench.files.mkdir()
    for name in _FILES:
        shutil.copy(fleet.supplies.old.path / name, bench.files)
    digests = call(["sha256sum", *_FILES], bench.files)
    (bench.files / "digests").write_text(digests)
    hosts = []
    for name, server in fleet.servers.items():
        fleet.stop(name)
        with (fleet.devices[name].folder / "sshd" / "sshd_config").open("a") as config:
            # copies go by sftp, which every sshd has; a connection's end shall tell its bytes
            config.write("Subsystem sftp internal-sftp\nLogLevel VERBOSE\n")
        fleet.start(name)
        hosts += [f"Host {name}", f"    HostName {server.host}", f"    Port {server.port}"]
    hosts += [
        "Host *",
        f"    User {fleet.servers[fleet.names[0]].user}",
        f"    IdentityFile {desk / 'identity'}",
        f"    UserKnownHostsFile {desk / 'known_hosts'}",
        "    IdentitiesOnly yes",
        "    BatchMode yes",
        "    LogLevel VERBOSE",
    ]
    (desk / "ssh_config").write_text("\n".join(hosts) + "\n")
    bench.log.touch()
    prepare_ansible(bench)
    root, ssh = f"{desk.parent}/$1/scp", f"ssh -F ssh_config -E {bench.log}"
    build = " ".join(_TRTEXEC)
    (desk / "scp.sh").write_text(
        f"""\
set -e
{ssh} "$1" "mkdir -p {root}/releases/1"
scp -F ssh_config {bench.files}/* "$1:{root}/releases/1/" 2>>{bench.log}
{ssh} "$1" "cd {root}/releases/1 && {{ [ -e engine ] || {build}; }} >log &&
    sha256sum --check --quiet digests && ln -sfnT releases/1 ../../current"
"""
    )


def prepare_ansible(bench: Bench) -> None:
    """Write its configuration, inventory and playbook."""
    desk, names = bench.desk, bench.fleet.names
    ssh = f"-F {desk / 'ssh_config'} -E {bench.log} -o ControlMaster=auto -o ControlPersist=60s"
    (desk / "ansible.cfg").write_text(
        f"""\
[defaults]
inventory = {desk / "hosts"}
forks = {len(names)}
interpreter_python = {_PYTHON}
local_tmp = {desk / "ansible"}
home = {desk / "ansible"}
[ssh_connection]
pipelining = true
ssh_args = {ssh}
control_path_dir = {bench.sockets}
"""
    )
    hosts = [f"{name} root={bench.folder(name, 'ansible')}" for name in names]
    (desk / "hosts").write_text("\n".join(hosts) + "\n")
    release = "{{ root }}/releases/1"

    def task(name: str, module: str, more: dict[str, object], **words: object) -> dict[str, object]:
        return {"name": name, f"ansible.builtin.{module}": words, **more}

    tasks = [
        task("A folder for the release", "file", {}, path=release, state="directory"),
        task(
            "The files",
            "copy",
            {"loop": [*_FILES, "digests"]},
            src=f"{bench.files}/{{{{ item }}}}",
            dest=f"{release}/{{{{ item }}}}",
        ),
        task("The engine", "command", {}, argv=list(_TRTEXEC), chdir=release, creates="engine"),
        task(
            "The files' checksums",
            "command",
            {"changed_when": False},
            argv=["sha256sum", "--check", "--quiet", "digests"],
            chdir=release,
        ),
        task("The link", "file", {}, src="releases/1", dest="{{ root }}/current", state="link"),
    ]
    play = {"hosts": "all", "gather_facts": False, "tasks": tasks}
    (desk / "playbook.yml").write_text(json.dumps([play], indent=2))  # which is YAML, too


# --- measuring -----------------------------------------------------------------------------------


def measure(bench: Bench, rounds: int) -> dict[str, list[tuple[Run, Run]]]:
    """Run all contenders in turn, again and again: what else the machine does hits all of them."""
    found: dict[str, list[tuple[Run, Run]]] = defaultdict(list)
    for number in range(rounds + 1):
        for one in CONTENDERS:
            _tell(f"round {number} of {rounds}: {one.name}")
            empty(bench)
            runs = (timed(bench, one), timed(bench, one))
            check(bench, one)
            if number:  # the first one reads every file once
                found[one.name].append(runs)
    return found


def timed(bench: Bench, contender: Contender) -> Run:
    """Run a contender; its connections are ended before its bytes are counted."""
    sent, builds = count(bench)
    began = time.perf_counter()
    contender.run(bench)
    seconds = time.perf_counter() - began
    for socket in bench.sockets.iterdir():
        call(["ssh", "-F", "none", "-S", str(socket), "-O", "exit", "nobody"], bench.desk)
    time.sleep(_SETTLED_S)
    more_sent, more_builds = count(bench)
    return Run(seconds, more_sent - sent, more_builds - builds)


def count(bench: Bench) -> tuple[int, int]:
    """Give the bytes sent through connections that have ended, and the builds that have begun."""
    sent = _sum(r"Transferred: sent (\d+),", bench.log)
    for device in bench.fleet.devices.values():
        # of clients that take their leave, as ssh does, sshd says nothing
        sent += _sum(r"Transferred: .*received (\d+) bytes", device.folder / "sshd" / "sshd.log")
    return sent, sum(map(bench.fleet.builds, bench.fleet.names))


def _sum(pattern: str, log: Path) -> int:
    return sum(map(int, re.findall(pattern, log.read_text("utf-8", "replace"))))


def empty(bench: Bench) -> None:
    """Take everything off the targets."""
    for name, device in bench.fleet.devices.items():
        for folder in (device.root, bench.folder(name, "ansible"), bench.folder(name, "scp")):
            shutil.rmtree(folder, ignore_errors=True)


def check(bench: Bench, contender: Contender) -> None:
    """See that every target has an engine in use, built from the network that was sent."""
    network = (bench.files / "model.onnx").read_bytes()
    for name in bench.fleet.names:
        if not contender.engine(bench, name).read_bytes().startswith(network):
            raise SystemExit(f"{contender.name}: {name} has no engine of this network")


def call(argv: list[str], folder: Path, *, stdin: str = "", **environment: str) -> str:
    """Run a program of the bench; its failure ends everything."""
    kept = {key: value for key, value in os.environ.items() if key != "SSH_AUTH_SOCK"}
    done = subprocess.run(
        argv,
        cwd=folder,
        env={**kept, **environment},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        command = " ".join(argv)
        raise SystemExit(f"{command}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def table(found: dict[str, list[tuple[Run, Run]]], targets: int) -> None:
    """Print a line for each contender."""
    print(
        f"{'':9}{'first':>9}{'':>9}{'to each':>11}{'builds':>8}{'again':>11}{'':>9}{'to each':>11}"
    )
    ours = found[CONTENDERS[0].name]
    for name, rounds in found.items():
        line = f"{name:9}"
        for which in (0, 1):
            seconds = statistics.median(one[which].seconds for one in rounds)
            ratio = statistics.median(
                one[which].seconds / our[which].seconds
                for one, our in zip(rounds, ours, strict=True)
            )
            sent = statistics.median(one[which].sent for one in rounds) / targets
            line += f"{seconds:>{7 + 2 * which}.2f} s{ratio:7.2f} x{sent / 1e6:8.2f} MB"
            if not which:
                line += f"{statistics.median(one[0].builds for one in rounds):8.0f}"
        print(line)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Run every contender in turn, several rounds, and print medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--targets", type=int, default=8)
    parser.add_argument("--size", type=float, default=14.0, help="of the network, in MB")
    parser.add_argument("--build-s", type=float, default=1.0, help="how long a build takes")
    parser.add_argument("--rounds", type=int, default=3)
    add_workplace(parser)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and leave no sshd behind
    workplace = Workplace(given.workplace)
    workplace.install(_ANSIBLE)
    with tempfile.TemporaryDirectory(prefix="edgecal-fleet-") as text:
        folder = Path(text)
        supplies = make_bundle(folder, given.size)
        sockets = folder / "s"
        sockets.mkdir(mode=0o700)
        with start_fleet(
            folder / "f", given.targets, supplies=supplies, build_s=given.build_s
        ) as fleet:
            bench = Bench(fleet, folder / "files", sockets, workplace)
            prepare(bench)
            found = measure(bench, given.rounds)
    cores = len(os.sched_getaffinity(0))
    print(
        f"{given.targets} targets on loopback, a network of {given.size:g} MB, builds of "
        f"{given.build_s:g} s, {given.rounds} rounds, {cores} cores; medians; x: of push's time"
    )
    table(found, given.targets)
    print(_NOT_DONE)


if __name__ == "__main__":
    main()
