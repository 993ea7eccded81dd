"""`edgecal cache check` as a user meets it: documents, exit codes, and what is shown."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from edgecal.adapters.demo_data import DemoData, unpack_demo
from edgecal.cli.cache.group import group
from edgecal.core.cache import parse_cache, serialize_cache
from edgecal.errors import EdgecalError, InputError
from tests.bundles import make_bundles
from tests.exports import counted_net
from tests.networks import save

if TYPE_CHECKING:
    from pathlib import Path


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
    """A bundle of the network that ships, its data, and the command."""

    folder: Path
    bundle: Path
    demo: DemoData
    capture: pytest.CaptureFixture[str]

    def check(self, *words: object) -> Answer:
        self.capture.readouterr()
        with pytest.raises(SystemExit) as end:
            group(args=["check", *map(str, words)], prog_name="edgecal cache")
        heard = self.capture.readouterr()
        assert isinstance(end.value.code, int)
        return Answer(end.value.code, heard.out, heard.err)

    def cache(self, *, drop: int = 0, moved_on: bool = False, **renamed: str) -> Path:
        """Write the bundle's cache as a file of its own, worse than it was."""
        lines = (self.bundle / "calibration.cache").read_text().splitlines()
        lines = [lines[0], *lines[1 + drop :]]
        if moved_on:
            bits = [line.rpartition(": ")[2] for line in lines[1:]]
            names = [line.rpartition(": ")[0] for line in lines[1:]]
            moved = bits[5:] + bits[:5]
            lines[1:] = [f"{name}: {one}" for name, one in zip(names, moved, strict=True)]
        text = "\n".join(lines) + "\n"
        for old, new in renamed.items():
            text = text.replace(f"\n{old}: ", f"\n{new}: ")
        file = self.folder / "given.cache"
        file.write_text(text)
        return file


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DemoData]:
    folder = tmp_path_factory.mktemp("made")
    (bundle,) = make_bundles(folder, "8.5.2")
    return bundle.path, unpack_demo(folder / "demo")


@pytest.fixture
def desk(
    made: tuple[Path, DemoData],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Desk:
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path, *made, capsys)


def refusal(*words: object) -> EdgecalError:
    with pytest.raises(EdgecalError) as error:
        group(args=["check", *map(str, words)], prog_name="edgecal cache")
    return error.value


class TestIsRefused:
    def test_a_file_without_a_network(self, desk: Desk) -> None:
        error = refusal(desk.cache())
        assert isinstance(error, InputError)
        assert "--model" in error.remedy

    def test_what_is_no_cache_no_network_no_version_and_no_data(self, desk: Desk) -> None:
        model = desk.demo.model
        for words in (
            (desk.folder / "gone.cache", "--model", model),
            (model, "--model", model),
            (desk.cache(), "--model", desk.cache()),
            (desk.cache(), "--model", model, "--tensorrt", "new"),
            (desk.cache(), "--model", model, "--data", desk.folder / "gone"),
            (desk.cache(), "--model", model, "--data", desk.folder),
        ):
            assert refusal(*words).exit_code == 2

    def test_a_sample_count_below_one(self, desk: Desk) -> None:
        assert desk.check(desk.bundle, "--samples", 0).code == 2

    def test_a_cache_whose_entries_stand_at_other_tensors(self, desk: Desk) -> None:
        answer = desk.check(desk.cache(moved_on=True), "--model", desk.demo.model, "--json")
        assert answer.code == 3
        assert answer.document["missing"] == []
        assert {(one["rule"], one["severity"]) for one in answer.document["findings"]} == {
            ("stale-cache", "error")
        }

    def test_a_cache_of_which_most_is_missing(self, desk: Desk) -> None:
        answer = desk.check(desk.cache(drop=20), "--model", desk.demo.model)
        assert answer.code == 3
        assert answer.out.startswith("refused: ")
        assert "no input of the network has an entry" in answer.err

    def test_a_bundle_for_another_network_than_it_was_made_for(self, desk: Desk) -> None:
        other = save(counted_net(), desk.folder / "other.onnx")
        answer = desk.check(desk.bundle, "--model", other)
        assert answer.code == 3
        assert answer.out.startswith("stale: ")
        assert "stale-model" in answer.err

    def test_one_hole_on_a_dla_without_gpu_and_fp16(self, desk: Desk) -> None:
        words = (desk.cache(stem_out="gone"), "--model", desk.demo.model, "--dla")
        assert desk.check(*words).code == 0
        assert desk.check(*words, "--no-gpu-fallback").code == 0
        assert desk.check(*words, "--no-gpu-fallback", "--no-fp16").code == 3

    def test_a_cache_for_tensorrt_11(self, desk: Desk) -> None:
        assert desk.check(desk.bundle, "--tensorrt", "11.0").code == 3

    def test_a_cache_with_a_line_that_means_nothing(self, desk: Desk) -> None:
        file = desk.cache(stem_out="stem_out: zz\nstem_out")
        answer = desk.check(file, "--model", desk.demo.model, "--json")
        assert answer.code == 3
        assert "stem_out" in answer.document["covered"]


class TestADocument:
    def test_of_a_bundle_needs_no_further_word(self, desk: Desk) -> None:
        answer = desk.check(desk.bundle, "--json")
        document = answer.document
        assert (answer.code, answer.err) == (0, "")
        assert document["schema"] == "edgecal.cache-check/1"
        assert document["tensorrt"] == "8.5.2"
        assert len(document["covered"]) == 34
        assert [document[key] for key in ("missing", "unknown", "helpers", "findings")] == [[]] * 4
        assert document["data"] is None

    def test_names_what_is_missing_and_left_over(self, desk: Desk) -> None:
        file = desk.cache(pool1_out="pool1_out:0", logits="(Unnamed Layer* 40) [Constant]_output")
        document = desk.check(file, "--model", desk.demo.model, "--json").document
        assert document["missing"] == ["pool1_out", "logits"]
        assert document["unknown"] == ["pool1_out:0"]
        assert document["helpers"] == [
            {
                "name": "(Unnamed Layer* 40) [Constant]_output",
                "node": "classifier",
                "role": "constant",
            }
        ]
        assert document["holes"][0] == {
            "name": "pool1_out",
            "kind": "activation",
            "node": "pool1",
            "cost": "high",
            "why": "Conv block1.conv1 and 1 more cannot run in INT8: FP16 or FP32",
        }

    def test_judges_for_the_tensorrt_that_is_asked_for(self, desk: Desk) -> None:
        document = desk.check(desk.bundle, "--tensorrt", "10.3", "--json").document
        assert document["tensorrt"] == "10.3.0"
        assert [one["name"] for one in document["holes"] if one["kind"] == "constant"] == [
            "classifier.weight_output",
            "classifier.bias_output",
        ]

    def test_holds_what_the_data_say(self, desk: Desk) -> None:
        words = ("--data", desk.demo.test, "--samples", 3, "--json")
        document = desk.check(desk.bundle, *words).document
        assert document["findings"] == []  # the bundle knows how its pictures were prepared
        assert document["data"]["compared"] == 31
        assert document["data"]["correlation"] > 0.7

    def test_of_a_file_says_what_was_assumed_of_pictures_unless_told(self, desk: Desk) -> None:
        words = (desk.cache(), "--model", desk.demo.model, "--data", desk.demo.test, "--json")
        assert "preprocess-assumed" in str(desk.check(*words).document["findings"])
        told = desk.check(*words, "--preprocess", desk.demo.preprocess)
        assert (told.code, told.document["findings"]) == (0, [])

    def test_of_wrong_data_is_an_error_that_names_them(self, desk: Desk) -> None:
        (desk.folder / "bright.toml").write_text('color = "gray"\nresize = "28x28"\nscale = 90.0\n')
        words = ("--data", desk.demo.test, "--preprocess", desk.folder / "bright.toml")
        answer = desk.check(desk.bundle, *words, "--json")
        assert answer.code == 3
        assert "if they are the right ones" in answer.document["findings"][0]["message"]

    def test_of_a_legacy_table_knows_no_tensorrt(self, desk: Desk) -> None:
        file = desk.cache()
        lines = file.read_text().split("\n")
        file.write_text("\n".join(["0 3ff0000000000000 3fefffeb074a771d", *lines[1:]]))
        answer = desk.check(file, "--model", desk.demo.model, "--json")
        assert (answer.code, answer.document["tensorrt"]) == (0, None)
        assert len(answer.document["covered"]) == 34


class TestWhatIsShown:
    def test_begins_with_the_verdict(self, desk: Desk) -> None:
        answer = desk.check(desk.bundle)
        assert answer.out.startswith("fits: ")
        assert "34 of 34 have an entry, 0 missing" in answer.out
        assert answer.err == ""

    def test_is_a_row_for_each_hole_with_its_node_and_a_guess_for_strangers(
        self, desk: Desk
    ) -> None:
        file = desk.cache(pool1_out="pool1_out:0")
        answer = desk.check(file, "--model", desk.demo.model)
        assert answer.code == 0
        assert answer.out.startswith("fits, with gaps: ")
        rows = [line.split() for line in answer.out.splitlines()]
        assert ["pool1_out", "high", "pool1", "Conv"] in [row[:4] for row in rows]
        assert ["pool1_out:0", "pool1_out"] in rows

    def test_is_cut_unless_told_otherwise(self, desk: Desk) -> None:
        words = (desk.cache(drop=16), "--model", desk.demo.model)
        assert "and 6 more (-v)" in desk.check(*words).out
        whole = desk.check(*words, "-v").out
        assert "more (-v)" not in whole
        assert "stem_bn_out" in whole

    def test_spells_out_what_would_move_the_cursor(self, desk: Desk) -> None:
        file = desk.cache(stem_out="\x1b[2Jstem")
        answer = desk.check(file, "--model", desk.demo.model, "-v")
        assert "\x1b" not in answer.out
        assert r"\x1b[2Jstem" in answer.out

    def test_groups_helpers_by_what_they_are_for(self, desk: Desk) -> None:
        cache = parse_cache(desk.cache().read_bytes())
        extra = {"classifier.weight_output": "3c010a14", "classifier.bias_output": "3c010a14"}
        file = desk.folder / "more.cache"
        file.write_bytes(
            serialize_cache(cache) + "".join(f"{k}: {v}\n" for k, v in extra.items()).encode()
        )
        answer = desk.check(file, "--model", desk.demo.model)
        rows = [line.split() for line in answer.out.splitlines()]
        assert ["weight", "constant", "1", "classifier"] in rows
        assert ["bias", "constant", "1", "classifier"] in rows

    def test_is_the_result_alone_if_told_to_be_quiet(self, desk: Desk) -> None:
        file = desk.cache(moved_on=True)
        answer = desk.check(file, "--model", desk.demo.model, "-q")
        assert (answer.code, answer.err) == (3, "")
        assert answer.out.startswith("stale: ")


def test_nothing_is_written_beside_what_is_read(desk: Desk) -> None:
    copy = desk.folder / "copy.edgecal"
    shutil.copytree(desk.bundle, copy)
    before = sorted(one.name for one in copy.iterdir())
    desk.check(copy, "--data", desk.demo.test)
    assert sorted(one.name for one in copy.iterdir()) == before
