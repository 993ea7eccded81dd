"""Keys, and the signatures of bundles."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edgecal.adapters.bundle import Bundle
    from edgecal.adapters.signed_bundles import SignedBundle


def make_keys(private: Path, public: Path, *, passphrase: bytes | None) -> str:
    """Make a pair of keys; gives their fingerprint."""
    from edgecal.adapters import keys

    return keys.make_keys(private, public, passphrase=passphrase).fingerprint


def sign(
    path: Path,
    *,
    key: Path,
    passphrase: Callable[[], bytes],
    counter: int | None,
    targets: Sequence[str],
) -> SignedBundle:
    """Sign a bundle whose files are whole."""
    from edgecal.adapters import signed_bundles

    return signed_bundles.sign_bundle(
        path, key=key, passphrase=passphrase, counter=counter, targets=targets
    )


def verify(path: Path, keys: Sequence[Path]) -> tuple[Bundle, str]:
    """Verify a bundle; gives the fingerprint of the key that did."""
    from edgecal.adapters import signed_bundles

    return signed_bundles.verify_bundle(path, keys)
