"""The counting loop is compiled once, kept where that is possible, and done without elsewhere."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from edgecal.adapters import binning, machine_code

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("numba")


@pytest.fixture(scope="module")
def code() -> bytes:
    return machine_code._compiled()


@pytest.fixture
def compiled(code: bytes, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Tell how often it was compiled, without doing so again."""
    times: list[bytes] = []

    def again() -> bytes:
        times.append(code)
        return code

    monkeypatch.setattr(machine_code, "_compiled", again)
    return times


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Have Python's own folder and the user's elsewhere."""
    beside, user = tmp_path / "beside", tmp_path / "user"

    def both() -> Iterator[Path]:
        yield beside
        yield user

    monkeypatch.setattr(machine_code, "_folders", both)
    return beside, user


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("*"))


def test_code_is_compiled_once(compiled: list[bytes], folders: tuple[Path, Path]) -> None:
    assert machine_code.load_counting(print)
    assert machine_code.load_counting(print)
    assert len(compiled) == 1
    assert [len(kept(one)) for one in folders] == [1, 0]


def test_code_lies_in_the_users_folder_where_the_other_is_not_ours(
    compiled: list[bytes], folders: tuple[Path, Path]
) -> None:
    folders[0].write_text("in the way")
    assert machine_code.load_counting(print)
    assert machine_code.load_counting(print)
    assert len(compiled) == 1
    assert len(kept(folders[1])) == 1


def test_code_runs_where_it_cannot_be_kept(
    compiled: list[bytes], folders: tuple[Path, Path]
) -> None:
    for one in folders:
        one.write_text("in the way")
    assert machine_code.load_counting(print)
    assert machine_code.load_counting(print)
    assert len(compiled) == 2


@pytest.mark.parametrize("left", [0, 31, 32, 1000, -1])
def test_code_that_was_cut_off_is_compiled_again(
    left: int, compiled: list[bytes], folders: tuple[Path, Path]
) -> None:
    machine_code.load_counting(print)
    (place,) = kept(folders[0])
    whole = place.read_bytes()
    place.write_bytes(whole[:left])
    assert machine_code.load_counting(print)
    assert len(compiled) == 2
    assert place.read_bytes() == whole


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(13, "Permission denied"), "Permission denied"),
        (
            subprocess.CalledProcessError(
                1, "x", stderr=b"Traceback\n  ..\nImportError: NumPy 9\n\n"
            ),
            "(ImportError: NumPy 9)",
        ),
        (subprocess.TimeoutExpired("python", 120), "timed out"),
    ],
)
def test_without_a_compiler_opencv_counts_and_that_is_said(
    error: Exception, why: str, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> bytes:
        raise error

    monkeypatch.setattr(machine_code, "_compiled", fail)
    told: list[str] = []
    assert binning.fastest_sweep.__wrapped__(told.append) is binning.OpenCvSweep
    assert len(told) == 1
    assert "OpenCV counts them" in told[0]
    assert why in told[0]
    assert not any(one.exists() for one in folders)


def test_without_llvmlite_opencv_counts() -> None:
    found = run(
        "import sys; sys.modules['llvmlite'] = None",
        "from edgecal.adapters.binning import fastest_sweep",
        "print(fastest_sweep().__name__)",
    )
    assert found == "OpenCvSweep"


def test_counting_does_without_numba_itself() -> None:
    assert (
        run(
            "from edgecal.adapters.binning import fastest_sweep",
            "import sys",
            "print(fastest_sweep().__name__, 'numba' in sys.modules)",
        )
        == "CompiledSweep False"
    )


def run(*lines: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
