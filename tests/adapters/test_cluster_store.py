"""What a worker is sent: checked before it counts, and never half there."""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING

import pytest

from edgecal.adapters.bundle import read_bundle
from edgecal.adapters.cluster.store import Store, store_folder
from edgecal.core.manifest import MANIFEST_FILE
from edgecal.errors import BundleError, ClusterError
from tests.bundles import make_bundles

if TYPE_CHECKING:
    from pathlib import Path


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A bundle's files."""
    (made,) = make_bundles(tmp_path_factory.mktemp("made"), "8.5.2")
    return {
        str(file.relative_to(made.path)): file.read_bytes()
        for file in made.path.rglob("*")
        if file.is_file()
    }


def filled(folder: Path, files: dict[str, bytes]) -> tuple[Store, dict[str, str]]:
    store = Store(folder)
    for data in files.values():
        store.put(digest(data), "0", 0, data, last=True)
    return store, {name: digest(data) for name, data in files.items()}


@pytest.mark.parametrize("name", ["", "sha256:", "sha256:../../x", "sha1:00", f"sha256:{'G' * 64}"])
def test_what_is_no_digest_names_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ClusterError, match="no digest"):
        Store(tmp_path).missing([name])


def test_what_arrives_damaged_is_not_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ClusterError, match="arrived damaged"):
        store.put(digest(b"good"), "0", 0, b"bad", last=True)
    with pytest.raises(ClusterError, match="no sender"):
        store.put(digest(b"good"), "../0", 0, b"good", last=True)
    assert store.missing([digest(b"good")]) == (digest(b"good"),)
    assert not [one for one in tmp_path.rglob("*") if one.is_file()]


def test_what_cannot_be_kept_is_said(tmp_path: Path) -> None:
    (tmp_path / "files").write_text("in the way")
    with pytest.raises(ClusterError, match="cannot keep what it is sent"):
        Store(tmp_path).put(digest(b"x"), "0", 0, b"x", last=True)
    with pytest.raises(ClusterError, match="is gone"):
        Store(tmp_path).read(digest(b"x"))


def test_several_may_send_the_same_file_in_parts_and_from_the_beginning_again(
    tmp_path: Path,
) -> None:
    store, name = Store(tmp_path), digest(b"0123456789")
    store.put(name, "a", 0, b"01234XXXXXXXXX", last=False)
    store.put(name, "b", 0, b"012", last=False)
    assert store.missing([name]) == (name,)
    store.put(name, "a", 0, b"01234", last=False)
    store.put(name, "a", 5, b"56789", last=True)
    store.put(name, "b", 3, b"3456789", last=True)
    assert store.read(name) == b"0123456789"
    assert [one.name for one in (tmp_path / "files").iterdir()] == [name[7:]]
    store.put(digest(b""), "a", 0, b"", last=True)
    assert store.read(digest(b"")) == b""


def test_files_that_are_no_bundle_make_none(tmp_path: Path, bundle: dict[str, bytes]) -> None:
    store, files = filled(tmp_path, bundle)
    less = {name: one for name, one in files.items() if name != "golden.npz"}
    for wrong in (less, {**files, "more": files["golden.npz"]}, {**files, "../x": digest(b"")}):
        with pytest.raises(BundleError, match="not those that the manifest lists"):
            store.bundle(wrong)
    with pytest.raises(ClusterError, match="is gone"):
        store.bundle({**files, MANIFEST_FILE: digest(b"other")})
    assert not (tmp_path / "bundles").exists()


def test_a_bundle_is_put_together_once_and_mended_if_somebody_touched_it(
    tmp_path: Path, bundle: dict[str, bytes]
) -> None:
    store, files = filled(tmp_path, bundle)
    made = store.bundle(files)
    assert store.bundle(files) is made
    assert read_bundle(made.path).manifest_digest == files[MANIFEST_FILE]
    (made.path / "golden.npz").write_bytes(b"touched")
    again = Store(tmp_path).bundle(files)
    assert again.path == made.path
    assert (again.path / "golden.npz").read_bytes() == bundle["golden.npz"]


def test_what_was_of_no_use_for_a_month_goes(tmp_path: Path, bundle: dict[str, bytes]) -> None:
    store, files = filled(tmp_path, bundle)
    made = store.bundle(files)
    store.tidy()
    assert store.missing(tuple(files.values())) == ()
    old = time.time() - 31 * 24 * 3600
    for path in (made.path, store.file(files["golden.npz"])):
        os.utime(path, (old, old))
    store.tidy()
    assert not made.path.exists()
    assert store.missing(tuple(files.values())) == (files["golden.npz"],)


def test_the_folder_is_the_user_s_for_what_can_be_had_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert store_folder() == tmp_path / "edgecal" / "worker"
