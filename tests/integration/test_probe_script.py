"""The real probe script, run by the shells of this machine."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from edgecal.adapters.tables import load_platforms
from edgecal.core.probes import parse_probe
from edgecal.core.target import BuilderFact, TargetFacts
from edgecal.core.versions import TensorRTVersion

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
        'case "$*" in\n'
        "  *nvidia-l4t-core*) echo 'ii  nvidia-l4t-core 35.4.1-20230801124926' ;;\n"
        "  *libnvinfer*) echo 'ii  libnvinfer8 8.5.2-1+cuda11.4'; echo 'un  libnvinfer7 ' ;;\n"
        "  *cuda-nvcc*) echo 'ii  cuda-nvcc-11-4 11.4.239-1' ;;\n"
        "esac",
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
    assert {"sha256sum", "mv", "sync", "setsid", "timeout", "mktemp"} <= set(facts.missing_tools)
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
