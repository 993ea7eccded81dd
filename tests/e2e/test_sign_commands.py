"""Signing as a user does it: keygen, sign, verify, and a push to a target that requires it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgecal.adapters.bundle import read_bundle
from edgecal.cli.app import main
from edgecal.cli.wiring import remote
from edgecal.workflows.events import SignatureChecked
from edgecal.workflows.push import push
from edgecal.workflows.report import PushOptions
from tests.bundles import make_bundles
from tests.signing import Etc, authority, openssl

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgecal.adapters.bundle import Bundle
    from edgecal.adapters.loopback import LoopbackServer
    from edgecal.core.target import Target

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundles(tmp_path_factory.mktemp("bundle"), "8.5.2", name="net")[0]


@pytest.fixture
def folder(tmp_path: Path, original: Bundle) -> Path:
    shutil.copytree(original.path, tmp_path / "net.edgecal")
    return tmp_path


def environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != "EDGECAL_PASSPHRASE"}
    return {**kept, "PYTHONPATH": str(CHECKOUT), **more}


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and what it said."""

    returncode: int
    stdout: str
    stderr: str


def run(folder: Path, *words: str, stdin: str = "", **variables: str) -> Done:
    """Run the command in this process, through its one door: starting Python takes longest."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.chdir(folder)
        patch.delenv("EDGECAL_PASSPHRASE", raising=False)
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        for key, value in variables.items():
            patch.setenv(key, value)
        try:
            main(list(words))
            code: object = 0
        except SystemExit as end:
            code = end.code
    return Done(int(str(code or 0)), out.getvalue(), err.getvalue())


def ask(folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    done = run(folder, *words, "--json")
    document: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, document


def test_what_is_not_signed_or_by_somebody_else_is_refused_with_exit_3(folder: Path) -> None:
    assert run(folder, "keygen", "release").returncode == 0
    code, document = ask(folder, "verify", "net.edgecal", "--key", "release.pem")
    assert (code, document["schema"]) == (3, "edgecal.error/1")
    assert document["error"]["what"] == "the bundle is not signed"
    foe = authority(folder, "foe")
    manifest = folder / "net.edgecal" / "manifest.json"
    foe.sign(manifest)
    done = run(folder, "verify", "net.edgecal", "--key", "release.pem")
    assert done.returncode == 3
    assert "the signature is not by sha256:" in done.stderr
    assert (
        run(folder, "verify", "net.edgecal", "-k", "release.pem", "-k", "foe.pem").returncode == 0
    )
    manifest.write_bytes(manifest.read_bytes().replace(b'"percentile"', b'"percentilE"', 1))
    assert run(folder, "verify", "net.edgecal", "--key", "foe.pem").returncode == 3


def test_a_damaged_bundle_is_neither_signed_nor_verified(folder: Path) -> None:
    assert run(folder, "keygen", "release").returncode == 0
    assert run(folder, "sign", "net.edgecal", "--key", "release.key").returncode == 0
    signature = folder / "net.edgecal" / "manifest.json.sig"
    data = signature.read_bytes()
    for damaged in (b"", b"x" * 5000):
        signature.write_bytes(damaged)
        assert run(folder, "verify", "net.edgecal", "--key", "release.pem").returncode == 2
    signature.write_bytes(data[:-1])
    assert run(folder, "verify", "net.edgecal", "--key", "release.pem").returncode == 3
    signature.write_bytes(data)
    for file in ("model.onnx", "histograms.npz"):
        path = folder / "net.edgecal" / file
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + b"?")
        for words in (("verify", "--key", "release.pem"), ("sign", "--key", "release.key")):
            done = run(folder, words[0], "net.edgecal", *words[1:])
            assert done.returncode == 2
            assert f"{file}" in done.stderr
            assert "corrupt" in done.stderr
        path.write_bytes(whole)
    assert run(folder, "verify", "net.edgecal", "--key", "release.pem").returncode == 0


@pytest.mark.parametrize(
    "words",
    [
        ("--targets", "cam[7]"),
        ("--targets", ""),
        ("--counter", "0"),
        ("--counter", "9999999999999999"),
        ("--key", "none.key"),
    ],
)
def test_wrong_words_leave_the_bundle_as_it_was(words: tuple[str, ...], folder: Path) -> None:
    assert run(folder, "keygen", "release").returncode == 0
    before = {one.name: one.read_bytes() for one in (folder / "net.edgecal").iterdir()}
    key = () if "--key" in words else ("--key", "release.key")
    assert run(folder, "sign", "net.edgecal", *key, *words).returncode == 2
    assert {one.name: one.read_bytes() for one in (folder / "net.edgecal").iterdir()} == before


def test_keygen_sign_and_verify_tell_one_story_that_openssl_confirms(folder: Path) -> None:
    code, made = ask(folder, "keygen", "release")
    assert (code, made["schema"], made["encrypted"]) == (0, "edgecal.keygen/1", False)
    assert run(folder, "keygen", "release").returncode == 2

    before = (folder / "net.edgecal" / "manifest.json").read_bytes()
    code, signed = ask(folder, "sign", "net.edgecal", "--key", "release.key")
    assert (code, signed["schema"], signed["manifest_changed"]) == (0, "edgecal.sign/1", False)
    assert signed["key"] == made["fingerprint"]
    manifest = folder / "net.edgecal" / "manifest.json"
    assert manifest.read_bytes() == before
    signature = folder / "net.edgecal" / "manifest.json.sig"
    said = openssl(
        "dgst", "-sha256", "-verify", folder / "release.pem", "-signature", signature, manifest
    )
    assert said == b"Verified OK\n"

    words = ("--targets", "line3-*", "--targets", "dock1", "--counter", "12")
    code, signed = ask(folder, "sign", "net.edgecal", "--key", "release.key", *words)
    assert (code, signed["manifest_changed"], signed["counter"]) == (0, True, 12)
    assert signed["targets"] == ["line3-*", "dock1"]
    code, verified = ask(folder, "verify", "net.edgecal", "--key", "release.pem")
    assert (code, verified["schema"]) == (0, "edgecal.verify/1")
    assert (verified["manifest"], verified["counter"]) == (signed["manifest"], 12)
    assert not list((folder / "net.edgecal").glob(".*"))

    openssl("dgst", "-sha256", "-sign", folder / "release.key", "-out", signature, manifest)
    done = run(folder, "verify", "net.edgecal", "--key", "release.pem")
    assert done.returncode == 0
    assert "for line3-*, dock1" in done.stdout


def test_a_passphrase_comes_from_a_file_a_variable_or_a_line_and_is_seen_nowhere(
    folder: Path,
) -> None:
    secret = "a v3ry secret phrase"
    differ = run(folder, "keygen", "locked", "--passphrase", stdin=f"{secret}\nother\n")
    assert differ.returncode == 2
    assert not (folder / "locked.key").exists()
    made = run(folder, "keygen", "locked", "--passphrase", stdin=f"{secret}\n{secret}\n")
    assert made.returncode == 0
    assert "ENCRYPTED" in (folder / "locked.key").read_text()

    sign = ("sign", "net.edgecal", "--key", "locked.key")
    silent = run(folder, *sign)
    assert silent.returncode == 2
    assert "no passphrase was given" in silent.stderr
    wrong = run(folder, *sign, stdin="wrong\n")
    assert wrong.returncode == 2
    file = folder / "phrase"
    file.write_text(f"{secret}\n")
    asked = run(folder, *sign, stdin=f"{secret}\n")
    from_file = run(folder, *sign, "--passphrase-file", "phrase")
    from_variable = run(folder, *sign, EDGECAL_PASSPHRASE=secret)
    for done in (asked, from_file, from_variable):
        assert done.returncode == 0, done.stderr
    for done in (made, silent, wrong, asked, from_file, from_variable):
        assert secret not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    file.write_text("\n")
    assert run(folder, *sign, "--passphrase-file", "phrase").returncode == 2
    assert "passphrase FILE" not in run(folder, "sign", "--help").stdout


def test_at_a_terminal_the_passphrase_is_asked_for_and_not_shown(folder: Path) -> None:
    secret = "a v3ry secret phrase"
    made = run(folder, "keygen", "locked", EDGECAL_PASSPHRASE=secret)
    assert made.returncode == 0
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "edgecal", "sign", "net.edgecal", "--key", "locked.key"],
        cwd=folder,
        env=environment(),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    said = b""
    limit = time.monotonic() + 30
    while b"passphrase of locked.key" not in said and time.monotonic() < limit:
        said += os.read(master, 1000)
    time.sleep(0.3)  # echo is switched off around the question
    arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    os.write(master, f"{secret}\n".encode())
    assert process.wait(timeout=30) == 0
    said += os.read(master, 10_000)
    os.close(master)
    assert b"signed net.edgecal with sha256:" in said
    assert secret.encode() not in said + arguments


def test_a_private_key_that_others_can_read_is_a_warning(folder: Path) -> None:
    assert run(folder, "keygen", "release").returncode == 0
    (folder / "release.key").chmod(0o644)
    done = run(folder, "sign", "net.edgecal", "--key", "release.key")
    assert done.returncode == 0
    assert "warning" in done.stderr
    assert "chmod 600" in done.stderr


def test_the_settings_refuse_an_unsigned_bundle_and_one_without_keys_over_a_real_sshd(
    folder: Path, sshd: LoopbackServer
) -> None:
    if Path("/etc/edgecal").exists():
        pytest.skip("this machine has an /etc/edgecal of its own")
    settings = {
        "host": sshd.host,
        "port": sshd.port,
        "user": sshd.user,
        "identity_file": str(sshd.identity_file),
        "known_hosts": str(sshd.known_hosts),
        "root": str(folder / "root"),
        "python": sys.executable,
        "require_signature": True,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    (folder / "edgecal.toml").write_text("\n".join(["[targets.bench]", *lines]))
    done = run(folder, "push", "net.edgecal", "--target", "bench")
    assert done.returncode == 3
    assert "edgecal.toml requires a signature, and the bundle has none" in done.stderr
    assert "edgecal sign" in done.stderr
    assert run(folder, "keygen", "release").returncode == 0
    assert run(folder, "sign", "net.edgecal", "--key", "release.key").returncode == 0
    checked = run(folder, "check", "net.edgecal", "--target", "bench")
    assert checked.returncode == 3
    assert "there is no key in /etc/edgecal/keys" in re.sub(r"\s+", " ", checked.stdout)
    assert not (folder / "root").exists()


def test_a_signed_bundle_goes_over_a_real_sshd_and_a_tampered_one_does_not(
    folder: Path, sshd: LoopbackServer, target_of: Callable[[LoopbackServer], Target]
) -> None:
    assert run(folder, "keygen", "release").returncode == 0
    assert run(folder, "sign", "net.edgecal", "--key", "release.key").returncode == 0
    etc = Etc(folder / "etc")
    etc.trust(folder / "release.pem")
    etc.policy("require_signature=yes")
    target = replace(target_of(sshd), root=str(folder / "root"), python=sys.executable)
    world = remote.world()
    world = replace(world, scripts=etc.scripts(world.scripts))

    def send() -> tuple[str, list[object]]:
        events: list[object] = []
        pushing = push([read_bundle(folder / "net.edgecal")], target, PushOptions(), world)
        while True:
            try:
                events.append(next(pushing))
            except StopIteration as end:
                return f"{end.value.state} {end.value.error or ''}", events

    state, events = send()
    assert state == "active "
    (checked,) = [one for one in events if isinstance(one, SignatureChecked)]
    assert checked.verdict.state == "verified"
    current = folder / "root" / "models" / "net-8.5" / "current"
    active = current.resolve()
    manifest = folder / "net.edgecal" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"counter": 1', b'"counter": 8', 1))
    state, _ = send()
    assert state.startswith("refused bench: signature: none of the target's 1 keys")
    assert current.resolve() == active
