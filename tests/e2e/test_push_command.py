"""The `edgecal` command against a real sshd: what a user sees, what is left when things break."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
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


@dataclass
class Desk:
    """A user's working directory and home, and a target called `bench`."""

    folder: Path
    server: LoopbackServer
    bundle: Bundle

    @property
    def root(self) -> Path:
        return self.folder / "target"

    @property
    def model(self) -> Path:
        return self.root / "models" / "net-8.5"

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if key != "SSH_AUTH_SOCK"}
        return {**kept, "HOME": str(self.folder), "PYTHONPATH": str(CHECKOUT)}

    def write_project(self, **changes: object) -> None:
        """Write edgecal.toml; keys of the target may be changed, or left out by None."""
        keys: dict[str, object] = {
            "host": self.server.host,
            "port": self.server.port,
            "user": self.server.user,
            "identity_file": str(self.server.identity_file),
            "known_hosts": str(self.server.known_hosts),
            "root": str(self.root),
            "python": sys.executable,
            **changes,
        }
        lines = [f"[push]\nbundle = {json.dumps(str(self.bundle.path))}\n[targets.bench]"]
        lines += [f"{key} = {json.dumps(one)}" for key, one in keys.items() if one is not None]
        (self.folder / "edgecal.toml").write_text("\n".join(lines))

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "edgecal", *words],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "edgecal", *words],
            cwd=self.folder,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def ask(self, *words: str) -> tuple[int, dict[str, Any]]:
        """Run a command with --json and read its document."""
        done = self.run(*words, "--json")
        document: dict[str, Any] = json.loads(done.stdout)
        return done.returncode, document


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundles(tmp_path_factory.mktemp("bundle"), "8.5.2", name="net")[0]


@pytest.fixture
def desk(tmp_path: Path, sshd: LoopbackServer, bundle: Bundle) -> Desk:
    made = Desk(tmp_path, sshd, bundle)
    made.write_project()
    return made


@pytest.fixture
def trtexec(desk: Desk, start_sshd: Callable[..., LoopbackServer]) -> Iterator[Path]:
    """A second sshd whose sessions find a trtexec on their PATH."""
    programs = desk.folder / "bin"
    programs.mkdir()
    install_trtexec(programs, desk.bundle)
    path = f"{programs}:{os.environ['PATH']}"
    with start_sshd(desk.folder / "sshd", PATH=path) as server:
        desk.server = server
        desk.write_project()
        yield programs


def is_clean(text: str) -> bool:
    """No traceback, no escape codes: what a pipe and a log may hold."""
    return "Traceback" not in text and "\x1b" not in text


def test_probe_push_status_and_rollback_tell_one_story(desk: Desk) -> None:
    code, probe = desk.ask("probe", "--target", "bench")
    assert code == 0
    assert probe["schema"] == "edgecal.probe/1"
    assert probe["facts"]["root"] == str(desk.root)

    code, pushed = desk.ask("push", "--target", "bench")
    assert code == 0
    (first,) = pushed["targets"]
    assert first["state"] == "active"
    assert first["build"]["proof"] == "proved"
    assert first["build"]["cache"]["unused"] == 0
    assert first["verification"]["passed"] is True
    assert (desk.model / "current" / "model.int8.onnx").is_file()

    code, again = desk.ask("push", "--target", "bench")
    assert code == 0
    assert again["targets"][0]["release"] == first["release"]
    assert again["targets"][0]["build"] is None

    code, other = desk.ask("push", "--target", "bench", "--no-fp16")
    assert code == 0
    code, status = desk.ask("status", "--target", "bench")
    (model,) = status["targets"][0]["models"]
    assert model["current"] == other["targets"][0]["release"]
    assert set(model["releases"]) == {first["release"], model["current"]}

    asked = desk.run("rollback", "--target", "bench", stdin="n\n")
    assert asked.returncode == 2
    assert "nothing was done" in asked.stderr
    silent = desk.run("rollback", "--target", "bench")
    assert silent.returncode == 2
    code, back = desk.ask("rollback", "--target", "bench", "--yes")
    assert code == 0
    assert back["to"] == first["release"]
    assert (desk.model / "current").resolve().name == first["release"]


def test_a_person_reads_sentences_without_escape_codes_in_a_pipe(desk: Desk) -> None:
    done = desk.run("push", "--target", "bench")
    assert done.returncode == 0
    assert is_clean(done.stdout + done.stderr)
    assert "active" in done.stdout
    assert "verified on" in done.stderr
    assert "shipping" in done.stderr


def test_another_tensorrt_is_refused_with_exit_3(desk: Desk, trtexec: Path) -> None:
    (trtexec / "version").write_text("8601")
    done = desk.run("push", "--target", "bench")
    assert done.returncode == 3
    assert "TensorRT 8.5" in done.stderr
    assert "8.6.1" in done.stderr
    assert "try: make a bundle for this target: edgecal calibrate" in done.stderr
    assert is_clean(done.stdout + done.stderr)
    assert not desk.root.exists()


def test_a_stale_bundle_is_refused_with_exit_3(desk: Desk) -> None:
    project = desk.folder / "edgecal.toml"
    project.write_text(project.read_text() + '\n[calibrate]\nmodel = "fashion_cnn.onnx"\n')
    (desk.folder / "fashion_cnn.onnx").write_bytes(b"another network")
    done = desk.run("push", "--target", "bench")
    assert done.returncode == 3
    assert "stale-model" in done.stderr
    assert "fashion_cnn.onnx changed" in done.stderr
    assert is_clean(done.stdout + done.stderr)
    assert not desk.root.exists()


def test_check_asks_the_target_and_leaves_nothing_there(desk: Desk, trtexec: Path) -> None:
    code, document = desk.ask("check", str(desk.bundle.path), "--target", "bench")
    assert code == 0
    assert document["ok"] is True
    assert document["targets"][0]["tensorrt"] == "8.5.2"
    (trtexec / "version").write_text("8601")
    done = desk.run("check", "--target", "bench", "--target", "127.0.0.1:1")
    assert done.returncode == 4
    assert "bench: does not fit: 1 error" in done.stdout
    assert "127.0.0.1:1: not checked" in done.stdout
    assert is_clean(done.stdout + done.stderr)
    assert not desk.root.exists()


def test_trtexec_is_taken_where_the_session_finds_it(desk: Desk, trtexec: Path) -> None:
    assert trtexec.is_dir()
    code, document = desk.ask("push", "--target", "bench")
    assert code == 0
    assert document["targets"][0]["builder"] == "trtexec"
    assert (desk.model / "current" / "model.engine").is_file()


def test_an_unknown_host_key_is_refused_until_it_is_trusted(desk: Desk) -> None:
    desk.write_project(known_hosts=None)
    done = desk.run("push", "--target", "bench")
    assert done.returncode == 4
    assert "SHA256:" in done.stderr
    assert "edgecal trust bench" in done.stderr
    assert is_clean(done.stderr)
    code, document = desk.ask("push", "--target", "bench")
    assert code == 4
    assert document["targets"][0]["state"] == "unreachable"
    assert document["targets"][0]["error"]["code"] == "host-key"

    refused = desk.run("trust", "bench", stdin="no\n")
    assert refused.returncode == 2
    assert not (desk.folder / ".ssh" / "known_hosts").exists()
    code, trusted = desk.ask("trust", "bench", "--yes")
    assert code == 0
    assert trusted["changed"] is True
    assert trusted["fingerprint"] in refused.stderr
    assert desk.run("probe", "--target", "bench").returncode == 0
    code, again = desk.ask("trust", "bench")
    assert code == 0
    assert again["changed"] is False


def test_trust_takes_only_the_fingerprint_it_was_told(desk: Desk) -> None:
    desk.write_project(known_hosts=None)
    done = desk.run("trust", "bench", "--fingerprint", "SHA256:nonsense")
    assert done.returncode == 4
    assert not (desk.folder / ".ssh" / "known_hosts").exists()


def test_a_changed_host_key_is_refused_and_replaced_only_on_request(desk: Desk) -> None:
    known = desk.folder / "known_hosts"
    other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
    known.write_text(f"[{desk.server.host}]:{desk.server.port} {other}\n")
    desk.write_project(known_hosts=str(known))
    done = desk.run("push", "--target", "bench")
    assert done.returncode == 4
    assert "--replace" in done.stderr
    assert is_clean(done.stderr)
    assert desk.run("trust", "bench", "--yes").returncode == 2
    assert desk.run("trust", "bench", "--yes", "--replace").returncode == 0
    assert desk.run("probe", "--target", "bench").returncode == 0


def test_a_bundle_that_is_not_there_or_damaged_is_the_users_mistake(desk: Desk) -> None:
    done = desk.run("push", "nowhere.edgecal", "--target", "bench")
    assert done.returncode == 2
    assert "nowhere.edgecal" in done.stderr
    code, document = desk.ask("push", "nowhere.edgecal", "--target", "bench")
    assert code == 2
    assert document["schema"] == "edgecal.error/1"
    assert set(document["error"]) == {"code", "what", "where", "remedy"}


def test_nobody_at_home_is_said_with_the_address(desk: Desk) -> None:
    desk.write_project(port=1)
    done = desk.run("probe", "--target", "bench")
    assert done.returncode == 4
    assert "127.0.0.1" in done.stderr
    assert is_clean(done.stderr)


def mount(folder: Path, options: str) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"needs the right to mount a small disk: {mounted.stderr.strip()}")


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir()
    mount(folder, options)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_too_small_by_the_probe_is_refused_before_anything_is_sent(desk: Desk) -> None:
    with small_disk(desk.root, "size=200k"):
        done = desk.run("push", "--target", "bench")
        assert done.returncode == 3
        assert "MiB are free" in done.stderr
        assert not list(desk.root.iterdir())


@pytest.mark.parametrize("files", [4, 9, 17, 22, 30, 36])
def test_a_disk_that_fills_up_at_any_step_ends_with_exit_4_and_nothing_active(
    desk: Desk, files: int
) -> None:
    # running out of inodes is running out of space that no probe foresees
    with small_disk(desk.root, f"size=50m,nr_inodes={files}"):
        done = desk.run("push", "--target", "bench")
        assert done.returncode == 4, done.stderr
        assert is_clean(done.stderr)
        assert "try: " in done.stderr
        assert not (desk.model / "current").exists()
        mount(desk.root, "remount,nr_inodes=1000")
        assert desk.run("push", "--target", "bench").returncode == 0


def test_ctrl_c_during_a_build_leaves_nothing_half_active_and_the_build_is_found_again(
    desk: Desk, trtexec: Path
) -> None:
    assert desk.run("push", "--target", "bench").returncode == 0
    before = (desk.model / "current").resolve()
    (trtexec / "mode").write_text("slow")
    process = desk.start("push", "--target", "bench", "--no-fp16")
    logs: list[Path] = []
    limit = time.monotonic() + 30
    while not any(log.stat().st_size for log in logs) and time.monotonic() < limit:
        time.sleep(0.05)
        logs = list(desk.model.glob("jobs/*/log"))
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "interrupted" in stderr
    assert is_clean(stdout + stderr)
    assert (desk.model / "current").resolve() == before
    busy = desk.run("push", "--target", "bench", "--dla", "0", "--as", "net-8.5")
    assert busy.returncode == 4
    assert "somebody else is at work" in busy.stderr
    (lock,) = desk.model.glob("lock")
    os.kill(int(lock.read_text().split()[1]), signal.SIGTERM)


def test_several_targets_are_pushed_side_by_side_and_one_that_fails_does_not_stop_the_other(
    desk: Desk,
) -> None:
    project = desk.folder / "edgecal.toml"
    project.write_text(project.read_text() + '\n[targets.gone]\nhost = "127.0.0.1"\nport = 1\n')
    code, document = desk.ask("push", "--target", "gone", "--target", "bench")
    assert code == 4
    assert [one["state"] for one in document["targets"]] == ["unreachable", "active"]
