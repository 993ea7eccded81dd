"""What only data of pictures can do: show itself, be held against a test set, tell its shares."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgecal.core.findings import Finding
    from edgecal.core.similarity import Alike
    from edgecal.ports import Dataset


@runtime_checkable
class Pictures(Protocol):
    """Data that was made of pictures."""

    @property
    def files(self) -> Sequence[Path]:
        """Name the files of pictures."""
        ...

    @property
    def alike(self) -> Sequence[Alike]:
        """Name the samples that were left out for the test set's sake, once the data was read."""
        ...

    @property
    def groups(self) -> Mapping[str, int]:
        """Count samples by label, else by folder, once the data was read."""
        ...

    def exclude_like(self, spec: str) -> None:
        """Leave out what also stands in a test set."""
        ...

    def contact_sheet(self) -> bytes:
        """Draw what the network will see of the first samples, as a PNG file."""
        ...


def only_pictures(source: Dataset, spec: str, *, option: str) -> Pictures:
    """Give data as pictures.

    Raises
    ------
    DatasetError
        If it comes prepared, so that there are none.
    """
    from edgecal.errors import DatasetError

    if isinstance(source, Pictures):
        return source
    raise DatasetError(
        f"{option} is for pictures, and this data holds {source.kind}",
        where=spec,
        remedy=f"leave {option} out, or give a folder, list, pattern or archive of images",
    )


def write_preview(path: Path, pictures: Pictures, spec: str) -> None:
    """Write a contact sheet as a PNG file, never among the pictures themselves.

    Raises
    ------
    InputError
        If the name is not that of a PNG file, or the file cannot be written there.
    """
    from edgecal.cli.wiring import new_files
    from edgecal.errors import InputError

    if path.suffix.lower() != ".png":
        raise InputError(
            "the preview is a PNG file", where=str(path), remedy="give a name that ends in .png"
        )
    whole = Path(spec).is_dir()
    if whole and Path(spec).resolve() in path.resolve().parents:
        raise InputError(
            f"the preview would be a picture of the data: {spec}",
            where=str(path),
            remedy="write it somewhere else",
        )
    inputs = [Path(spec), *([] if whole else pictures.files)]
    new_files.check(path, inputs=inputs)
    new_files.write(path, pictures.contact_sheet(), inputs=inputs)


def findings_of_pass(source: Dataset, *, spec: str, test_set: str | None) -> list[Finding]:
    """Say what reading the data has shown: samples of the test set, and lopsided shares."""
    from edgecal.core.shares import judge_shares
    from edgecal.core.similarity import judge_excluded

    if not isinstance(source, Pictures):
        return []
    return [
        *judge_excluded(source.alike, test_set=test_set or ""),
        *judge_shares(source.groups, source=spec),
    ]


def shares_line(source: Dataset) -> str | None:
    """Write the shares of folders or labels for people; nothing where there is only one."""
    from edgecal.core.shares import describe_shares

    if isinstance(source, Pictures) and len(source.groups) > 1:
        return describe_shares(source.groups)
    return None
