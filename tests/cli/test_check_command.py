"""`edgecal check` as a user meets it: verdicts, documents, exit codes, and remedies that work."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from edgecal.adapters.bundle import read_bundle, write_bundle
from edgecal.cli.app import main
from edgecal.core.compat import CACHE_RULES, RULES
from edgecal.core.freshness import FRESHNESS_RULES
from edgecal.core.manifest import CACHE_FILE
from edgecal.core.precision import PRECISION_FILE, Precision, serialize_precision
from tests.bundles import make_bundles

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

COMMAND = re.compile(r"edgecal (?:calibrate|cache) [^;']*(?:'[^']*'[^;']*)*")
ORIN = ("--device", "orin-nx-16gb")


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

    def rules(self, severity: str | None = None) -> set[str]:
        findings = self.document["findings"]
        return {one["rule"] for one in findings if severity in {None, one["severity"]}}

    def remedy(self, rule: str) -> str:
        (found,) = (one["remedy"] for one in self.document["findings"] if one["rule"] == rule)
        return str(found)


@dataclass
class Desk:
    """A working directory with a bundle, its network and its pictures."""

    folder: Path
    capture: pytest.CaptureFixture[str]

    def run(self, *words: object) -> Answer:
        self.capture.readouterr()
        with pytest.raises(SystemExit) as end:
            main([*map(str, words)])
        heard = self.capture.readouterr()
        code = end.value.code or 0
        assert isinstance(code, int)
        assert "Traceback" not in heard.err
        return Answer(code, heard.out, heard.err)

    def check(self, *words: object) -> Answer:
        return self.run("check", *words)

    def with_header(self, header: str, *, name: str = "net-8.5") -> str:
        """Put another first line into the bundle's cache, as if TensorRT had written it."""
        bundle = read_bundle(self.folder / f"{name}.edgecal")
        manifest = replace(bundle.manifest, written_by_tensorrt=True)
        contents: dict[str, bytes | Path] = {
            one: (bundle.path / one).read_bytes() for one in manifest.files
        }
        _, _, body = (bundle.path / CACHE_FILE).read_bytes().partition(b"\n")
        contents[CACHE_FILE] = header.encode() + b"\n" + body
        write_bundle(bundle.path, manifest, contents)
        return f"{name}.edgecal"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    make_bundles(folder, "8.5.2", "10.3.0")
    return folder


@pytest.fixture
def desk(
    made: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Desk:
    for path in made.iterdir():
        shutil.copytree(path, tmp_path / path.name)
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path, capsys)


def commands(remedy: str) -> Iterable[list[str]]:
    return (shlex.split(line)[1:] for line in COMMAND.findall(remedy))


def test_another_minor_does_not_fit_and_says_both_versions(desk: Desk) -> None:
    answer = desk.check("net-8.5.edgecal", *ORIN, "--tensorrt", "10.3.0.30")
    assert answer.code == 3
    first, finding, remedy = answer.out.splitlines()[:3]
    assert first.startswith("orin-nx-16gb (TensorRT 10.3.0.30): does not fit: 1 error")
    assert finding.startswith("error tensorrt-version (orin-nx-16gb")
    assert "8.5" in finding
    assert "10.3.0.30" in finding
    assert remedy.startswith("  try: ")
    assert "\x1b" not in answer.out


def test_the_same_minor_fits(desk: Desk) -> None:
    answer = desk.check("net-10.3.edgecal", *ORIN, "--tensorrt", "10.3")
    assert answer.code == 0
    assert answer.out.startswith("orin-nx-16gb (TensorRT 10.3.0): fits")
    # notes are counted, and told with -v
    assert "implicit-int8-deprecated" not in answer.out
    told = desk.check("net-10.3.edgecal", *ORIN, "--jetpack", "6.2", "-v")
    assert "note implicit-int8-deprecated" in told.out


def test_without_a_target_the_bundle_itself_is_judged(desk: Desk) -> None:
    answer = desk.check("net-8.5.edgecal", "-q")
    assert answer.code == 0
    assert answer.out.startswith("net-8.5: good")
    legacy = desk.check(desk.with_header("TRT-8502-LegacyCalibration"))
    assert legacy.code == 3
    assert legacy.out.startswith("net-8.5: not good: 1 error")


def test_the_document_has_the_keys_scripts_rely_on(desk: Desk) -> None:
    answer = desk.check("net-8.5.edgecal", "--device", "tx2", "--jetpack", "4.6.1", "--json")
    assert answer.code == 3
    assert answer.document["schema"] == "edgecal.check/1"
    assert answer.document["ok"] is False
    assert answer.rules("error") == {"tensorrt-version", "int8-unsupported"}
    for finding in answer.document["findings"]:
        assert set(finding) == {"rule", "severity", "subject", "message", "remedy"}
    good = desk.check("net-8.5.edgecal", "--device", "agx-xavier", "--jetpack", "5.1.6", "--json")
    assert good.document["ok"] is True
    assert good.code == 0


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("--jetpack", "7.2", "--dla", "0"), "dla-tensorrt-window"),
        (("--jetpack", "6.2", "--dla", "2"), "dla-core"),
        (("--jetpack", "6.2", "--dla", "0", "--no-gpu-fallback"), "dla-io-format"),
        (("--jetpack", "6.2", "--dla", "0"), "dla-dynamic-shape"),
        (("--jetpack", "6.2", "--builder", "onnxruntime"), "reference-builder"),
    ],
)
def test_build_options_are_judged(desk: Desk, words: tuple[str, ...], rule: str) -> None:
    answer = desk.check("net-10.3.edgecal", *ORIN, *words, "--json")
    assert rule in answer.rules()


def test_an_fp16_build_is_not_judged_by_what_is_wrong_with_the_cache(desk: Desk) -> None:
    bundle = desk.with_header("TRT-8502-EntropyCalibration")
    device = ("--device", "tx2", "--tensorrt", "8.5.2", "--json")
    in_int8 = desk.check(bundle, *device)
    assert "int8-unsupported" in in_int8.rules("error")
    assert "cache-not-portable" in in_int8.rules()
    in_fp16 = desk.check(bundle, *device, "--precision", "fp16")
    assert "int8-unsupported" not in in_fp16.rules()
    assert "cache-not-portable" not in in_fp16.rules()


def test_what_the_builder_at_hand_would_refuse_is_said_before_a_push(desk: Desk) -> None:
    target = ("--device", "agx-xavier", "--tensorrt", "8.5.2", "--json")
    bundle = read_bundle(desk.folder / "net-8.5.edgecal")
    layers = serialize_precision(Precision(fp16_layers=("conv,1",)))
    contents: dict[str, bytes | Path] = {
        one: (bundle.path / one).read_bytes() for one in bundle.manifest.files
    }
    write_bundle(bundle.path, bundle.manifest, {**contents, PRECISION_FILE: layers})
    answer = desk.check("net-8.5.edgecal", *target, "--builder", "trtexec")
    assert answer.code == 3
    assert "builder-unsupported" in answer.rules("error")
    assert "conv,1" in answer.out


def test_each_target_is_judged_for_the_build_that_the_inventory_says(desk: Desk) -> None:
    (desk.folder / "edgecal.toml").write_text('[push]\nprecision = "fp16"\n')
    device = ("net-8.5.edgecal", "--device", "tx2", "--tensorrt", "8.5.2", "--json")
    assert "int8-unsupported" not in desk.check(*device).rules()
    assert "int8-unsupported" in desk.check(*device, "--precision", "int8").rules()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("net-8.5.edgecal", "--device", "orin-nx", "--tensorrt", "8.5"), "near it: orin-nx-8gb"),
        (("net-8.5.edgecal", "--device", "nano"), "5.0 to 8.2"),
        (("net-8.5.edgecal", "--target", "t", "--device", "nano"), "contradict"),
        (("nowhere.edgecal",), "no bundle"),
        (("net-8.5.edgecal", "net-10.3.edgecal"), "expected one bundle, found 2"),
        ((), "expected one bundle, found 0"),
        (("net-8.5.edgecal", "--tensorrt", "new"), "expected a TensorRT version"),
        (("--explain",), "tensorrt-version"),
        (("--explain", "nonsense"), "tensorrt-version"),
    ],
)
def test_a_users_mistake_is_exit_2_and_one_sentence(
    desk: Desk, words: tuple[str, ...], said: str
) -> None:
    answer = desk.check(*words)
    assert answer.code == 2
    assert said in answer.err
    assert answer.out == ""
    document = desk.check(*words, "--json").document
    assert document["schema"] == "edgecal.error/1"


def test_a_file_that_differs_from_the_manifest_makes_the_bundle_corrupt(desk: Desk) -> None:
    with (desk.folder / "net-8.5.edgecal" / "model.onnx").open("ab") as model:
        model.write(b"x")
    answer = desk.check("net-8.5.edgecal", "--device", "nano", "--tensorrt", "8.5")
    assert answer.code == 2
    assert "corrupt" in answer.err


def test_a_target_that_cannot_be_reached_is_exit_4(desk: Desk) -> None:
    answer = desk.check("net-8.5.edgecal", "--target", "nobody@127.0.0.1:1", "--json")
    assert answer.code == 4
    assert answer.document["schema"] == "edgecal.error/1"
    both = desk.check("net-8.5.edgecal", "-t", "nobody@127.0.0.1:1", "-t", "nobody@127.0.0.1:2")
    assert both.code == 4
    assert both.out.count("not checked") == 2
    # what is wrong with the bundle is told although nobody answers; the exit code is the target's
    legacy = desk.with_header("TRT-8502-LegacyCalibration")
    both = desk.check(legacy, "-t", "nobody@127.0.0.1:1", "-t", "nobody@127.0.0.1:2", "--json")
    assert both.code == 4
    assert both.rules("error") == {"cache-not-portable"}


def test_a_changed_network_makes_the_bundle_stale_and_the_remedy_cures_it(desk: Desk) -> None:
    model = desk.folder / "demo" / "fashion_cnn.onnx"
    fresh = desk.check("net-8.5.edgecal", "--model", model, "--deep", "--json")
    assert "stale-model" not in fresh.rules()
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    pictures = desk.folder / "demo" / "data" / "calibration"
    stale = desk.check("net-8.5.edgecal", "--model", model, "--data", pictures, "--json")
    assert stale.code == 3
    assert stale.rules("error") == {"stale-model"}
    assert str(model) in stale.document["findings"][0]["message"]
    (words,) = commands(stale.remedy("stale-model"))
    words[words.index("--data") + 1] = str(pictures)
    done = desk.run(*words, "--preprocess", desk.folder / "demo" / "preprocess.toml")
    assert done.code == 0, done.err
    again = desk.check("net-8.5.edgecal", "--model", model, "--json")
    assert again.code == 0
    assert not again.rules("error")


def test_changed_pictures_make_the_bundle_stale(desk: Desk) -> None:
    pictures = desk.folder / "demo" / "data" / "calibration"
    (pictures / "00003.png").write_bytes((pictures / "00004.png").read_bytes())
    answer = desk.check("net-8.5.edgecal", "--data", pictures, "--json")
    assert answer.code == 3
    assert answer.rules("error") == {"stale-data"}


def test_a_project_names_bundle_and_sources(desk: Desk) -> None:
    (desk.folder / "edgecal.toml").write_text(
        '[push]\nbundle = "net-8.5.edgecal"\ndla = 7\n'
        '[calibrate]\nmodel = "demo/fashion_cnn.onnx"\ndata = "gone/calibration"\n'
    )
    answer = desk.check("--device", "agx-xavier", "--jetpack", "5.1.2", "--json")
    assert answer.code == 3
    assert answer.rules("error") == {"dla-core"}
    assert "source-not-checked" in answer.rules("note")
    (desk.folder / "demo" / "fashion_cnn.onnx").write_bytes(b"another")
    assert "stale-model" in desk.check("--json").rules("error")


def test_following_the_remedy_makes_a_minmax_cache_fit_trtexec(desk: Desk) -> None:
    bundle = desk.with_header("TRT-8502-MinMaxCalibration")
    xavier = ("--device", "agx-xavier", "--jetpack", "5.1.2", "--dla", "0", "--json")
    refused = desk.check(bundle, *xavier)
    assert refused.code == 3
    assert refused.rules("error") == {"trtexec-reads-entropy2", "dla-needs-entropy2"}
    (words,) = commands(refused.remedy("trtexec-reads-entropy2"))
    assert desk.run(*words).code == 0
    fits = desk.check(words[-1], *xavier)
    assert fits.code == 0
    assert not fits.rules("error")


def test_following_the_remedy_gives_tensorrt_11_a_network_with_the_scales(desk: Desk) -> None:
    refused = desk.check(
        "net-10.3.edgecal", "--device", "agx-thor-t5000", "--tensorrt", "11.4.1", "--json"
    )
    assert refused.rules("error") == {"implicit-int8-removed"}
    derived, converted = commands(refused.remedy("implicit-int8-removed"))
    for words in (derived, converted):
        done = desk.run(*words)
        assert done.code == 0, done.err
    made = (desk.folder / converted[-1]).read_bytes()
    assert b"QuantizeLinear" in made
    assert (desk.folder / derived[-1] / "model.qdq.onnx").read_bytes() == made
    fits = desk.check(derived[-1], "--device", "agx-thor-t5000", "--tensorrt", "11.4.1", "--json")
    assert fits.code == 0, fits.err


@pytest.mark.parametrize(
    "header", ["TRT-8602-EntropyCalibration2", "TRT-10300-EntropyCalibration2"]
)
def test_following_the_remedy_sets_a_header_right(desk: Desk, header: str) -> None:
    refused = desk.check(desk.with_header(header), "--json")
    assert refused.rules("error") == {"header-version"}
    (words,) = commands(refused.remedy("header-version"))
    done = desk.run(*words)
    assert done.code == 0, done.err
    assert not desk.check(words[-1], "--json").rules("error")


def test_a_word_no_tensorrt_writes_may_be_set_right_by_force(desk: Desk) -> None:
    refused = desk.check(desk.with_header("TRT-8502-PercentileCalibration"), "--json")
    _, words = commands(refused.remedy("algorithm-header"))
    assert desk.run(*words).code == 0
    assert not desk.check(words[words.index("-o") + 1], "--json").rules("error")


def test_another_minor_is_cured_by_calibrating_for_it(desk: Desk) -> None:
    refused = desk.check("net-8.5.edgecal", *ORIN, "--tensorrt", "10.7", "--json")
    (words,) = commands(refused.remedy("tensorrt-version"))
    words[words.index("MODEL.onnx")] = "demo/fashion_cnn.onnx"
    words[words.index("DATA")] = "demo/data/calibration"
    more = ("--preprocess", "demo/preprocess.toml", "--samples", "20")
    assert desk.run(*words, *more).code == 0
    assert words[-1] == "net-10.7.edgecal"
    assert desk.check(words[-1], *ORIN, "--tensorrt", "10.7").code == 0


@pytest.mark.parametrize("slug", sorted({**RULES, **CACHE_RULES, **FRESHNESS_RULES}))
def test_every_rule_is_explained(desk: Desk, slug: str) -> None:
    answer = desk.check("--explain", slug)
    assert answer.code == 0
    assert answer.out.startswith(f"{slug}: ")
    assert all(f"\n  {part}" in answer.out for part in ("severity", "source", "remedy"))


def test_rules_are_explained_as_a_document_too(desk: Desk) -> None:
    document = desk.check("--explain", "dla-core", "disk-space", "--json").document
    assert [one["rule"] for one in document["rules"]] == ["dla-core", "disk-space"]
    assert set(document["rules"][0]) == {"rule", "says", "severity", "why", "source", "remedy"}
