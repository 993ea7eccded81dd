"""The script that judges signatures on a target, run by the shells of this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecal.core.manifest import FileRecord, digest_of, serialize_manifest, write_document
from edgecal.core.signing import manifest_to_sign, parse_policy, spelled
from tests.core.test_manifest import MANIFEST
from tests.signing import PLACE, Authority, Etc, authority

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgecal.core.manifest import DataRecord

SCRIPT = Path(__file__).parents[2] / "edgecal" / "target_scripts" / "verify.sh"
SHELLS = ("sh", "dash", "bash --posix", "busybox sh")
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
FILES = {
    "model.onnx": b"a network",
    "weights/a.bin": b"its weights",
    "calibration.cache": b"TRT-8502-EntropyCalibration2\nx: 3c010a14\n",
    "histograms.npz": b"stays on the host",
    'odd "\\ü\t$(touch x)\n.bin': b"named by a foe of shells",
}
REHEADED = b"TRT-8503-EntropyCalibration2\nx: 3c010a14\n"


class Device:
    """A target's store and /etc/edgecal, and the script that looks at them."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a root"
        self.store = self.root / "blobs" / "sha256"
        self.store.mkdir(parents=True)
        self.etc = Etc(folder / "etc edgecal")
        self.shell = "sh"
        self.path = SYSTEM_PATH

    def put(self, data: bytes) -> str:
        digest = sha256(data).hexdigest()
        (self.store / digest).write_bytes(data)
        return digest

    def run(self, *words: str) -> tuple[int, str]:
        program, *options = self.shell.split()
        found = shutil.which(program)
        if found is None:
            pytest.skip(f"no {program} on this machine")
        text = SCRIPT.read_text().replace(f"etc={PLACE}\n", f"etc='{self.etc.folder}'\n")
        done = subprocess.run(
            [found, *options, "-c", text, "edgecal", str(self.root), *words],
            capture_output=True,
            text=True,
            env={"PATH": self.path, "HOME": str(self.root)},
            cwd=self.root,
            timeout=30,
            check=False,
        )
        return done.returncode, (done.stdout or done.stderr).strip()

    def check(
        self,
        manifest: bytes,
        signature: bytes | None,
        *,
        required: str = "no",
        origin: str = "host",
        built: bytes = REHEADED,
        files: dict[str, bytes] | None = None,
    ) -> tuple[int, str]:
        """Ask as a push does."""
        words = ["check", required, origin, self.put(manifest)]
        if signature is None:
            return self.run(*words, "-", "-", "-")
        sent = FILES if files is None else files
        words += [self.put(signature), self.put(sent["calibration.cache"]), self.put(built)]
        for name, data in sent.items():
            if name not in {"calibration.cache", "histograms.npz"}:
                words += [spelled(name, manifest), self.put(data)]
        return self.run(*words)


def manifest(
    counter: int | None = None, *, name: str = "detector-v2", data: DataRecord = MANIFEST.data
) -> bytes:
    records = {
        name: FileRecord(digest=digest_of(data), size=len(data)) for name, data in FILES.items()
    }
    whole = replace(MANIFEST, name=name, data=data, files=records, targets=None)
    return manifest_to_sign(serialize_manifest(whole), counter=counter, targets=(), source="test")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("keys"), "other")


@pytest.fixture
def device(tmp_path: Path, release: Authority) -> Device:
    made = Device(tmp_path)
    made.etc.trust(release.public)
    made.etc.policy("# by hand", "", "require_signature=yes", "name=line3-cam7")
    return made


def signed(by: Authority, data: bytes, folder: Path) -> bytes:
    file = folder / "manifest.json"
    file.write_bytes(data)
    return by.sign(file).read_bytes()


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_refuses_what_was_changed_and_takes_what_was_not(
    shell: str, device: Device, release: Authority, other: Authority, tmp_path: Path
) -> None:
    device.shell = shell
    good = manifest()
    signature = signed(release, good, tmp_path)
    assert device.check(good, None) == (30, "refused unsigned")
    assert device.check(good.replace(b"detector", b"detectoR"), signature) == (
        30,
        "refused wrong-signature 1",
    )
    assert device.check(good, signed(other, good, tmp_path))[1] == "refused wrong-signature 1"
    assert device.check(good, signature[:-1])[1] == "refused wrong-signature 1"
    assert device.check(good, b"\0")[1] == "refused wrong-signature 1"
    swapped = {**FILES, "model.onnx": FILES["weights/a.bin"]}
    assert device.check(good, signature, files=swapped) == (30, "refused file model.onnx")
    strange = {**FILES, "more.bin": b"not in the manifest"}
    assert device.check(good, signature, files=strange) == (30, "refused file more.bin")
    retouched = {**FILES, "calibration.cache": b"TRT-8502-EntropyCalibration2\nx: 3c010a15\n"}
    assert device.check(good, signature, files=retouched)[1] == "refused file calibration.cache"
    code, said = device.check(good, signature, built=REHEADED.replace(b"a14", b"a15"))
    assert (code, said) == (30, "refused cache")
    code, said = device.check(good, signature)
    assert code == 0, said
    word, key, name, counter = said.split()
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", release.public, "-outform", "DER"],
        capture_output=True,
        check=True,
    ).stdout
    assert (word, key) == ("verified", digest_of(der))
    assert (name, counter) == ("detector-v2", "7")


@pytest.mark.parametrize("shell", SHELLS)
def test_counters_go_up_only_and_each_bundle_has_its_own(
    shell: str, device: Device, release: Authority, tmp_path: Path
) -> None:
    device.shell = shell

    def ask(counter: int, name: str = "detector-v2", origin: str = "host") -> str:
        data = manifest(counter, name=name)
        said = device.check(data, signed(release, data, tmp_path), origin=origin)[1]
        return said.partition(" sha256")[0]

    device.etc.policy("counter.detector-v2=5", "counter.detector=99")
    assert ask(4) == "refused old 4 5"
    assert ask(5) == "verified"
    (device.root / "counters").write_text("detector-v2 x\ndetector-v2 0012\ndetector-v20 50\ndete")
    assert ask(11) == "refused old 11 0012"
    assert ask(12) == "verified"
    assert ask(1, "other") == "verified"
    assert device.run("keep", "detector-v2", "12") == (0, "")
    assert device.run("keep", "detector-v2", "13") == (0, "")
    assert device.run("keep", "detector-v2", "9") == (0, "")
    lines = (device.root / "counters").read_text().split("\n")
    assert lines[-3:] == ["dete", "detector-v2 13", ""]
    assert ask(12) == "refused old 12 13"
    assert ask(12, origin="here") == "verified"
    assert ask(4, origin="here") == "refused old 4 5"
    assert ask(999_999_999_999_999) == "verified"


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("targets", "policy", "said"),
    [
        (("line3-*",), ("name=line3-cam7",), "verified"),
        (("cam1", "line?-cam[7]", "x"), ("name=line3-cam7",), "refused layout targets"),
        (("cam1", "line?-cam7", "x"), ("name=line3-cam7",), "verified"),
        (("line3-cam70", "ine3-cam7", "LINE3-*"), ("name=line3-cam7",), "refused other-device"),
        (("line3-cam7",), (), "refused unnamed"),
        (("*",), (), "refused unnamed"),
        ((), (), "verified"),
    ],
)
def test_a_bundle_for_certain_devices_is_taken_by_these_alone(  # noqa: PLR0917 - fixtures
    shell: str,
    targets: tuple[str, ...],
    policy: tuple[str, ...],
    said: str,
    device: Device,
    release: Authority,
    tmp_path: Path,
) -> None:
    device.shell = shell
    device.etc.policy(*policy)
    document = json.loads(manifest())
    if targets:
        document["targets"] = list(targets)
    data = write_document(document)
    answer = device.check(data, signed(release, data, tmp_path))[1]
    assert answer.startswith(said), answer


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["require_signatures=yes"], "refused policy require_signatures=yes"),
        (["require_signature=YES"], "refused policy require_signature=YES"),
        (["name=a b"], "refused policy name=a b"),
        (["name="], "refused policy name="),
        (["counter.x=1x"], "refused policy counter.x=1x"),
        (["counter.x=1234567890123456"], "refused policy counter.x=1234567890123456"),
        (["$(touch owned)"], "refused policy $(touch owned)"),
    ],
)
def test_a_policy_that_is_not_understood_refuses_everything(
    lines: list[str], said: str, device: Device
) -> None:
    device.etc.policy(*lines)
    assert device.check(manifest(), None) == (30, said)
    assert parse_policy(lines).problem == lines[0]


@given(st.lists(st.text(st.characters(blacklist_characters="\n\0", codec="utf-8")), max_size=3))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_host_and_target_agree_on_every_policy(device: Device, lines: list[str]) -> None:
    device.etc.policy(*lines)
    code, said = device.check(manifest(), None)
    policy = parse_policy(lines)
    assert (policy.problem is not None) == said.startswith("refused policy"), said
    if policy.problem is None:
        assert (code, said) == ((30, "refused unsigned") if policy.required else (0, "unsigned"))


def test_without_means_only_a_required_signature_refuses(
    device: Device, release: Authority, tmp_path: Path
) -> None:
    good = manifest()
    signature = signed(release, good, tmp_path)
    shutil.rmtree(device.etc.folder / "keys")
    assert device.check(good, signature) == (30, "refused no-key")
    device.etc.policy()
    assert device.check(good, signature) == (0, "unchecked no-key")
    assert device.check(good, signature, required="yes") == (30, "refused no-key")
    shutil.rmtree(device.etc.folder)
    assert device.check(good, None) == (0, "unsigned")
    assert device.check(good, None, required="yes") == (30, "refused unsigned")
    device.etc.trust(release.public)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sha256sum", "sed", "tail", "rm", "sh"):
        (programs / name).symlink_to(str(shutil.which(name)))
    device.path = str(programs)
    assert device.check(good, signature) == (0, "unchecked no-openssl")
    assert device.check(good, signature, required="yes") == (30, "refused no-openssl")


def test_a_key_file_that_is_none_does_not_hide_a_good_one(
    device: Device, release: Authority, tmp_path: Path
) -> None:
    (device.etc.folder / "keys" / "a bad one.pem").write_text("no key")
    good = manifest()
    assert device.check(good, signed(release, good, tmp_path))[0] == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", " "),
        lambda text: text.replace('  "counter": 7,\n', '  "counter": 7,\n  "counter": 70,\n'),
        lambda text: text.replace('"counter": 7', '"counter": "7"'),
        lambda text: text.replace('"counter": 7', '"counter": 7.5'),
        lambda text: text.replace('"counter": 7', '"counter": -7'),
        lambda text: text.replace("edgecal.bundle/1", "edgecal.bundle/2"),
        lambda text: text.replace('  "files": {', '  "files": {}, "x": {'),
        lambda text: text[:-2] + '  ,"targets": []\n}',
        lambda text: text[:-2] + '  "targets": []\n}',
        lambda text: text[:-2] + '  "targets": "line3-cam7"\n}',
    ],
)
def test_a_manifest_that_somebody_signed_by_hand_is_not_misread(
    change: Callable[[str], str], device: Device, release: Authority, tmp_path: Path
) -> None:
    text = manifest().decode()
    changed = change(text).encode()
    assert changed != text.encode()
    code, said = device.check(changed, signed(release, changed, tmp_path))
    if '  ,"targets"' in changed.decode():  # no key of the manifest by its layout
        assert code == 0
    else:
        assert code == 30, said
        assert said.split()[1] in {"layout", "file"}


def test_a_name_inside_the_manifest_cannot_pose_as_a_key_of_it(
    device: Device, release: Authority, tmp_path: Path
) -> None:
    foe = '\n  "counter": 900,\n  "targets": [\n    "nobody"\n  ],\n  "files": {'
    good = manifest(
        data=replace(MANIFEST.data, first=(foe, *foe.split("\n")), source=foe),
    )
    code, said = device.check(good, signed(release, good, tmp_path))
    assert (code, said.split()[-1]) == (0, "7")


@given(st.text(st.characters(blacklist_characters="/\0"), min_size=1, max_size=20))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_files_of_any_name_are_found_by_it(device: Device, name: str) -> None:
    device.etc.policy()
    records = {
        "calibration.cache": FileRecord(digest=digest_of(FILES["calibration.cache"]), size=1),
        name: FileRecord(digest=digest_of(b"x"), size=1),
    }
    data = serialize_manifest(replace(MANIFEST, files=records, targets=None))
    folder = device.root.parent
    keys = folder / "keys"
    if not keys.exists():
        keys.mkdir()
        authority(keys)
    mine = Authority(keys / "release.key", keys / "release.pem")
    device.etc.trust(mine.public)
    files = {"calibration.cache": FILES["calibration.cache"], name: b"x"}
    if name == "calibration.cache":
        return
    signature = signed(mine, data, folder)
    code, said = device.check(data, signature, files=files)
    assert code == 0, said
    assert [one.name for one in device.root.iterdir()] == ["blobs"]
    code, said = device.check(data, signature, files={**files, name: b"y"})
    assert (code, said.split()[1]) == (30, "file")


def test_damaged_blobs_are_removed_so_that_they_are_sent_again(
    device: Device, release: Authority, tmp_path: Path
) -> None:
    good = manifest()
    signature = signed(release, good, tmp_path)
    digest = device.put(FILES["model.onnx"])
    words = ["check", "no", "host", device.put(good), device.put(signature), "-", "-"]
    (device.store / digest).write_bytes(b"rotten")
    code, said = device.run(*words, "model.onnx", digest)
    assert (code, "was damaged and was removed" in said) == (21, True)
    assert not (device.store / digest).exists()
    assert device.run(*words, "model.onnx", digest)[0] == 21
    (device.store / words[3]).write_bytes(b"rotten")
    assert device.run(*words)[0] == 21


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("check",),
        ("check", "no", "host", "x", "-", "-", "-"),
        ("check", "perhaps", "host", "0" * 64, "-", "-", "-"),
        ("check", "no", "moon", "0" * 64, "-", "-", "-"),
        ("check", "no", "host", "0" * 64, "-", "-", "-", "model.onnx"),
        ("keep", "a b", "1"),
        ("keep", "a", "x"),
        ("keep", "../a", "1"),
        ("forget", "a", "1"),
    ],
)
def test_wrong_arguments_do_nothing(words: tuple[str, ...], device: Device) -> None:
    assert device.run(*words)[0] == 64
    assert [one.name for one in device.root.iterdir()] == ["blobs"]


def test_a_counter_that_cannot_be_written_is_a_failure(device: Device) -> None:
    (device.root / "counters").mkdir()
    code, said = device.run("keep", "net", "3")
    assert code == 12
    assert "counters" in said
