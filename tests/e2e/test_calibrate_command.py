"""`edgecal calibrate` as a user meets it: documents, exit codes, interrupts, and what is left."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2  # noqa: TID253 - the pictures are made with it
import numpy as np
import onnx
import pytest

from edgecal.adapters.bundle import read_bundle
from edgecal.cli import app
from edgecal.core.cache import parse_cache
from tests.networks import conv_net, floats, save, token_net, vector_net
from tests.users import nobody

if TYPE_CHECKING:
    from edgecal.core.manifest import Manifest

CHECKOUT = Path(__file__).resolve().parents[2]

GENERATORS = """
import pathlib
import time
import numpy as np

def few():
    for number in range(20):
        yield np.full(4, number, np.float32)

def breaks():
    yield np.ones(4, np.float32)
    raise ValueError("sensor [17] is off")

def slow():
    number = 0
    while True:
        number += 1
        time.sleep(0.02)
        if number == 9:
            pathlib.Path("busy").touch()
        yield np.full(4, number, np.float32)
"""


@dataclass
class Answer:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found


@dataclass
class Desk:
    """A working directory with networks and data, and the command run in it."""

    folder: Path
    capture: pytest.CaptureFixture[str]

    def calibrate(self, *words: str) -> Answer:
        """Run the command in this process."""
        self.capture.readouterr()
        code: object = 0
        try:
            app.main(["calibrate", *words])
        except SystemExit as end:
            code = end.code
        said = self.capture.readouterr()
        assert "Traceback" not in said.out + said.err
        assert "\x1b" not in said.out + said.err
        return Answer(code if isinstance(code, int) else 0, said.out, said.err)

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """Run the command in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "edgecal", "calibrate", *words],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, process: subprocess.Popen[str], timeout_s: float = 60) -> Answer:
        out, err = process.communicate(timeout=timeout_s)
        assert "Traceback" not in out + err
        return Answer(process.returncode, out, err)

    def refused(self, *words: str) -> tuple[str, str]:
        """Run it twice, for people and for scripts; both must be told the same."""
        human = self.calibrate(*words)
        assert human.code == 2
        assert human.out == ""
        script = self.calibrate(*words, "--json")
        assert script.code == 2
        document = script.document
        assert document["schema"] == "edgecal.error/1"
        assert document["exit_code"] == 2
        error = document["error"]
        assert set(error) == {"code", "what", "where", "remedy"}
        assert script.err == human.err
        head, remedy = human.err.removesuffix("\n").rsplit("\n  try: ", 1)
        where = f"{error['where']}: " if error["where"] else ""
        assert head == f"error {where}{error['what']}"
        assert remedy == error["remedy"]
        return error["what"], error["where"]

    def manifest(self, name: str = "net.edgecal") -> Manifest:
        return read_bundle(self.folder / name).manifest

    def bundles(self) -> list[str]:
        return sorted(one.name for one in self.folder.iterdir() if "edgecal" in one.name)


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Desk:
    save(vector_net(), tmp_path / "net.onnx")
    save(vector_net(batch=4), tmp_path / "fixed.onnx")
    save(conv_net(), tmp_path / "conv.onnx")
    save(token_net(), tmp_path / "tokens.onnx")
    np.save(tmp_path / "data.npy", floats(40, 4))
    (tmp_path / "gen.py").write_text(GENERATORS)
    for number in range(20):
        image = np.random.default_rng(number).integers(0, 256, (10, 12, 3), np.uint8)
        _, data = cv2.imencode(".png", image)
        file = tmp_path / "photos" / f"{number:02}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data.tobytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "gen", raising=False)
    return Desk(tmp_path, capsys)


GOOD = ("net.onnx", "--data", "data.npy", "-o", "net.edgecal")


class TestASuccess:
    def test_is_a_bundle_and_a_document(self, desk: Desk) -> None:
        answer = desk.calibrate(*GOOD, "--tensorrt", "8.5", "--json")
        assert (answer.code, answer.err.count("error")) == (0, 0)
        document = answer.document
        assert document["schema"] == "edgecal.calibrate/1"
        assert document["bundles"] == ["net.edgecal"]
        assert document["algorithm"] in {"entropy2", "minmax", "percentile", "mse"}
        assert (document["samples"], document["tensors"], document["skipped"]) == (40, 3, [])
        assert document["seconds"] > 0
        (finding,) = document["findings"]
        assert set(finding) == {"rule", "severity", "subject", "message", "remedy"}
        manifest = desk.manifest()
        assert (manifest.name, str(manifest.tensorrt)) == ("net", "8.5.2")
        assert manifest.data.source == "data.npy"
        assert manifest.model.source.path == "net.onnx"
        assert (desk.folder / "net.edgecal" / "model.onnx").read_bytes() == (
            desk.folder / "net.onnx"
        ).read_bytes()

    def test_is_told_on_stdout_and_its_story_on_stderr(self, desk: Desk) -> None:
        answer = desk.calibrate(*GOOD, "--tensorrt", "8.5")
        assert answer.code == 0
        assert answer.out.startswith("net.edgecal for TensorRT 8.5.2\n")
        assert "3 of 3 activations" in answer.out
        assert "40 (7 held out to judge by)" in answer.out
        quiet = desk.calibrate(*GOOD, "--tensorrt", "8.5", "--quiet")
        assert quiet.err == ""
        assert quiet.out.startswith("net.edgecal for TensorRT 8.5.2\n")

    def test_of_several_tensorrts_is_one_bundle_each(self, desk: Desk) -> None:
        answer = desk.calibrate(*GOOD, "--tensorrt", "8.5", "--tensorrt", "10.3", "--json")
        assert answer.document["bundles"] == ["net-8.5.edgecal", "net-10.3.edgecal"]
        assert desk.bundles() == ["net-10.3.edgecal", "net-8.5.edgecal"]
        for name, header in (("8.5", b"TRT-8502-"), ("10.3", b"TRT-100300-")):
            bundle = desk.folder / f"net-{name}.edgecal"
            assert (bundle / "calibration.cache").read_bytes().startswith(header)
            assert desk.manifest(bundle.name).name == f"net-{name}"

    def test_replaces_the_bundle_before(self, desk: Desk) -> None:
        counters = []
        for _ in range(3):
            assert desk.calibrate(*GOOD, "--tensorrt", "8.5").code == 0
            counters.append(desk.manifest().counter)
        assert counters == sorted(set(counters))
        assert desk.bundles() == ["net.edgecal"]

    def test_may_be_named_by_jetpack(self, desk: Desk) -> None:
        assert desk.calibrate(*GOOD, "--jetpack", "5.1.2").code == 0
        assert desk.manifest().tensorrt.major_minor == "8.5"

    def test_has_the_same_cache_for_any_number_of_workers(self, desk: Desk) -> None:
        caches = set()
        for workers in ("1", "3"):
            assert desk.calibrate(*GOOD, "--tensorrt", "8.5", "--workers", workers).code == 0
            caches.add((desk.folder / "net.edgecal" / "calibration.cache").read_bytes())
        assert len(caches) == 1

    def test_of_a_generator_is_as_good(self, desk: Desk) -> None:
        answer = desk.calibrate(
            "net.onnx", "--data", "gen:few", "-o", "g.edgecal", "--tensorrt", "8.5", "--json"
        )
        assert answer.document["samples"] == 20
        assert desk.manifest("g.edgecal").data.kind == "generator"

    def test_of_a_fixed_batch_says_what_was_dropped(self, desk: Desk) -> None:
        answer = desk.calibrate(
            "fixed.onnx",
            "--data",
            "data.npy",
            "--samples",
            "10",
            "-o",
            "f.edgecal",
            "--tensorrt",
            "8.5",
        )
        assert "10, 2 of an incomplete batch dropped" in answer.out

    def test_with_weights_in_another_file_has_that_file(self, desk: Desk) -> None:
        proto = vector_net()
        weights = proto.graph.initializer[0]
        (desk.folder / "w.bin").write_bytes(weights.raw_data)
        weights.ClearField("raw_data")
        weights.data_location = onnx.TensorProto.EXTERNAL
        weights.external_data.add(key="location", value="./w.bin")
        save(proto, desk.folder / "outside.onnx")
        answer = desk.calibrate(
            "outside.onnx", "--data", "data.npy", "-o", "o.edgecal", "--tensorrt", "8.5"
        )
        assert answer.code == 0
        assert desk.manifest("o.edgecal").model.external_data == ("w.bin",)
        assert (desk.folder / "o.edgecal" / "w.bin").is_file()


class TestFromABundle:
    """`--from`: another TensorRT or algorithm without data."""

    def parent(self, desk: Desk) -> None:
        words = ("conv.onnx", "--data", "photos", "-o", "p.edgecal", "--tensorrt", "8.5")
        assert desk.calibrate(*words, "--algorithm", "minmax", "--resize", "8x8").code == 0

    def test_needs_neither_model_nor_data(self, desk: Desk) -> None:
        self.parent(desk)
        shutil.rmtree(desk.folder / "photos")
        (desk.folder / "conv.onnx").unlink()
        words = (
            "--from",
            "p.edgecal",
            "--tensorrt",
            "8.5",
            "--tensorrt",
            "10.3",
            "-o",
            "d.edgecal",
        )
        answer = desk.calibrate(*words, "--algorithm", "mse", "--json")
        assert answer.code == 0
        assert answer.document["bundles"] == ["d-8.5.edgecal", "d-10.3.edgecal"]
        assert answer.document["algorithm"] == "mse"
        assert answer.document["samples"] == 20
        parent = read_bundle(desk.folder / "p.edgecal")
        assert answer.document["derived_from"] == parent.manifest_digest
        for name in ("d-8.5.edgecal", "d-10.3.edgecal"):
            manifest = desk.manifest(name)
            assert manifest.derived_from == parent.manifest_digest
            assert manifest.model == parent.manifest.model
            assert manifest.data == parent.manifest.data
        assert str(desk.manifest("d-10.3.edgecal").tensorrt) == "10.3.0"

    def test_is_for_the_same_tensorrt_if_none_is_named(self, desk: Desk) -> None:
        self.parent(desk)
        (desk.folder / "edgecal.toml").write_text(
            "[calibrate]\nmodel = 'gone.onnx'\ndata = 'gone'\ntensorrt = '10.3'\n"
        )
        answer = desk.calibrate("--from", "p.edgecal", "-o", "d.edgecal", "--algorithm", "entropy2")
        assert answer.code == 0
        assert answer.out.startswith("d.edgecal for TensorRT 8.5.2\n")
        assert "derived    from p without a pass" in answer.out
        assert str(desk.manifest("d.edgecal").tensorrt) == "8.5.2"

    def test_is_by_the_same_algorithm_if_none_is_named(self, desk: Desk) -> None:
        self.parent(desk)
        (desk.folder / "edgecal.toml").write_text("[calibrate]\nalgorithm = 'mse'\n")
        words = ("--from", "p.edgecal", "--algorithm", "percentile", "--percentile", "97.5")
        assert desk.calibrate(*words, "-o", "q.edgecal").code == 0
        whys = []
        for before, after in (("q", "r"), ("r", "s")):
            answer = desk.calibrate("--from", f"{before}.edgecal", "-o", f"{after}.edgecal")
            assert answer.code == 0
            old, new = (desk.manifest(f"{one}.edgecal").calibration for one in (before, after))
            assert (new.algorithm, new.parameters) == (old.algorithm, old.parameters)
            whys.append(new.chosen_by)
        assert whys == ["that of the bundle it was derived from, given"] * 2
        caches = [(desk.folder / f"{one}.edgecal" / "calibration.cache") for one in "pqs"]
        assert caches[0].read_bytes() != caches[1].read_bytes() == caches[2].read_bytes()

    def test_may_be_by_auto_if_that_is_named(self, desk: Desk) -> None:
        self.parent(desk)
        answer = desk.calibrate("--from", "p.edgecal", "-o", "d.edgecal", "--algorithm", "auto")
        assert answer.code == 0
        assert "(auto: " in answer.out

    def test_may_replace_the_bundle_it_comes_from(self, desk: Desk) -> None:
        self.parent(desk)
        before = read_bundle(desk.folder / "p.edgecal")
        assert desk.calibrate("--from", "p.edgecal", "-o", "p.edgecal").code == 0
        after = desk.manifest("p.edgecal")
        assert after.derived_from == before.manifest_digest
        assert after.counter > before.manifest.counter
        assert desk.bundles() == ["p.edgecal"]

    def test_of_a_network_with_weights_in_another_file_takes_that_along(self, desk: Desk) -> None:
        proto = vector_net()
        weights = proto.graph.initializer[0]
        (desk.folder / "w.bin").write_bytes(weights.raw_data)
        weights.ClearField("raw_data")
        weights.data_location = onnx.TensorProto.EXTERNAL
        weights.external_data.add(key="location", value="w.bin")
        save(proto, desk.folder / "net.onnx")
        assert desk.calibrate(*GOOD, "--tensorrt", "8.5").code == 0
        (desk.folder / "w.bin").unlink()
        assert desk.calibrate("--from", "net.edgecal", "-o", "d.edgecal").code == 0
        assert (desk.folder / "d.edgecal" / "w.bin").is_file()
        assert desk.manifest("d.edgecal").model == desk.manifest().model

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("conv.onnx",), "; MODEL belongs to a pass over data"),
            (("--data", "photos", "--samples", "3"), "; --data, --samples belong to a pass"),
            (("--resize", "8x8"), "; --resize belongs to a pass"),
            (
                ("--skip-unreadable", "--batch-size", "2"),
                "; --batch-size, --skip-unreadable belong",
            ),
        ],
    )
    def test_takes_no_word_about_data(self, desk: Desk, words: tuple[str, ...], said: str) -> None:
        what, where = desk.refused("--from", "gone.edgecal", "-o", "d.edgecal", *words)
        assert said in what
        assert where == "calibrate"

    def test_without_statistics_is_refused(self, desk: Desk) -> None:
        self.parent(desk)
        file = desk.folder / "p.edgecal" / "manifest.json"
        document = json.loads(file.read_bytes())
        del document["files"]["histograms.npz"]
        file.write_text(json.dumps(document))
        (desk.folder / "p.edgecal" / "histograms.npz").unlink()
        what, where = desk.refused("--from", "p.edgecal", "-o", "d.edgecal")
        assert what == "the bundle has no histograms.npz, so nothing can be derived from it"
        assert where == "p.edgecal"
        assert desk.bundles() == ["p.edgecal"]

    @pytest.mark.parametrize("name", ["gone.edgecal", "photos", "net.onnx"])
    def test_that_is_none_is_refused(self, desk: Desk, name: str) -> None:
        what, where = desk.refused("--from", name, "-o", "d.edgecal")
        assert "this is no bundle" in what
        assert where == name


class TestGivenRanges:
    """`--ranges FILE`."""

    def cache(self, desk: Desk, name: str = "net.edgecal") -> dict[str, float]:
        return parse_cache((desk.folder / name / "calibration.cache").read_bytes()).scales()

    def test_of_dynamic_range_text_win(self, desk: Desk) -> None:
        (desk.folder / "r.txt").write_text("x: 2.54\nmm: 127\n")
        words = (*GOOD, "--tensorrt", "8.5", "--ranges", "r.txt")
        answer = desk.calibrate(*words, "--json")
        assert answer.code == 0
        found = self.cache(desk)
        assert (found["x"], found["mm"]) == (np.float32(0.02), 1.0)
        assert [one["name"] for one in answer.document["overrides"]] == ["x", "mm"]
        assert all(one["source"] == "r.txt" for one in answer.document["overrides"])
        assert answer.document["derived_from"] is None
        assert desk.manifest().calibration.overrides[1].given == "3f800000"
        assert "ranges     2 given" in desk.calibrate(*words).out

    @pytest.mark.parametrize("word", ["json", "csv", "ranges", "trt", "ort-json", "nvdla"])
    def test_of_any_format_that_convert_writes_win(self, desk: Desk, word: str) -> None:
        clipped = ("--algorithm", "percentile", "--percentile", "50")
        assert desk.calibrate(*GOOD, "--tensorrt", "8.5", *clipped).code == 0
        wanted = self.cache(desk)
        with pytest.raises(SystemExit) as end:
            app.main(["cache", "convert", "net.edgecal", "--to", word, "-o", "ranges.file"])
        assert end.value.code in {0, None}
        words = ("net.onnx", "--data", "data.npy", "-o", "r.edgecal", "--tensorrt", "8.5")
        assert desk.calibrate(*words, "--algorithm", "minmax").code == 0
        assert self.cache(desk, "r.edgecal") != wanted
        given = ("--algorithm", "minmax", "--ranges", "ranges.file")
        assert desk.calibrate(*words, *given).code == 0
        assert self.cache(desk, "r.edgecal") == wanted

    def test_of_a_bundle_win_and_may_be_derived_with(self, desk: Desk) -> None:
        clipped = ("--algorithm", "percentile", "--percentile", "50")
        assert desk.calibrate(*GOOD, "--tensorrt", "8.5", *clipped).code == 0
        words = ("--from", "net.edgecal", "--algorithm", "minmax", "-o", "d.edgecal")
        assert desk.calibrate(*words).code == 0
        assert self.cache(desk, "d.edgecal") != self.cache(desk)
        assert desk.calibrate(*words, "--ranges", "net.edgecal").code == 0
        assert self.cache(desk, "d.edgecal") == self.cache(desk)

    @pytest.mark.parametrize(
        ("text", "what", "where"),
        [
            ("y: 1.0\nmn: 2.0\n", "'mn', but no tensor of the network", "r.txt"),
            ("x: 0.0\n", "'x' is not one TensorRT can use", "r.txt"),
            ("nothing like it", "the file is of no format known here", "r.txt"),
        ],
    )
    def test_that_make_no_sense_are_refused_before_the_data_is_read(
        self, desk: Desk, text: str, what: str, where: str
    ) -> None:
        (desk.folder / "r.txt").write_text(text)
        words = ("net.onnx", "--data", "gen:breaks", "-o", "net.edgecal", "--tensorrt", "8.5")
        said = desk.refused(*words, "--ranges", "r.txt")
        assert what in said[0]
        assert said[1].startswith(where)
        assert desk.bundles() == []

    def test_in_a_file_of_no_known_format_are_told_the_way_through_convert(
        self, desk: Desk
    ) -> None:
        (desk.folder / "r.txt").write_text("nothing like it")
        answer = desk.calibrate(*GOOD, "--tensorrt", "8.5", "--ranges", "r.txt", "--json")
        remedy = answer.document["error"]["remedy"]
        assert remedy.startswith("write a line NAME:RANGE for each tensor")
        assert "edgecal cache convert r.txt --to json -o ranges.json --from FORMAT" in remedy

    def test_may_stand_in_the_project_file_and_yield_to_a_file(self, desk: Desk) -> None:
        settings = desk.folder / "edgecal.toml"
        settings.write_text('[calibrate.ranges]\n"[xy]" = 127\nmm = 254.0\n')
        (desk.folder / "r.txt").write_text("mm: 508\n")
        words = (*GOOD, "--tensorrt", "8.5")
        assert desk.calibrate(*words).code == 0
        assert self.cache(desk) == {"x": 1.0, "mm": 2.0, "y": 1.0}
        sources = {one.source for one in desk.manifest().calibration.overrides}
        assert sources == {f"{settings}: [calibrate.ranges]"}
        assert desk.calibrate(*words, "--ranges", "r.txt").code == 0
        assert self.cache(desk) == {"x": 1.0, "mm": 4.0, "y": 1.0}

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("[calibrate.ranges]\nmn = 1.0\n", "no tensor of the network"),
            ("[calibrate.ranges]\nmm = 'wide'\n", "'mm' wants the largest magnitude"),
            ("[calibrate.ranges]\nblock.mm = 1.0\n", "'block' wants the largest magnitude"),
            ("[calibrate]\nranges = 3\n", "ranges wants a table, found 3"),
        ],
    )
    def test_in_the_project_file_with_a_mistake_are_refused(
        self, desk: Desk, text: str, said: str
    ) -> None:
        (desk.folder / "edgecal.toml").write_text(text)
        what, where = desk.refused(*GOOD, "--tensorrt", "8.5")
        assert said in what
        assert where.startswith(str(desk.folder / "edgecal.toml"))

    def test_in_a_network_are_refused(self, desk: Desk) -> None:
        assert desk.calibrate(*GOOD, "--tensorrt", "8.5").code == 0
        with pytest.raises(SystemExit):
            app.main(["cache", "convert", "net.edgecal", "--to", "qdq", "-o", "qdq.onnx"])
        what, where = desk.refused(*GOOD, "--tensorrt", "8.5", "--ranges", "qdq.onnx")
        assert (what, where) == ("expected a table of ranges, found a network", "qdq.onnx")


class TestPictures:
    def run(self, desk: Desk, *words: str) -> Answer:
        return desk.calibrate(
            *("conv.onnx", "--data", "photos", "-o", "net.edgecal", "--tensorrt", "8.5"), *words
        )

    def test_without_settings_are_prepared_by_guess_and_that_is_a_warning(self, desk: Desk) -> None:
        answer = self.run(desk)
        assert answer.code == 0
        assert "warning preprocess-assumed (image)" in answer.err
        settings = desk.manifest().data.preprocess
        assert settings is not None
        assert settings["resize"] == [8, 8]

    def test_are_prepared_as_a_file_says_and_flags_win(self, desk: Desk) -> None:
        (desk.folder / "p.toml").write_text(
            'resize = [9, 9]\ncrop = [8, 8]\nmean = [1, 2, 3]\nscale = 0.5\ncolor = "bgr"\n'
        )
        assert self.run(desk, "--preprocess", "p.toml").code == 0
        by_file = desk.manifest().data.preprocess
        flags = ["--resize=9x9", "--crop=8x8", "--mean=1,2,3", "--scale=0.5", "--color=bgr"]
        assert self.run(desk, *flags).code == 0
        assert desk.manifest().data.preprocess == by_file
        assert self.run(desk, "--preprocess", "p.toml", "--color", "rgb", "--mean", "0").code == 0
        settings = desk.manifest().data.preprocess
        assert settings is not None
        assert (settings["color"], settings["mean"], settings["crop"]) == ("rgb", [0.0], [8, 8])

    def test_that_cannot_be_read_stop_it_or_are_counted(self, desk: Desk) -> None:
        (desk.folder / "photos" / "05.png").write_bytes(b"half a pict")
        words = ("conv.onnx", "--data", "photos", "-o", "net.edgecal", "--tensorrt", "8.5")
        flags = ("--resize", "8x8")
        _, where = desk.refused(*words, *flags)
        assert where == "photos/05.png"
        assert desk.bundles() == []
        answer = desk.calibrate(*words, *flags, "--skip-unreadable", "--json")
        assert answer.document["skipped"] == ["05.png"]
        assert answer.document["samples"] == 19
        assert desk.manifest().data.skipped == ("05.png",)
        told = desk.calibrate(*words, *flags, "--skip-unreadable")
        assert "1 unreadable skipped" in told.out

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            (("--resize", "banana"), "resize wants height and width"),
            (("--resize", "0x8"), "resize wants height and width"),
            (("--fit", "fill"), "fit wants one of"),
            (("--color", "hsv"), "color wants one of"),
            (("--mean", "1,2"), "mean has 2 numbers"),
            (("--mean", "a,b,c"), "mean wants a number"),
            (("--mean", "nan"), "mean wants a number"),
            (("--scale", "1,inf,1"), "scale wants a number"),
            (("--layout", "chw"), "layout wants one of"),
            (("--dtype", "int8"), "dtype wants one of"),
            (("--crop", "100x100"), "smaller than the crop"),
            (("--resize", "8x8", "--color", "gray"), "wants samples of 3x8x8, found 1x8x8"),
            (("--preprocess", "none.toml"), "cannot read the settings"),
            (("--preprocess", "gen.py"), "cannot read the settings"),
            (("--preprocess", "photos"), "cannot read the settings"),
        ],
    )
    def test_with_wrong_settings_are_refused(
        self, desk: Desk, flags: tuple[str, ...], said: str
    ) -> None:
        words = ("conv.onnx", "--data", "photos", "-o", "net.edgecal", "--tensorrt", "8.5")
        assert said in desk.refused(*words, *flags)[0]
        assert desk.bundles() == []

    @pytest.mark.parametrize(
        "flags", [("--preset", "imagenet"), ("--scale", "0.1"), ("--preprocess", "photos.toml")]
    )
    def test_for_data_that_is_no_picture_are_refused(
        self, desk: Desk, flags: tuple[str, str]
    ) -> None:
        (desk.folder / "photos.toml").write_text("resize = [8, 8]\n")
        what, where = desk.refused(*GOOD, "--tensorrt", "8.5", *flags)
        assert what == f"{flags[0]} is for pictures, and this data holds arrays"
        assert where == GOOD[GOOD.index("--data") + 1]


class TestTheProjectFile:
    def write(self, desk: Desk, text: str) -> None:
        (desk.folder / "edgecal.toml").write_text(text)

    def test_gives_everything_even_from_a_folder_below(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.write(
            desk,
            "[calibrate]\nmodel = 'conv.onnx'\ndata = 'photos'\noutput = 'net.edgecal'\n"
            "tensorrt = '8.5'\nalgorithm = 'minmax'\nsamples = 17\n"
            "[preprocess]\nresize = [8, 8]\nscale = 0.01\n",
        )
        below = desk.folder / "notebooks" / "deep"
        below.mkdir(parents=True)
        monkeypatch.chdir(below)
        answer = desk.calibrate("--json")
        assert answer.code == 0
        assert answer.document["algorithm"] == "minmax"
        assert answer.document["samples"] == 17
        assert Path(answer.document["bundles"][0]) == desk.folder / "net.edgecal"
        settings = desk.manifest().data.preprocess
        assert settings is not None
        assert settings["scale"] == [0.01]

    def test_yields_to_the_command_line(self, desk: Desk) -> None:
        self.write(
            desk,
            "[calibrate]\nmodel = 'gone.onnx'\ndata = 'gone'\noutput = 'gone.edgecal'\n"
            "tensorrt = ['8.5', '10.3']\nalgorithm = 'minmax'\npercentile = 50\n",
        )
        answer = desk.calibrate(
            *GOOD, "--jetpack", "6.1", "--algorithm", "percentile", "--percentile", "99", "--json"
        )
        assert answer.document["bundles"] == ["net.edgecal"]
        assert desk.manifest().tensorrt.major_minor == "10.3"
        assert desk.manifest().calibration.parameters == {"percentile": 99.0}

    def test_may_speak_of_the_home_folder(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(desk.folder))
        self.write(
            desk,
            "[calibrate]\nmodel = '~/net.onnx'\ndata = '~/data.npy'\noutput = '~/h.edgecal'\n"
            "tensorrt = '8.5'\n",
        )
        assert desk.calibrate().code == 0
        assert desk.manifest("h.edgecal").name == "h"

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("[calibrate]\nmodell = 'x'\n", "unknown key 'modell'; known are"),
            ("[calibration]\n", "unknown table [calibration]"),
            ("[calibrate]\nsamples = 'many'\n", "samples wants a count"),
            ("[calibrate]\nsamples = 0\n", "samples wants a count"),
            ("[preprocess]\nresise = 3\n", "unknown setting 'resise'"),
            ("[calibrate\n", "cannot read the settings"),
            ("calibrate = 5\n", "expected a table"),
        ],
    )
    def test_with_a_mistake_is_refused_and_named(self, desk: Desk, text: str, said: str) -> None:
        self.write(desk, text)
        what, where = desk.refused(*GOOD, "--tensorrt", "8.5")
        assert said in what
        assert where.startswith(str(desk.folder / "edgecal.toml"))


class TestARefusal:
    @pytest.mark.parametrize(
        ("words", "what", "where"),
        [
            ((), "MODEL is missing", "calibrate"),
            (("net.onnx",), "--data is missing", "calibrate"),
            (("net.onnx", "--data", "data.npy"), "-o is missing", "calibrate"),
            ((*GOOD, "--tensorrt", "nine"), "expected a TensorRT version", "TensorRT version"),
            ((*GOOD, "--tensorrt", "10.3", "--no-fp16"), "no bundle of form 'qdq'", "--no-fp16"),
            (
                (*GOOD, "--tensorrt", "11.0", "--backend", "tensorrt"),
                "TensorRT 11.0 has no calibrators",
                "--backend",
            ),
            ((*GOOD, "--jetpack", "5.9"), "JetPack '5.9'", "--jetpack"),
        ],
    )
    def test_of_an_incomplete_or_impossible_wish_is_exit_2(
        self, desk: Desk, words: tuple[str, ...], what: str, where: str
    ) -> None:
        said = desk.refused(*words)
        assert what in said[0]
        assert said[1] == where

    @pytest.mark.parametrize(
        ("changed", "what", "where"),
        [
            ({"model": "gone.onnx"}, "cannot read the model: No such file", "gone.onnx"),
            ({"model": "photos"}, "cannot read the model: Is a directory", "photos"),
            ({"model": "gen.py"}, "the model is corrupt", "gen.py"),
            ({"model": "data.npy"}, "the model is corrupt", "data.npy"),
            ({"data": "gone"}, "there is no such file or folder", "gone"),
            ({"data": "net.onnx"}, "expected a folder", "net.onnx"),
            ({"data": "photos"}, "wants samples of 4, found", "photos/00.png"),
            ({"data": "gen:breaks"}, "ValueError: sensor [17] is off", "gen:breaks"),
            ({"data": "gen:gone"}, "has no attribute 'gone'", "gen:gone"),
            ({"data": "gone:few"}, "No module named 'gone'", "gone:few"),
            ({"out": "two words.edgecal"}, "expected a name of 1 to 64 letters", "-o"),
            ({"out": "photos"}, "this exists and is no bundle", "photos"),
            ({"out": "gen.py"}, "this exists and is no bundle", "gen.py"),
            ({"out": "gen.py/x.edgecal"}, "cannot write the bundle", "gen.py/x.edgecal"),
        ],
    )
    def test_of_what_cannot_be_read_or_written_names_it(
        self, desk: Desk, changed: dict[str, str], what: str, where: str
    ) -> None:
        names = {"model": "net.onnx", "data": "data.npy", "out": "net.edgecal", **changed}
        before = sorted(desk.folder.rglob("*"))
        said = desk.refused(
            *(names["model"], "--data", names["data"], "-o", names["out"], "--tensorrt", "8.5")
        )
        assert what in said[0]
        assert said[1] == where
        assert sorted(desk.folder.rglob("*")) == before

    @pytest.mark.parametrize(
        ("options", "where"),
        [
            (("--algorithm", "magic"), "--algorithm"),
            (("--percentile", "0"), "--percentile"),
            (("--algorithm", "percentile", "--percentile", "101"), "--percentile"),
        ],
    )
    def test_of_options_comes_before_the_data_is_read(
        self, desk: Desk, options: tuple[str, ...], where: str
    ) -> None:
        words = ("net.onnx", "--data", "gen:breaks", "-o", "net.edgecal", "--tensorrt", "8.5")
        assert desk.refused(*words, *options)[1] == where

    def test_without_a_tensorrt_shows_the_jetpacks(self, desk: Desk) -> None:
        answer = desk.calibrate(*GOOD)
        assert answer.code == 2
        assert "which TensorRT is this for?" in answer.err
        assert re.search(r"JetPack 5\.1 .*TensorRT 8\.5\n", answer.err)
        assert re.search(r"JetPack 4\.6\.1 .*TensorRT 8\.2\n", answer.err)
        assert "--tensorrt X.Y" in answer.err
        error = desk.calibrate(*GOOD, "--json").document["error"]
        assert "TensorRT 8.5" in error["what"]

    def test_of_a_contradicting_batch_size_names_both(self, desk: Desk) -> None:
        words = ("fixed.onnx", "--data", "data.npy", "-o", "f.edgecal", "--tensorrt", "8.5")
        what, _ = desk.refused(*words, "--batch-size", "3")
        assert what == "the network's batch size is fixed to 4, and --batch-size says 3"
        assert desk.calibrate(*words, "--batch-size", "4").code == 0

    def test_by_the_network_is_one_short_line(self, desk: Desk) -> None:
        np.save(desk.folder / "ids.npy", np.full((20, 6), 99))
        words = ("tokens.onnx", "--data", "ids.npy", "-o", "t.edgecal", "--tensorrt", "8.5")
        what, where = desk.refused(*words)
        assert "idx=99" in what
        assert where == "tokens.onnx on sample 0"

    @pytest.mark.parametrize(
        "options",
        [
            ("--batch-size", "0"),
            ("--samples", "-1"),
            ("--workers", "two"),
            ("--sample", "1"),
            ("x",),
        ],
    )
    def test_of_a_wrong_command_line_is_exit_2_too(
        self, desk: Desk, options: tuple[str, ...]
    ) -> None:
        answer = desk.calibrate(*GOOD, "--tensorrt", "8.5", *options, "--json")
        assert answer.code == 2
        assert answer.document["error"]["code"] == "usage"
        assert "Usage: edgecal calibrate" in answer.err

    def test_by_a_folder_that_may_not_be_written_is_clear(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with tempfile.TemporaryDirectory() as name:  # a folder that another user can reach
            base = Path(name)
            for file in ("net.onnx", "data.npy"):
                shutil.copy(desk.folder / file, base / file)
            base.chmod(0o555)
            monkeypatch.chdir(base)
            words = ("net.onnx", "--data", "data.npy", "--tensorrt", "8.5", "-o")
            desk.calibrate(*words, str(desk.folder / "warm.edgecal"))  # as nobody, nothing is found
            with nobody():
                what, where = desk.refused(*words, "net.edgecal")
            base.chmod(0o755)
            monkeypatch.chdir(desk.folder)
        assert what in {
            f"cannot write the bundle: {base.resolve()} is no folder that may be written",
            "cannot write the bundle: Permission denied",  # which root finds out later
        }
        assert where == "net.edgecal"


class TestAnInterrupt:
    def start(self, desk: Desk, *words: str) -> subprocess.Popen[str]:
        process = desk.start(
            *("net.onnx", "--data", "gen:slow", "-o", "net.edgecal", "--tensorrt", "8.5"), *words
        )
        busy = desk.folder / "busy"
        while not busy.exists():
            assert process.poll() is None
            time.sleep(0.02)
        busy.unlink()
        return process

    @pytest.mark.parametrize("had", [True, False])
    def test_ends_it_at_once_with_130_and_leaves_what_was(self, desk: Desk, *, had: bool) -> None:
        if had:
            assert desk.calibrate(*GOOD, "--tensorrt", "8.5").code == 0
            before = desk.manifest()
        process = self.start(desk)
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        answer = desk.finish(process, timeout_s=20)
        assert time.monotonic() - sent < 5
        assert answer.code == 130
        assert answer.out == ""
        assert "interrupted" in answer.err
        kept = ["net.edgecal.checkpoint"]
        assert desk.bundles() == (["net.edgecal", *kept] if had else kept)
        if had:
            assert desk.manifest() == before

    def test_is_a_document_for_scripts(self, desk: Desk) -> None:
        process = self.start(desk, "--json")
        process.send_signal(signal.SIGINT)
        answer = desk.finish(process, timeout_s=20)
        assert answer.code == 130
        assert answer.document["exit_code"] == 130

    def test_of_the_kind_that_cannot_be_caught_leaves_a_bundle_or_none(self, desk: Desk) -> None:
        process = self.start(desk)
        process.kill()
        process.communicate()
        assert desk.bundles() == []
        started = time.monotonic()
        process = desk.start(*GOOD, "--tensorrt", "8.5")
        assert desk.finish(process).code == 0
        needs_s = time.monotonic() - started
        for share in (0.7, 0.85, 0.95, 1.0):
            process = desk.start(*GOOD, "--tensorrt", "8.5")
            time.sleep(needs_s * share)
            process.kill()
            process.communicate()
            if (desk.folder / "net.edgecal").exists():
                desk.manifest()
        assert desk.calibrate(*GOOD, "--tensorrt", "8.5").code == 0
        desk.manifest()
        assert desk.bundles() == ["net.edgecal"]


def on_a_terminal(folder: Path, *words: str, **environment: str) -> str:
    """Run the command with a terminal as stdout and stderr; give all that it wrote."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "edgecal", "calibrate", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "TERM": "xterm-256color", **environment},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        said = b""
        while select.select([ours], [], [], 60)[0]:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end was closed
                break
            if not part:
                break
            said += part
        process.wait(timeout=60)
    os.close(ours)
    return said.decode()


COLOUR = re.compile(r"\x1b\[[0-9;]*\b(?:3[0-9]|4[0-9]|9[0-7])[0-9;]*m")


class TestColours:
    def test_are_for_terminals_only(self, desk: Desk) -> None:
        words = ("conv.onnx", "--data", "photos", "-o", "c.edgecal", "--tensorrt", "8.5")
        assert COLOUR.search(on_a_terminal(desk.folder, *words))
        assert not COLOUR.search(on_a_terminal(desk.folder, *words, NO_COLOR="1"))
        answer = desk.finish(desk.start(*words))
        assert answer.code == 0
        assert "\x1b" not in answer.out + answer.err

    def test_do_not_come_with_errors_in_a_pipe(self, desk: Desk) -> None:
        answer = desk.finish(desk.start("gone.onnx", "--data", "x", "-o", "y", "--tensorrt", "8.5"))
        assert answer.code == 2
        assert answer.err == (
            "error gone.onnx: cannot read the model: No such file or directory\n"
            "  try: check the path; edgecal wants an ONNX file\n"
        )


@pytest.mark.parametrize("name", ["[red]café[bold] 50%", "[/]", "50%_[[x]]"])
def test_odd_names_are_shown_as_they_are(desk: Desk, name: str) -> None:
    out = ("-o", "n.edgecal", "--tensorrt", "8.5")
    assert desk.refused(name, "--data", "data.npy", *out)[1] == name
    assert desk.refused("net.onnx", "--data", f"{name}.txt", *out)[1] == f"{name}.txt"


def test_names_that_are_no_text_do_not_break_the_answer(desk: Desk) -> None:
    name = os.fsdecode(b"caf\xe9.onnx")
    process = desk.start(name, "--data", "data.npy", "-o", "n.edgecal", "--tensorrt", "8.5")
    answer = desk.finish(process)
    assert answer.code == 2
    assert "cannot read the model" in answer.err
