"""`edgecal audit` and `edgecal doctor` against real sshds: a fleet in which things went wrong."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgecal.adapters.bundle import write_bundle
from edgecal.core.cache import entry_of_scale, parse_cache, serialize_cache
from edgecal.core.manifest import CACHE_FILE
from tests.bundles import install_trtexec, make_bundles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgecal.adapters.bundle import Bundle
    from edgecal.adapters.loopback import LoopbackServer

ABOUT_THE_MACHINE = {"low-memory", "memory", "clock-off", "root-volatile", "gpu-access"}
CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass
class Fleet:
    """A user's working directory with an inventory of targets on loopback, each with a trtexec."""

    folder: Path
    bundles: list[Bundle]
    start_sshd: Callable[..., LoopbackServer]
    servers: dict[str, LoopbackServer] = field(default_factory=dict)

    def add(self, name: str, version: str) -> None:
        """Start a target whose trtexec is of that version."""
        programs = self.folder / name / "bin"
        programs.mkdir(parents=True)
        install_trtexec(programs, self.bundles[0], version=version)
        self.servers[name] = self.start_sshd(
            self.folder / name / "sshd", PATH=f"{programs}:{os.environ['PATH']}"
        )

    def write(self) -> None:
        lines = []
        for name, server in self.servers.items():
            keys: dict[str, object] = {
                "host": server.host,
                "port": server.port,
                "user": server.user,
                "identity_file": str(server.identity_file),
                "known_hosts": str(server.known_hosts),
                "root": str(self.root(name)),
            }
            lines += [f"[targets.{name}]", *(f"{key} = {json.dumps(keys[key])}" for key in keys)]
        (self.folder / "edgecal.toml").write_text("\n".join(lines))

    def root(self, name: str) -> Path:
        return self.folder / name / "root"

    def model(self, name: str, model: str = "net-8.5") -> Path:
        return self.root(name) / "models" / model

    def set_version(self, name: str, version: str) -> None:
        (self.folder / name / "bin" / "version").write_text(version)

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if key != "SSH_AUTH_SOCK"}
        return {
            **kept,
            "HOME": str(self.folder),
            "PYTHONPATH": str(CHECKOUT),
            "XDG_STATE_HOME": str(self.folder / "state"),
        }

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "edgecal", *words],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def ask(self, *words: str) -> tuple[int, dict[str, Any]]:
        done = self.run(*words, "--json")
        document: dict[str, Any] = json.loads(done.stdout)
        return done.returncode, document

    @property
    def bundle_options(self) -> list[str]:
        return [f"--bundle={one.path}" for one in self.bundles]

    def audit(self, *words: str) -> tuple[int, dict[str, Any]]:
        return self.ask("audit", *self.bundle_options, *words)

    def follow(self, remedy: str) -> None:
        """Do what a remedy says, word for word."""
        program, *words = shlex.split(remedy.partition(";")[0])
        assert program == "edgecal"
        done = self.run(*words)
        assert done.returncode == 0, done.stderr


def calibrated_again(bundle: Bundle, path: Path) -> Path:
    """Write a bundle of the same network and name, with another scale in its cache."""
    cache = parse_cache((bundle.path / CACHE_FILE).read_bytes())
    first = entry_of_scale(cache.entries[0].tensor, 0.5)
    contents: dict[str, bytes | Path] = {name: bundle.path / name for name in bundle.manifest.files}
    contents[CACHE_FILE] = serialize_cache(replace(cache, entries=(first, *cache.entries[1:])))
    write_bundle(path, bundle.manifest, contents)
    return path


def rules(document: dict[str, Any], target: str) -> dict[str, str]:
    """What is said of one target: rule to severity, less what this machine's memory calls for."""
    (found,) = [one for one in document["targets"] if one["target"] == target]
    severities = {one["rule"]: one["severity"] for one in found["findings"]}
    return {rule: one for rule, one in severities.items() if rule not in ABOUT_THE_MACHINE}


def finding(document: dict[str, Any], target: str, rule: str) -> dict[str, str]:
    (found,) = [one for one in document["targets"] if one["target"] == target]
    (only,) = [one for one in found["findings"] if one["rule"] == rule]
    return dict(only)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    return make_bundles(tmp_path_factory.mktemp("bundles"), "8.5.2", "10.3.0")


@pytest.fixture
def fleet(
    tmp_path: Path, bundles: list[Bundle], start_sshd: Callable[..., LoopbackServer]
) -> Iterator[Fleet]:
    made = Fleet(tmp_path, bundles, start_sshd)
    yield made
    for server in made.servers.values():
        server.close()


def start_six(fleet: Fleet) -> None:
    """Four that are pushed to, one of which no bundle is for, one that will go away."""
    versions = {"sound": "8502", "tampered": "8502", "upgraded": "8502"}
    for name, version in {**versions, "newer": "100300", "odd": "8601", "gone": "8502"}.items():
        fleet.add(name, version)
    fleet.write()
    pushed = [f"--target={name}" for name in (*versions, "newer")]
    done = fleet.run("push", *(str(bundle.path) for bundle in fleet.bundles), *pushed)
    assert done.returncode == 0, done.stderr
    assert fleet.run("probe", "--target", "gone").returncode == 0


def break_three(fleet: Fleet) -> None:
    with (fleet.model("tampered") / "current" / "model.engine").open("ab") as engine:
        engine.write(b"rot")
    fleet.set_version("upgraded", "8510")
    fleet.servers.pop("gone").close()


def check_targets(document: dict[str, Any]) -> None:
    assert rules(document, "sound") == {}
    assert rules(document, "tampered") == {"drift-files": "error"}
    assert rules(document, "upgraded") == {"drift-tensorrt": "error", "tensorrt-version": "note"}
    drift = finding(document, "upgraded", "drift-tensorrt")
    assert "8.5.2" in drift["message"]
    assert "8.5.10" in drift["message"]
    (gone,) = [one for one in document["targets"] if one["target"] == "gone"]
    assert gone["reachable"] is False
    assert gone["facts"]["tensorrt"] == "8.5.2"
    assert gone["seen"] is not None
    assert gone["error"]["code"] == "connect"


def check_groups(document: dict[str, Any]) -> None:
    groups = {one["tensorrt"]: one for one in document["groups"]}
    assert list(groups) == ["8.5", "8.6", "10.3"]
    assert groups["8.5"]["targets"] == ["sound", "tampered", "upgraded"]
    assert groups["8.5"]["versions"] == ["8.5.2", "8.5.10"]
    matching = {one["bundle"]: one["fits"] for one in groups["8.5"]["bundles"]}
    assert matching == {"net-8.5": ["sound", "tampered", "upgraded"], "net-10.3": []}
    assert groups["8.6"]["targets"] == ["odd"]
    assert all(not one["fits"] for one in groups["8.6"]["bundles"])
    assert groups["10.3"]["targets"] == ["newer"]
    assert groups["10.3"]["container"]["image"].endswith("tensorrt:24.08-py3")
    assert any(one["compute_capability"] == "7.0" for one in groups["10.3"]["host_gpus"])


def test_a_fleet_in_which_everything_went_wrong(fleet: Fleet) -> None:
    start_six(fleet)
    code, document = fleet.audit()
    assert code == 3  # the odd one
    assert document["summary"]["drifted"] == 0
    assert rules(document, "odd") == {"tensorrt-version": "error"}
    assert rules(document, "gone") == {"not-active": "note"}
    assert not fleet.root("odd").exists()  # nothing is left where nothing was pushed

    break_three(fleet)
    before = sorted(fleet.root("sound").rglob("*"))
    code, document = fleet.audit()
    assert code == 4  # one was not reached, which comes before what does not fit
    assert document["schema"] == "edgecal.audit/1"
    check_targets(document)
    check_groups(document)
    assert sorted(fleet.root("sound").rglob("*")) == before

    spoken = fleet.run("audit", *fleet.bundle_options)
    assert spoken.returncode == 4
    assert "\x1b" not in spoken.stdout + spoken.stderr
    assert "    last seen just now: a machine, TensorRT 8.5.2" in spoken.stdout
    assert "error drift-tensorrt (upgraded)" in spoken.stdout

    fleet.follow(finding(document, "tampered", "drift-files")["remedy"])
    fleet.follow(finding(document, "upgraded", "drift-tensorrt")["remedy"])
    fleet.write()  # without the one that is gone
    code, document = fleet.audit()
    assert code == 3
    assert document["summary"] == {
        "targets": 5,
        "unreachable": 0,
        "unknown": 0,
        "groups": 3,
        "with_errors": 1,
        "drifted": 0,
        "outliers": 0,
    }

    code, offline = fleet.audit("--offline")
    assert code == 3
    assert {one["reachable"] for one in offline["targets"]} == {None}
    assert rules(offline, "odd") == {"tensorrt-version": "error"}


def test_another_cache_and_damaged_blobs_are_drift_and_the_remedies_work(
    fleet: Fleet,
) -> None:
    fleet.add("bench", "8502")
    fleet.write()
    bundle = fleet.folder / "net-8.5.edgecal"
    shutil.copytree(fleet.bundles[0].path, bundle)
    assert fleet.run("push", str(bundle), "--target", "bench", "--as", "detector").returncode == 0
    code, document = fleet.ask("audit", "--bundle", str(bundle))
    assert code == 0
    assert rules(document, "bench") == {}

    edited = calibrated_again(fleet.bundles[0], fleet.folder / "other" / "net-8.5.edgecal")
    code, document = fleet.ask("audit", "--bundle", str(edited))
    assert code == 3
    drift = finding(document, "bench", "drift-cache")
    assert "another cache" in drift["message"]
    fleet.follow(drift["remedy"])
    code, document = fleet.ask("audit", "--bundle", str(edited))
    assert rules(document, "bench") == {}
    assert code == 0

    current = fleet.model("bench", "detector") / "current"
    blob = (current / "model.onnx").resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"\0")
    code, document = fleet.ask("audit", "--bundle", str(edited))
    assert code == 3
    drift = finding(document, "bench", "drift-files")
    assert "model.onnx" in drift["message"]
    assert fleet.run(*shlex.split(drift["remedy"].partition(";")[0])[1:]).returncode == 4
    fleet.follow(drift["remedy"])
    (current / "build.json").unlink()
    code, document = fleet.ask("audit", "--bundle", str(edited))
    assert code == 3
    drift = finding(document, "bench", "drift-record")
    assert drift["severity"] == "error"
    fleet.follow(drift["remedy"])
    code, document = fleet.ask("audit", "--bundle", str(edited))
    assert code == 0


def test_doctor_names_what_a_target_needs_and_remembers_it(fleet: Fleet) -> None:
    fleet.add("bench", "100300")
    fleet.write()
    code, document = fleet.ask("doctor")
    assert code == 0
    (need,) = document["targets"]
    assert need["asked"] is None

    code, document = fleet.ask("doctor", "--for", "bench")
    assert code == 0
    assert document["schema"] == "edgecal.doctor/1"
    (need,) = document["targets"]
    assert (need["asked"], need["tensorrt"]) == ("live", "10.3.0")
    assert "--tensorrt 10.3 " in need["native"]["cpu"]

    fleet.servers["bench"].close()
    code, document = fleet.ask("doctor")
    assert code == 0
    assert document["targets"][0]["asked"] == "cached"
    done = fleet.run("doctor", "--for", "bench")
    assert done.returncode == 0
    assert "below stands what it last said" in done.stderr
    assert "10.3.0" in done.stdout


def test_an_interrupt_does_not_wait_for_a_target_that_hangs(fleet: Fleet) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, never answers
        port = silent.getsockname()[1]
        (fleet.folder / "edgecal.toml").write_text(
            f'[targets.silent]\nhost = "127.0.0.1"\nport = {port}\n'
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "edgecal", "audit"],
            cwd=fleet.folder,
            env=fleet.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        silent.settimeout(30)
        connection, _ = silent.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=10)
    assert process.returncode == 130
    assert stdout == ""
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
