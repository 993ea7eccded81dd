from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgecal.adapters import bundle as bundles
from edgecal.adapters.bundle import place_signature, read_bundle, write_bundle
from edgecal.adapters.keys import make_keys
from edgecal.adapters.signed_bundles import SignedBundle, sign_bundle, verify_bundle
from edgecal.core.manifest import SIGNATURE_FILE, digest_of
from edgecal.errors import BundleError, IncompatibleError
from tests.core.test_manifest import MANIFEST

if TYPE_CHECKING:
    from pathlib import Path

MODEL = b"a network"
CONTENTS: dict[str, bytes | Path] = {
    "model.onnx": MODEL,
    "calibration.cache": b"TRT-8502-EntropyCalibration2\nx: 3c010a14\n",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    model = replace(MANIFEST.model, digest=digest_of(MODEL), external_data=())
    manifest = replace(MANIFEST, model=model, targets=None, counter=1)
    write_bundle(tmp_path / "net.edgecal", manifest, CONTENTS)
    make_keys(tmp_path / "a.key", tmp_path / "a.pem", passphrase=None)
    return tmp_path / "net.edgecal"


def sign(path: Path, counter: int | None = None) -> SignedBundle:
    return sign_bundle(
        path,
        key=path.with_name("a.key"),
        passphrase=lambda: b"",
        counter=counter,
        targets=[],
    )


def verify(path: Path) -> str:
    return verify_bundle(path, [path.with_name("a.pem")])[1]


def test_a_bundle_that_was_replaced_meanwhile_is_not_signed(path: Path) -> None:
    before = read_bundle(path)
    write_bundle(path, before.manifest, CONTENTS)
    with pytest.raises(BundleError, match="replaced while it was signed"):
        place_signature(before, b"{}", b"signature")
    assert read_bundle(path).signature is None


@pytest.mark.parametrize("step", range(1, 4))
def test_killed_anywhere_signing_leaves_no_wrong_signature(
    step: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign(path)
    steps = iter(range(1, 9))

    def kill(_folder: Path) -> None:
        if next(steps) == step:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bundles, "sync_folder", kill)
        with pytest.raises(KeyboardInterrupt):
            sign(path, counter=9)
    if (path / SIGNATURE_FILE).exists():
        verify(path)
    sign(path, counter=9)
    verify(path)
    assert read_bundle(path).manifest.counter == 9
    assert sorted(one.name for one in path.iterdir()) == sorted(
        [*CONTENTS, "manifest.json", SIGNATURE_FILE]
    )


def test_a_leftover_of_a_killed_signer_is_no_hindrance(path: Path) -> None:
    (path / f".{SIGNATURE_FILE}.new").write_bytes(b"half")
    (path / ".manifest.json.new").write_bytes(b"half")
    sign(path, counter=2)
    assert verify(path)


def test_a_bundle_written_anew_has_no_signature_of_the_old_one(path: Path) -> None:
    signed = sign(path, counter=5).bundle
    assert set(signed.shipped()) == {*CONTENTS, SIGNATURE_FILE}
    again = write_bundle(path, replace(signed.manifest, counter=1), CONTENTS)
    assert again.signature is None
    assert again.manifest.counter == 6
    assert not (path / SIGNATURE_FILE).exists()


def test_a_second_signature_replaces_the_first(path: Path) -> None:
    first = sign(path).bundle
    make_keys(path.with_name("b.key"), path.with_name("b.pem"), passphrase=None)
    second = sign_bundle(
        path, key=path.with_name("b.key"), passphrase=lambda: b"", counter=None, targets=[]
    )
    assert not second.manifest_changed
    assert second.bundle.manifest_digest == first.manifest_digest
    with pytest.raises(IncompatibleError, match="the signature is not by"):
        verify(path)
    assert verify_bundle(path, [path.with_name("a.pem"), path.with_name("b.pem")])[1] == second.key
