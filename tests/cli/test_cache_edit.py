"""`edgecal cache edit`, `merge`, `fill` and `restamp`, as a user calls them."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from onnx import helper

from edgecal.adapters.bundle import read_bundle, write_bundle
from edgecal.adapters.cache_files import write_with_record
from edgecal.cli import app
from edgecal.cli.wiring import machine, networks
from edgecal.core.cache import parse_cache, serialize_cache
from edgecal.core.manifest import digest_of
from edgecal.core.versions import parse_tensorrt
from edgecal.errors import InputError
from tests.bundles import make_bundles
from tests.networks import conv_net, network, save, tensor

if TYPE_CHECKING:
    from edgecal.adapters.bundle import Bundle

HEAD = "TRT-8502-EntropyCalibration2"
A = f"{HEAD}\nimages: 3c010a14\nconv[1]: 0c010a14\nzero: 0\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("a.cache").write_text(A)
    return tmp_path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose cache edgecal stamped."""
    (made,) = make_bundles(tmp_path_factory.mktemp("bundles"), "8.5.2")
    return made


@pytest.fixture(scope="module")
def written(bundle: Bundle) -> Bundle:
    """The same, as TensorRT would have written it."""
    manifest = replace(bundle.manifest, written_by_tensorrt=True, name="written")
    contents: dict[str, bytes | Path] = {name: bundle.path / name for name in manifest.files}
    return write_bundle(bundle.path.with_name("written.edgecal"), manifest, contents)


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        app.main(["cache", *words])
    return end.value.code if isinstance(end.value.code, int) else 0


def record(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(f"{name}.record.json").read_text())
    return found


def left() -> set[str]:
    return {one.name for one in Path().iterdir()}


@pytest.mark.parametrize(
    "words",
    [
        ("edit", "none.cache", "-o", "o", "--set", "images=1"),
        ("edit", "a.cache", "-o", "o"),
        ("edit", "a.cache", "-o", "o", "--set", "images"),
        ("edit", "a.cache", "-o", "o", "--set", "image=1"),
        ("edit", "a.cache", "-o", "o", "--floor-amax", "-1"),
        ("edit", "a.cache", "-o", "o", "--floor-amax", "nan"),
        ("edit", "a.cache", "-o", "a.cache", "--set", "images=1"),
        ("edit", "a.cache", "-o", "a.cache.record.json", "--set", "images=1"),
        ("edit", "a.cache", "--set", "images=1"),
        ("merge", "a.cache", "-o", "o"),
        ("merge", "a.cache", "a.cache", "-o", "o", "--on-conflict", "both"),
        ("merge", "a.cache", "a.cache", "-o", "a.cache"),
        ("fill", "a.cache", "-o", "o"),
        ("fill", "a.cache", "-o", "o", "--model", "none.onnx"),
        ("fill", "a.cache", "-o", "o", "--model", "other.onnx"),
        ("fill", "a.cache", "-o", "net.onnx", "--model", "net.onnx"),
        ("fill", "a.cache", "-o", "o", "--model", "net.onnx", "--tensorrt", "new"),
        ("restamp", "a.cache", "-o", "o"),
        ("restamp", "a.cache", "-o", "o", "--tensorrt", "new"),
        ("restamp", "a.cache", "-o", "o", "--algorithm", "Entropy"),
        ("restamp", "a.cache", "-o", "o.edgecal", "--tensorrt", "8.5.3"),
    ],
)
def test_a_users_mistake_is_exit_2_and_leaves_nothing_behind(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [helper.make_node("Relu", ["images"], ["y"])]
    save(network(nodes, [tensor("images", [1])], [tensor("y", [1])]), Path("net.onnx"))
    save(conv_net(), Path("other.onnx"))
    before = left()
    assert run(*words, "--json") == 2
    assert json.loads(capsys.readouterr().out)["schema"] == "edgecal.error/1"
    assert left() == before
    assert Path("a.cache").read_text() == A


@pytest.mark.parametrize(
    "words",
    [
        ("merge", "a.cache", "b.cache", "-o", "o"),
        ("merge", "a.cache", "minmax.cache", "-o", "o"),
        ("restamp", "a.cache", "-o", "o", "--tensorrt", "8.6.1"),
        ("restamp", "a.cache", "-o", "o", "--tensorrt", "11.0", "--force"),
        ("restamp", "v1.cache", "-o", "o", "--algorithm", "EntropyCalibration2"),
    ],
)
def test_what_is_refused_is_exit_3_and_leaves_nothing_behind(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("b.cache").write_text(f"{HEAD}\nimages: 3c010a15\n")
    Path("minmax.cache").write_text("TRT-8502-MinMaxCalibration\nimages: 3c010a14\n")
    Path("v1.cache").write_text("TRT-8502-EntropyCalibration\nimages: 3c010a14\n")
    before = left()
    assert run(*words) == 3
    heard = capsys.readouterr()
    assert heard.out == ""
    assert "try: " in heard.err
    assert left() == before


def test_a_damaged_cache_is_refused_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.cache").write_text(f"{HEAD}\nimages: 3c010a14\nconv: zz\n")
    assert run("edit", "bad.cache", "-o", "o", "--drop", "images") == 2
    assert "bad.cache:3" in capsys.readouterr().err


def test_nothing_is_written_in_a_bundle(bundle: Bundle) -> None:
    for out in (bundle.path / "o.cache", bundle.path):
        assert run("edit", str(bundle.path), "-o", str(out), "--drop", "images") == 2
    read_bundle(bundle.path)


def test_a_bundle_may_be_the_folder_one_stands_in(
    bundle: Bundle, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bundle.path)
    assert run("edit", ".", "-o", str(here / "o.cache"), "--multiply", "*=2") == 0
    assert record(str(here / "o.cache"))["origin"]["written_by_tensorrt"] is False


def test_through_a_link_cache_and_record_lie_together(here: Path) -> None:
    (here / "deep").mkdir()
    Path("deep/real.cache").write_text(A)
    Path("link.cache").symlink_to("deep/real.cache")
    assert run("edit", "a.cache", "-o", "link.cache", "--drop", "zero") == 0
    assert record("deep/real.cache")["output"]["path"] == "link.cache"
    assert run("edit", "deep/real.cache", "-o", "o.cache", "--drop", "images") == 0
    assert len(record("o.cache")["history"]) == 1


def test_an_edit_changes_what_is_named_and_keeps_the_bytes_of_the_rest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("edit", "a.cache", "-o", "o.cache", "--set", "images=127", "--floor-zero") == 0
    assert Path("o.cache").read_text() == (
        f"{HEAD}\nimages: 3f800000\nconv[1]: 0c010a14\nzero: c010a14\n"
    )
    heard = capsys.readouterr()
    assert "o.cache: 2 changes" in heard.out
    assert "images: 1.00024 -> 127" in heard.out
    written = record("o.cache")
    assert written["schema"] == "edgecal.cache-record/1"
    assert written["command"] == "cache edit"
    assert written["inputs"] == [{"path": "a.cache", "digest": digest_of(A.encode())}]
    assert written["output"] == {
        "path": "o.cache",
        "digest": digest_of(Path("o.cache").read_bytes()),
    }
    assert written["changes"][0] == {
        "name": "images",
        "before": "3c010a14",
        "after": "3f800000",
        "rule": "set",
        "source": "--set images=127.0",
    }
    assert written["origin"] == {"written_by_tensorrt": True, "tensorrt": "8.5.2"}


def test_the_first_few_changes_are_shown_and_all_of_them_with_v(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = "".join(f"t{i}: 3c010a14\n" for i in range(30))
    Path("many.cache").write_text(f"{HEAD}\n{lines}")
    assert run("edit", "many.cache", "-o", "o", "--multiply", "t*=2") == 0
    heard = capsys.readouterr().out
    assert (heard.count(" -> "), "and 20 more" in heard) == (10, True)
    assert run("edit", "many.cache", "-o", "o", "--multiply", "t*=2", "-v") == 0
    assert capsys.readouterr().out.count(" -> ") == 30


def test_names_that_would_move_the_cursor_or_are_no_text_are_spelled_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("odd.cache").write_bytes(f"{HEAD}\n".encode() + b"a\x1b[2J: 3c010a14\n\xff[b]: 3c010a14\n")
    assert run("edit", "odd.cache", "-o", "o", "--multiply", "*=2") == 0
    heard = capsys.readouterr().out
    assert "\x1b" not in heard
    assert r"a\x1b[2J: 1.00024" in heard
    assert r"\udcff[b]: 1.00024" in heard
    assert Path("o").read_bytes().endswith(b"\n\xff[b]: 3c810a14\n")


@pytest.mark.parametrize(
    ("words", "schema"),
    [
        (("edit", "a.cache", "--drop", "zero"), "edgecal.cache-edit/1"),
        (("merge", "a.cache", "a.cache"), "edgecal.cache-merge/1"),
        (("restamp", "a.cache", "--tensorrt", "8.5.3"), "edgecal.cache-restamp/1"),
    ],
)
def test_json_is_the_record_under_the_commands_schema(
    words: tuple[str, ...], schema: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words, "-o", "o.cache", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document.pop("schema") == schema
    assert document.pop("findings") == []
    assert {**document, "schema": "edgecal.cache-record/1"} == record("o.cache")


def test_history_goes_on_from_record_to_record() -> None:
    assert run("edit", "a.cache", "-o", "b.cache", "--drop", "zero") == 0
    assert run("edit", "b.cache", "-o", "c.cache", "--set", "images=2") == 0
    assert run("merge", "c.cache", "b.cache", "-o", "d.cache", "--on-conflict", "first") == 0
    steps = [step["output"]["path"] for step in record("d.cache")["history"]]
    assert steps == ["b.cache", "c.cache"]
    Path("c.cache").write_text(A)  # by hand: the record is about another file now
    assert run("edit", "c.cache", "-o", "e.cache", "--drop", "zero") == 0
    assert record("e.cache")["history"] == []


def test_a_cache_is_never_without_its_record(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    renamed: list[str] = []
    replace_file = Path.replace

    def killed_after_the_first(self: Path, target: Path) -> Path:
        if renamed:
            raise OSError(5, os.strerror(5))
        renamed.append(target.name)
        return replace_file(self, target)

    monkeypatch.setattr(Path, "replace", killed_after_the_first)
    with pytest.raises(InputError, match="cannot write"):
        write_with_record(here / "o.cache", b"cache", b"record", inputs=[])
    assert renamed == ["o.cache.record.json"]
    assert left() == {"a.cache", "o.cache.record.json"}


def test_merging_takes_the_larger_scale_where_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("b.cache").write_text(f"{HEAD}\nnew: 3c010a14\nimages: 3f800000\nzero: 3f800000\n")
    words = ("merge", "a.cache", "b.cache", "-o", "o.cache", "--on-conflict", "max")
    assert run(*words) == 0
    assert Path("o.cache").read_text() == (
        f"{HEAD}\nimages: 3f800000\nconv[1]: 0c010a14\nzero: 3f800000\nnew: 3c010a14\n"
    )
    assert "different scales: 2" in capsys.readouterr().err
    assert [one["source"] for one in record("o.cache")["changes"]] == ["b.cache"] * 3


def test_filling_completes_a_cache_and_says_what_remains(
    capsys: pytest.CaptureFixture[str],
) -> None:
    save(conv_net(), Path("net.onnx"))
    Path("part.cache").write_text(f"{HEAD}\nimage: 3c010a14\nconv: 3d000000\n")
    words = ("fill", "part.cache", "--model", "net.onnx", "-o", "o.cache")
    assert run(*words) == 0
    assert Path("o.cache").read_text() == (
        f"{HEAD}\nimage: 3c010a14\nconv: 3d000000\nrelu: 3d000000\npool: 3d000000\nflat: 3d000000\n"
    )
    heard = capsys.readouterr()
    assert "scores: given by Gemm" in heard.out
    assert "recalibrate" in heard.err
    written = record("o.cache")
    assert [one["name"] for one in written["remaining"]] == ["scores"]
    assert written["options"]["tensorrt"] == "8.5.2"
    digest = written["options"]["model"]["digest"]
    assert digest == digest_of(Path("net.onnx").read_bytes())
    assert (
        run("fill", "part.cache", "-m", "net.onnx", "-o", "p", "--dla", "--tensorrt", "10.3") == 0
    )
    assert "fw_output: " in Path("p").read_text()


def test_what_a_whole_cache_lost_is_filled_in_again_to_the_bit(bundle: Bundle) -> None:
    model = str(bundle.path / "model.onnx")
    whole = parse_cache((bundle.path / "calibration.cache").read_bytes())
    assert run("fill", str(bundle.path), "-m", model, "--dla", "-o", "whole.cache") == 0
    assert Path("whole.cache").read_bytes() == serialize_cache(whole)
    assert record("whole.cache")["remaining"] == []
    graph = networks.model(bundle.path / "model.onnx").graph
    lost = [node.outputs[0] for node in graph.nodes if node.op_type in {"Flatten", "MaxPool"}]
    assert lost
    drops = [word for name in lost for word in ("--drop", name)]
    assert run("edit", str(bundle.path), "-o", "holes.cache", *drops) == 0
    assert run("fill", "holes.cache", "-m", model, "--dla", "-o", "again.cache") == 0
    assert parse_cache(Path("again.cache").read_bytes()).scales() == whole.scales()


def test_another_patch_needs_no_force_and_a_minor_says_which_one_it_means() -> None:
    assert run("restamp", "a.cache", "--tensorrt", "8.5.3", "-o", "o.cache") == 0
    assert Path("o.cache").read_text() == A.replace("8502", "8503")
    assert run("restamp", "a.cache", "--tensorrt", "10.3", "--force", "-o", "o.cache") == 0
    found = record("o.cache")
    assert found["header"]["after"] == "TRT-100300-EntropyCalibration2"
    assert found["origin"]["tensorrt"] == "8.5.2"
    # from there on the origin counts, which the record remembers
    assert run("restamp", "o.cache", "--tensorrt", "10.4.0", "-o", "p.cache") == 3
    assert run("restamp", "o.cache", "--tensorrt", "8.5.2", "-o", "p.cache") == 0
    assert Path("p.cache").read_text() == A


def test_a_minmax_cache_is_headed_for_trtexec_and_the_record_says_so() -> None:
    Path("m.cache").write_text("TRT-8502-MinMaxCalibration\nimages: 3c010a14\n")
    words = ("restamp", "m.cache", "--algorithm", "EntropyCalibration2", "-o", "o.cache")
    assert run(*words) == 0
    assert Path("o.cache").read_text() == f"{HEAD}\nimages: 3c010a14\n"
    assert record("o.cache")["header"]["before"] == "TRT-8502-MinMaxCalibration"


def test_what_edgecal_stamped_is_known_by_manifest_and_then_by_record(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("edit", str(bundle.path), "-o", "o.cache", "--multiply", "*=2") == 0
    assert record("o.cache")["origin"]["written_by_tensorrt"] is False
    assert run("restamp", "o.cache", "--tensorrt", "8.6.1", "-o", "p.cache") == 0
    assert "header-version" in capsys.readouterr().err
    Path("o.cache.record.json").unlink()
    assert run("restamp", "o.cache", "--tensorrt", "8.6.1", "-o", "p.cache") == 3


def test_a_bundle_becomes_a_bundle_under_another_header(bundle: Bundle) -> None:
    before = (bundle.path / "manifest.json").read_bytes()
    assert run("restamp", str(bundle.path), "--tensorrt", "8.6.1", "-o", "new-8.6.edgecal") == 0
    made = read_bundle(Path("new-8.6.edgecal"))
    assert made.manifest.name == "new-8.6"
    assert made.manifest.tensorrt == parse_tensorrt("8.6.1")
    assert made.manifest.restamped_from == bundle.manifest.tensorrt
    assert set(made.manifest.files) == set(bundle.manifest.files)
    cache = parse_cache((made.path / "calibration.cache").read_bytes())
    assert cache.header.code == 8601
    assert cache.entries == parse_cache((bundle.path / "calibration.cache").read_bytes()).entries
    assert record("new-8.6.edgecal")["output"]["digest"] == digest_of(serialize_cache(cache))
    assert (bundle.path / "manifest.json").read_bytes() == before
    assert run("restamp", "new-8.6.edgecal", "--tensorrt", "8.5", "-o", "new-8.6.edgecal") == 2


def test_of_what_tensorrt_wrote_a_bundle_remembers_the_first_version(written: Bundle) -> None:
    words = ("restamp", str(written.path), "--tensorrt", "8.6.1", "-o", "b.edgecal")
    assert run(*words) == 3
    assert left() == {"a.cache"}
    assert run(*words, "--force") == 0
    assert run("restamp", "b.edgecal", "--tensorrt", "10.3.0", "-o", "c.edgecal", "--force") == 0
    last = read_bundle(Path("c.edgecal")).manifest
    assert last.written_by_tensorrt
    assert last.restamped_from == parse_tensorrt("8.5.2")
    assert [one["options"]["tensorrt"] for one in record("c.edgecal")["history"]] == ["8.6.1"]
    assert run("restamp", "c.edgecal", "--tensorrt", "8.5.2", "-o", "d.edgecal") == 0
    assert read_bundle(Path("d.edgecal")).manifest.restamped_from is None


@pytest.mark.parametrize("command", ["edit", "merge", "fill", "restamp"])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == 0
    assert f"edgecal cache {command} " in capsys.readouterr().out.split("Example")[1]


def test_the_clock_is_the_composition_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    then = machine.now().replace(year=2030, month=1, day=2, hour=3, minute=4, second=5)
    monkeypatch.setattr(machine, "now", lambda: then)
    assert run("edit", "a.cache", "-o", "o.cache", "--drop", "zero") == 0
    assert record("o.cache")["created"] == "2030-01-02T03:04:05Z"


def test_fill_takes_the_network_of_a_bundle_and_asks_for_it_otherwise(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("fill", str(bundle.path), "-o", "full.cache") == 0
    assert Path("full.cache").read_bytes() == (bundle.path / "calibration.cache").read_bytes()
    assert run("fill", "a.cache", "-o", "other.cache") == 2
    assert "--model" in capsys.readouterr().err
    assert not Path("other.cache").exists()
