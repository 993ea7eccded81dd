"""Key files: made, read, signed and verified with; PEM, as openssl writes and reads them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgecal.core.manifest import Digest
from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_MOST_BYTES: Final = 1 << 16
_NO_KEY: Final = (
    "give a PEM file of a P-256 key: 'edgecal keygen NAME' makes one, or 'openssl ecparam "
    "-name prime256v1 -genkey -noout'"
)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Tells whether the holder of the private key signed something."""

    _key: ec.EllipticCurvePublicKey = field(repr=False)

    @property
    def fingerprint(self) -> Digest:
        """Name the key: SHA-256 over its DER form, as the probe of a target gives it."""
        der = self._key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return Digest(f"sha256:{hashlib.sha256(der).hexdigest()}")

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Tell whether this is that key's signature over the data."""
        try:
            self._key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """Signs."""

    _key: ec.EllipticCurvePrivateKey = field(repr=False)
    exposed: bool
    """Whether others than its owner may read the file."""

    @property
    def public(self) -> PublicKey:
        """Give the other half."""
        return PublicKey(self._key.public_key())

    def sign(self, data: bytes) -> bytes:
        """Sign as `openssl dgst -sha256 -sign` does."""
        return self._key.sign(data, ec.ECDSA(hashes.SHA256()))


def make_keys(private: Path, public: Path, *, passphrase: bytes | None) -> PublicKey:
    """Make a pair of keys: a private file for its owner alone, a public one for everybody.

    Raises
    ------
    InputError
        If one of the files exists, or cannot be written; then neither is left.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption(),
    )
    shown = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _write_new(public, shown, mode=0o644)
    try:
        _write_new(private, secret, mode=0o600)
    except InputError:
        public.unlink()
        raise
    return PublicKey(key.public_key())


def read_private_key(path: Path, ask: Callable[[], bytes]) -> PrivateKey:
    """Read a private key.

    Parameters
    ----------
    ask
        Gives the passphrase; called only for a key that has one.

    Raises
    ------
    InputError
        If it is no private P-256 key, or the passphrase is wrong.
    """
    data = _read(path)
    # 'openssl ecparam -genkey' writes the curve before the key
    begin = data.find(b"-----BEGIN EC PRIVATE KEY-----")
    pem = data[begin:] if begin > 0 else data
    try:
        key = serialization.load_pem_private_key(pem, None)
    except TypeError:  # it has a passphrase
        try:
            key = serialization.load_pem_private_key(pem, ask())
        except ValueError as error:
            raise InputError(
                "the passphrase does not open this key", where=str(path), remedy="try again"
            ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError(
            "expected a private key in PEM form, found something else",
            where=str(path),
            remedy=_NO_KEY,
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _wrong_kind(path, type(key).__name__.lstrip("_"))
    _check_curve(path, key.curve)
    return PrivateKey(key, exposed=bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)))


def read_public_key(path: Path) -> PublicKey:
    """Read a public key.

    Raises
    ------
    InputError
        If it is no public P-256 key.
    """
    try:
        key = serialization.load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError(
            "expected a public key in PEM form, found something else",
            where=str(path),
            remedy="give the .pem file that 'edgecal keygen' wrote beside the private key, or "
            "what 'openssl pkey -in KEY -pubout' prints",
        ) from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise _wrong_kind(path, type(key).__name__.lstrip("_"))
    _check_curve(path, key.curve)
    return PublicKey(key)


def _check_curve(path: Path, curve: ec.EllipticCurve) -> None:
    if not isinstance(curve, ec.SECP256R1):
        raise _wrong_kind(path, f"one on {curve.name}")


def _wrong_kind(path: Path, found: str) -> InputError:
    return InputError(
        f"expected a key on the curve P-256, found {found}", where=str(path), remedy=_NO_KEY
    )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_MOST_BYTES)
    except OSError as error:
        raise InputError(
            f"cannot read the key: {error.strerror}", where=str(path), remedy="check the path"
        ) from error


def _write_new(path: Path, data: bytes, *, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise InputError(
            "this file exists, and a key is never written over another",
            where=str(path),
            remedy="choose another name, or move the old key away",
        ) from error
    except OSError as error:
        raise InputError(
            f"cannot write the key: {error.strerror}",
            where=str(path),
            remedy="check the folder and its permissions",
        ) from error
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise InputError(
            f"cannot write the key: {error.strerror}", where=str(path), remedy="check free space"
        ) from error
