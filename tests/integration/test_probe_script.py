"""The real probe script, run by the shells of this machine."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgecal.adapters.tables import load_platforms
from edgecal.core.probes import parse_probe
from edgecal.core.target import BuilderFact, TargetFacts
from edgecal.core.versions import TensorRTVersion

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = Path(__file__).parents[2] / "edgecal" / "target_scripts" / "probe.sh"
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
SHELLS = ("sh", "dash", "bash --posix", "busybox sh")


def run(
    *arguments: str,
    home: Path,
    shell: str = "sh",
    path: str = SYSTEM_PATH,
    script: bytes | None = None,
) -> subprocess.CompletedProcess[bytes]:
    program, *options = shell.split()
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"no {program} on this machine")
    return subprocess.run(
        [found, *options, "-s", "--", *arguments],
        input=SCRIPT.read_bytes() if script is None else script,
        capture_output=True,
        env={"HOME": str(home), "PATH": path},
        cwd=home,
        timeout=60,
        check=False,
    )


def probe(
    root: str = "", python: str = "", *, home: Path, shell: str = "sh", path: str = SYSTEM_PATH
) -> TargetFacts:
    result = run(root, python, home=home, shell=shell, path=path)
    assert (result.returncode, result.stderr) == (0, b"")
    text = result.stdout.decode("utf-8")
    assert text.endswith("\nedgecal:probe=complete\n")
    return parse_probe(text, load_platforms(), source="here")


def put_program(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\n{body}\n", "utf-8")
    program.chmod(0o755)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_gives_the_same_facts(shell: str, tmp_path: Path) -> None:
    facts = probe(home=tmp_path, shell=shell)
    assert facts.root == f"{tmp_path}/.edgecal"
    assert facts.root_writable
    assert facts.arch == platform.machine()
    assert facts.hostname == platform.node()
    assert facts.is_jetson == Path("/etc/nv_tegra_release").exists()
    assert facts.missing_tools == ()
    assert facts.memory_bytes is not None
    assert facts.memory_available_bytes is not None
    assert 0 < facts.memory_available_bytes <= facts.memory_bytes
    assert facts.disk_free_bytes is not None
    assert facts.disk_free_bytes == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)
    assert facts.root_filesystem
    assert "rw" in facts.root_mount_options
    assert facts.clock is not None
    assert abs(facts.clock - datetime.now(timezone.utc)) < timedelta(minutes=1)
    assert facts.groups


@contextmanager
def disk(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    mounted = subprocess.run(words, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"needs the right to mount a small disk: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", ["disk", "with blanks", "with\ttab", "deep [x] *"])
def test_a_read_only_noexec_home_is_told_by_every_shell(
    shell: str, name: str, tmp_path: Path
) -> None:
    with disk(tmp_path / name, "ro,noexec,size=1m") as home:
        facts = probe(home=home, shell=shell)
        assert facts.root == f"{home}/.edgecal"
        assert facts.root_filesystem == "tmpfs"
        assert {"ro", "noexec"} <= set(facts.root_mount_options)
        assert facts.root_writable is False


@pytest.mark.parametrize("shell", SHELLS)
def test_the_deepest_mount_on_the_way_is_the_one_that_counts(shell: str, tmp_path: Path) -> None:
    with disk(tmp_path / "outer", "size=2m") as outer, disk(outer / "inner", "noexec,size=1m"):
        (outer / "link").symlink_to("inner")
        for root in ("inner/not/there", "link/x"):
            facts = probe(f"{outer}/{root}", home=tmp_path, shell=shell)
            assert "noexec" in facts.root_mount_options
            assert facts.root_writable
        # a name that only begins like the mount point is another one
        (outer / "inner2").mkdir()
        aside = probe(f"{outer}/inner2", home=tmp_path, shell=shell)
        assert "noexec" not in aside.root_mount_options


def test_the_probe_leaves_nothing_behind(tmp_path: Path) -> None:
    put_program(
        tmp_path / "bin", "trtexec", "echo '&&&& RUNNING TensorRT.trtexec [TensorRT v8502]'"
    )
    before = sorted(tmp_path.rglob("*"))
    probe(home=tmp_path, python=sys.executable, path=f"{tmp_path}/bin:{SYSTEM_PATH}")
    assert sorted(tmp_path.rglob("*")) == before


def test_the_probe_is_quick(tmp_path: Path) -> None:
    began = time.monotonic()
    probe(home=tmp_path)
    # it takes a quarter of a second on an idle machine; a pause of its own would take longer
    assert time.monotonic() - began < 5


def test_an_archive_in_the_home_folder_is_found_and_why_it_does_not_start_is_told(
    tmp_path: Path,
) -> None:
    said = "error while loading shared libraries: libnvinfer.so.10: cannot open shared object file"
    folder = tmp_path / "TensorRT-10.7.0.23"
    folder.mkdir()
    put_program(folder / "bin", "trtexec", f'echo "$0: {said}" >&2; exit 127')
    facts = probe(home=tmp_path)
    path = f"{folder}/bin/trtexec"
    assert facts.broken_trtexecs == ((path, f"status 127: {path}: {said}"),)
    put_program(folder / "bin", "trtexec", "exit 1")
    assert probe(home=tmp_path).broken_trtexecs == ((path, "status 1:"),)
    put_program(
        folder / "bin",
        "trtexec",
        "echo '&&&& RUNNING TensorRT.trtexec [TensorRT v100700] [b23] # trtexec --help'",
    )
    facts = probe(home=tmp_path)
    assert facts.builders[0].tensorrt == TensorRTVersion(10, 7, 0, 23)
    assert facts.trtexec_on_path is False


def test_a_program_of_another_processor_is_broken(tmp_path: Path) -> None:
    put_program(tmp_path / "bin", "trtexec", "")
    (tmp_path / "bin" / "trtexec").write_bytes(b"\x7fELF\x02 of another machine")
    facts = probe(home=tmp_path, path=f"{tmp_path}/bin:{SYSTEM_PATH}")
    ((path, said),) = facts.broken_trtexecs
    assert path == f"{tmp_path}/bin/trtexec"
    assert said.startswith("status ")
    assert facts.builders == ()


@pytest.mark.parametrize("shell", SHELLS)
def test_without_a_home_the_folder_of_the_session_is_home(shell: str, tmp_path: Path) -> None:
    program, *options = shell.split()
    if shutil.which(program) is None:
        pytest.skip(f"no {program} on this machine")
    done = subprocess.run(
        [program, *options, "-s", "--", "~/models", ""],
        input=SCRIPT.read_bytes(),
        capture_output=True,
        env={"PATH": SYSTEM_PATH},
        cwd=tmp_path,
        check=True,
    )
    facts = parse_probe(done.stdout.decode("utf-8"), load_platforms(), source="here")
    assert facts.root == f"{tmp_path}/models"


def test_two_names_of_one_trtexec_are_one_and_two_programs_are_two(tmp_path: Path) -> None:
    banner = "echo '&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec --help'"
    for name in ("TensorRT-a", "TensorRT-b"):
        (tmp_path / name).mkdir()
        put_program(tmp_path / name / "bin", "trtexec", banner)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "trtexec").symlink_to("../TensorRT-b/bin/trtexec")
    facts = probe(home=tmp_path, path=f"{tmp_path}/bin:{SYSTEM_PATH}")
    found = [one.path for one in facts.builders if one.name == "trtexec"]
    assert found == [f"{tmp_path}/bin/trtexec", f"{tmp_path}/TensorRT-a/bin/trtexec"]
    assert facts.trtexec_on_path


def test_a_trtexec_before_8_is_silent_and_not_broken(tmp_path: Path) -> None:
    put_program(tmp_path / "bin", "trtexec", 'echo "&&&& RUNNING TensorRT.trtexec # $0 --help"')
    facts = probe(home=tmp_path, path=f"{tmp_path}/bin:{SYSTEM_PATH}")
    assert facts.silent_trtexecs == (f"{tmp_path}/bin/trtexec",)
    assert facts.builders[0].tensorrt is None


@pytest.mark.parametrize("shell", SHELLS)
def test_docker_is_asked_what_runs_where_the_system_has_no_tensorrt(
    shell: str, tmp_path: Path
) -> None:
    put_program(tmp_path / "bin", "docker", "echo 'app registry/app:1'; echo 'two registry/b'")
    path = f"{tmp_path}/bin:{SYSTEM_PATH}"
    facts = probe(home=tmp_path, path=path, shell=shell)
    assert facts.container_engines[0] == "docker"
    assert [(one.name, one.image) for one in facts.containers] == [
        ("app", "registry/app:1"),
        ("two", "registry/b"),
    ]
    put_program(tmp_path / "bin", "docker", "echo 'permission denied' >&2; exit 1")
    facts = probe(home=tmp_path, path=path, shell=shell)
    assert (facts.containers, facts.containers_hidden) == ((), True)
    put_program(tmp_path / "bin", "trtexec", "echo '&&&& RUNNING [TensorRT v8502]'; exit 1")
    facts = probe(home=tmp_path, path=path, shell=shell)
    assert (facts.container_engines, facts.tensorrt) == ((), TensorRTVersion(8, 5, 2))


def test_a_tensorrt_of_pip_is_told_with_its_folder(tmp_path: Path) -> None:
    metadata_folder = tmp_path / "tensorrt-10.7.0.dist-info"
    metadata_folder.mkdir()
    (metadata_folder / "METADATA").write_text("Name: tensorrt\nVersion: 10.7.0\n")
    put_program(tmp_path / "bin", "py", f'PYTHONPATH="{tmp_path}" exec "{sys.executable}" "$@"')
    python = probe(home=tmp_path, python=f"{tmp_path}/bin/py").python
    assert python is not None
    assert (python.tensorrt, python.tensorrt_folder) == ("10.7.0", str(tmp_path))


DEVICES = """
set -e
mount -t tmpfs none /dev
mknod -m 666 /dev/null c 1 3
touch /dev/nvhost-ctrl-gpu /dev/nvmap /dev/nvidia0
chgrp video /dev/nv*
chmod 0660 /dev/nvhost-ctrl-gpu
chmod 0440 /dev/nvmap
chmod 0666 /dev/nvidia0
exec setpriv --reuid 65534 --regid 65534 "$@"
"""


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("groups", "closed"),
    [
        ("--clear-groups", {"/dev/nvhost-ctrl-gpu": "video", "/dev/nvmap": "video"}),
        ("--groups=video", {}),
    ],
)
def test_who_is_outside_of_the_owning_group_opens_no_gpu(
    shell: str, groups: str, closed: dict[str, str]
) -> None:
    words = ["unshare", "--mount", "sh", "-c", DEVICES, "sh"]
    if subprocess.run(
        [*words, "--clear-groups", "true"], capture_output=True, check=False
    ).returncode:
        pytest.skip("needs root, mount namespaces, setpriv and a group video")
    program, *options = shell.split()
    if shutil.which(program) is None:
        pytest.skip(f"no {program} on this machine")
    done = subprocess.run(
        [*words, groups, program, *options, "-s", "--", "/srv/edgecal", "/none"],
        input=SCRIPT.read_bytes(),
        capture_output=True,
        env={"HOME": "/", "PATH": SYSTEM_PATH},
        check=True,
    )
    facts = parse_probe(done.stdout.decode(), load_platforms(), source="here")
    assert {node.path: node.group for node in facts.closed_nodes} == closed
    assert facts.gpu_access is not bool(closed)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_has_no_syntax_error(shell: str) -> None:
    program, *options = shell.split()
    if shutil.which(program) is None:
        pytest.skip(f"no {program} on this machine")
    checked = subprocess.run(
        [program, *options, "-n", str(SCRIPT)], capture_output=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", "{home}/.edgecal"),
        ("/no/such/place", "/no/such/place"),
        ("~", "{home}"),
        ("~/models", "{home}/models"),
        ("$HOME/models/", "{home}/models"),
        ("with  blanks and 'quotes'", "{home}/with  blanks and 'quotes'"),
        ("$(touch hacked)", "{home}/$(touch hacked)"),
    ],
)
def test_the_root_is_made_absolute_and_never_run(given: str, expected: str, tmp_path: Path) -> None:
    facts = probe(given, home=tmp_path)
    assert facts.root == expected.format(home=tmp_path)
    assert facts.disk_free_bytes is not None
    assert list(tmp_path.iterdir()) == []


def test_trtexec_is_found_with_its_banner_and_cannot_eat_the_script(tmp_path: Path) -> None:
    put_program(
        tmp_path / "bin",
        "trtexec",
        "cat\necho '&&&& RUNNING TensorRT.trtexec [TensorRT v101602] [b10] # trtexec --help'\n"
        "i=0; while [ $i -lt 2000 ]; do echo '--help goes on'; i=$((i + 1)); done; exit 3",
    )
    facts = probe(home=tmp_path, path=f"{tmp_path}/bin:{SYSTEM_PATH}")
    expected = TensorRTVersion(10, 16, 2, 10)
    assert facts.tensorrt == expected
    assert facts.builders[0] == BuilderFact(
        name="trtexec", path=f"{tmp_path}/bin/trtexec", tensorrt=expected
    )


def test_what_a_jetson_would_answer_is_collected(tmp_path: Path) -> None:
    put_program(
        tmp_path / "bin",
        "dpkg-query",
        "echo 'ii  nvidia-l4t-core 35.4.1-20230801124926'\n"
        "echo 'un  libnvinfer7 '; echo 'ii  libnvinfer8 8.5.2-1+cuda11.4'\n"
        "echo 'ii  cuda-nvcc-11-4 11.4.239-1'; echo 'no packages found' >&2; exit 1",
    )
    put_program(
        tmp_path / "bin",
        "nvpmodel",
        "echo 'NV Fan Mode:quiet'; echo 'NV Power Mode: MODE_30W_ALL'; echo 3",
    )
    facts = probe(home=tmp_path, path=f"{tmp_path}/bin:{SYSTEM_PATH}")
    assert facts.power_mode == "MODE_30W_ALL"
    assert facts.tensorrt == TensorRTVersion(8, 5, 2)
    assert (facts.l4t, facts.jetpack) == ("35.4.1", "5.1.2")
    if not Path("/usr/local/cuda").exists():
        assert facts.cuda == "11.4"


def test_a_program_that_hangs_is_killed_and_the_rest_is_told(tmp_path: Path) -> None:
    timeout = shutil.which("timeout")
    if timeout is None:
        pytest.skip("no timeout on this machine")
    put_program(tmp_path / "bin", "trtexec", "exec sleep 300")
    put_program(tmp_path / "bin", "nvpmodel", "exec sleep 300")
    # the script's own limits, cut to a tenth of a second for trtexec and nvpmodel
    put_program(
        tmp_path / "bin",
        "timeout",
        'case "$*" in *trtexec*|*nvpmodel*)\n'
        f'  shift 3; exec {timeout} -s KILL 0.1 "$@" ;;\nesac\nexec {timeout} "$@"',
    )
    facts = probe(home=tmp_path, path=f"{tmp_path}/bin:{SYSTEM_PATH}")
    assert facts.power_mode is None
    assert (facts.builders[0].name, facts.builders[0].tensorrt) == ("trtexec", None)


def test_a_named_python_tells_its_packages_without_importing_them(tmp_path: Path) -> None:
    facts = probe(python=sys.executable, home=tmp_path)
    assert facts.python is not None
    assert facts.python.path == sys.executable
    assert facts.python.version == platform.python_version()
    assert facts.python.numpy == metadata.version("numpy")
    assert facts.python.onnx == metadata.version("onnx")
    assert facts.python.onnxruntime == metadata.version("onnxruntime")
    assert facts.builders[-1] == BuilderFact(name="onnxruntime", path=sys.executable)


def test_a_python_that_is_not_there_is_unknown(tmp_path: Path) -> None:
    assert probe(python="~/venv/bin/python", home=tmp_path).python is None
    put_program(tmp_path / "bin", "python-broken", "exit 1")
    assert probe(python=f"{tmp_path}/bin/python-broken", home=tmp_path).python is None


def test_an_empty_machine_answers_and_says_what_is_missing(tmp_path: Path) -> None:
    facts = probe(home=tmp_path, path=str(tmp_path))
    assert {"sha256sum", "mv", "sync", "setsid", "flock", "timeout", "mktemp"} <= set(
        facts.missing_tools
    )
    assert facts.root == f"{tmp_path}/.edgecal"


def test_tools_that_are_not_gnu_are_told(tmp_path: Path) -> None:
    put_program(tmp_path / "bin", "mv", 'case $1 in -T) echo "invalid option" >&2; exit 1 ;; esac')
    put_program(tmp_path / "bin", "sync", "echo Usage: sync")
    facts = probe(home=tmp_path, path=f"{tmp_path}/bin:{SYSTEM_PATH}")
    assert facts.missing_tools == ("mv -T", "sync FILE")


def test_a_script_that_arrived_cut_does_nothing(tmp_path: Path) -> None:
    whole = SCRIPT.read_bytes()
    for share in (0.3, 0.6, 0.9):
        cut = whole[: int(len(whole) * share)]
        assert b"edgecal:" not in run(home=tmp_path, script=cut).stdout
