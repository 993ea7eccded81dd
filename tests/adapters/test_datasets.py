"""Calibration data on disk and from Python: in order, in slices, and refused by name when odd."""

from __future__ import annotations

import io
import os
import random
import sys
import tempfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2  # noqa: TID253 - the pictures are made with it
import numpy as np
import numpy.typing as npt
import pytest

from edgecal.adapters.array_files import ArrayFile
from edgecal.adapters.datasets import open_dataset
from edgecal.adapters.generated import Generated
from edgecal.adapters.picture_samples import Images
from edgecal.adapters.pictures import PictureFile
from edgecal.core.graph import TensorInfo
from edgecal.core.preprocess import Preprocess
from edgecal.errors import DatasetError
from tests.users import nobody

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgecal.core.preprocess import Color
    from edgecal.ports import Sample

Array = npt.NDArray[Any]

IMAGE = (TensorInfo(name="image", dtype="float32", shape=(None, 3, 4, 5)),)
VECTOR = (TensorInfo(name="x", dtype="float32", shape=(None, 4)),)
WHOLE = (TensorInfo(name="x", dtype="int64", shape=(None, 4)),)
PAIR = (
    TensorInfo(name="left", dtype="float32", shape=(None, 2)),
    TensorInfo(name="right/in:0", dtype="int32", shape=(None,)),
)


def read(
    spec: object,
    inputs: Sequence[TensorInfo] = VECTOR,
    *,
    preprocess: Preprocess | None = None,
    skip_unreadable: bool = False,
    limit: int | None = None,
) -> list[Sample]:
    return list(
        open_dataset(
            str(spec), inputs, preprocess=preprocess, skip_unreadable=skip_unreadable, limit=limit
        )
    )


def refuse(
    spec: object, inputs: Sequence[TensorInfo] = VECTOR, *, preprocess: Preprocess | None = None
) -> DatasetError:
    with pytest.raises(DatasetError) as caught:
        read(spec, inputs, preprocess=preprocess)
    assert caught.value.remedy
    assert "\n" not in caught.value.what
    return caught.value


def vectors(count: int = 6) -> npt.NDArray[np.float32]:
    return np.arange(count * 4, dtype=np.float32).reshape(count, 4)


def values(samples: Sequence[Sample], name: str = "x") -> Array:
    return np.stack([sample.arrays[name] for sample in samples])


def draw(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(path.suffix, np.full((4, 5, 3), value, np.uint8))
    assert done
    path.write_bytes(data.tobytes())
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for number, name in enumerate(["b/2.png", "a.png", "b/10.jpg", "c/d/e.bmp", "B.PNG"]):
        draw(folder / name, number)
    return folder


class TestFoldersOfImages:
    def test_are_read_in_the_order_of_their_names_however_deep(self, pictures: Path) -> None:
        dataset = open_dataset(str(pictures), IMAGE, preprocess=None)
        assert isinstance(dataset, Images)
        samples = list(dataset)
        assert [one.name for one in samples] == [
            "B.PNG",
            "a.png",
            "b/10.jpg",
            "b/2.png",
            "c/d/e.bmp",
        ]
        assert len(dataset) == 5
        assert samples[1].arrays["image"].max() == 1
        again = list(dataset)
        assert [one.digest for one in again] == [one.digest for one in samples]

    def test_leave_out_hidden_files_hidden_folders_and_what_is_no_picture(
        self, pictures: Path
    ) -> None:
        draw(pictures / ".hidden.png")
        draw(pictures / ".thumbnails" / "t.png")
        (pictures / "labels.csv").write_text("a,1")
        (pictures / "b" / "notes").write_bytes(b"\x00")
        (pictures / "empty folder.png").mkdir()
        assert len(read(pictures, IMAGE)) == 5

    def test_may_be_long_and_read_only_at_the_beginning(self, tmp_path: Path) -> None:
        for number in range(40):
            draw(tmp_path / f"{number:02}.png", number)
        (tmp_path / "30.png").write_bytes(b"never looked at")
        dataset = open_dataset(str(tmp_path), IMAGE, preprocess=None, limit=12)
        assert [one.name for one in dataset] == [f"{number:02}.png" for number in range(12)]
        assert len(dataset) == 12

    @pytest.mark.parametrize(
        "damage",
        [
            lambda file: file.write_bytes(file.read_bytes()[:-10]),
            lambda file: file.write_bytes(b""),
            lambda file: file.write_text("no picture at all"),
            lambda file: (file.unlink(), file.symlink_to("nowhere.png")),
        ],
    )
    def test_stop_at_a_broken_picture_and_name_it_or_count_it_if_told(
        self, pictures: Path, damage: Callable[[Path], object]
    ) -> None:
        broken = pictures / "b" / "2.png"
        damage(broken)
        assert refuse(pictures, IMAGE).where == str(broken)
        dataset = open_dataset(str(pictures), IMAGE, preprocess=None, skip_unreadable=True)
        for _ in range(2):
            assert [one.name for one in dataset] == ["B.PNG", "a.png", "b/10.jpg", "c/d/e.bmp"]
            assert list(dataset.skipped) == ["b/2.png"]

    def test_with_a_limit_skip_a_broken_picture_for_the_next_one(self, pictures: Path) -> None:
        (pictures / "a.png").write_bytes(b"")
        samples = read(pictures, IMAGE, skip_unreadable=True, limit=3)
        assert [one.name for one in samples] == ["B.PNG", "b/10.jpg", "b/2.png"]

    def test_of_the_wrong_size_say_what_was_wanted(self, pictures: Path) -> None:
        error = refuse(pictures, IMAGE, preprocess=Preprocess(resize=(9, 9)))
        assert error.what == "input 'image' wants samples of 3x4x5, found 3x9x9"
        assert error.where == str(pictures / "B.PNG")

    def test_without_any_picture_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("x")
        assert "no image" in refuse(tmp_path, IMAGE).what

    def test_cannot_feed_two_inputs(self, pictures: Path) -> None:
        assert "2 inputs" in refuse(pictures, PAIR).what

    def test_that_nobody_may_list_or_read_are_refused_by_name(self) -> None:
        with tempfile.TemporaryDirectory() as name:  # a folder that another user can reach
            base = Path(name)
            base.chmod(0o755)
            locked, closed = base / "locked", base / "closed"
            draw(locked / "a.png").chmod(0)
            draw(closed / "sub" / "a.png")
            (closed / "sub").chmod(0)
            with nobody():
                unreadable, unlisted = refuse(locked, IMAGE), refuse(closed, IMAGE)
            (closed / "sub").chmod(0o755)
        assert unreadable.what == "cannot read the image: Permission denied"
        assert unreadable.where == str(locked / "a.png")
        assert unlisted.what == "cannot list the folder: Permission denied"
        assert unlisted.where == str(closed / "sub")

    def test_may_have_names_that_are_no_text(self, tmp_path: Path) -> None:
        draw(tmp_path / "a.png")
        try:
            (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes((tmp_path / "a.png").read_bytes())
        except OSError:
            pytest.skip("this file system takes UTF-8 names only")
        names = [one.name for one in read(tmp_path, IMAGE)]
        assert names == ["a.png", "caf\\xe9.png"]
        assert all(name.encode() for name in names)


def sparse(path: Path, shape: tuple[int, ...]) -> Path:
    """An array file that is large but takes no room on disk."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    path.write_bytes(header.getvalue())
    os.truncate(path, len(header.getvalue()) + 4 * int(np.prod(shape)))
    return path


def npy(path: Path, array: Array) -> Path:
    np.save(path, array)
    return path


def npz(path: Path, **arrays: Array) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


class TestArrays:
    @pytest.mark.parametrize("kind", ["<f4", "<f8", "<f2", ">f4", "<i2", "?"])
    def test_of_any_number_type_become_the_input_s(self, tmp_path: Path, kind: str) -> None:
        given = vectors().astype(kind)
        samples = read(npy(tmp_path / "a.npy", given))
        assert values(samples).dtype == np.float32
        assert np.array_equal(values(samples), given)
        assert [one.name for one in samples] == [str(number) for number in range(6)]

    def test_of_all_inputs_come_by_name(self, tmp_path: Path) -> None:
        arrays: dict[str, Array] = {
            "left": vectors(5)[:, :2],
            "right/in:0": np.arange(5),
            "not needed": np.asarray(["words"], object),
        }
        np.savez_compressed(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
        samples = read(tmp_path / "a.npz", PAIR)
        assert np.array_equal(values(samples, "left"), arrays["left"])
        assert np.array_equal(values(samples, "right/in:0"), arrays["right/in:0"])
        assert values(samples, "right/in:0").dtype == np.int32
        assert samples[0].arrays["right/in:0"].shape == ()

    def test_may_be_used_in_part(self, tmp_path: Path) -> None:
        dataset = open_dataset(
            str(npy(tmp_path / "a.npy", vectors())), VECTOR, preprocess=None, limit=4
        )
        assert len(dataset) == len(list(dataset)) == 4
        assert len(read(tmp_path / "a.npy", limit=99)) == 6

    def test_are_told_apart_by_content(self, tmp_path: Path) -> None:
        first = read(npy(tmp_path / "a.npy", vectors()))
        changed = vectors()
        changed[3, 3] += 1
        second = read(npy(tmp_path / "b.npy", changed))
        same = [a.digest == b.digest for a, b in zip(first, second, strict=True)]
        assert same == [True, True, True, False, True, True]

    def test_larger_than_memory_are_read_sample_by_sample(self, tmp_path: Path) -> None:
        inputs = (TensorInfo(name="x", dtype="float32", shape=(None, 1000, 100)),)
        path = sparse(tmp_path / "big.npy", (100_000, 1000, 100))  # 40 GB
        dataset = iter(open_dataset(str(path), inputs, preprocess=None))
        next(dataset)
        tracemalloc.start()
        try:
            for _ in range(20):
                assert next(dataset).arrays["x"].shape == (1000, 100)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 4_000_000

    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_in_an_archive_are_read_sample_by_sample_too(
        self, tmp_path: Path, save: Callable[..., None]
    ) -> None:
        save(tmp_path / "a.npz", x=np.zeros((400, 50_000), np.float32))  # 80 MB
        inputs = (TensorInfo(name="x", dtype="float32", shape=(None, 50_000)),)
        dataset = iter(open_dataset(str(tmp_path / "a.npz"), inputs, preprocess=None))
        tracemalloc.start()
        try:
            for _ in range(50):
                next(dataset)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 4_000_000

    def test_of_another_shape_are_refused_before_any_is_read(self, tmp_path: Path) -> None:
        inputs = (TensorInfo(name="x", dtype="float32", shape=(None, None, 7)),)
        error = refuse(sparse(tmp_path / "big.npy", (10, 10**5, 10**6)), inputs)
        assert error.what == "input 'x' wants samples of ?x7, found 100000x1000000"
        assert "single numbers" in refuse(npy(tmp_path / "a.npy", np.zeros(3))).what

    @pytest.mark.parametrize(
        ("array", "said"),
        [
            (np.asarray([{}, {}], object), "dtype object"),
            (np.asarray([["a"] * 4] * 2), "dtype <U1"),
            (np.zeros((2, 4), np.complex64), "dtype complex64"),
            (np.zeros(2, [("a", "f4")]), "dtype [('a', '<f4')]"),
            (np.zeros((2, 4), "M8[s]"), "dtype datetime64"),
            (np.asfortranarray(vectors()), "Fortran order"),
            (np.float32(1), "shape ()"),
            (np.zeros((0, 4), np.float32), "no sample"),
        ],
    )
    def test_of_anything_but_rows_of_numbers_are_refused(
        self, tmp_path: Path, array: Array, said: str
    ) -> None:
        error = refuse(npy(tmp_path / "a.npy", array))
        assert said in error.what
        assert error.where.startswith(str(tmp_path / "a.npy"))
        assert ("ascontiguousarray" in error.remedy) == ("Fortran" in error.what)

    @pytest.mark.parametrize(
        "array",
        [
            vectors() / 255,
            np.full((2, 4), np.nan),
            np.full((2, 4), 1e30),
            np.full((2, 4), 2**63, np.uint64),
        ],
    )
    def test_that_do_not_fit_a_whole_number_input_are_refused_rather_than_rounded(
        self, tmp_path: Path, array: Array
    ) -> None:
        assert "wants int64" in refuse(npy(tmp_path / "a.npy", array), WHOLE).what
        assert read(npy(tmp_path / "b.npy", vectors()), WHOLE)[1].arrays["x"].tolist() == [
            4,
            5,
            6,
            7,
        ]

    def test_too_large_for_float32_become_infinite_and_are_counted_later(
        self, tmp_path: Path
    ) -> None:
        assert np.isinf(values(read(npy(tmp_path / "a.npy", np.full((2, 4), 1e300))))).all()

    def test_without_a_needed_name_are_refused_with_the_names_found(self, tmp_path: Path) -> None:
        error = refuse(npz(tmp_path / "a.npz", left=vectors()[:, :2], other=vectors()), PAIR)
        assert (
            error.what
            == "there is no array for input 'right/in:0'; the file holds ['left', 'other']"
        )

    def test_of_different_lengths_are_refused_with_the_lengths(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", **{"left": vectors(6)[:, :2], "right/in:0": np.arange(5)})  # type: ignore[arg-type]
        assert "{'left': 6, 'right/in:0': 5}" in refuse(tmp_path / "a.npz", PAIR).what

    def test_of_one_file_cannot_feed_two_inputs(self, tmp_path: Path) -> None:
        assert "2 inputs" in refuse(npy(tmp_path / "a.npy", vectors()), PAIR).what

    @pytest.mark.parametrize("missing", [1, 16, 100, 150])
    def test_that_were_cut_off_are_refused_at_once(self, tmp_path: Path, missing: int) -> None:
        path = npy(tmp_path / "a.npy", vectors())
        data = path.read_bytes()
        path.write_bytes(data[:-missing])
        with pytest.raises(DatasetError):
            open_dataset(str(path), VECTOR, preprocess=None)
        archive = npz(tmp_path / "a.npz", x=vectors())
        archive.write_bytes(archive.read_bytes()[:-missing])
        assert refuse(archive).where == str(archive)

    @pytest.mark.parametrize("name", ["a.npy", "a.npz"])
    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"no array" * 100])
    def test_that_are_none_are_refused(self, tmp_path: Path, name: str, content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        assert refuse(tmp_path / name).where == str(tmp_path / name)

    @pytest.mark.parametrize("name", ["a.npy", "a.npz"])
    def test_that_are_not_there_are_refused(self, tmp_path: Path, name: str) -> None:
        assert "No such file" in refuse(tmp_path / name).what

    def test_damaged_in_any_way_are_refused_or_read_and_nothing_else(self, tmp_path: Path) -> None:
        chance = random.Random(7)
        np.savez_compressed(tmp_path / "whole.npz", x=vectors(50))
        np.save(tmp_path / "whole.npy", vectors(50))
        refused = 0
        for name, length in (("whole.npz", None), ("whole.npy", 128)):
            data = (tmp_path / name).read_bytes()
            for _ in range(300):
                damaged = bytearray(data)
                for _ in range(chance.choice([1, 3])):
                    damaged[chance.randrange(length or len(data))] = chance.randrange(256)
                path = tmp_path / f"damaged{Path(name).suffix}"
                path.write_bytes(damaged)
                try:
                    read(path)
                except DatasetError:
                    refused += 1
        assert refused > 300

    def test_in_archives_of_other_kinds_are_refused(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("x.npy", b"words, not numbers")
        assert "no NumPy array" in refuse(tmp_path / "a.npz").what
        data = bytearray(npz(tmp_path / "b.npz", x=vectors()).read_bytes())
        for start in (data.index(b"PK\x01\x02") + 8, 6):
            data[start] |= 1  # encrypted
        (tmp_path / "b.npz").write_bytes(data)
        assert "encrypted" in refuse(tmp_path / "b.npz").what


MODULE = """
import numpy as np

closed = []

def arrays():
    try:
        for number in range(6):
            yield np.full(4, number, np.float64)
    finally:
        closed.append(True)

def dicts():
    return [{"left": [1, 2], "right/in:0": 3, "more": None}, {"left": (4.0, 5.0), "right/in:0": 6}]

def tuples():
    yield [1.0, 2.0, 3.0, 4.0]

def forever():
    while True:
        yield np.zeros(4, np.float32)

def breaks():
    yield np.zeros(4)
    raise KeyError("photo 17")

def breaks_at_once():
    raise OSError("no such camera")

def needs(argument):
    return argument

def ragged():
    yield [[1.0, 2.0], [3.0]]

def words():
    yield "four words and more"

def batched():
    yield [[1, 2, 3, 4]]

def quits():
    yield [1, 2, 3, 4]
    raise SystemExit(7)

def wrong():
    yield np.zeros(5)

def nothing():
    return None

def empty():
    return []

constant = 5
"""


@pytest.fixture
def generators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working directory, under a name that no other test imports."""
    name = f"generators_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    (tmp_path / "broken_module.py").write_text("def f(:\n")
    (tmp_path / "raising_module.py").write_text("import numpy\n1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return name


class TestGenerators:
    def test_may_yield_arrays(self, generators: str) -> None:
        dataset = open_dataset(f"{generators}:arrays", VECTOR, preprocess=None)
        assert isinstance(dataset, Generated)
        assert len(dataset) == 0
        samples = list(dataset)
        assert np.array_equal(values(samples)[:, 0], range(6))
        assert [one.name for one in samples] == ["0", "1", "2", "3", "4", "5"]

    def test_may_yield_lists(self, generators: str) -> None:
        assert read(f"{generators}:tuples")[0].arrays["x"].tolist() == [1, 2, 3, 4]

    def test_may_return_dicts_by_input_name(self, generators: str) -> None:
        samples = read(f"{generators}:dicts", PAIR)
        assert values(samples, "left").tolist() == [[1, 2], [4, 5]]
        assert values(samples, "right/in:0").tolist() == [3, 6]

    def test_without_an_end_need_a_limit_and_are_asked_for_no_more(self, generators: str) -> None:
        assert len(read(f"{generators}:forever", limit=7)) == 7
        assert len(read(f"{generators}:arrays", limit=3)) == 3
        assert sys.modules[generators].closed == [True]

    @pytest.mark.parametrize(
        ("function", "said"),
        [
            ("breaks", "the generator raised KeyError: 'photo 17'"),
            ("breaks_at_once", "the generator raised OSError: no such camera"),
            ("needs", "missing 1 required positional argument"),
            ("constant", "expected a function, found int"),
            ("absent", "no attribute 'absent'"),
            ("ragged", "the sample is no array"),
            ("words", "input 'x' wants numbers, found an array of <U19"),
            ("batched", "wants samples of 4, found 1x4"),
            ("quits", "the generator raised SystemExit: 7"),
            ("wrong", "wants samples of 4, found 5"),
            ("nothing", "returned NoneType, not samples"),
            ("empty", "the function gave no sample"),
        ],
    )
    def test_that_go_wrong_say_how(self, generators: str, function: str, said: str) -> None:
        error = refuse(f"{generators}:{function}")
        assert said in error.what
        assert error.where.startswith(f"{generators}:{function}")

    def test_that_raise_name_the_line(self, generators: str) -> None:
        line = MODULE.splitlines().index('    raise KeyError("photo 17")') + 1
        assert f"{generators}.py:{line}" in refuse(f"{generators}:breaks").what

    def test_that_never_ran_name_no_line_of_ours(self, generators: str) -> None:
        assert ".py" not in refuse(f"{generators}:needs").what

    def test_that_yield_batches_are_told_to_leave_the_batch_out(self, generators: str) -> None:
        assert "leave the batch axis out" in refuse(f"{generators}:batched").remedy

    def test_whose_module_has_a_mistake_are_told_to_correct_it(self, generators: str) -> None:
        assert generators
        assert refuse("broken_module:f").remedy == "correct the module"

    def test_for_two_inputs_must_name_them(self, generators: str) -> None:
        assert "no array for input 'left'" not in refuse(f"{generators}:arrays", PAIR).what
        assert "no array for input 'right/in:0'" in refuse(f"{generators}:arrays", PAIR).what

    @pytest.mark.parametrize(
        ("module", "said"),
        [
            ("no_such_module_here", "No module named 'no_such_module_here'"),
            ("broken_module", "invalid syntax"),
            ("raising_module", "ZeroDivisionError"),
        ],
    )
    def test_of_modules_that_cannot_be_imported_say_why(
        self, generators: str, module: str, said: str
    ) -> None:
        assert generators
        assert said in refuse(f"{module}:samples").what

    def test_do_not_hide_an_interrupt(self, tmp_path: Path, generators: str) -> None:
        assert generators
        (tmp_path / "interrupted.py").write_text("def f():\n    raise KeyboardInterrupt\n")
        with pytest.raises(KeyboardInterrupt):
            read("interrupted:f")


@pytest.mark.parametrize(
    "spec", ["nowhere", "nowhere/deep", "a:b:c", "pack age:function", ":f", "m:", "", "/nowhere:x"]
)
def test_what_names_nothing_is_refused(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if not spec:
        assert "no image" in refuse(spec).what  # an empty path is the working directory
        return
    assert refuse(spec).what == "there is no such file or folder"


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("a.png", "a .txt file that names it"), ("a.zip", "pack it as a .tar"), ("notes.md", ".csv")],
)
def test_what_is_of_no_known_kind_is_refused_with_a_way_out(
    tmp_path: Path, name: str, remedy: str
) -> None:
    (tmp_path / name).write_bytes(b"PK")
    error = refuse(tmp_path / name, IMAGE)
    assert "expected a folder" in error.what
    assert remedy in error.remedy


def test_each_kind_says_what_it_is(pictures: Path, tmp_path: Path) -> None:
    folder = open_dataset(str(pictures), IMAGE, preprocess=None)
    arrays = open_dataset(str(npy(tmp_path / "a.npy", vectors())), VECTOR, preprocess=None)
    assert isinstance(arrays, ArrayFile)
    assert (folder.kind, arrays.kind) == ("images", "arrays")
    assert folder.preprocess == Preprocess()
    assert arrays.preprocess is None


def jpeg(image: Array, quality: int) -> bytes:
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return data.tobytes()


def scene(seed: int) -> Array:
    """Something with large and small parts, as photographs have them."""
    chance = np.random.default_rng(seed)
    whole = np.full((120, 160, 3), 128.0)
    for size in (4, 8, 16, 32):
        noise = chance.normal(0, 120 / size**0.5, (size, size, 3))
        whole += cv2.resize(noise, (160, 120), interpolation=cv2.INTER_CUBIC)
    clipped: Array = np.clip(whole, 0, 255).astype(np.uint8)
    return clipped


SMALL = Preprocess(resize=(4, 5))


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Eight pictures to calibrate with; of three of them the test set has a form."""
    data, test = tmp_path / "data", tmp_path / "test"
    data.mkdir()
    test.mkdir()
    for number in range(8):
        (data / f"{number}.jpg").write_bytes(jpeg(scene(number), 95))
        (test / f"other{number}.jpg").write_bytes(jpeg(scene(100 + number), 90))
    (test / "copy.jpg").write_bytes((data / "2.jpg").read_bytes())
    (test / "worse.jpg").write_bytes(jpeg(scene(4), 30))
    half = cv2.resize(scene(6), (80, 60), interpolation=cv2.INTER_AREA)
    (test / "half.jpg").write_bytes(jpeg(half, 80))
    (test / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    return tmp_path


def pictures_of(spec: object, preprocess: Preprocess = SMALL, limit: int | None = None) -> Images:
    dataset = open_dataset(str(spec), IMAGE, preprocess=preprocess, limit=limit)
    assert isinstance(dataset, Images)
    return dataset


class TestTestSets:
    @pytest.mark.parametrize("name", ["nowhere", "a.npz", "test/copy.jpg"])
    def test_must_be_pictures(self, scenes: Path, name: str) -> None:
        with pytest.raises(DatasetError, match="expected a test set of pictures"):
            pictures_of(scenes / "data").exclude_like(str(scenes / name))

    def test_without_any_picture_are_refused(self, scenes: Path) -> None:
        (scenes / "empty").mkdir()
        with pytest.raises(DatasetError, match="no image"):
            pictures_of(scenes / "data").exclude_like(str(scenes / "empty"))

    def test_that_hold_every_sample_leave_nothing_to_calibrate_with(self, scenes: Path) -> None:
        dataset = pictures_of(scenes / "data")
        dataset.exclude_like(str(scenes / "data"))
        with pytest.raises(DatasetError, match="every one of 8 samples also stands in the test"):
            list(dataset)

    @pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
    def test_take_away_copies_and_what_was_encoded_or_resized_anew(
        self, scenes: Path, color: Color
    ) -> None:
        inputs = (TensorInfo(name="image", dtype="float32", shape=None),)
        settings = Preprocess(resize=(4, 5), color=color)
        dataset = open_dataset(str(scenes / "data"), inputs, preprocess=settings)
        assert isinstance(dataset, Images)
        dataset.exclude_like(str(scenes / "test"))
        for _ in range(2):
            assert [one.name for one in dataset] == [f"{n}.jpg" for n in (0, 1, 3, 5, 7)]
            assert [(one.sample, one.known, one.same_bytes) for one in dataset.alike] == [
                ("2.jpg", "copy.jpg", True),
                ("4.jpg", "worse.jpg", False),
                ("6.jpg", "half.jpg", False),
            ]
        assert dataset.excluded == ["2.jpg", "4.jpg", "6.jpg"]
        assert sum(dataset.groups.values()) == 5

    def test_with_a_limit_are_replaced_by_the_next_samples(self, scenes: Path) -> None:
        dataset = pictures_of(scenes / "data", limit=4)
        dataset.exclude_like(str(scenes / "test"))
        assert [one.name for one in dataset] == [f"{n}.jpg" for n in (0, 1, 3, 5)]

    def test_say_nothing_of_pictures_that_are_hardly_more_than_black(self, scenes: Path) -> None:
        for folder, value in (("data", 1), ("test", 2)):
            draw(scenes / folder / "night.png", value)
        dataset = pictures_of(scenes / "data")
        dataset.exclude_like(str(scenes / "test"))
        assert "night.png" in [one.name for one in dataset]


def test_samples_are_counted_by_the_folders_in_which_they_differ(tmp_path: Path) -> None:
    for number in range(6):
        draw(
            tmp_path
            / "cam"
            / ("night" if number < 4 else "day")
            / f"{number % 2}"
            / f"{number}.png"
        )
    dataset = pictures_of(tmp_path, Preprocess())
    assert dataset.groups == {}
    list(dataset)
    assert dataset.groups == {"cam/night": 4, "cam/day": 2}


def test_decoding_ahead_is_bounded_however_slow_the_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        draw(tmp_path / f"{number:02}.png", number)
    started: list[str] = []
    whole = PictureFile.read

    def counted(picture: PictureFile) -> bytes:
        started.append(picture.name)
        return whole(picture)

    monkeypatch.setattr(PictureFile, "read", counted)
    samples = iter(pictures_of(tmp_path, Preprocess()))
    for _ in range(5):
        next(samples)
    assert len(started) <= 5 + 8
    samples.close()  # type: ignore[attr-defined]
    assert len(started) <= 5 + 8
