"""The network and pictures that ship with edgecal, unpacked for the demo."""

from __future__ import annotations

import csv
import shutil
import zipfile
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Final

from edgecal.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

_MARK: Final = ".edgecal-demo"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoData:
    """Where the demo's files lie."""

    folder: Path
    model: Path
    preprocess: Path
    calibration: Path
    test: Path
    labels: dict[str, int]
    """Class by file name, relative to the folder that was unpacked."""


def unpack_demo(folder: Path) -> DemoData:
    """Put the demo's model and pictures into a folder of its own.

    Raises
    ------
    InputError
        If the folder holds something else, or cannot be written.
    """
    source = resources.files("edgecal") / "demo_data"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / _MARK).exists() and any(folder.iterdir()):
            raise InputError(
                "the folder is not empty and is no demo's",
                where=str(folder),
                remedy="name another one with --dir, or remove it",
            )
        (folder / _MARK).touch()
        for name in ("fashion_cnn.onnx", "preprocess.toml", "NOTICE.md"):
            (folder / name).write_bytes((source / name).read_bytes())
        data = folder / "data"
        shutil.rmtree(data, ignore_errors=True)
        with (source / "fashion.zip").open("rb") as packed, zipfile.ZipFile(packed) as archive:
            archive.extractall(data)
    except OSError as error:
        raise InputError(
            f"cannot write the demo's files: {error.strerror or error}",
            where=str(folder),
            remedy="name another folder with --dir",
        ) from error
    with (data / "labels.csv").open(newline="", encoding="utf-8") as stream:
        labels = {row["file"]: int(row["label"]) for row in csv.DictReader(stream)}
    return DemoData(
        folder=folder,
        model=folder / "fashion_cnn.onnx",
        preprocess=folder / "preprocess.toml",
        calibration=data / "calibration",
        test=data / "test",
        labels=labels,
    )
