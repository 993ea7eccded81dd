from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from edgecal.adapters.keys import make_keys, read_private_key, read_public_key
from edgecal.core.manifest import digest_of
from edgecal.errors import InputError
from tests.signing import authority, openssl
from tests.users import nobody

if TYPE_CHECKING:
    from pathlib import Path

DATA = b"what is signed\n"


def no_passphrase() -> bytes:
    raise AssertionError("nobody should be asked")


@pytest.mark.parametrize("existing", ["release.key", "release.pem"])
def test_no_key_is_written_over_another_file(existing: str, tmp_path: Path) -> None:
    (tmp_path / existing).write_text("precious")
    with pytest.raises(InputError, match="never written over"):
        make_keys(tmp_path / "release.key", tmp_path / "release.pem", passphrase=None)
    assert [one.name for one in tmp_path.iterdir()] == [existing]
    assert (tmp_path / existing).read_text() == "precious"


def test_no_key_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "release.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="never written over"):
        make_keys(tmp_path / "release.key", tmp_path / "release.pem", passphrase=None)
    assert not (tmp_path / "elsewhere").exists()
    assert not (tmp_path / "release.pem").exists()


def test_a_folder_that_cannot_be_written_is_an_error_of_input(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with nobody(), pytest.raises(InputError, match="cannot write the key"):
        make_keys(tmp_path / "a" / "b.key", tmp_path / "a" / "b.pem", passphrase=None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("genrsa", "-out", "KEY", "2048"), "found RSAPrivateKey"),
        (("ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out", "KEY"), "secp384r1"),
        (("genpkey", "-algorithm", "ed25519", "-out", "KEY"), "found Ed25519PrivateKey"),
    ],
)
def test_other_kinds_of_keys_are_named_and_refused(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    key, public = tmp_path / "KEY", tmp_path / "PUB"
    openssl(*(str(key) if word == "KEY" else word for word in words))
    with pytest.raises(InputError, match=said):
        read_private_key(key, no_passphrase)
    openssl("pkey", "-in", key, "-pubout", "-out", public)
    with pytest.raises(InputError, match=said.replace("Private", "Public")):
        read_public_key(public)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no key",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"\xff" * 99,
    ],
)
def test_what_is_no_key_is_an_error_of_input(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(data)
    with pytest.raises(InputError, match="expected a private key"):
        read_private_key(file, no_passphrase)
    with pytest.raises(InputError, match="expected a public key"):
        read_public_key(file)
    with pytest.raises(InputError, match="cannot read the key"):
        read_public_key(tmp_path)


def test_public_and_private_keys_are_not_mixed_up(tmp_path: Path) -> None:
    make_keys(tmp_path / "a.key", tmp_path / "a.pem", passphrase=None)
    with pytest.raises(InputError, match="expected a private key"):
        read_private_key(tmp_path / "a.pem", no_passphrase)
    with pytest.raises(InputError, match="expected a public key"):
        read_public_key(tmp_path / "a.key")


def test_a_wrong_passphrase_opens_nothing_and_is_not_repeated(tmp_path: Path) -> None:
    make_keys(tmp_path / "a.key", tmp_path / "a.pem", passphrase=b"right")
    with pytest.raises(InputError, match="does not open") as caught:
        read_private_key(tmp_path / "a.key", lambda: b"hunter2")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("passphrase", [None, "pässword with blanks".encode()])
def test_what_openssl_signs_we_verify_and_the_other_way_round(
    passphrase: bytes | None, tmp_path: Path
) -> None:
    key, public = tmp_path / "release.key", tmp_path / "release.pem"
    old = os.umask(0)
    try:
        made = make_keys(key, public, passphrase=passphrase)
    finally:
        os.umask(old)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    secret = tmp_path / "passphrase"
    secret.write_bytes(passphrase or b"unused")
    data, signature = tmp_path / "data", tmp_path / "data.sig"
    data.write_bytes(DATA)

    openssl("dgst", "-sha256", "-sign", key, "-passin", f"file:{secret}", "-out", signature, data)
    assert read_public_key(public).verifies(signature.read_bytes(), DATA)
    assert not read_public_key(public).verifies(signature.read_bytes(), DATA + b"!")
    assert not read_public_key(public).verifies(b"", DATA)

    private = read_private_key(key, lambda: passphrase or no_passphrase())
    signature.write_bytes(private.sign(DATA))
    said = openssl("dgst", "-sha256", "-verify", public, "-signature", signature, data)
    assert said == b"Verified OK\n"
    assert not private.exposed
    assert made.fingerprint == private.public.fingerprint
    der = openssl("pkey", "-pubin", "-in", public, "-outform", "DER")
    assert made.fingerprint == digest_of(der)
    assert repr(private) == "PrivateKey(exposed=False)"


@pytest.mark.parametrize("extra", [(), ("-noout",)])
def test_keys_that_openssl_made_are_read_with_and_without_their_curve(
    extra: tuple[str, ...], tmp_path: Path
) -> None:
    key = tmp_path / "key"
    openssl("ecparam", "-name", "prime256v1", "-genkey", *extra, "-out", key)
    assert ("EC PARAMETERS" in key.read_text()) != bool(extra)
    key.chmod(0o644)
    private = read_private_key(key, no_passphrase)
    assert private.exposed
    public = authority(tmp_path).public
    assert not read_public_key(public).verifies(private.sign(DATA), DATA)
