"""What the probe tells of /etc/edgecal, to a user who may not change it and to one who may."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgecal.adapters.keys import read_public_key
from edgecal.adapters.scripts import load_scripts
from edgecal.adapters.tables import load_platforms
from edgecal.core.probes import facts_to_json, parse_probe
from edgecal.core.target import SigningFacts
from tests.signing import Etc, authority
from tests.users import NOBODY

if TYPE_CHECKING:
    from collections.abc import Iterator

PLATFORMS = load_platforms()
SHELLS = ("sh", "dash", "bash --posix", "busybox sh")


@dataclass
class Board:
    """A folder that everybody may enter, with an /etc/edgecal and keys."""

    folder: Path
    etc: Etc

    def ask(
        self, shell: str = "sh", *, root: bool = False, path: str | None = None
    ) -> SigningFacts:
        program, *options = shell.split()
        found = shutil.which(program)
        if found is None:
            pytest.skip(f"no {program} on this machine")
        done = subprocess.run(
            [found, *options, "-s", "--", str(self.folder), ""],
            input=self.etc.scripts(load_scripts()).probe.encode(),
            capture_output=True,
            env={"PATH": path or "/usr/bin:/bin", "HOME": str(self.folder)},
            user=None if root else NOBODY,
            group=None if root else NOBODY,
            extra_groups=None if root else (),
            check=True,
        )
        facts = parse_probe(done.stdout.decode(), PLATFORMS, source="here")
        assert facts.signing is not None
        assert facts_to_json(facts)["signing"]
        return facts.signing


@pytest.fixture
def board() -> Iterator[Board]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to own what the asking user does not")
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    folder.chmod(0o755)
    (folder / "etc").mkdir(mode=0o755)
    made = Board(folder, Etc(folder / "etc"))
    yield made
    shutil.rmtree(folder)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_tells_what_is_wrong(shell: str, board: Board) -> None:
    board.etc.policy("require_signature=perhaps")
    (board.etc.folder / "keys").mkdir()
    (board.etc.folder / "keys" / "my key.pem").write_text("no key")
    facts = board.ask(shell)
    assert facts.problem == "its policy says 'require_signature=perhaps'"
    assert facts.keys == ()
    assert facts.unusable_keys == (f"{board.etc.folder}/keys/my key.pem",)
    (board.etc.folder / "policy").chmod(0o600)
    assert board.ask(shell).problem == f"{board.etc.folder}/policy cannot be read"
    (board.etc.folder / "policy").unlink()
    (board.etc.folder / "policy").symlink_to("nowhere")
    assert board.ask(shell).problem == f"{board.etc.folder}/policy cannot be read"
    board.etc.folder.chmod(0o700)
    assert board.ask(shell).problem == f"{board.etc.folder} cannot be entered"
    shutil.rmtree(board.etc.folder)
    assert not board.ask(shell).present


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_tells_keys_and_policy_and_that_nobody_may_change_them(
    shell: str, board: Board
) -> None:
    signer = authority(board.folder)
    board.etc.trust(signer.public)
    board.etc.policy("# ours", "require_signature=yes", "name=cam7", "counter.net=3")
    facts = board.ask(shell)
    assert facts == SigningFacts(
        present=True,
        openssl=True,
        required=True,
        name="cam7",
        keys=(read_public_key(signer.public).fingerprint,),
    )


def test_whatever_the_user_could_change_is_told(board: Board) -> None:
    board.etc.trust(authority(board.folder).public)
    board.etc.policy()
    etc = board.etc.folder
    assert board.ask().writable == ()
    (etc / "policy").chmod(0o646)
    os.chown(etc / "keys" / "release.pem", NOBODY, 0)
    (etc / "keys" / "release.pem").chmod(0o444)  # its owner could change that
    assert board.ask().writable == (f"{etc}/policy", f"{etc}/keys/release.pem")
    (etc / "keys").chmod(0o777)
    etc.chmod(0o777)
    assert board.ask().writable == tuple(
        str(one) for one in (etc, etc / "policy", etc / "keys", etc / "keys" / "release.pem")
    )
    assert str(etc) in board.ask(root=True).writable


def test_a_machine_without_openssl_says_so(board: Board) -> None:
    board.etc.trust(authority(board.folder).public)
    programs = board.folder / "bin"
    programs.mkdir()
    for name in ("sh", "stat", "id", "timeout", "sha256sum", "tr"):
        (programs / name).symlink_to(str(shutil.which(name)))
    facts = board.ask(path=str(programs))
    assert not facts.openssl
    assert facts.keys == ()
    assert facts.unusable_keys == (f"{board.etc.folder}/keys/release.pem",)
