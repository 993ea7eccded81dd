"""Caches on disk: read, recognised, converted, written with their records."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgecal.adapters.cache_files import CacheFile
    from edgecal.core.caffe_names import CaffeLayer
    from edgecal.core.conversion import ScaleSet
    from edgecal.core.manifest import Manifest
    from edgecal.core.versions import TensorRTVersion


def read_cache(path: Path) -> CacheFile:
    """Read a calibration cache: a file, or that of a bundle."""
    from edgecal.adapters.cache_files import read_cache_file

    return read_cache_file(path)


def read_record(path: Path) -> bytes | None:
    """Read the record that lies beside a cache or bundle, if one does."""
    from edgecal.adapters import cache_files

    return cache_files.read_record(path)


def write_with_record(path: Path, data: bytes, record: bytes, *, inputs: Sequence[Path]) -> None:
    """Write a cache and, before it, the record of how it was made."""
    from edgecal.adapters import cache_files

    cache_files.write_with_record(path, data, record, inputs=inputs)


def check_new_bundle(path: Path, *, source: Path) -> None:
    """Make sure, before the work, that a bundle made of another one may be written there."""
    from edgecal.adapters import cache_files

    cache_files.check_new_bundle(path, source=source)


def write_bundle_with_record(
    path: Path, manifest: Manifest, data: bytes, record: bytes, *, source: Path
) -> None:
    """Write a bundle with another one's files but this cache and manifest, and its record."""
    from edgecal.adapters import cache_files

    cache_files.write_bundle_with_record(path, manifest, data, record, source=source)


def recognise(file: CacheFile) -> str:
    """Tell which format a file has; a bundle holds a calibration cache."""
    from edgecal.core.formats.registry import recognise as recognise_data

    if file.manifest is not None:
        return "trt"
    return recognise_data(file.data, name=file.path.name)


def read_scales(file: CacheFile, word: str, *, segment: str | None) -> ScaleSet:
    """Read scales of any format, Q/DQ networks apart."""
    from edgecal.adapters import scale_files

    return scale_files.read_scales(file.data, word, source=str(file.path), segment=segment)


def write_scales(
    scales: ScaleSet, word: str, *, tensorrt: TensorRTVersion | None, source: str
) -> bytes:
    """Write scales in any format, Q/DQ networks apart."""
    from edgecal.adapters import scale_files

    return scale_files.write_scales(scales, word, tensorrt=tensorrt, source=source)


def caffe_layers(prototxt: Path) -> Sequence[CaffeLayer]:
    """Read the layers of a Caffe network."""
    from edgecal.adapters.caffe import read_prototxt

    return read_prototxt(read_cache(prototxt).data, source=str(prototxt))
