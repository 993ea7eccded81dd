"""Looks at the network and the data that a bundle was made from: cheaply first, then by digest.

Sizes and times of change come first; what differs there is read and digested. Data has no times in
a manifest, so what changed after the bundle was made is read, and the rest is taken for the same:
a file replaced by one with an older time, or changed before a bundle was restamped, is seen by
`deep` only.
"""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgecal.adapters.batches import BatchFiles
from edgecal.adapters.datasets import open_dataset
from edgecal.adapters.generated import Generated
from edgecal.adapters.picture_samples import Images
from edgecal.core.freshness import FoundData, FoundModel
from edgecal.core.graph import TensorInfo
from edgecal.core.manifest import Digest, digest_of
from edgecal.errors import DatasetError, ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgecal.adapters.array_files import ArrayFile
    from edgecal.core.manifest import Manifest, TensorRecord

_CHUNK: Final = 1 << 20


def find_model(named: str, manifest: Manifest, *, deep: bool) -> FoundModel:
    """Look at the file that is said to be a bundle's network."""
    record = manifest.model
    path = Path(named).expanduser()
    weights = [path.parent / name for name in record.external_data]
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
            return FoundModel(path=named, problem="it is no regular file")
        if (
            not deep
            and (status.st_size, status.st_mtime_ns) == (record.source.size, record.source.mtime_ns)
            and not _changed_since(manifest, weights)
        ):
            return FoundModel(path=named)
        digest = hashlib.sha256()
        _feed(digest, path)
        for file in weights:
            one = hashlib.sha256()
            _feed(one, file)
            digest.update(one.digest())
    except OSError as error:
        return FoundModel(path=named, problem=_reason(error))
    found = Digest(f"sha256:{digest.hexdigest()}")
    canonical = _canonical_digest(path) if found != record.digest else None
    return FoundModel(path=named, digest=found, canonical_digest=canonical)


def find_data(named: str, manifest: Manifest, *, deep: bool) -> FoundData:
    """Look at what is said to be a bundle's data; a generator is never run."""
    record = manifest.data
    try:
        dataset = open_dataset(
            str(Path(named).expanduser()),
            [_tensor_info(one) for one in manifest.model.inputs],
            preprocess=None,
            skip_unreadable=True,
        )
        if isinstance(dataset, Generated):
            return FoundData(source=named, problem="it is a generator, which would have to run")
        if isinstance(dataset, Images):
            return _find_images(named, dataset, manifest, deep=deep)
        samples = len(dataset)
        digest = None
        if deep or _changed_since(manifest, _files_of(dataset)):
            dataset.limit = record.samples
            digest = _digest_samples((one.name, one.digest) for one in dataset)
    except DatasetError as error:
        if not Path(named).expanduser().exists() or isinstance(error.__cause__, OSError):
            return FoundData(source=named, problem=error.what)
        return FoundData(source=named, mismatch=error.what)
    except OSError as error:
        return FoundData(source=named, problem=_reason(error))
    return FoundData(source=named, kind=dataset.kind, samples=samples, digest=digest)


def _find_images(named: str, dataset: Images, manifest: Manifest, *, deep: bool) -> FoundData:
    """Read files only: pictures need not be decoded, nor the network run."""
    record, source = manifest.data, dataset.source
    changed = deep or _changed_since(manifest, [one for one in source.files if one.exists()])
    if not changed and not len(source):  # an archive would have to be read to be counted
        return FoundData(source=named, kind=dataset.kind)
    left_out = {*record.skipped, *record.excluded}
    names: list[str] = []
    digest = hashlib.sha256()
    for picture in source:
        if picture.name in left_out:
            continue
        names.append(picture.name)
        if changed and len(names) <= record.samples:
            digest.update(f"{picture.name}\0{digest_of(picture.read())}\n".encode())
    return FoundData(
        source=named,
        kind=dataset.kind,
        samples=len(names),
        first=tuple(names[: len(record.first)]),
        digest=Digest(f"sha256:{digest.hexdigest()}") if changed else None,
    )


def _files_of(dataset: ArrayFile | BatchFiles) -> Sequence[Path]:
    return dataset.files if isinstance(dataset, BatchFiles) else [dataset.path]


def _changed_since(manifest: Manifest, files: Iterable[Path]) -> bool:
    made = manifest.created.timestamp()  # whole seconds, rounded down
    return any(file.stat().st_mtime >= made for file in files)


def _digest_samples(samples: Iterable[tuple[str, Digest]]) -> Digest:
    """Digest names and contents in their order, as calibrate does on its way through the data."""
    whole = hashlib.sha256()
    for name, digest in samples:
        whole.update(f"{name}\0{digest}\n".encode())
    return Digest(f"sha256:{whole.hexdigest()}")


def _feed(digest: hashlib._Hash, file: Path) -> None:
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)


def _canonical_digest(path: Path) -> Digest | None:
    """Digest what the network computes; `None` if the file is no network edgecal can calibrate."""
    from edgecal.adapters.onnx_model import read_model  # noqa: PLC0415 - slow, and seldom needed

    try:
        return read_model(path).canonical_digest
    except ModelError:
        return None


def _tensor_info(record: TensorRecord) -> TensorInfo:
    return TensorInfo(
        name=record.name,
        dtype=record.dtype,
        shape=tuple(None if size < 0 else size for size in record.shape),
    )


def _reason(error: OSError) -> str:
    return f"it cannot be read ({error.strerror or error})"
