"""Lists, CSV files and patterns of pictures: in their order, each fault named with its line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import cv2  # noqa: TID253 - the pictures are made with it
import numpy as np
import pytest

from edgecal.adapters.datasets import open_dataset
from edgecal.adapters.picture_samples import Images
from edgecal.core.graph import TensorInfo
from edgecal.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

INPUTS = (TensorInfo(name="image", dtype="float32", shape=(None, 3, 4, 5)),)
NAMES = ["a.png", "b/10.jpg", "b/2.png"]


def draw(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(path.suffix, np.full((4, 5, 3), value, np.uint8))
    assert done
    path.write_bytes(data.tobytes())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        draw(tmp_path / "photos" / name, number)
    return tmp_path / "photos"


def opened(spec: object, *, skip_unreadable: bool = False, limit: int | None = None) -> Images:
    dataset = open_dataset(
        str(spec), INPUTS, preprocess=None, skip_unreadable=skip_unreadable, limit=limit
    )
    assert isinstance(dataset, Images)
    return dataset


def names(spec: object) -> list[str]:
    return [one.name for one in opened(spec)]


def refuse(spec: object) -> DatasetError:
    with pytest.raises(DatasetError) as caught:
        list(opened(spec))
    assert caught.value.remedy
    return caught.value


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return path


class TestLists:
    @pytest.mark.parametrize("text", ["", "\n\n", "# nothing yet\n", "  \n\t\n"])
    def test_that_name_nothing_are_refused(self, photos: Path, text: str) -> None:
        error = refuse(write(photos / "list.txt", text))
        assert error.what == "the list names no image"
        assert error.where == str(photos / "list.txt")

    def test_that_are_not_there_are_refused(self, photos: Path) -> None:
        error = refuse(photos / "list.txt")
        assert error.what == "cannot read the list: No such file or directory"

    def test_name_the_line_of_a_missing_picture_before_the_work(self, photos: Path) -> None:
        path = write(photos / "list.txt", "a.png\n\n# night\nb/3.png\n")
        with pytest.raises(DatasetError, match="there is no such image") as caught:
            opened(path)
        assert caught.value.where == f"{path}:4 (b/3.png)"

    def test_pass_over_a_missing_picture_if_told(self, photos: Path) -> None:
        path = write(photos / "list.txt", "a.png\nb/3.png\nb/2.png\n")
        dataset = opened(path, skip_unreadable=True)
        assert [one.name for one in dataset] == ["a.png", "b/2.png"]
        assert dataset.skipped == ["b/3.png"]

    def test_name_the_line_of_a_broken_picture_or_pass_over_it_if_told(self, photos: Path) -> None:
        (photos / "b" / "2.png").write_bytes(b"\x89PNG")
        path = write(photos / "list.txt", "a.png\nb/2.png\n")
        error = refuse(path)
        assert error.where == f"{path}:2 (b/2.png)"
        assert "cannot decode" in error.what
        dataset = opened(path, skip_unreadable=True)
        assert [one.name for one in dataset] == ["a.png"]
        assert dataset.skipped == ["b/2.png"]

    @pytest.mark.parametrize("data", [b"\x00\x01\x02", b"x" * 100_000, b"a.png\n" + b"y" * 9000])
    def test_that_are_no_text_are_refused(self, photos: Path, data: bytes) -> None:
        path = photos / "list.txt"
        path.write_bytes(data)
        assert refuse(path).what.startswith("expected a list of images")

    def test_do_not_wait_for_a_pipe_nor_read_a_folder(self, photos: Path) -> None:
        os.mkfifo(photos / "pipe.png")
        for name in ("pipe.png", "b"):
            path = write(photos / "list.txt", f"a.png\n{name}\n")
            assert refuse(path).where == f"{path}:2 ({name})"
            dataset = opened(path, skip_unreadable=True)
            assert [one.name for one in dataset] == ["a.png"]
        assert "no regular file" in refuse(photos).what

    def test_keep_their_order_and_what_they_name_twice(self, photos: Path) -> None:
        path = write(photos / "list.txt", "b/2.png\r\n# a comment\r\n\r\na.png\r\n  b/2.png  \r\n")
        assert names(path) == ["b/2.png", "a.png", "b/2.png"]

    def test_may_lie_elsewhere_and_name_whole_paths(self, photos: Path, tmp_path: Path) -> None:
        (tmp_path / "lists").mkdir()
        path = write(tmp_path / "lists" / "l.lst", f"../photos/a.png\n{photos}/b/2.png\n")
        assert names(path) == [str(photos / "a.png"), str(photos / "b" / "2.png")]

    def test_with_a_limit_need_no_more_than_that(self, photos: Path) -> None:
        path = write(photos / "list.txt", "b/2.png\na.png\nmissing.png\n")
        assert [one.name for one in opened(path, limit=2)] == ["b/2.png", "a.png"]

    def test_may_begin_with_a_byte_order_mark_and_hold_names_that_are_no_text(
        self, photos: Path
    ) -> None:
        odd = photos / "caf\udce9.png"
        try:
            odd.write_bytes((photos / "a.png").read_bytes())
        except OSError:
            pytest.skip("this file system takes UTF-8 names only")
        path = write(photos / "list.txt", "\ufeffa.png\ncaf\udce9.png\n")
        assert names(path) == ["a.png", "caf\\xe9.png"]


class TestCsvFiles:
    @pytest.mark.parametrize(
        "text", ["a.png,day\nb/2.png,night\n", "b/2.png\n", "\n", "photos/a.JPG\n"]
    )
    def test_without_a_header_are_refused(self, photos: Path, text: str) -> None:
        error = refuse(write(photos / "l.csv", text))
        assert "expected a header" in error.what
        assert error.where == f"{photos / 'l.csv'}:1"

    def test_with_nothing_but_a_header_are_refused(self, photos: Path) -> None:
        assert refuse(write(photos / "l.csv", "path,label\n")).what == "the list names no image"

    def test_name_the_line_of_a_missing_picture_or_path(self, photos: Path) -> None:
        path = write(photos / "l.csv", "path,label\na.png,day\nb/3.png,night\n")
        assert refuse(path).where == f"{path}:3 (b/3.png)"
        path = write(photos / "l.csv", "label,path\nday,a.png\nnight\n")
        error = refuse(path)
        assert error.what == "there is no path in column 'path'"
        assert error.where == f"{path}:3"

    def test_of_endless_fields_are_refused(self, photos: Path) -> None:
        rows = "path\n" + '"' + "x\n" * 200_000
        assert "this is no CSV file" in refuse(write(photos / "l.csv", rows)).what

    @pytest.mark.parametrize(
        "text",
        [
            "path,label\nb/2.png,night\na.png,day\n",
            "Label;Path\nnight;b/2.png\nday;a.png\n",
            "label\tid\tfile\nnight\t1\tb/2.png\nday\t2\ta.png\n",
            'image,label\r\n"b/2.png","night"\r\n\r\na.png,day\r\n',
            "\ufeffwhat it is called,label\nb/2.png,night\na.png,day\n",
        ],
    )
    def test_have_paths_and_labels_in_columns_of_any_order(self, photos: Path, text: str) -> None:
        dataset = opened(write(photos / "l.csv", text))
        assert [one.name for one in dataset] == ["b/2.png", "a.png"]
        assert dataset.groups == {"day": 1, "night": 1}

    def test_count_what_has_no_label(self, photos: Path) -> None:
        dataset = opened(write(photos / "l.csv", "path,label\na.png,day\nb/2.png,\nb/10.jpg\n"))
        list(dataset)
        assert dataset.groups == {"(none)": 2, "day": 1}


class TestPatterns:
    def test_that_match_no_picture_are_refused(self, photos: Path) -> None:
        assert "no image matches" in refuse(photos / "*.webp").what
        (photos / "notes.txt").write_text("x")
        assert "of 1 names that match, none is a picture" in refuse(photos / "*.txt").what

    def test_match_at_any_depth_and_give_names_as_the_folder_does(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert names(photos / "**" / "*") == NAMES
        assert names(photos / "b" / "*.png") == ["2.png"]
        assert names(photos / "?.png") == ["a.png"]
        monkeypatch.chdir(photos)
        assert names("**/*.[jp]*g") == NAMES
        assert names("b/*") == ["10.jpg", "2.png"]

    def test_leave_out_hidden_files_and_folders(self, photos: Path) -> None:
        draw(photos / ".thumbnails" / "t.png", 1)
        draw(photos / "._a.png", 1)
        assert names(photos / "**" / "*.png") == ["a.png", "b/2.png"]

    def test_count_for_less_than_a_file_or_folder_of_that_name(self, photos: Path) -> None:
        draw(photos / "set [1]" / "x.png", 1)
        assert names(photos / "set [1]") == ["x.png"]


def test_every_way_gives_the_same_samples_in_the_same_order(photos: Path) -> None:
    write(photos / "list.txt", "".join(f"{name}\n" for name in NAMES))
    write(photos / "list.csv", "path\n" + "".join(f"{name}\n" for name in NAMES))
    ways = [photos, photos / "list.txt", photos / "list.csv", photos / "**" / "*.*g"]
    found = [[(one.name, one.digest) for one in opened(way)] for way in ways]
    assert [name for name, _ in found[0]] == NAMES
    assert all(one == found[0] for one in found)
    shown = [[one.arrays["image"].tobytes() for one in opened(way)] for way in ways]
    assert all(one == shown[0] for one in shown)
