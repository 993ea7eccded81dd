"""Bundles on disk: whole or not there, whatever happens while one is written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgecal.adapters.bundle import Bundle, check_destination, read_bundle, write_bundle
from edgecal.core.manifest import (
    CalibrationRecord,
    CoverageRecord,
    DataRecord,
    GoldenRecord,
    Manifest,
    ModelRecord,
    QualityRecord,
    SourceFile,
    TensorRecord,
    digest_of,
)
from edgecal.core.versions import parse_tensorrt
from edgecal.errors import BundleError
from tests.users import nobody

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MODEL = b"a network" * 50
CONTENTS: Mapping[str, bytes] = {
    "model.onnx": MODEL,
    "calibration.cache": b"TRT-8502-EntropyCalibration2\nx: 3c010a14\n",
    "golden.npz": bytes(5000),
    "histograms.npz": b"histograms" * 400,
}


def manifest(**changes: object) -> Manifest:
    io = (TensorRecord(name="x", dtype="float32", shape=(-1, 4)),)
    made = Manifest(
        name="net",
        form="cache",
        created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
        edgecal="0.1",
        counter=100,
        tensorrt=parse_tensorrt("8.5.2"),
        written_by_tensorrt=False,
        model=ModelRecord(
            digest=digest_of(MODEL),
            canonical_digest=digest_of(MODEL),
            opset=13,
            inputs=io,
            outputs=io,
            source=SourceFile(path="net.onnx", size=len(MODEL), mtime_ns=1),
        ),
        data=DataRecord(
            digest=digest_of(b"data"),
            source="pictures/",
            kind="images",
            samples=3,
            held_out=0,
            dropped=0,
            skipped=("café\n.png",),
            batch_size=1,
            first=("a.png",),
            preprocess={"color": "rgb"},
        ),
        calibration=CalibrationRecord(
            algorithm="minmax",
            parameters={},
            chosen_by="given",
            candidates={"minmax": 0.1},
            backend="onnxruntime",
            backend_version="1.0",
        ),
        coverage=CoverageRecord(activations=1, covered=1, constants=0, missing=()),
        quality=QualityRecord(samples=1, held_out=False, outputs={"x": {"sqnr_db": None}}),
        golden=GoldenRecord(runs=1, held_out=False, batch=1),
        files={},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def write(path: Path, contents: Mapping[str, bytes | Path] = CONTENTS) -> Bundle:
    return write_bundle(path, manifest(), contents)


def refuse(action: Callable[[], object]) -> BundleError:
    with pytest.raises(BundleError) as caught:
        action()
    assert caught.value.exit_code == 2
    assert caught.value.remedy
    return caught.value


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def test_a_bundle_is_read_as_it_was_written(tmp_path: Path) -> None:
    source = tmp_path / "histograms"
    source.write_bytes(CONTENTS["histograms.npz"])
    written = write(tmp_path / "deep" / "net.edgecal", {**CONTENTS, "histograms.npz": source})
    read = read_bundle(tmp_path / "deep" / "net.edgecal")
    assert read == written
    assert set(read.manifest.files) == set(CONTENTS)
    assert replace(read.manifest, files={}) == manifest()
    for name, content in CONTENTS.items():
        with read.open(name) as stream:
            assert stream.read() == content
    assert set(read.shipped()) == {"model.onnx", "calibration.cache", "golden.npz"}
    with read.open("manifest.json") as stream:
        assert digest_of(stream.read()) == read.manifest_digest
    assert names(tmp_path / "deep") == ["net.edgecal"]


def test_weights_beside_the_model_keep_their_folders(tmp_path: Path) -> None:
    weights = b"weights" * 9
    model = replace(
        manifest().model,
        digest=digest_of(MODEL + bytes.fromhex(digest_of(weights).removeprefix("sha256:"))),
        external_data=("sub/w.bin",),
    )
    contents = {**CONTENTS, "sub/w.bin": weights}
    write_bundle(tmp_path / "net.edgecal", manifest(model=model), contents)
    read = read_bundle(tmp_path / "net.edgecal")
    assert "sub/w.bin" in read.shipped()
    assert (tmp_path / "net.edgecal" / "sub" / "w.bin").read_bytes() == weights
    (tmp_path / "net.edgecal" / "sub" / "w.bin").write_bytes(b"")
    assert "sub/w.bin" in refuse(lambda: read_bundle(tmp_path / "net.edgecal")).where


def test_a_model_that_changed_since_it_was_calibrated_makes_no_bundle(tmp_path: Path) -> None:
    write(tmp_path / "net.edgecal")
    changed = {**CONTENTS, "model.onnx": b"another network"}
    error = refuse(lambda: write(tmp_path / "net.edgecal", changed))
    assert "changed while it was calibrated" in error.what
    assert read_bundle(tmp_path / "net.edgecal").manifest.counter == 100
    assert names(tmp_path) == ["net.edgecal"]


@pytest.mark.parametrize("name", [*CONTENTS])
@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-1]),
        lambda file: file.write_bytes(file.read_bytes() + b"\n"),
        lambda file: file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:]),
        lambda file: file.write_bytes(b""),
        lambda file: file.unlink(),
        lambda file: (file.unlink(), file.mkdir()),
        lambda file: (file.unlink(), file.symlink_to("nowhere")),
    ],
)
def test_any_damaged_file_makes_the_bundle_corrupt_and_is_named(
    tmp_path: Path, name: str, damage: Callable[[Path], object]
) -> None:
    path = tmp_path / "net.edgecal"
    write(path)
    damage(path / name)
    error = refuse(lambda: read_bundle(path))
    assert "the bundle is corrupt" in error.what
    assert error.where == str(path / name)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"schema": "edgecal.bundle/2"}',
        b'{"schema": "edgecal.bundle/1"}',
        b"\xff\xfe\x00",
        b"{" * 50,
    ],
)
def test_a_manifest_that_is_none_is_refused_and_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.edgecal"
    write(path)
    (path / "manifest.json").write_bytes(content)
    assert str(path / "manifest.json") in refuse(lambda: read_bundle(path)).where


def test_a_manifest_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.edgecal"
    write(path)
    whole = (path / "manifest.json").read_bytes()
    for length in range(0, len(whole) - 2, 37):
        (path / "manifest.json").write_bytes(whole[:length])
        refuse(lambda: read_bundle(path))


@pytest.mark.parametrize("make", [lambda _: None, Path.mkdir, Path.touch])
def test_what_is_no_bundle_is_not_read(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "net.edgecal")
    error = refuse(lambda: read_bundle(tmp_path / "net.edgecal"))
    assert "this is no bundle" in error.what
    assert error.where == str(tmp_path / "net.edgecal")


def test_a_manifest_cannot_make_us_read_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "net.edgecal"
    write(path)
    (tmp_path / "golden.npz").write_bytes(CONTENTS["golden.npz"])
    text = (path / "manifest.json").read_text("utf-8")
    (path / "manifest.json").write_text(text.replace('"golden.npz"', '"../golden.npz"'), "utf-8")
    assert "no path inside a bundle" in refuse(lambda: read_bundle(path)).what


def test_the_counter_grows_whatever_the_clock_says(tmp_path: Path) -> None:
    path = tmp_path / "net.edgecal"
    assert [write(path).manifest.counter for _ in range(3)] == [100, 101, 102]
    later = write_bundle(path, manifest(counter=500), CONTENTS)
    assert later.manifest.counter == 500
    assert read_bundle(path).manifest.counter == 500


def test_a_damaged_bundle_may_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "net.edgecal"
    write(path)
    (path / "manifest.json").write_text("{")
    (path / "golden.npz").unlink()
    write(path)
    assert read_bundle(path).manifest.counter == 100


def test_an_empty_folder_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "net.edgecal").mkdir()
    write(tmp_path / "net.edgecal")
    read_bundle(tmp_path / "net.edgecal")
    assert names(tmp_path) == ["net.edgecal"]


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_text("my thesis"),
        lambda path: (path.mkdir(), (path / "thesis.txt").write_text("mine")),
        lambda path: (path.mkdir(), (path / "manifest.json").mkdir()),
    ],
)
def test_what_is_no_bundle_is_not_replaced(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "net.edgecal"
    make(path)
    before = sorted(path.rglob("*")) if path.is_dir() else path.read_text()
    error = refuse(lambda: write(path))
    assert error.what == "this exists and is no bundle, so it is not replaced"
    assert (sorted(path.rglob("*")) if path.is_dir() else path.read_text()) == before
    assert names(tmp_path) == ["net.edgecal"]


def test_a_bundle_that_is_write_protected_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.edgecal"
    write(path)
    before = read_bundle(path).manifest.counter
    path.chmod(0o555)
    allowed = os.access
    # root may write anywhere
    monkeypatch.setattr(
        os,
        "access",
        lambda one, mode: allowed(one, mode) and not (Path(one) == path and mode & os.W_OK),
    )
    for work in (lambda: write(path), lambda: check_destination(path)):
        error = refuse(work)
        assert error.what == "this exists and is write-protected, so it is not replaced"
        assert f"chmod u+rwx {path}" in error.remedy
    assert read_bundle(path).manifest.counter == before
    assert names(tmp_path) == ["net.edgecal"]


def test_a_bundle_behind_a_link_is_replaced_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "latest.edgecal").symlink_to("store/v1.edgecal")
    for counter in (100, 101):
        write(tmp_path / "latest.edgecal")
        assert read_bundle(tmp_path / "store" / "v1.edgecal").manifest.counter == counter
    assert (tmp_path / "latest.edgecal").is_symlink()
    assert names(tmp_path) == ["latest.edgecal", "store"]
    assert names(tmp_path / "store") == ["v1.edgecal"]


class Stopped(BaseException):
    """Not an Exception, as an interrupt is none."""


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make the n-th thing that a writer does to the disk fail."""
    count = [0, -1]

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            count[0] += 1
            if count[0] == count[1]:
                raise Stopped
            return real(*arguments, **options)

        return call

    monkeypatch.setattr(os, "fsync", counted(os.fsync))
    for name in ("mkdir", "rename", "open"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))

    def arm(number: int) -> None:
        count[:] = [0, number]

    return arm


@pytest.mark.parametrize("had", [True, False])
def test_an_interrupted_writer_leaves_the_old_bundle_or_none(
    tmp_path: Path, stop_at: Callable[[int], None], *, had: bool
) -> None:
    path = tmp_path / "net.edgecal"
    steps = 0
    for number in range(1, 100):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        stop_at(-1)
        if had:
            write(path)
        stop_at(number)
        try:
            write(path)
        except Stopped:
            steps += 1
        else:
            break
        finally:
            stop_at(-1)
        left = names(tmp_path)
        if had:
            assert read_bundle(path).manifest.counter in {100, 101}
            assert set(left) <= {"net.edgecal", ".net.edgecal.old"}
        else:
            assert left in ([], ["net.edgecal"])
            if left:
                read_bundle(path)
        write(path)
        assert names(tmp_path) == ["net.edgecal"]
        read_bundle(path)
    assert steps > 10


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.adapters.test_bundle import CONTENTS, write

path, number = Path(sys.argv[2]), int(sys.argv[3])
count = 0

def counted(real):
    def call(*arguments, **options):
        global count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    return call

os.fsync = counted(os.fsync)
for name in ("mkdir", "rename", "open"):
    setattr(Path, name, counted(getattr(Path, name)))
write(path)
"""
"""Dies at the n-th thing it does to the disk, as a process does that runs out of memory."""


def killed_at(path: Path, number: int) -> bool:
    """Write a bundle in a process that is killed; tell whether it was killed before the end."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(Path(__file__).parents[2]), str(path), str(number)],
        check=False,
    )
    assert done.returncode in {0, -9}
    return done.returncode != 0


def test_a_killed_writer_leaves_the_old_bundle_or_none_and_its_leftovers_vanish(
    tmp_path: Path,
) -> None:
    path = tmp_path / "net.edgecal"
    absent = 0
    for number in range(1, 40):
        write(path)
        was = read_bundle(path).manifest.counter
        if not killed_at(path, number):
            break
        if path.exists():
            assert read_bundle(path).manifest.counter in {was, was + 1}
        else:
            absent += 1  # between its two renames: the old one lies aside, and comes back
        assert write(path).manifest.counter > was
        read_bundle(path)
        assert names(tmp_path) == ["net.edgecal"]
    else:
        pytest.fail("the writer never came to its end")
    assert absent <= 1


def test_writers_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "net.edgecal"
    counters: list[int] = []

    def work() -> None:
        for _ in range(5):
            counters.append(write(path).manifest.counter)  # noqa: PERF401 - each for itself

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counters) == list(range(100, 130))
    assert read_bundle(path).manifest.counter == 129
    assert names(tmp_path) == ["net.edgecal"]


def test_writers_of_two_processes_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "net.edgecal"
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parents[2]), str(path), "-1"]
    running = [subprocess.Popen(command) for _ in range(4)]
    assert [one.wait() for one in running] == [0] * 4
    assert read_bundle(path).manifest.counter == 103
    assert names(tmp_path) == ["net.edgecal"]


def test_a_folder_that_may_not_be_written_is_named() -> None:
    with tempfile.TemporaryDirectory() as name:
        parent = Path(name) / "released"
        parent.mkdir()
        write(parent / "net.edgecal")
        for one in (Path(name), parent):
            one.chmod(0o555)
        with nobody():
            errors = [refuse(lambda: write(parent / "net.edgecal"))]
            errors += [refuse(lambda: write(parent / "new" / "deep.edgecal"))]
            read_bundle(parent / "net.edgecal")
        for one in (Path(name), parent):
            one.chmod(0o755)
        assert names(parent) == ["net.edgecal"]
    for error in errors:
        assert error.what == "cannot write the bundle: Permission denied"
        assert "permissions" in error.remedy
    assert errors[0].where == str(parent / "net.edgecal")


def test_a_name_in_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = refuse(lambda: write(tmp_path / "file" / "net.edgecal"))
    assert error.where == str(tmp_path / "file" / "net.edgecal")


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


def test_a_full_disk_leaves_the_old_bundle_and_nothing_half_made(small_disk: Path) -> None:
    path = small_disk / "net.edgecal"
    large = {**CONTENTS, "histograms.npz": os.urandom(2_000_000)}
    error = refuse(lambda: write(path, large))
    assert error.what == "cannot write the bundle: No space left on device"
    assert "free space" in error.remedy
    assert names(small_disk) == []
    write(path)
    refuse(lambda: write(path, large))
    assert read_bundle(path).manifest.counter == 100
    assert names(small_disk) == ["net.edgecal"]
    with suppress(OSError):
        (small_disk / "filler").write_bytes(bytes(1_100_000))
    refuse(lambda: write(path))
    assert read_bundle(path).manifest.counter == 100
