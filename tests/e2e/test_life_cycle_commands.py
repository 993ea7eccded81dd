"""The commands that look after what lies on a target, against a real sshd."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.bundles import install_trtexec, make_bundles
from tests.e2e.test_push_command import Desk, is_clean

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgecal.adapters.bundle import Bundle
    from edgecal.adapters.loopback import LoopbackServer


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundles(tmp_path_factory.mktemp("bundle"), "8.5.2", name="net")[0]


@pytest.fixture
def desk(
    tmp_path: Path, sshd: LoopbackServer, start_sshd: Callable[..., LoopbackServer], bundle: Bundle
) -> Iterator[Desk]:
    """A desk whose target has a trtexec."""
    made = Desk(tmp_path, sshd, bundle)
    programs = tmp_path / "bin"
    programs.mkdir()
    install_trtexec(programs, bundle)
    with start_sshd(tmp_path / "sshd", PATH=f"{programs}:/usr/bin:/bin") as server:
        made.server = server
        made.write_project()
        yield made


def start_slow_build(desk: Desk) -> None:
    """Leave a build behind whose controller was killed."""
    (desk.folder / "bin" / "mode").write_text("slow")
    process = desk.start("push", "--target", "bench")
    limit = time.monotonic() + 60
    while not any(log.stat().st_size for log in desk.model.glob("jobs/*/log")):
        assert time.monotonic() < limit
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.kill()
    process.communicate()
    (desk.folder / "bin" / "mode").write_text("")


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stderr
    return process.stderr.readline()


def test_with_no_build_there_attach_and_cancel_are_the_users_mistake(desk: Desk) -> None:
    for command in ("attach", "cancel"):
        done = desk.run(command, "--target", "bench")
        assert done.returncode == 2
        assert "no build" in done.stderr
        assert is_clean(done.stdout + done.stderr)


def test_a_build_is_attached_to_let_go_of_and_cancelled(desk: Desk) -> None:
    start_slow_build(desk)
    process = desk.start("attach", "--target", "bench")
    assert "RUNNING TensorRT.trtexec" in first_line(process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "detached; the build goes on" in stderr
    assert is_clean(stderr)

    asked = desk.run("cancel", "--target", "bench", stdin="n\n")
    assert asked.returncode == 2
    assert "end the build of net-8.5" in asked.stderr
    code, cancelled = desk.ask("cancel", "--target", "bench", "--yes")
    assert code == 0
    assert cancelled["schema"] == "edgecal.cancel/1"
    assert cancelled["cancelled"] is True
    code, attached = desk.ask("attach", "--target", "bench")
    assert code == 4
    assert attached["schema"] == "edgecal.attach/1"
    assert (attached["state"], attached["status"]) == ("done", 143)
    assert attached["release"] == cancelled["release"]


def test_prune_shows_asks_and_frees(desk: Desk) -> None:
    for options in ((), ("--no-fp16",), ("--no-gpu-fallback",)):
        assert desk.run("push", "--target", "bench", *options).returncode == 0
    code, planned = desk.ask("prune", "--target", "bench", "--keep", "1", "--dry-run")
    assert code == 0
    assert planned["schema"] == "edgecal.prune/1"
    assert planned["changed"] is False
    asked = desk.run("prune", "--target", "bench", "--keep", "1", stdin="n\n")
    assert asked.returncode == 2
    assert "release " in asked.stderr
    assert len(list(desk.model.glob("releases/*"))) == 3
    code, done = desk.ask("prune", "--target", "bench", "--keep", "1", "--yes")
    assert code == 0
    (one,) = done["targets"]
    assert one["freed_bytes"] == planned["targets"][0]["freed_bytes"] > 0
    assert len(one["releases"]) == 1
    assert len(list(desk.model.glob("releases/*"))) == 2
    assert desk.run("rollback", "--target", "bench", "--yes").returncode == 0


def test_rebuild_needs_no_bundle(desk: Desk) -> None:
    assert desk.run("push", "--target", "bench").returncode == 0
    project = desk.folder / "edgecal.toml"
    project.write_text(
        "\n".join(one for one in project.read_text().splitlines() if not one.startswith("bundle"))
    )
    (desk.folder / "bin" / "version").write_text("8503")
    refused = desk.run("rollback", "--target", "bench", "--yes", "--to", desk_release(desk))
    assert refused.returncode == 3
    assert "edgecal rebuild --target bench" in refused.stderr
    code, document = desk.ask("rebuild", "--target", "bench")
    assert code == 0
    assert document["schema"] == "edgecal.rebuild/1"
    (report,) = document["targets"]
    assert (report["state"], report["verification"]["passed"]) == ("active", True)
    assert (desk.model / "current").resolve().name == report["release"]


def desk_release(desk: Desk) -> str:
    return (desk.model / "current").resolve().name


def test_an_unhealthy_release_ends_with_exit_4_and_the_old_one_active(desk: Desk) -> None:
    assert desk.run("push", "--target", "bench").returncode == 0
    before = desk_release(desk)
    desk.write_project(health=["sh", "-c", "exit 3"], soak_s=1)
    code, document = desk.ask("push", "--target", "bench", "--no-fp16")
    assert code == 4
    (report,) = document["targets"]
    assert (report["state"], report["health"]) == ("failed", "failed")
    assert report["error"]["code"] == "health"
    assert desk_release(desk) == before


def test_a_controller_killed_during_the_soak_time_is_not_needed_to_go_back(desk: Desk) -> None:
    assert desk.run("push", "--target", "bench").returncode == 0
    before = desk_release(desk)
    well = desk.folder / "well"
    well.touch()
    desk.write_project(health=["test", "-e", str(well)], soak_s=60)
    process = desk.start("push", "--target", "bench", "--no-fp16")
    limit = time.monotonic() + 60
    while desk_release(desk) == before:
        assert time.monotonic() < limit
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.kill()
    process.communicate()
    well.unlink()
    while desk_release(desk) != before:
        assert time.monotonic() < limit
        time.sleep(0.1)
    last = (desk.model / "activations").read_text().splitlines()[-1].partition(" ")[2]
    assert json.loads(last)["action"] == "rollback"


def test_a_rate_that_is_none_is_refused_before_anything_is_sent(desk: Desk) -> None:
    done = desk.run("push", "--target", "bench", "--limit-rate", "fast")
    assert done.returncode == 2
    assert "500k or 2M" in done.stderr
    assert not desk.root.exists()
