"""Tar archives of pictures: read in passing, damaged ones refused by name, nothing written."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import tracemalloc
from typing import TYPE_CHECKING

import cv2  # noqa: TID253 - the pictures are made with it
import numpy as np
import pytest

from edgecal.adapters import archives
from edgecal.adapters.datasets import open_dataset
from edgecal.adapters.picture_samples import Images
from edgecal.core.graph import TensorInfo
from edgecal.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgecal.ports import Sample

INPUTS = (TensorInfo(name="image", dtype="float32", shape=(None, 3, 4, 5)),)


def picture(value: int, suffix: str = ".png", size: tuple[int, int] = (4, 5)) -> bytes:
    done, data = cv2.imencode(suffix, np.full((*size, 3), value, np.uint8))
    assert done
    return data.tobytes()


PICTURES = [
    ("b/2.png", picture(2)),
    ("a.png", picture(1)),
    ("b/10.jpg", picture(3, ".jpg")),
]


def pack(
    path: Path, members: Sequence[tuple[str, bytes]], extra: Sequence[tarfile.TarInfo] = ()
) -> Path:
    suffix = path.name.rsplit(".", 1)[-1]
    how = {"tar": "", "gz": "gz", "tgz": "gz", "xz": "xz", "bz2": "bz2"}[suffix]
    with tarfile.open(path, f"w:{how}") as archive:  # type: ignore[call-overload]
        for member in extra:
            archive.addfile(member)
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def opened(path: Path, *, skip_unreadable: bool = False, limit: int | None = None) -> Images:
    dataset = open_dataset(
        str(path), INPUTS, preprocess=None, skip_unreadable=skip_unreadable, limit=limit
    )
    assert isinstance(dataset, Images)
    return dataset


def read(path: Path) -> list[Sample]:
    return list(opened(path))


def refuse(path: Path) -> DatasetError:
    with pytest.raises(DatasetError) as caught:
        read(path)
    assert caught.value.remedy
    return caught.value


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "members", [[], [("notes.txt", b"x")], [(".hidden.png", picture(1)), ("x/._a.png", b"")]]
)
def test_an_archive_without_a_picture_is_refused_at_once(
    tmp_path: Path, members: list[tuple[str, bytes]]
) -> None:
    path = pack(tmp_path / "a.tar", members)
    with pytest.raises(DatasetError, match="there is no image in this archive") as caught:
        opened(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    "data", [b"", b"\x1f\x8b", b"\x1f\x8b" + b"x" * 600, b"text" * 500, b"BZh"]
)
def test_what_is_no_archive_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    for name in ("a.tar", "a.tar.gz", "a.tgz", "a.tar.xz"):
        (tmp_path / name).write_bytes(data)
        error = refuse(tmp_path / name)
        assert error.what.startswith("cannot read the archive")
        assert error.where == str(tmp_path / name)


def test_an_archive_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refuse(tmp_path / "a.tar.gz").what


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.xz"])
def test_an_archive_cut_off_anywhere_is_refused(tmp_path: Path, name: str) -> None:
    data = pack(tmp_path / name, PICTURES).read_bytes()
    # tar pads with blocks of zeros: only what comes before the first of them is needed
    end = len(data.rstrip(b"\0")) // 512 * 512 + 1024 if name == "a.tar" else len(data)
    for length in {512, 600, 1024, end - 512, end // 2, end - 1, end // 3}:
        if length >= end:
            continue
        (tmp_path / name).write_bytes(data[:length])
        assert refuse(tmp_path / name).where == str(tmp_path / name), length


def test_a_damaged_header_is_an_error_and_not_the_end(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", PICTURES)
    data = bytearray(path.read_bytes())
    data[data.index(b"b/10.jpg")] ^= 1
    path.write_bytes(data)
    assert "cannot read the archive" in refuse(path).what


def test_a_compressed_archive_is_held_against_its_checksum(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar.gz", PICTURES)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    assert "CRC" in refuse(path).what or "length" in refuse(path).what


def test_an_archive_damaged_in_any_way_is_refused_or_read_and_nothing_else(tmp_path: Path) -> None:
    chance = random.Random(3)
    refused = 0
    for name in ("a.tar", "a.tar.gz"):
        data = pack(tmp_path / name, PICTURES).read_bytes()
        for _ in range(100):
            damaged = bytearray(data)
            damaged[chance.randrange(min(len(data), 4000))] = chance.randrange(256)
            (tmp_path / name).write_bytes(damaged)
            try:
                read(tmp_path / name)
            except DatasetError:
                refused += 1
    assert refused > 100


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    info = special("x", tarfile.XHDTYPE)
    info.size = 1 << 30
    with gzip.open(tmp_path / "bomb.tar.gz", "wb") as stream:
        stream.write(info.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(32):
            stream.write(bytes(1 << 20))
    assert "a header of 1073741824 bytes" in refuse(tmp_path / "bomb.tar.gz").what


def test_a_broken_picture_is_named_with_its_archive_or_passed_over_if_told(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", [PICTURES[0], ("bad.png", b"\x89PNG"), PICTURES[1]])
    assert refuse(path).where == f"{path}[bad.png]"
    dataset = opened(path, skip_unreadable=True)
    assert [one.name for one in dataset] == ["b/2.png", "a.png"]
    assert dataset.skipped == ["bad.png"]


def test_a_member_too_large_for_a_picture_is_refused_or_passed_over_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_LARGEST_PICTURE", 1000)
    path = pack(tmp_path / "a.tar", [("huge.png", bytes(5000)), PICTURES[1]])
    assert "5000 bytes, and a picture at most 1000" in refuse(path).what
    assert [one.name for one in opened(path, skip_unreadable=True)] == ["a.png"]


def test_links_and_devices_are_passed_over_and_no_path_leads_outside(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(picture(9))
    extra = [
        special("link.png", tarfile.SYMTYPE, "/etc/passwd"),
        special("hard.png", tarfile.LNKTYPE, "secret.png"),
        special("device.png", tarfile.CHRTYPE),
        special("fifo.png", tarfile.FIFOTYPE),
        special("folder.png", tarfile.DIRTYPE),
    ]
    path = pack(tmp_path / "a.tar", [("../secret.png", picture(1)), *PICTURES], extra)
    before = {one.name for one in tmp_path.iterdir()}
    assert [one.name for one in read(path)] == ["../secret.png", "b/2.png", "a.png", "b/10.jpg"]
    assert read(path)[0].arrays["image"].max() == 1
    assert {one.name for one in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "A.TGZ", "a.tar.xz", "a.tar.bz2"])
def test_members_come_in_their_order_as_a_list_of_the_same_files_gives_them(
    tmp_path: Path, name: str
) -> None:
    path = pack(tmp_path / name.lower(), [(f"./{one}", data) for one, data in PICTURES])
    path = path.rename(tmp_path / name)
    for one, data in PICTURES:
        (tmp_path / one).parent.mkdir(exist_ok=True)
        (tmp_path / one).write_bytes(data)
    (tmp_path / "list.txt").write_text("".join(f"{one}\n" for one, _ in PICTURES))
    dataset = opened(path)
    samples = list(dataset)
    listed = read(tmp_path / "list.txt")
    assert [(one.name, one.digest) for one in samples] == [(one.name, one.digest) for one in listed]
    assert all(
        np.array_equal(a.arrays["image"], b.arrays["image"])
        for a, b in zip(samples, listed, strict=True)
    )
    assert len(dataset) == 0
    assert dataset.groups == {"b": 2, ".": 1}
    assert [one.name for one in dataset] == [one for one, _ in PICTURES]


def test_a_limit_needs_no_more_of_the_archive_than_that(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", PICTURES)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"b/10.jpg") + 100])
    assert [one.name for one in opened(path, limit=2)] == ["b/2.png", "a.png"]
    assert len(opened(path, limit=2)) == 2


def test_memory_does_not_grow_with_the_archive(tmp_path: Path) -> None:
    many = [(f"{number:05}.png", PICTURES[0][1]) for number in range(1500)]
    peaks = []
    for count in (300, 1500):
        path = pack(tmp_path / "a.tar", many[:count])
        tracemalloc.start()
        try:
            assert sum(1 for _ in opened(path)) == count
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 100_000
