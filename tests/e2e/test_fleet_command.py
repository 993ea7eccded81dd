"""`--on` against two real sshds, with an inventory in TOML and with a program that prints JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.bundles import install_trtexec, make_bundles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgecal.adapters.bundle import Bundle
    from edgecal.adapters.loopback import LoopbackServer

CHECKOUT = Path(__file__).resolve().parents[2]
VERSIONS = {"old": "8502", "new": "100300"}


@dataclass
class Desk:
    """A user's working directory, and two targets on loopback whose trtexecs differ."""

    folder: Path
    bundle: Bundle
    servers: dict[str, LoopbackServer]

    def settings(self, name: str) -> dict[str, object]:
        server = self.servers[name]
        return {
            "host": server.host,
            "port": server.port,
            "identity_file": str(server.identity_file),
            "known_hosts": str(server.known_hosts),
            "root": str(self.folder / name / "root"),
        }

    @property
    def user(self) -> str:
        return self.servers["old"].user

    def write_toml(self) -> None:
        lines = [f"[groups.all]\nuser = {json.dumps(self.user)}", "[groups.site]\ntargets = ['*']"]
        lines += ["[groups.canary]\ntargets = ['old']"]
        for name in self.servers:
            table = self.settings(name)
            lines += [f"[targets.{name}]", *(f"{key} = {json.dumps(table[key])}" for key in table)]
        (self.folder / "fleet.toml").write_text("\n".join(lines))

    def write_program(self) -> Path:
        hostvars = {}
        for name in self.servers:
            of = self.settings(name)
            hostvars[name] = {
                "ansible_host": of["host"],
                "ansible_port": of["port"],
                "ansible_user": self.user,
                "ansible_ssh_private_key_file": of["identity_file"],
                "edgecal_known_hosts": of["known_hosts"],
                "edgecal_root": of["root"],
            }
        document = {
            "_meta": {"hostvars": hostvars},
            "all": {"children": ["site"]},
            "site": {"hosts": list(self.servers)},
        }
        program = self.folder / "hosts.py"
        program.write_text(f"#!{sys.executable}\nprint({json.dumps(document)!r})\n")
        program.chmod(0o700)
        return program

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        kept = {key: value for key, value in os.environ.items() if key != "SSH_AUTH_SOCK"}
        return subprocess.run(
            [sys.executable, "-m", "edgecal", *words],
            cwd=self.folder,
            env={
                **kept,
                "HOME": str(self.folder),
                "PYTHONPATH": str(CHECKOUT),
                "XDG_STATE_HOME": str(self.folder / "state"),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def ask(self, *words: str) -> tuple[int, dict[str, Any], str]:
        done = self.run(*words, "--json")
        document: dict[str, Any] = json.loads(done.stdout)
        return done.returncode, document, done.stderr


@pytest.fixture
def desk(tmp_path: Path, start_sshd: Callable[..., LoopbackServer], home: Path) -> Iterator[Desk]:
    (bundle,) = make_bundles(tmp_path, "8.5.2")
    servers = {}
    try:
        for name, version in VERSIONS.items():
            programs = tmp_path / name / "bin"
            programs.mkdir(parents=True)
            install_trtexec(programs, bundle, version=version)
            servers[name] = start_sshd(
                tmp_path / name / "sshd", PATH=f"{programs}:{os.environ['PATH']}", HOME=str(home)
            )
        yield Desk(tmp_path, bundle, servers)
    finally:
        for server in servers.values():
            server.close()


def names(document: dict[str, Any]) -> list[str]:
    return [one["target"] for one in document["targets"]]


def test_a_fleet_is_asked_chosen_from_and_pushed_to(desk: Desk) -> None:
    desk.write_toml()
    # nobody is known yet: offline none is hit, else both are asked
    code, document, said = desk.ask("fleet", "list", "--on", "tensorrt=8.5", "--offline")
    assert (code, names(document)) == (0, [])
    assert "left out, for tensorrt is not known of them: old, new" in said
    code, document, said = desk.ask("status", "--on", "site & tensorrt=8.5")
    assert (code, names(document)) == (0, ["old"]), said
    assert said.startswith("--on hits 1 of 2: old\n")
    # the answers were kept: offline they count, and an upgrade is seen once they are asked anew
    (desk.folder / "new" / "bin" / "version").write_text("8502")
    expression = ("--on", "!canary & tensorrt=8.5")
    assert names(desk.ask("fleet", "list", *expression)[1]) == []
    assert names(desk.ask("fleet", "list", *expression, "--probe")[1]) == ["new"]
    code, document, said = desk.ask("push", str(desk.bundle.path), *expression)
    assert (code, names(document)) == (0, ["new"]), said
    assert (desk.folder / "new" / "root" / "models").is_dir()
    assert not (desk.folder / "old" / "root" / "models").exists()


def test_a_program_names_the_targets(desk: Desk) -> None:
    program = desk.write_program()
    words = ("--inventory", str(program), "--on", "site & !new")
    code, document, said = desk.ask("probe", *words)
    assert (code, names(document)) == (0, ["old"]), said
    assert document["targets"][0]["facts"]["tensorrt"] == "8.5.2"
    assert names(desk.ask("prune", "--dry-run", *words)[1]) == ["old"]
    code, document, said = desk.ask("status", "--inventory", str(program), "--target", "new")
    assert (code, names(document)) == (0, ["new"]), said
    program.chmod(0o777)
    code, document, said = desk.ask("probe", *words)
    assert code == 2
    assert "is not run" in said
    assert document["error"]["code"] == "inventory"
