"""`edgecal probe` against a real sshd, on the system and inside of what stands for a container."""

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
INTO_THE_BOX = ["docker", "exec", "-i", "app"]

# What counts of docker here: the name decides, standard input passes only with -i, a terminal is
# asked for with -t, and the command has the container's own home and programs.
DOCKER = """#!/bin/sh
[ "$1" = exec ] || exit 1
shift
interactive=
case $1 in
    -it | -t) echo 'the input device is not a TTY' >&2; exit 1 ;;
    -i) interactive=yes; shift ;;
esac
if [ "$1" != app ]; then echo "Error response from daemon: No such container: $1" >&2; exit 1; fi
shift
[ "$interactive" ] || exec </dev/null
exec env -i HOME={box}/home PATH={box}/bin:/usr/bin:/bin "$@"
"""


@dataclass
class Desk:
    """A user's home and working directory, and a target called `bench`."""

    folder: Path
    server: LoopbackServer

    @property
    def box(self) -> Path:
        return self.folder / "it's a box"

    def write_project(self, **changes: object) -> None:
        keys = {
            "host": self.server.host,
            "port": self.server.port,
            "user": self.server.user,
            "identity_file": str(self.server.identity_file),
            "known_hosts": str(self.server.known_hosts),
            "python": sys.executable,
            **changes,
        }
        lines = ["[targets.bench]", *(f"{key} = {json.dumps(one)}" for key, one in keys.items())]
        (self.folder / "edgecal.toml").write_text("\n".join(lines))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        kept = {key: value for key, value in os.environ.items() if key != "SSH_AUTH_SOCK"}
        return subprocess.run(
            [sys.executable, "-m", "edgecal", *words],
            cwd=self.folder,
            env={
                **kept,
                "HOME": str(self.folder),
                "XDG_STATE_HOME": str(self.folder / "state"),
                "PYTHONPATH": str(CHECKOUT),
            },
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


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundles(tmp_path_factory.mktemp("bundle"), "8.5.2", name="net")[0]


@pytest.fixture
def desk(
    tmp_path: Path, start_sshd: Callable[..., LoopbackServer], bundle: Bundle
) -> Iterator[Desk]:
    programs = tmp_path / "programs"
    programs.mkdir()
    path = f"{programs}:/usr/local/bin:/usr/bin:/bin"
    with start_sshd(tmp_path / "sshd", PATH=path, HOME=str(tmp_path / "login")) as server:
        made = Desk(tmp_path, server)
        (made.box / "home").mkdir(parents=True)
        (made.box / "bin").mkdir()
        (tmp_path / "login").mkdir()
        install_trtexec(made.box / "bin", bundle)
        quoted = "'" + str(made.box).replace("'", "'\\''") + "'"
        docker = programs / "docker"
        docker.write_text(DOCKER.format(box=quoted))
        docker.chmod(0o755)
        made.write_project()
        yield made


def test_words_that_do_not_lead_in_are_explained(desk: Desk) -> None:
    for words, found, remedy in (
        (["docker", "exec", "app"], "gets no input", 'exec = ["docker", "exec", "-i", "app"]'),
        (["docker", "exec", "-it", "app"], "not a TTY", "leave out -t"),
        (["docker", "exec", "-i", "gone"], "No such container: gone", "must run"),
        (["no-such-program"], "status 127", "must run"),
    ):
        desk.write_project(exec=words)
        code, document = desk.ask("probe", "--target", "bench")
        assert code == 4
        assert document["error"]["where"] == "bench"
        assert found in document["error"]["what"]
        assert remedy in document["error"]["remedy"]


def test_inside_of_a_container_its_own_tensorrt_is_found(desk: Desk) -> None:
    code, outside = desk.ask("probe", "--target", "bench")
    assert code == 0
    assert outside["facts"]["tensorrt"] is None
    assert outside["facts"]["root"] == f"{desk.folder}/login/.edgecal"
    desk.write_project(exec=INTO_THE_BOX)
    code, inside = desk.ask("probe", "--target", "bench")
    assert code == 0
    assert inside["facts"]["tensorrt"] == "8.5.2"
    assert inside["facts"]["root"] == f"{desk.box}/home/.edgecal"
    assert "through" in desk.run("probe", "--target", "bench").stdout


def test_a_push_builds_verifies_and_activates_where_the_application_runs(
    desk: Desk, bundle: Bundle
) -> None:
    desk.write_project(exec=INTO_THE_BOX)
    code, document = desk.ask("push", str(bundle.path), "--target", "bench")
    (report,) = document["targets"]
    assert code == 0, report
    assert (report["state"], report["builder"]) == ("active", "trtexec")
    assert report["verification"]["passed"] is True
    (model,) = (desk.box / "home/.edgecal/models").iterdir()
    assert (model / "current" / "model.engine").is_file()
    assert not (desk.folder / "login/.edgecal").exists()
    code, status = desk.ask("status", "--target", "bench")
    assert status["targets"][0]["models"][0]["current"] == report["release"]


def test_words_before_every_command_may_be_any_program(desk: Desk) -> None:
    desk.write_project(exec=["env", f"HOME={desk.folder}/ho me", "LC_ALL=C"])
    code, document = desk.ask("probe", "--target", "bench")
    assert code == 0
    assert document["facts"]["root"] == f"{desk.folder}/ho me/.edgecal"


def test_a_push_to_a_noexec_folder_works(desk: Desk, bundle: Bundle) -> None:
    disk = desk.folder / "disk"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "noexec,size=50m", "none", str(disk)]
    mounted = subprocess.run(words, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"needs the right to mount a small disk: {mounted.stderr.strip()}")
    try:
        desk.write_project(exec=INTO_THE_BOX, root=str(disk))
        code, document = desk.ask("probe", "--target", "bench")
        assert "root-noexec" in {one["rule"] for one in document["findings"]}
        code, document = desk.ask("push", str(bundle.path), "--target", "bench")
        assert code == 0, document
        assert document["targets"][0]["state"] == "active"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_the_last_answer_is_shown_with_its_age_and_nobody_is_asked(desk: Desk) -> None:
    done = desk.run("probe", "--target", "bench", "--cached")
    assert done.returncode == 2
    assert "'edgecal probe --target bench'" in done.stderr
    code, asked = desk.ask("probe", "--target", "bench")
    assert code == 0
    assert "age_s" not in asked
    desk.server.close()
    assert desk.run("probe", "--target", "bench").returncode == 4
    code, kept = desk.ask("probe", "--target", "bench", "--cached")
    assert code == 0
    assert kept["facts"] == asked["facts"]
    assert kept["findings"] == asked["findings"]
    assert 0 <= kept["age_s"] < 60
    shown = desk.run("probe", "--target", "bench", "--cached")
    assert shown.returncode == 0
    assert " ago " in shown.stdout
    # the name now means another machine
    desk.write_project(host="127.0.0.2")
    moved = desk.run("probe", "--target", "bench", "--cached")
    assert moved.returncode == 2
    assert "the name now means" in moved.stderr


def test_a_damaged_or_outdated_answer_is_ignored_with_a_word(desk: Desk) -> None:
    assert desk.run("probe", "--target", "bench").returncode == 0
    (file,) = (desk.folder / "state" / "edgecal" / "facts").iterdir()
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, "text": "edgecal:schema=99\n"}))
    done = desk.run("probe", "--target", "bench", "--cached")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    file.write_text("nonsense")
    done = desk.run("probe", "--target", "bench", "--cached")
    assert done.returncode == 2
    assert "damaged" in done.stderr


def test_a_home_that_takes_no_answer_does_not_stop_the_probe(desk: Desk) -> None:
    (desk.folder / "state").write_text("in the way")
    done = desk.run("probe", "--target", "bench")
    assert done.returncode == 0
    assert "not kept" in done.stderr


def test_findings_go_to_people_and_into_the_document(desk: Desk) -> None:
    code, document = desk.ask("probe", "--target", "bench")
    assert code == 0
    (found,) = (one for one in document["findings"] if one["rule"] == "tensorrt-in-container")
    assert set(found) == {"rule", "severity", "subject", "message", "remedy"}
    silent = desk.run("probe", "--target", "bench")
    assert "tensorrt-in-container" not in silent.stderr
    assert "with -v" in silent.stderr
    told = desk.run("probe", "--target", "bench", "-v")
    assert "tensorrt-in-container" in told.stderr
    assert "try: " in told.stderr
