"""Batch files as data, in and out: every sample counts, none is invented, nothing is half done."""

from __future__ import annotations

import json
import os
import struct
import tempfile
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecal.adapters.batches import (
    CONTENTS_FILE,
    BatchFiles,
    BatchWords,
    WrittenBatches,
    check_batch_folder,
    write_batches,
)
from edgecal.adapters.datasets import open_dataset
from edgecal.adapters.picture_samples import Images
from edgecal.adapters.samples import digest_arrays
from edgecal.core.graph import TensorInfo
from edgecal.errors import DatasetError
from edgecal.ports import Sample
from tests.networks import floats
from tests.users import nobody

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Array = npt.NDArray[Any]

IMAGE = (TensorInfo(name="image", dtype="float32", shape=(None, 3, 4, 5)),)


def write(file: Path, values: Array, labels: Array | None = None) -> Path:
    """Write a batch file as the format's description has it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    data = struct.pack("<4i", *values.shape) + values.astype("<f4").tobytes()
    file.write_bytes(data + (b"" if labels is None else labels.astype("<f4").tobytes()))
    return file


def pictures(count: int, seed: int = 0) -> Array:
    return floats(count, 3, 4, 5, seed=seed)


def open_batches(
    spec: object, inputs: Sequence[TensorInfo] = IMAGE, limit: int | None = None
) -> BatchFiles:
    dataset = open_dataset(str(spec), inputs, preprocess=None, limit=limit)
    assert isinstance(dataset, BatchFiles)
    return dataset


def names(spec: object) -> list[str]:
    return [sample.name for sample in open_batches(spec)]


def values(dataset: BatchFiles) -> Array:
    return np.stack([sample.arrays["image"] for sample in dataset])


def refuse(spec: object, inputs: Sequence[TensorInfo] = IMAGE) -> DatasetError:
    with pytest.raises(DatasetError) as caught:
        list(open_dataset(str(spec), inputs, preprocess=None))
    assert caught.value.remedy
    assert caught.value.where
    return caught.value


class TestRefused:
    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            (lambda data: data[:-4], "were expected, found"),
            (lambda data: data + b"\0" * 4, "were expected, found"),
            (lambda data: data[:10], "found 10 bytes"),
            (lambda _: b"", "found 0 bytes"),
            (lambda data: struct.pack("<4i", -1, 3, 4, 5) + data[16:], "found -1, 3, 4, 5"),
            (lambda data: struct.pack("<4i", 0, 3, 4, 5) + data[16:], "found 0, 3, 4, 5"),
            (lambda data: struct.pack("<4i", 1 << 30, 3, 4, 5) + data[16:], "were expected"),
            (lambda data: struct.pack("<4i", *[2**31 - 1] * 4) + data[16:], "were expected"),
        ],
    )
    def test_are_damaged_files_by_name_and_at_once(
        self, tmp_path: Path, damage: Callable[[bytes], bytes], said: str
    ) -> None:
        write(tmp_path / "batch0.batch", pictures(2))
        file = write(tmp_path / "batch1.batch", pictures(2))
        file.write_bytes(damage(file.read_bytes()))
        tracemalloc.start()
        error = refuse(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
        tracemalloc.stop()
        assert said in error.what
        assert error.where == str(file)

    def test_is_a_file_that_shrinks_while_it_is_read(self, tmp_path: Path) -> None:
        file = write(tmp_path / "batch0", pictures(3))
        samples = iter(open_batches(tmp_path))
        next(samples)
        os.truncate(file, 100)
        with pytest.raises(DatasetError, match="cut off while"):
            list(samples)
        file.unlink()
        with pytest.raises(DatasetError, match="cannot read"):
            list(open_batches_of(file))

    def test_are_pictures_of_another_shape_than_the_input(self, tmp_path: Path) -> None:
        write(tmp_path / "batch0", floats(2, 3, 5, 4))
        assert "wants samples of 3x4x5, found 3x5x4" in refuse(tmp_path).what
        rank5 = (TensorInfo(name="image", dtype="float32", shape=(None, 3, 4, 5, 1)),)
        assert "found 3x5x4" in refuse(tmp_path, rank5).what

    def test_are_networks_with_two_inputs_or_of_integers(self, tmp_path: Path) -> None:
        write(tmp_path / "batch0", pictures(2))
        assert "2 inputs" in refuse(tmp_path, (*IMAGE, *IMAGE)).what
        whole = (TensorInfo(name="image", dtype="uint8", shape=(None, 3, 4, 5)),)
        assert "of uint8" in refuse(tmp_path, whole).what

    def test_are_several_sets_in_one_folder_and_the_way_out_is_said(self, tmp_path: Path) -> None:
        write(tmp_path / "batch0", pictures(2))
        write(tmp_path / "batch_calibration0.batch", pictures(2))
        error = refuse(tmp_path)
        assert "batch*, batch_calibration*.batch" in error.what
        assert str(tmp_path / "batch") in error.remedy
        assert len(open_batches(tmp_path / "batch_calibration")) == 2
        write(tmp_path / "batch0.batch", pictures(2))
        assert "batch*, batch*.batch" in refuse(tmp_path / "batch").what

    def test_is_a_folder_or_file_that_may_not_be_read(self, reachable: Path) -> None:
        file = write(reachable / "set" / "below" / "batch0.batch", pictures(2))
        file.chmod(0)
        with nobody():
            assert "cannot read" in refuse(reachable / "set" / "below" / "batch").what
        file.parent.chmod(0)
        with nobody():
            assert "cannot list" in refuse(reachable / "set" / "below").what
            assert refuse(reachable / "set" / "below" / "batch0.batch").where


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that another user can reach; what is closed in it is opened at the end."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)
        for folder, _, _ in os.walk(name):
            Path(folder).chmod(0o755)


def open_batches_of(file: Path) -> BatchFiles:
    return BatchFiles([file], IMAGE)


class TestReading:
    def test_gives_every_sample_in_the_order_of_the_numbers(self, tmp_path: Path) -> None:
        for number, count in ((10, 1), (9, 2), (0, 3)):
            write(tmp_path / f"batch{number}.batch", pictures(count, seed=number))
        (tmp_path / "batch0.list").write_text("a.ppm\n")
        (tmp_path / "notes").write_text("made by hand")
        (tmp_path / "take 2").write_text("no batch file in spite of its number")
        (tmp_path / "batch5.batch").mkdir()
        dataset = open_batches(tmp_path)
        assert len(dataset) == 6
        assert [sample.name for sample in dataset] == [
            *("batch0.batch#0", "batch0.batch#1", "batch0.batch#2"),
            *("batch9.batch#0", "batch9.batch#1", "batch10.batch#0"),
        ]
        want = np.concatenate([pictures(3), pictures(2, seed=9), pictures(1, seed=10)])
        assert np.array_equal(values(dataset), want)
        assert dataset.kind == "batches"
        assert dataset.preprocess is None
        assert not dataset.skipped

    def test_names_samples_by_their_values(self, tmp_path: Path) -> None:
        write(tmp_path / "batch0", pictures(2))
        first, second = open_batches(tmp_path)
        assert first.digest == digest_arrays({"image": pictures(2)[0]})
        assert first.digest != second.digest

    def test_stops_after_as_many_as_were_asked_for(self, tmp_path: Path) -> None:
        for number in range(3):
            write(tmp_path / f"batch{number}", pictures(2), np.asarray([number, number + 10]))
        dataset = open_batches(tmp_path, limit=3)
        assert len(dataset) == 3
        assert [sample.name for sample in dataset] == ["batch0#0", "batch0#1", "batch1#0"]
        assert dataset.labels() == [0, 10, 1]
        assert len(list(open_batches(tmp_path, limit=50))) == 6

    def test_keeps_labels_apart_from_pictures(self, tmp_path: Path) -> None:
        write(tmp_path / "batch0", pictures(2), np.asarray([7, 3]))
        assert np.array_equal(values(open_batches(tmp_path)), pictures(2))
        assert open_batches(tmp_path).labels() == [7, 3]
        write(tmp_path / "batch1", pictures(1))
        assert open_batches(tmp_path).labels() is None
        assert len(open_batches(tmp_path)) == 3

    @pytest.mark.parametrize(
        "spec", ["batch_calibration", "batch_calibration0.batch", ".", "../set/batch_calibration"]
    )
    def test_takes_a_folder_a_file_or_what_names_begin_with(
        self, tmp_path: Path, spec: str
    ) -> None:
        write(tmp_path / "set" / "batch_calibration0.batch", pictures(2))
        assert names(tmp_path / "set" / spec) == [f"batch_calibration0.batch#{i}" for i in (0, 1)]

    def test_leaves_a_folder_that_holds_images_to_the_images(self, tmp_path: Path) -> None:
        write(tmp_path / "batch0", pictures(2))
        (tmp_path / "below").mkdir()
        (tmp_path / "below" / "a.png").touch()
        assert isinstance(open_dataset(str(tmp_path), IMAGE, preprocess=None), Images)
        assert len(open_batches(tmp_path / "batch")) == 2

    def test_leaves_files_that_only_end_in_a_number_alone(self, tmp_path: Path) -> None:
        (tmp_path / "lib.so.6").write_bytes(b"\x7fELF" * 10)
        assert "no image" in refuse(tmp_path).what
        assert "no such file" in refuse(tmp_path / "lib.so.").what

    def test_holds_one_sample_at_a_time(self, tmp_path: Path) -> None:
        inputs = (TensorInfo(name="image", dtype="float32", shape=(None, 4, 256, 256)),)
        write(tmp_path / "batch0", np.zeros((40, 4, 256, 256), np.float32))  # 1 MiB each
        tracemalloc.start()
        assert sum(1 for _ in open_batches(tmp_path, inputs)) == 40
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
        tracemalloc.stop()

    @pytest.mark.parametrize(
        ("shape", "stored", "taken"),
        [
            ((None, 60), (3, 4, 5), (60,)),
            ((None, None), (7, 1, 1), (7,)),
            ((None, 6, 2), (6, 2, 1), (6, 2)),
            ((None, None, None, None), (3, 4, 5), (3, 4, 5)),
            (None, (3, 4, 5), (3, 4, 5)),
        ],
    )
    def test_gives_inputs_of_fewer_dimensions_the_values_in_their_order(
        self,
        tmp_path: Path,
        shape: tuple[int | None, ...] | None,
        stored: tuple[int, ...],
        taken: tuple[int, ...],
    ) -> None:
        write(tmp_path / "batch0", floats(2, *stored))
        inputs = (TensorInfo(name="image", dtype="float32", shape=shape),)
        found = values(open_batches(tmp_path, inputs))
        assert np.array_equal(found, floats(2, *stored).reshape(2, *taken))


def samples(data: Array) -> Iterator[Sample]:
    for index, value in enumerate(data):
        arrays = {"image": value}
        yield Sample(name=f"s{index}", digest=digest_arrays(arrays), arrays=arrays)


def write_all(
    folder: Path, data: Array, *, batch_size: int = 2, words: BatchWords | None = None
) -> WrittenBatches:
    return write_batches(
        folder,
        samples(data),
        words=words or BatchWords(),
        batch_size=batch_size,
        progress=lambda _: None,
    )


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


class TestWriting:
    def test_is_refused_where_something_else_lies(self, tmp_path: Path) -> None:
        folder = tmp_path / "out"
        folder.mkdir()
        (folder / "thesis.txt").write_text("not to be lost")
        before = tree(tmp_path)
        with pytest.raises(DatasetError, match=r"something else .*'thesis.txt'"):
            check_batch_folder(folder, BatchWords(), data=tmp_path / "data")
        with pytest.raises(DatasetError, match="something else"):
            write_all(folder, pictures(4))
        assert tree(tmp_path) == before

    def test_is_refused_where_a_file_was_added_to_ours(self, tmp_path: Path) -> None:
        write_all(tmp_path / "out", pictures(4))
        write(tmp_path / "out" / "batch77.batch", pictures(1))
        before = tree(tmp_path)
        with pytest.raises(DatasetError, match=r"'batch77.batch'"):
            write_all(tmp_path / "out", pictures(6))
        assert tree(tmp_path) == before

    def test_is_refused_over_a_file_and_over_the_data(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(DatasetError, match="no folder"):
            check_batch_folder(tmp_path / "file", BatchWords(), data=tmp_path / "data")
        with pytest.raises(DatasetError, match="no folder"):
            check_batch_folder(tmp_path / "file" / "below", BatchWords(), data=tmp_path / "data")
        write_all(tmp_path / "out", pictures(4))
        for data in (tmp_path / "out", tmp_path / "out" / "batch0.batch", tmp_path / "out/batch"):
            with pytest.raises(DatasetError, match="data to read lies there"):
                check_batch_folder(tmp_path / "out", BatchWords(), data=data)
        with pytest.raises(DatasetError, match="cannot be found again"):
            check_batch_folder(tmp_path / "new", BatchWords(prefix="b1"), data=tmp_path / "data")

    def test_is_refused_where_nobody_may_write(self, reachable: Path) -> None:
        (reachable / "closed").mkdir(mode=0o555)
        (reachable / "shut" / "in").mkdir(parents=True)
        (reachable / "shut").chmod(0)
        with nobody():
            with pytest.raises(DatasetError, match="cannot write"):
                write_all(reachable / "closed" / "out", pictures(4))
            with pytest.raises(DatasetError, match="cannot write"):
                check_batch_folder(reachable / "shut/in/out", BatchWords(), data=reachable / "data")
        (reachable / "shut").chmod(0o755)

    def test_leaves_nothing_behind_when_the_data_breaks_off(self, tmp_path: Path) -> None:
        def broken() -> Iterator[Sample]:
            yield from samples(pictures(3))
            raise DatasetError("sensor off", remedy="switch it on")

        write_all(tmp_path / "old", pictures(4))
        before = tree(tmp_path)
        for folder in ("new", "old"):
            with pytest.raises(DatasetError, match="sensor off"):
                write_batches(
                    tmp_path / folder,
                    broken(),
                    words=BatchWords(),
                    batch_size=2,
                    progress=lambda _: None,
                )
        assert tree(tmp_path) == before
        assert [one.name for one in tmp_path.iterdir()] == ["old"]

    def test_refuses_samples_of_different_shapes_or_of_too_many_dimensions(
        self, tmp_path: Path
    ) -> None:
        odd = [np.zeros((3, 4, 5), np.float32), np.zeros((3, 5, 4), np.float32)]
        with pytest.raises(DatasetError, match="different shapes"):
            write_batches(
                tmp_path / "out",
                (one for value in odd for one in samples(value[None])),
                words=BatchWords(),
                batch_size=1,
                progress=lambda _: None,
            )
        with pytest.raises(DatasetError, match="4 dimensions"):
            write_all(tmp_path / "out", floats(2, 1, 2, 3, 4))
        with pytest.raises(DatasetError, match="0 dimensions"):
            write_all(tmp_path / "out", floats(2))
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("count", [0, 1, 3])
    def test_refuses_to_write_no_batch(self, tmp_path: Path, count: int) -> None:
        with pytest.raises(DatasetError, match=f"{count} samples do not make one batch of 4"):
            write_all(tmp_path / "out", pictures(count), batch_size=4)
        assert not list(tmp_path.iterdir())

    def test_makes_files_of_exactly_the_batch_size_and_counts_the_rest(
        self, tmp_path: Path
    ) -> None:
        seen: list[int] = []
        written = write_batches(
            tmp_path / "a" / "out",
            samples(pictures(11)),
            words=BatchWords(prefix="batch_calibration"),
            batch_size=4,
            progress=seen.append,
        )
        files = ("batch_calibration0.batch", "batch_calibration1.batch")
        assert written == WrittenBatches(
            folder=tmp_path / "a" / "out",
            files=files,
            batch_size=4,
            shape=(3, 4, 5),
            samples=8,
            dropped=3,
        )
        assert seen == list(range(1, 12))
        assert set(tree(tmp_path / "a")) == {f"out/{name}" for name in (*files, CONTENTS_FILE)}
        data = (tmp_path / "a" / "out" / files[1]).read_bytes()
        assert struct.unpack("<4i", data[:16]) == (4, 3, 4, 5)
        assert np.array_equal(np.frombuffer(data[16:], "<f4"), pictures(11)[4:8].reshape(-1))
        document = json.loads((tmp_path / "a" / "out" / CONTENTS_FILE).read_bytes())
        assert document["files"][files[1]] == ["s4", "s5", "s6", "s7"]

    def test_replaces_what_it_wrote_before(self, tmp_path: Path) -> None:
        write_all(tmp_path / "out", pictures(8))
        write_all(tmp_path / "out", pictures(2, seed=1))
        assert np.array_equal(values(open_batches(tmp_path / "out")), pictures(2, seed=1))
        assert [one.name for one in tmp_path.iterdir()] == ["out"]

    def test_may_fill_an_empty_folder_or_the_one_a_link_points_to(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        check_batch_folder(tmp_path / "link", BatchWords(), data=tmp_path / "data")
        write_all(tmp_path / "link", pictures(2))
        assert (tmp_path / "link").is_symlink()
        assert len(open_batches(tmp_path / "real")) == 2

    @settings(
        max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(data=st.data())
    def test_and_reading_give_the_same_values(self, tmp_path: Path, data: st.DataObject) -> None:
        sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
        count = data.draw(st.integers(1, 9))
        batch_size = data.draw(st.integers(1, count))
        suffix = data.draw(st.sampled_from(["", ".batch"]))
        value = floats(count, *sizes, seed=data.draw(st.integers(0, 9)))
        value.flat[0] = data.draw(st.floats(width=32))
        written = write_all(
            tmp_path / "out",
            value,
            batch_size=batch_size,
            words=BatchWords(prefix="b_", suffix=suffix),
        )
        whole = count // batch_size * batch_size
        assert (written.samples, written.dropped) == (whole, count - whole)
        inputs = (TensorInfo(name="image", dtype="float32", shape=(None, *sizes)),)
        found = values(open_batches(tmp_path / "out", inputs))
        assert found.tobytes() == value[:whole].tobytes()
