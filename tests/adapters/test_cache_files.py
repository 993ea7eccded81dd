"""Reading caches from files and bundles, and writing new files beside them."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from edgecal.adapters.cache_files import read_cache_file, write_new_file
from edgecal.errors import BundleError, InputError
from tests.bundles import make_bundles

if TYPE_CHECKING:
    from pathlib import Path

DATA = b"TRT-8502-EntropyCalibration2\nx: 3c010a14\n"


def test_a_missing_file_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the file: No such file") as caught:
        read_cache_file(tmp_path / "none.cache")
    assert caught.value.where.endswith("none.cache")


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="this is no bundle"):
        read_cache_file(tmp_path)


def test_the_cache_of_a_bundle_is_read_where_the_bundle_is_whole(tmp_path: Path) -> None:
    (bundle,) = make_bundles(tmp_path, "8.5.2")
    found = read_cache_file(bundle.path)
    assert found.data == (bundle.path / "calibration.cache").read_bytes()
    assert found.manifest == bundle.manifest
    with (bundle.path / "calibration.cache").open("ab") as stream:
        stream.write(b"extra: 1\n")
    with pytest.raises(BundleError, match="corrupt"):
        read_cache_file(bundle.path)


def test_a_bundle_without_a_cache_says_where_its_scales_are(tmp_path: Path) -> None:
    (bundle,) = make_bundles(tmp_path, "11.0.0")
    with pytest.raises(BundleError, match=r"scales are in model\.qdq\.onnx") as caught:
        read_cache_file(bundle.path)
    assert f"cache convert {bundle.path}/model.qdq.onnx --to json" in caught.value.remedy
    assert f"calibrate --from {bundle.path} --tensorrt X.Y" in caught.value.remedy


def test_a_new_file_is_whole_and_as_public_as_any_other(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out.cache"
    write_new_file(out, DATA)
    assert out.read_bytes() == DATA
    (tmp_path / "usual").touch()
    assert stat.S_IMODE(out.stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)
    assert [one.name for one in out.parent.iterdir()] == ["out.cache"]


def test_another_file_of_that_name_is_replaced_and_an_input_never(tmp_path: Path) -> None:
    source, out = tmp_path / "a.cache", tmp_path / "b.cache"
    source.write_bytes(DATA)
    out.write_bytes(b"old")
    write_new_file(out, DATA, inputs=[source])
    assert out.read_bytes() == DATA
    (tmp_path / "link").symlink_to(source)
    for same in (source, tmp_path / "link", tmp_path / "." / "a.cache"):
        with pytest.raises(InputError, match="also an input"):
            write_new_file(same, b"new", inputs=[source])
    assert source.read_bytes() == DATA


def test_nothing_is_written_in_a_bundle(tmp_path: Path) -> None:
    folder = tmp_path / "net.edgecal"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"schema": "edgecal.bundle/1"}')
    for inside in (folder / "new.cache", folder / "deep" / "new.cache"):
        with pytest.raises(InputError, match="lies in the bundle"):
            write_new_file(inside, DATA)
    assert [one.name for one in folder.iterdir()] == ["manifest.json"]


def test_a_folder_whose_manifest_is_anothers_may_be_written(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "some web page"}')
    write_new_file(tmp_path / "new.cache", DATA)
    assert (tmp_path / "new.cache").read_bytes() == DATA


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        write_new_file(tmp_path / "file" / "new.cache", DATA)
    with pytest.raises(InputError, match="is a folder"):
        write_new_file(tmp_path, DATA)
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
