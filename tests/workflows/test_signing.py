"""Signed bundles on their way to a target that judges them by its own keys."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgecal.adapters.bundle import read_bundle
from edgecal.adapters.reference_builder import ReferenceBuilder
from edgecal.adapters.scripts import load_scripts
from edgecal.adapters.signed_bundles import sign_bundle
from edgecal.adapters.tables import load_platforms
from edgecal.adapters.trtexec_builder import TrtexecBuilder
from edgecal.core.build import BuildOptions
from edgecal.core.cache import CalibrationCache, restamp_cache
from edgecal.core.manifest import CACHE_FILE, SIGNATURE_FILE, digest_of
from edgecal.core.target import Target
from edgecal.errors import ConnectError, IncompatibleError
from edgecal.workflows.events import PushEvent, SignatureChecked, Step, StepDue
from edgecal.workflows.push import push
from edgecal.workflows.report import PushOptions, PushReport
from edgecal.workflows.targets import plan_rollback, roll_back
from edgecal.workflows.world import World
from tests.bundles import install_trtexec, make_bundles
from tests.fakes import LocalTransport
from tests.signing import Authority, Etc, authority

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgecal.adapters.bundle import Bundle
    from edgecal.core.versions import TensorRTVersion
    from edgecal.ports import CommandResult


class Cable(LocalTransport):
    """Is cut before or after the script that judges signatures does something."""

    def __init__(self, environment: dict[str, str], cut: tuple[str, str] | None) -> None:
        super().__init__(environment)
        self._cut = cut

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float) -> CommandResult:
        cut = self._cut and self._cut[0] in argv[5:6]
        if cut and self._cut and self._cut[1] == "after":
            super().run(argv, stdin=stdin, timeout_s=timeout_s)
        if cut:
            raise ConnectError("the connection was cut", where="fake", remedy="push again")
        return super().run(argv, stdin=stdin, timeout_s=timeout_s)


@dataclass
class Bench:
    """A target on this machine with a trtexec of our own and its own /etc/edgecal."""

    folder: Path
    sent: list[Cable] = field(default_factory=list)
    cut: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        self.etc = Etc(self.folder / "etc")
        self.target = Target(name="bench", host="bench", root=str(self.folder / "root"))
        self.ticks = 0
        self.path = os.environ["PATH"]

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def world(self) -> World:
        return World(
            connect=self._connect,
            scripts=self.etc.scripts(load_scripts()),
            builders={one.name: one for one in (TrtexecBuilder(), ReferenceBuilder())},
            platforms=load_platforms(),
            now=self._now,
            owner="tester@bench",
        )

    def _now(self) -> datetime:
        self.ticks += 1
        return datetime.fromtimestamp(1_800_000_000 + self.ticks, timezone.utc)

    def _connect(self, _target: Target) -> Cable:
        path = f"{self.bin}:{self.path}"
        transport = Cable({"PATH": path, "HOME": str(self.folder)}, self.cut)
        self.sent.append(transport)
        return transport

    def push(
        self, bundle: Bundle, options: PushOptions | None = None
    ) -> tuple[PushReport, list[PushEvent]]:
        pushing = push([bundle], self.target, options or PushOptions(), self.world)
        events: list[PushEvent] = []
        while True:
            try:
                events.append(next(pushing))
            except StopIteration as end:
                return end.value, events

    @property
    def counter(self) -> int:
        last = (self.root / "counters").read_text().splitlines()[-1]
        return int(last.removeprefix("net-8.5 "))

    @property
    def active(self) -> str | None:
        link = self.root / "models" / "net-8.5" / "current"
        return link.resolve().name if link.exists() else None


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundles(tmp_path_factory.mktemp("bundles"), "8.5.2")[0]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def bench(tmp_path: Path, original: Bundle, release: Authority) -> Bench:
    made = Bench(tmp_path)
    install_trtexec(made.bin, original, version="8503")  # the cache is headed anew
    made.etc.trust(release.public)
    made.etc.policy("require_signature=yes", "name=cam7")
    return made


@pytest.fixture
def bundle(tmp_path: Path, original: Bundle) -> Bundle:
    return copy(original, tmp_path / original.path.name)


def copy(bundle: Bundle, path: Path) -> Bundle:
    shutil.copytree(bundle.path, path)
    return read_bundle(path)


def sign(
    bundle: Bundle, by: Authority, counter: int | None = None, targets: tuple[str, ...] = ()
) -> Bundle:
    return sign_bundle(
        bundle.path, key=by.key, passphrase=lambda: b"", counter=counter, targets=targets
    ).bundle


def refusal(report: PushReport) -> str:
    assert isinstance(report.error, IncompatibleError), report.error
    assert (report.state, report.exit_code) == ("refused", 3)
    assert report.error.what.startswith("signature: ")
    assert [one.rule for one in report.error.findings if one.severity.value == "error"] == [
        "signature"
    ]
    return report.error.what


def test_nothing_unsigned_is_sent_where_a_signature_is_required(
    bench: Bench, bundle: Bundle
) -> None:
    report, events = bench.push(bundle)
    assert "its policy requires a signature" in refusal(report)
    assert StepDue(Step.SHIP, "0") not in events
    assert not bench.root.exists()


def test_the_settings_of_a_target_may_require_one_where_its_policy_does_not(
    bench: Bench, bundle: Bundle, release: Authority
) -> None:
    bench.etc.policy()
    bench.target = replace(bench.target, require_signature=True)
    report, _ = bench.push(bundle)
    assert "edgecal.toml requires a signature" in refusal(report)
    shutil.rmtree(bench.etc.folder)
    report, _ = bench.push(sign(bundle, release))
    assert "no key in /etc/edgecal/keys" in refusal(report)
    bench.etc.trust(release.public)
    report, _ = bench.push(read_bundle(bundle.path))
    assert report.state == "active", report.error


@pytest.mark.parametrize("built_before", [False, True])
def test_a_signature_by_somebody_else_is_refused_before_anything_is_built(
    bench: Bench, bundle: Bundle, tmp_path: Path, release: Authority, *, built_before: bool
) -> None:
    if built_before:  # and not active any more
        signed = sign(bundle, release)
        assert bench.push(signed)[0].state == "active"
        other = PushOptions(build=BuildOptions(fp16=False))
        assert bench.push(signed, other)[0].state == "active"
    before = bench.active
    (tmp_path / "keys").mkdir()
    foe = authority(tmp_path / "keys", "foe")
    report, events = bench.push(sign(bundle, foe))
    assert "none of the target's 1 keys" in refusal(report)
    assert not any(event == StepDue(Step.BUILD, "trtexec") for event in events)
    assert bench.active == before


def test_a_tampered_file_whose_manifest_was_mended_is_refused_on_the_target(
    bench: Bench, bundle: Bundle, release: Authority
) -> None:
    signed = sign(bundle, release)
    cache = bundle.path / CACHE_FILE
    data = cache.read_bytes()
    old, new = data[-2:-1], b"a" if data[-2:-1] != b"a" else b"b"
    cache.write_bytes(data[:-2] + new + b"\n")
    assert old != new
    manifest = bundle.path / "manifest.json"
    mended = manifest.read_text().replace(digest_of(data), digest_of(cache.read_bytes()))
    manifest.write_text(mended)
    report, _ = bench.push(read_bundle(signed.path))
    assert "none of the target's 1 keys" in refusal(report)
    assert bench.active is None


def test_a_host_that_sends_another_cache_than_it_signed_is_refused_by_the_target(
    bench: Bench, bundle: Bundle, release: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = sign(bundle, release)

    def lose_an_entry(cache: CalibrationCache, version: TensorRTVersion) -> CalibrationCache:
        whole = restamp_cache(cache, version)
        return replace(whole, entries=whole.entries[:-1])

    monkeypatch.setattr("edgecal.workflows.plan.restamp_cache", lose_an_entry)
    report, _ = bench.push(signed)
    assert "differs from the signed one in more than its header" in refusal(report)


def test_a_signed_bundle_is_verified_built_and_remembered(
    bench: Bench, bundle: Bundle, release: Authority
) -> None:
    signed = sign(bundle, release, counter=3, targets=("cam*",))
    report, events = bench.push(signed)
    assert report.state == "active", report.error
    order = [type(one).__name__ for one in events]
    place = order.index("SignatureChecked")
    assert order[place - 2 : place + 2] == [
        "CacheShipped",
        "StepDue",
        "SignatureChecked",
        "StepDue",
    ]
    (checked,) = [one for one in events if isinstance(one, SignatureChecked)]
    assert checked.verdict.state == "verified"
    assert checked.verdict.counter == 3
    current = bench.root / "models" / "net-8.5" / "current"
    record = json.loads((current / "build.json").read_text())
    assert record["signature"] == {"state": "verified", "key": checked.verdict.key, "counter": 3}
    assert (current / SIGNATURE_FILE).read_bytes() == (signed.path / SIGNATURE_FILE).read_bytes()
    assert (bench.root / "counters").read_text() == "net-8.5 3\n"
    assert report.facts is not None
    assert report.facts.signing is not None
    assert report.facts.signing.keys == (checked.verdict.key,)

    again, events = bench.push(read_bundle(bundle.path))
    assert (again.state, again.release) == ("active", report.release)
    assert not any(isinstance(one, SignatureChecked) for one in events)


def test_an_old_bundle_is_refused_also_where_it_was_built_before_and_rollback_is_free(
    bench: Bench, bundle: Bundle, release: Authority, original: Bundle, tmp_path: Path
) -> None:
    old = sign(bundle, release, counter=3)
    first = bench.push(old)[0]
    new = sign(copy(original, tmp_path / "newer.edgecal"), release, counter=4)
    assert bench.push(new)[0].state == "active"
    second = bench.active
    report, _ = bench.push(old)
    assert "counter is 3, and this device has had 4" in refusal(report)
    assert bench.active == second
    report, _ = bench.push(old, PushOptions(build=BuildOptions(fp16=False)))
    assert "counter is 3" in refusal(report)

    plan = plan_rollback(bench.target, bench.world, name=None, to=None)
    roll_back(bench.target, bench.world, plan)
    assert bench.active == first.release
    forward, events = bench.push(new)
    assert (forward.state, bench.active) == ("active", second)
    assert StepDue(Step.BUILD, "trtexec") not in events
    assert any(isinstance(one, SignatureChecked) for one in events)


def test_a_build_that_failed_does_not_lock_out_the_bundle_before_it(
    bench: Bench, bundle: Bundle, release: Authority, original: Bundle, tmp_path: Path
) -> None:
    old = sign(bundle, release, counter=3)
    assert bench.push(old)[0].state == "active"
    new = sign(copy(original, tmp_path / "newer.edgecal"), release, counter=4)
    trtexec = (bench.bin / "trtexec").read_text()
    (bench.bin / "trtexec").write_text("#!/bin/sh\nexit 1\n")
    assert bench.push(new)[0].exit_code != 0
    (bench.bin / "trtexec").write_text(trtexec)
    report, _ = bench.push(old, PushOptions(build=BuildOptions(fp16=False)))
    assert report.state == "active", report.error


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (("name=dock1",), "this device is dock1"),
        ((), "does not know what it is called"),
        (("require_signature=maybe",), "cannot be followed"),
    ],
)
def test_another_device_refuses_before_anything_is_sent(
    policy: tuple[str, ...], said: str, bench: Bench, bundle: Bundle, release: Authority
) -> None:
    bench.etc.policy(*policy)
    report, _ = bench.push(sign(bundle, release, targets=("cam*",)))
    assert said in refusal(report)
    assert not bench.root.exists()


def test_a_floor_set_by_hand_is_judged_on_the_target(
    bench: Bench, bundle: Bundle, release: Authority
) -> None:
    bench.etc.policy("counter.net-8.5=9")
    report, _ = bench.push(sign(bundle, release, counter=8))
    assert "counter is 8, and this device has had 9" in refusal(report)


def test_a_target_without_keys_takes_signed_and_unsigned_bundles_alike(
    bench: Bench, bundle: Bundle, release: Authority
) -> None:
    shutil.rmtree(bench.etc.folder)
    report, events = bench.push(bundle)
    assert report.state == "active"
    assert not [one for one in report.findings if one.rule == "signature"]
    assert not any(isinstance(one, SignatureChecked) for one in events)
    report, _ = bench.push(sign(bundle, release))
    assert report.state == "active"
    (note,) = [one for one in report.findings if one.rule == "signature"]
    assert note.severity.value == "note"


def test_a_target_without_openssl_that_requires_a_signature_says_so(
    bench: Bench, bundle: Bundle, release: Authority
) -> None:
    folder = bench.folder / "programs"
    folder.mkdir()
    for place in ("/usr/bin", "/bin"):
        for program in Path(place).iterdir():
            link = folder / program.name
            if program.name != "openssl" and not link.exists() and not link.is_symlink():
                link.symlink_to(program)
    bench.path = str(folder)
    report, _ = bench.push(sign(bundle, release))
    assert "no openssl is there" in refusal(report)


def test_what_the_pushing_user_could_change_is_a_warning(
    bench: Bench, bundle: Bundle, release: Authority
) -> None:
    report, _ = bench.push(sign(bundle, release))
    (warning,) = [one for one in report.findings if one.rule == "signature"]
    assert warning.severity.value == "warning"
    for file in ("", "/policy", "/keys", "/keys/release.pem"):
        assert f"{bench.etc.folder}{file}" in warning.message


def test_a_cut_around_the_signature_leaves_what_was_and_the_next_push_completes(
    bench: Bench, bundle: Bundle, release: Authority
) -> None:
    bench.push(sign(bundle, release, counter=2))
    cuts = [
        ("check", "before", 2),
        ("check", "after", 3),
        ("keep", "before", 4),
        ("keep", "after", 6),
    ]
    for number, (word, when, counter) in enumerate(cuts, start=3):
        signed = sign(bundle, release, counter=number)
        before = bench.active
        bench.cut = (word, when)
        report, _ = bench.push(signed)
        bench.cut = None
        assert isinstance(report.error, ConnectError)
        assert bench.active == before
        assert bench.counter == counter
        report, _ = bench.push(signed)
        assert report.state == "active", report.error
        assert bench.counter == number


def test_the_private_key_is_nowhere_in_what_is_sent_or_kept(
    bench: Bench, bundle: Bundle, release: Authority
) -> None:
    report, _ = bench.push(sign(bundle, release))
    assert report.state == "active"
    secret = "".join(release.key.read_text().splitlines()[1:-1])[:40].encode()
    said = "\n".join(word for one in bench.sent for argv in one.commands for word in argv)
    assert secret.decode() not in said
    for folder in (bench.root, bundle.path):
        for file in folder.rglob("*"):
            if file.is_file():
                data = file.read_bytes().replace(b"\n", b"")
                assert secret not in data
                assert b"PRIVATE KEY" not in data
