"""Bundles signed and verified on the host: their files, and the keys beside them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgecal.adapters.bundle import Bundle, place_signature, read_bundle
from edgecal.adapters.keys import read_private_key, read_public_key
from edgecal.core.manifest import MANIFEST_FILE, SIGNATURE_FILE, digest_of
from edgecal.core.signing import check_layout, manifest_to_sign
from edgecal.errors import IncompatibleError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edgecal.core.manifest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedBundle:
    """What was signed, and with which key."""

    bundle: Bundle
    key: Digest
    key_exposed: bool
    manifest_changed: bool


def sign_bundle(
    path: Path,
    *,
    key: Path,
    passphrase: Callable[[], bytes],
    counter: int | None,
    targets: Sequence[str],
) -> SignedBundle:
    """Sign a bundle, with counter and targets in its manifest if they are given.

    Raises
    ------
    BundleError
        If a file differs from the manifest: nobody answers for a corrupt bundle.
    InputError
        If the key, the counter or the targets are none.
    """
    before = read_bundle(path)
    with before.open(MANIFEST_FILE) as stream:
        data = stream.read()
    manifest = manifest_to_sign(
        data, counter=counter, targets=targets, source=str(path / MANIFEST_FILE)
    )
    check_layout(manifest, source=str(path / MANIFEST_FILE))
    private = read_private_key(key, passphrase)
    return SignedBundle(
        bundle=place_signature(before, manifest, private.sign(manifest)),
        key=private.public.fingerprint,
        key_exposed=private.exposed,
        manifest_changed=digest_of(manifest) != before.manifest_digest,
    )


def verify_bundle(path: Path, keys: Sequence[Path]) -> tuple[Bundle, Digest]:
    """Verify a bundle's files and signature, as a device would; gives the key that fits.

    Raises
    ------
    BundleError
        If a file differs from the manifest.
    IncompatibleError
        If it is not signed, or by none of these keys.
    """
    known = [read_public_key(one) for one in keys]
    bundle = read_bundle(path)
    if bundle.signature is None:
        raise IncompatibleError(
            "the bundle is not signed",
            where=str(path),
            remedy=f"edgecal sign {shlex.quote(str(path))} --key KEY",
        )
    with bundle.open(MANIFEST_FILE) as stream:
        data = stream.read()
    with bundle.open(SIGNATURE_FILE) as stream:
        signature = stream.read()
    fitting = next((one for one in known if one.verifies(signature, data)), None)
    if fitting is None:
        raise IncompatibleError(
            "the signature is not by "
            + " or ".join(str(one.fingerprint) for one in known)
            + ", or the manifest was changed after it was signed",
            where=str(path / SIGNATURE_FILE),
            remedy="ask whoever released it for their public key, or for the bundle again",
        )
    check_layout(data, source=str(path / MANIFEST_FILE))
    return bundle, fitting.fingerprint
