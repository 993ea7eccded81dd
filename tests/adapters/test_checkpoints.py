"""Checkpoints on disk: whole or not there."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgecal.adapters.checkpoints import CheckpointFile, checkpoint_path
from edgecal.core.checkpoint import Checkpoint, Reading
from edgecal.core.derived import View
from edgecal.core.histogram import BINS, Histogram
from edgecal.core.manifest import digest_of
from edgecal.errors import InputError
from tests.users import nobody

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def checkpoint(samples: int = 3, tensors: int = 1) -> Checkpoint:
    rng = np.random.default_rng(0)
    return Checkpoint(
        of={"network": "this"},
        reading=Reading(samples=samples, digest=digest_of(b""), ended=False),
        done=frozenset({0, 1}),
        histograms={
            View(f"x{number}"): Histogram(
                range_end=1.0, counts=rng.integers(0, 1 << 60, 2 * BINS + 1, np.int64)
            )
            for number in range(tensors)
        },
    )


@pytest.fixture
def heard() -> list[str]:
    return []


@pytest.fixture
def file(tmp_path: Path, heard: list[str]) -> CheckpointFile:
    return CheckpointFile(checkpoint_path(tmp_path / "new" / "net.edgecal"), warn=heard.append)


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


@pytest.mark.parametrize("data", [b"", b"half a check"])
def test_a_damaged_one_is_refused_and_stays(file: CheckpointFile, data: bytes) -> None:
    file.save(checkpoint())
    path = file._path
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged") as caught:
        file.load()
    assert caught.value.where == str(path)
    assert path.read_bytes() == data


def test_what_is_no_file_is_refused_at_once(file: CheckpointFile, heard: list[str]) -> None:
    path = file._path
    path.mkdir(parents=True)
    with pytest.raises(InputError, match="no regular file"):
        file.load()
    assert not file.save(checkpoint())
    assert len(heard) == 1
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(InputError, match="no regular file"):
        file.load()
    path.unlink()
    path.symlink_to("nowhere")
    assert file.load() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who may become nobody")
def test_one_that_may_not_be_read_or_written_is_said_so(
    file: CheckpointFile, heard: list[str]
) -> None:
    file.save(checkpoint())
    path = file._path
    path.chmod(0o600)
    with nobody():
        with pytest.raises(InputError, match="Permission denied"):
            file.load()
        assert not file.save(checkpoint(5))
        file.remove()
    assert "Permission denied" in heard[0]
    found = file.load()
    assert found is not None
    assert found.reading.samples == 3


def test_it_lies_beside_the_bundle_and_the_last_one_counts(file: CheckpointFile) -> None:
    assert (file.load(), file.exists()) == (None, False)
    folder = file._path.parent
    assert not folder.exists()
    for samples in (2, 3, 4):
        assert file.save(checkpoint(samples))
        found = file.load()
        assert found is not None
        assert found.reading.samples == samples
    assert names(folder) == ["net.edgecal.checkpoint"]
    file._aside.touch()  # of a process that was killed
    file.remove()
    file.remove()
    assert names(folder) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("needs root, who may mount a disk of one megabyte")
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot mount a disk of one megabyte: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_a_warning_said_once_and_keeps_the_last_one(
    small_disk: Path, heard: list[str]
) -> None:
    file = CheckpointFile(checkpoint_path(small_disk / "net.edgecal"), warn=heard.append)
    assert file.save(checkpoint())
    large = replace(checkpoint(7, tensors=60))
    assert not file.save(large)
    with suppress(OSError):
        (small_disk / "filler").write_bytes(bytes(1_100_000))
    assert not file.save(checkpoint(7))
    assert len(heard) == 1
    assert "No space left on device" in heard[0]
    assert "the pass goes on" in heard[0]
    assert names(small_disk) == ["filler", "net.edgecal.checkpoint"]
    found = file.load()
    assert found is not None
    assert found.reading.samples == 3
    (small_disk / "filler").unlink()
    assert file.save(checkpoint(8))
