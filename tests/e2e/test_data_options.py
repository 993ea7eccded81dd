"""Data in every form through the commands: what is written, what is said, what is fresh later."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import cv2  # noqa: TID253 - the pictures are made with it
import numpy as np
import pytest

from edgecal.adapters.bundle import read_bundle
from edgecal.adapters.sources import find_data
from edgecal.cli import app
from edgecal.core.freshness import judge_data
from tests.networks import conv_net, save

NAMES = [f"{'night' if number % 4 == 0 else 'day'}/{number:02}.jpg" for number in range(20)]


def scene(seed: int, quality: int = 95) -> bytes:
    noise = np.random.default_rng(seed).uniform(0, 255, (8, 8, 3))
    image = cv2.resize(noise, (64, 48), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return data.tobytes()


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save(conv_net(), tmp_path / "net.onnx")
    for number, name in enumerate(NAMES):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(scene(number))
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "t1.jpg").write_bytes(scene(5))
    (tmp_path / "test" / "t2.jpg").write_bytes(scene(9, quality=50))
    (tmp_path / "photos" / "list.txt").write_text("".join(f"{name}\n" for name in NAMES))
    rows = "".join(f"{name},{'dark' if 'night' in name else 'bright'}\n" for name in NAMES)
    (tmp_path / "photos" / "list.csv").write_text(f"path,label\n{rows}")
    with tarfile.open(tmp_path / "photos.tar.gz", "w:gz") as archive:
        for name in NAMES:
            archive.add(tmp_path / "photos" / name, name)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        app.main(list(words))
    captured = capsys.readouterr()
    code = ended.value.code
    assert isinstance(code, int)
    return code, captured.out, captured.err


def calibrate(
    capsys: pytest.CaptureFixture[str], data: str, *more: str
) -> tuple[dict[str, Any], str]:
    words = ("calibrate", "net.onnx", "--data", data, "--tensorrt", "8.5", "-o", "n.edgecal")
    code, out, err = run(capsys, *words, "--preset", "yolo", *more, "--json")
    assert code == 0, err
    return json.loads(out), err


def rules(data: str, *, deep: bool = True) -> list[str]:
    manifest = read_bundle(Path("n.edgecal")).manifest
    return [one.rule for one in judge_data(manifest, find_data(data, manifest, deep=deep))]


@pytest.mark.usefixtures("desk")
def test_every_form_of_the_same_pictures_gives_the_same_data(
    capsys: pytest.CaptureFixture[str],
) -> None:
    digests = set()
    for data in ("photos/list.txt", "photos/list.csv", "photos.tar.gz"):
        calibrate(capsys, data)
        manifest = read_bundle(Path("n.edgecal")).manifest
        digests.add(manifest.data.digest)
        assert manifest.data.preprocess is not None
        assert manifest.data.preprocess["preset"] == "yolo"
        labels = {"bright": 15, "dark": 5} if data.endswith(".csv") else {"day": 15, "night": 5}
        assert dict(manifest.data.groups) == labels
        assert rules(data) == rules(data, deep=False) == []
    assert len(digests) == 1
    # a folder is sorted by name, so it is the same pictures in another order
    calibrate(capsys, "photos")
    folder = read_bundle(Path("n.edgecal")).manifest.data.digest
    calibrate(capsys, "photos/**/*.jpg")
    assert read_bundle(Path("n.edgecal")).manifest.data.digest == folder


def test_what_the_test_set_has_is_left_out_named_and_not_missed_later(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for data in ("photos", "photos.tar.gz"):
        document, err = calibrate(capsys, data, "--exclude-like", "test")
        assert document["excluded"] == [NAMES[5], NAMES[9]]
        assert document["samples"] == 18
        assert "like-test-set" in err
        assert "like-test-set" in [one["rule"] for one in document["findings"]]
        manifest = read_bundle(Path("n.edgecal")).manifest
        assert manifest.data.excluded == (NAMES[5], NAMES[9])
        assert rules(data) == rules(data, deep=False) == []
    (desk / "photos" / NAMES[1]).write_bytes(scene(77))
    assert rules("photos", deep=False) == ["stale-data"]


def test_a_preview_is_drawn_and_told(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, err = calibrate(capsys, "photos", "--preview", "sheet.png", "-v")
    assert "preview: sheet.png" in err
    assert "shares: day 15 (75 %), night 5 (25 %)" in err
    assert cv2.imread(str(desk / "sheet.png")) is not None
    code, _, err = run(
        capsys, "batches", "net.onnx", "--data", "photos.tar.gz", "-o", "out", "--preset", "yolo",
        "--preview", "sheet2.png", "--exclude-like", "test",
    )  # fmt: skip
    assert (code, "like-test-set" in err) == (0, True)
    assert (desk / "sheet2.png").exists()


def test_a_batch_file_that_is_missing_is_told(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("batches", "net.onnx", "--data", "photos", "-o", "out", "--batch-size", "5")
    assert run(capsys, *words, "--preset", "yolo")[0] == 0
    words = ("calibrate", "net.onnx", "--data", "out", "--tensorrt", "8.5", "-o", "n.edgecal")
    code, out, err = run(capsys, *words, "--json")
    assert (code, "batch-files-missing" in err) == (0, False)
    (desk / "out" / "batch1.batch").unlink()
    _, later, err = run(capsys, *words, "--json")
    assert json.loads(out)["samples"] - json.loads(later)["samples"] == 5
    assert "1 batch file is missing between numbers 0 and 3: 1" in err
    assert "batch-files-missing" in [one["rule"] for one in json.loads(later)["findings"]]


@pytest.mark.usefixtures("desk")
def test_an_unknown_preset_ends_with_two_and_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("calibrate", "net.onnx", "--data", "photos", "--tensorrt", "8.5", "-o", "n.edgecal")
    code, _, err = run(capsys, *words, "--preset", "resnet")
    assert code == 2
    assert "one of imagenet, yolo, ssd, caffe-bgr" in err
    assert not Path("n.edgecal").exists()
