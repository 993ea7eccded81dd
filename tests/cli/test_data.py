"""What commands do with data before the work: settings in their order, previews, test sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2  # noqa: TID253 - the pictures are made with it
import numpy as np
import pytest

from edgecal.cli.data import DataRequest, chosen_preprocess, open_data
from edgecal.cli.preview import Pictures, findings_of_pass, shares_line
from edgecal.core.findings import Severity
from edgecal.core.graph import TensorInfo
from edgecal.core.preprocess import Preprocess
from edgecal.core.project import Project
from edgecal.errors import DatasetError, InputError

INPUTS = (TensorInfo(name="image", dtype="float32", shape=(None, 3, 32, 32)),)


def scene(seed: int) -> bytes:
    noise = np.random.default_rng(seed).uniform(0, 255, (8, 8, 3))
    image = cv2.resize(noise, (64, 48), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    done, data = cv2.imencode(".png", image)
    assert done
    return data.tobytes()


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for number in range(10):
        file = tmp_path / "photos" / ("night" if number == 9 else "day") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(scene(number))
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "t.png").write_bytes(scene(3))
    return tmp_path


def request(spec: str = "photos", **more: Any) -> DataRequest:  # noqa: ANN401 - its fields
    return DataRequest(spec=spec, preprocess=more.pop("preprocess", None), **more)


def chosen(file: Path | None = None, project: Project | None = None, **flags: object) -> Preprocess:
    settings = chosen_preprocess(file, project or Project(), flags)
    assert settings is not None
    return settings


class TestPreviews:
    @pytest.mark.parametrize("name", ["sheet.jpg", "sheet", "photos/sheet.png", "photos"])
    def test_are_png_files_and_never_among_the_data(self, photos: Path, name: str) -> None:
        before = sorted(photos.rglob("*"))
        with pytest.raises(InputError) as caught:
            open_data(request(preview=Path(name)), INPUTS)
        assert caught.value.where == name
        assert sorted(photos.rglob("*")) == before

    def test_never_replace_a_picture_of_a_list(self, photos: Path) -> None:
        (photos / "list.txt").write_text("photos/day/1.png\n")
        with pytest.raises(InputError):
            open_data(request("list.txt", preview=Path("photos/day/1.png")), INPUTS)
        assert (photos / "photos/day/1.png").read_bytes() == scene(1)

    def test_of_data_that_is_no_pictures_are_refused(self, photos: Path) -> None:
        np.save(photos / "a.npy", np.zeros((2, 3, 32, 32), np.float32))
        with pytest.raises(
            DatasetError, match="--preview is for pictures, and this data holds arr"
        ):
            open_data(request("a.npy", preview=Path("sheet.png")), INPUTS)
        with pytest.raises(DatasetError, match="--exclude-like is for pictures"):
            open_data(request("a.npy", exclude_like="test"), INPUTS)
        assert not (photos / "sheet.png").exists()

    def test_are_written_before_the_work(self, photos: Path) -> None:
        source, _ = open_data(request(preview=Path("sheet.png")), INPUTS)
        image = cv2.imread(str(photos / "sheet.png"))
        assert image is not None
        assert image.shape[1] > 1000
        assert len(list(source)) == 10


class TestFindings:
    def test_name_what_the_test_set_has_too(self, photos: Path) -> None:
        source, _ = open_data(request(exclude_like="test"), INPUTS)
        assert len(list(source)) == 9
        finding = findings_of_pass(source, spec="photos", test_set=str(photos / "test"))[0]
        assert (finding.rule, finding.subject) == ("like-test-set", str(photos / "test"))
        assert "day/3.png (the bytes of t.png)" in finding.message

    @pytest.mark.usefixtures("photos")
    def test_tell_lopsided_folders(self) -> None:
        source, _ = open_data(request(), INPUTS)
        list(source)
        (finding,) = findings_of_pass(source, spec="photos", test_set=None)
        assert finding.rule == "lopsided-data"
        assert shares_line(source) == "day 9 (90 %), night 1 (10 %)"

    def test_say_nothing_of_arrays(self, photos: Path) -> None:
        np.save(photos / "a.npy", np.zeros((2, 3, 32, 32), np.float32))
        source, findings = open_data(request("a.npy"), INPUTS)
        assert not isinstance(source, Pictures)
        assert (findings, findings_of_pass(source, spec="a.npy", test_set=None)) == ([], [])
        assert shares_line(source) is None

    @pytest.mark.parametrize("spec", ["photos", "list.txt", "photos/**/*.png"])
    def test_say_what_was_assumed_of_pictures_from_any_source(
        self, photos: Path, spec: str
    ) -> None:
        (photos / "list.txt").write_text("photos/day/1.png\n")
        source, findings = open_data(request(spec), INPUTS)
        assert [one.rule for one in findings] == ["preprocess-assumed"]
        assert next(iter(source)).arrays["image"].max() <= 1


class TestSettings:
    @pytest.mark.parametrize(
        "flags", [{"resize": "32x32"}, {"resize": "32x32", "color": "bgr", "dtype": "float32"}]
    )
    def test_that_leave_pixels_as_they_are_without_a_word_are_told(
        self, photos: Path, flags: dict[str, str]
    ) -> None:
        settings = chosen_preprocess(None, Project(), flags)
        _, findings = open_data(request(preprocess=settings), INPUTS)
        (finding,) = findings
        assert (finding.rule, finding.severity) == ("pixels-as-they-are", Severity.WARNING)
        assert "from 0 to 255" in finding.message
        np.save(photos / "a.npy", np.zeros((3, 3, 32, 32), np.float32))
        assert open_data(request("a.npy", preprocess=settings), INPUTS)[1] == []

    @pytest.mark.usefixtures("photos")
    @pytest.mark.parametrize("said", [{"scale": "1"}, {"mean": "0"}, {"preset": "caffe-bgr"}])
    def test_that_say_what_pixels_become_are_taken_by_their_word(
        self, said: dict[str, str]
    ) -> None:
        size = {"resize": "32x32"}
        project = Project(preprocess=chosen_preprocess(None, Project(), said))
        for settings in (
            chosen_preprocess(None, Project(), {**size, **said}),
            chosen_preprocess(None, project, size),
        ):
            assert open_data(request(preprocess=settings), INPUTS)[1] == []

    @pytest.mark.usefixtures("photos")
    def test_for_a_network_of_whole_pixels_need_no_scale(self) -> None:
        inputs = (TensorInfo(name="image", dtype="uint8", shape=(None, 3, 32, 32)),)
        settings = chosen(resize="32x32", dtype="uint8")
        assert open_data(request(preprocess=settings), inputs)[1] == []

    @pytest.mark.usefixtures("photos")
    def test_of_a_preset_take_the_size_of_the_network(self) -> None:
        source, findings = open_data(request(preprocess=chosen(preset="imagenet")), INPUTS)
        assert findings == []
        assert source.preprocess is not None
        assert (source.preprocess.resize, source.preprocess.crop) == ((37, 37), (32, 32))
        assert next(iter(source)).arrays["image"].shape == (3, 32, 32)

    def test_come_one_over_the_other_flags_last(self, tmp_path: Path) -> None:
        file = tmp_path / "net.toml"
        file.write_text('color = "rgb"\nmean = 5\n')
        value = chosen(file, preset="ssd", mean="7,8,9")
        assert (value.preset, value.color, value.mean) == ("ssd", "rgb", (7, 8, 9))
        assert chosen(file, preset="ssd").mean == (5,)

    def test_may_name_a_preset_in_a_file_which_the_command_line_outweighs(
        self, tmp_path: Path
    ) -> None:
        file = tmp_path / "net.toml"
        file.write_text('preset = "ssd"\nscale = 2\n')
        value = chosen(file)
        assert (value.preset, value.mean, value.scale) == ("ssd", (104, 117, 123), (2,))
        value = chosen(file, preset="yolo")
        assert (value.preset, value.mean, value.scale) == ("yolo", (0,), (2,))

    def test_of_the_project_give_way_to_a_preset_or_a_file(self, tmp_path: Path) -> None:
        project = Project(preprocess=Preprocess(mean=(1.0,), fill=7.0))
        assert chosen(None, project, color="bgr").mean == (1,)
        assert chosen(None, project, preset="yolo").fill == 114
        (tmp_path / "net.toml").write_text("scale = 2\n")
        assert chosen(tmp_path / "net.toml", project).mean == (0,)
