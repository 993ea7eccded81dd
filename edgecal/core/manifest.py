"""Where a bundle came from: digests, versions, algorithm, data; written once, then checked."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NewType, TypeVar

from edgecal.core.versions import TensorRTVersion, parse_tensorrt
from edgecal.errors import BundleError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Digest = NewType("Digest", str)
"""`sha256:` and 64 hex digits."""

T = TypeVar("T")

SCHEMA: Final = "edgecal.bundle/1"
MODEL_FILE: Final = "model.onnx"
CACHE_FILE: Final = "calibration.cache"
QDQ_FILE: Final = "model.qdq.onnx"
GOLDEN_FILE: Final = "golden.npz"
HISTOGRAMS_FILE: Final = "histograms.npz"
MANIFEST_FILE: Final = "manifest.json"
SIGNATURE_FILE: Final = "manifest.json.sig"
LOG_FILE: Final = "calibration.log"
HOST_ONLY: Final = frozenset({HISTOGRAMS_FILE, LOG_FILE})
"""Files that stay on the host."""

CACHE_FORM: Final = "cache"
QDQ_FORM: Final = "qdq"
SCALES_FILE: Final[Mapping[str, str]] = MappingProxyType(
    {CACHE_FORM: CACHE_FILE, QDQ_FORM: QDQ_FILE}
)
"""Where the scales of a bundle are, by its form."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_BITS = re.compile(r"[0-9a-f]{1,8}")


def digest_of(data: bytes) -> Digest:
    """Digest bytes at hand."""
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


def parse_name(text: str, *, source: str) -> str:
    """Accept a name a bundle or a model on a target may have.

    Raises
    ------
    InputError
        If it could not be one folder's name on any target.
    """
    if _NAME.fullmatch(text) is None or text in {".", ".."}:
        raise InputError(
            f"expected a name of 1 to 64 letters, digits, '.', '_' or '-', found {text!r}",
            where=source,
            remedy="rename it, for example to 'detector-v2'",
        )
    return text


def bundle_name(file_name: str) -> str:
    """Name a bundle after its folder, less `.edgecal`.

    Raises
    ------
    InputError
        If no target could have a folder of that name.
    """
    return parse_name(file_name.removesuffix(".edgecal"), source="-o")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRecord:
    """An input or output of the network; -1 stands for a dimension chosen at run time."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file the bundle was made from, as given, for finding out later whether it changed."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """Which network: digests with and without doc strings, and what goes in and out."""

    digest: Digest
    canonical_digest: Digest
    opset: int
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]
    source: SourceFile
    external_data: tuple[str, ...] = ()
    settled: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes that were chosen for dynamic inputs; the others were those of the data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRecord:
    """Which data, in which order, prepared how."""

    digest: Digest
    source: str
    kind: str
    samples: int
    """All that were used, held-out ones included."""
    held_out: int
    dropped: int
    """Samples of an incomplete last batch."""
    skipped: tuple[str, ...]
    """Unreadable files that `--skip-unreadable` let pass."""
    batch_size: int
    first: tuple[str, ...]
    """Names of the first samples: the first batch sets the range of every histogram."""
    preprocess: Mapping[str, object] | None = None
    excluded: tuple[str, ...] = ()
    """Pictures left out because the test set has them too."""
    groups: Mapping[str, int] = field(default_factory=dict)
    """Samples by label, else by folder; empty where the data has neither."""
    limit: int | None = None
    """How many samples were wanted at most, 0 where all; `None` where an older manifest does not
    tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverrideRecord:
    """A tensor whose scale was given, in place of what was measured; bits as in the cache."""

    name: str
    measured: str | None
    """`None` where the tensor had no usable range."""
    given: str
    source: str
    """Who gave it: a file, or the project's settings."""
    follows: str | None = None
    """The tensor that it was given for, where this one only copies that one's scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationRecord:
    """Who made the numbers, and how."""

    algorithm: str
    parameters: Mapping[str, object]
    chosen_by: str
    """Why this algorithm: `given`, or what `auto` compared."""
    candidates: Mapping[str, float]
    """Error of each algorithm that `auto` tried: RMS of INT8 minus FP32, relative to FP32."""
    backend: str
    backend_version: str
    overrides: tuple[OverrideRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageRecord:
    """How many tensors of the network have an entry."""

    activations: int
    covered: int
    constants: int
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityRecord:
    """What the host's INT8 simulation predicts, over the held-out samples."""

    samples: int
    held_out: bool
    """False where too little data was given and the calibrated samples had to serve."""
    outputs: Mapping[str, Mapping[str, float | None]]
    """Per output: `cosine_min`, `cosine_mean`, `sqnr_db` (none where there is no difference)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenRecord:
    """Runs whose outputs every engine is compared with."""

    runs: int
    held_out: bool
    batch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplicitRecord:
    """How a network with Q/DQ pairs carries the scales, and which TensorRT can build it."""

    minimum_tensorrt: TensorRTVersion
    """The first that takes such a network; later ones all do."""
    fp16: bool
    """Whether what is not quantized is typed float16; builders of strong types leave it so."""
    activations: int
    weights: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """A file of the bundle."""

    digest: Digest
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything a bundle says of itself."""

    name: str
    form: str
    created: datetime
    edgecal: str
    counter: int
    tensorrt: TensorRTVersion
    written_by_tensorrt: bool
    """False: the numbers are edgecal's and the header was stamped."""
    model: ModelRecord
    data: DataRecord
    calibration: CalibrationRecord
    coverage: CoverageRecord
    quality: QualityRecord
    golden: GoldenRecord
    files: Mapping[str, FileRecord]
    targets: tuple[str, ...] | None = None
    restamped_from: TensorRTVersion | None = None
    """What the cache was made for, where `tensorrt` is only what its header was set to since."""
    derived_from: Digest | None = None
    """The manifest of the bundle whose statistics this one was made of, without data."""
    explicit: ExplicitRecord | None = None
    """Of form `qdq` only: it is for no one TensorRT, but for all from a first one on."""


def serialize_manifest(manifest: Manifest) -> bytes:
    """Write a manifest as stable, readable JSON; its digest identifies the bundle."""
    document = {"schema": SCHEMA, **asdict(manifest)}
    document["created"] = manifest.created.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    document["tensorrt"] = str(manifest.tensorrt)
    if manifest.targets is None:
        del document["targets"]
    if manifest.derived_from is None:
        del document["derived_from"]
    if not manifest.calibration.overrides:
        del document["calibration"]["overrides"]
    if manifest.data.limit is None:
        del document["data"]["limit"]
    if not manifest.model.settled:
        del document["model"]["settled"]
    if manifest.restamped_from is None:
        del document["restamped_from"]
    else:
        document["restamped_from"] = str(manifest.restamped_from)
    if manifest.explicit is None:
        del document["explicit"]
    else:
        document["explicit"]["minimum_tensorrt"] = str(manifest.explicit.minimum_tensorrt)
    return write_document(document)


def write_document(document: Mapping[str, Any]) -> bytes:
    """Lay a manifest out: one value a line, the manifest's own keys behind two blanks each.

    The script that verifies signatures on a device reads this layout.
    """
    try:
        return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # a path whose bytes are no text
        return (json.dumps(document, indent=2) + "\n").encode()


def parse_manifest(data: bytes, *, source: str) -> Manifest:
    """Read a manifest.

    Raises
    ------
    BundleError
        If it is not JSON, of another schema, or lacks something.
    """
    try:
        document = json.loads(data)
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            found = (
                document.get("schema") if isinstance(document, dict) else type(document).__name__
            )
            raise BundleError(
                f"expected a manifest of schema {SCHEMA!r}, found {found!r}",
                where=source,
                remedy="make the bundle again with this version of edgecal",
            )
        return _manifest(document, source)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise BundleError(
            f"the manifest does not hold what it should: {type(error).__name__} {error}",
            where=source,
            remedy="the bundle is damaged; copy it again or calibrate again",
        ) from error


def _manifest(document: dict[str, Any], source: str) -> Manifest:
    model, data = document["model"], document["data"]
    if document["form"] not in SCALES_FILE:
        raise BundleError(
            f"expected a bundle of form 'cache' or 'qdq', found {document['form']!r}",
            where=source,
            remedy="use a version of edgecal that knows this form",
        )
    return Manifest(
        name=parse_name(document["name"], source=source),
        form=document["form"],
        created=datetime.strptime(document["created"], "%Y-%m-%dT%H:%M:%SZ").replace(
            tzinfo=timezone.utc
        ),
        edgecal=_as(document["edgecal"], str),
        counter=_as(document["counter"], int),
        tensorrt=_version(document["tensorrt"]),
        written_by_tensorrt=_as(document["written_by_tensorrt"], bool),
        model=ModelRecord(
            digest=_digest(model["digest"]),
            canonical_digest=_digest(model["canonical_digest"]),
            opset=_as(model["opset"], int),
            inputs=_tensors(model["inputs"]),
            outputs=_tensors(model["outputs"]),
            source=SourceFile(**model["source"]),
            external_data=tuple(_file_name(name) for name in model["external_data"]),
            settled={
                _as(name, str): tuple(_as(size, int) for size in shape)
                for name, shape in model.get("settled", {}).items()
            },
        ),
        data=DataRecord(
            **{
                **data,
                "skipped": tuple(data["skipped"]),
                "first": tuple(data["first"]),
                "excluded": tuple(data.get("excluded", ())),
                "limit": _limit(data["limit"]) if "limit" in data else None,
            }
        ),
        calibration=CalibrationRecord(
            **{
                **document["calibration"],
                "overrides": tuple(
                    _override(one) for one in document["calibration"].get("overrides", ())
                ),
            }
        ),
        coverage=CoverageRecord(
            **{**document["coverage"], "missing": tuple(document["coverage"]["missing"])}
        ),
        quality=QualityRecord(**document["quality"]),
        golden=GoldenRecord(**document["golden"]),
        files={
            _file_name(name): FileRecord(
                digest=_digest(record["digest"]), size=_as(record["size"], int)
            )
            for name, record in document["files"].items()
        },
        targets=tuple(_as(one, str) for one in _as(document["targets"], list))
        if document.get("targets") is not None
        else None,
        restamped_from=_version(document["restamped_from"])
        if document.get("restamped_from") is not None
        else None,
        derived_from=_digest(document["derived_from"])
        if document.get("derived_from") is not None
        else None,
        explicit=_explicit(document["explicit"]) if document["form"] == QDQ_FORM else None,
    )


def _explicit(record: Mapping[str, Any]) -> ExplicitRecord:
    return ExplicitRecord(
        minimum_tensorrt=_version(record["minimum_tensorrt"]),
        fp16=_as(record["fp16"], bool),
        activations=_as(record["activations"], int),
        weights=_as(record["weights"], int),
    )


def _version(text: str) -> TensorRTVersion:
    try:
        return parse_tensorrt(text)
    except InputError as error:  # which knows nothing of the manifest
        raise ValueError(error.what) from error


def _limit(value: object) -> int:
    if isinstance(value, bool) or _as(value, int) < 0:
        raise ValueError(f"{value!r} is no number of samples")
    return _as(value, int)


def _override(record: Mapping[str, Any]) -> OverrideRecord:
    measured, follows = record["measured"], record["follows"]
    return OverrideRecord(
        name=_as(record["name"], str),
        measured=None if measured is None else _bits(measured),
        given=_bits(record["given"]),
        source=_as(record["source"], str),
        follows=None if follows is None else _as(follows, str),
    )


def _bits(text: str) -> str:
    if _BITS.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no float32 in hex")
    return text


def _tensors(records: Iterable[Mapping[str, Any]]) -> tuple[TensorRecord, ...]:
    return tuple(
        TensorRecord(
            name=_as(record["name"], str),
            dtype=_as(record["dtype"], str),
            shape=tuple(_as(size, int) for size in record["shape"]),
        )
        for record in records
    )


def _digest(text: str) -> Digest:
    if _DIGEST.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no sha256 digest")
    return Digest(text)


def _file_name(text: str) -> str:
    """Accept a path inside the bundle only: a manifest must not make us read or write elsewhere."""
    if not text or text.startswith("/") or any(part in {"", ".", ".."} for part in text.split("/")):
        raise ValueError(f"{text!r} is no path inside a bundle")
    return text


def _as(value: object, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}, found {value!r}")
    return value
