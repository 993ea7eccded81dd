"""Pictures in files of their own: those of a folder, of a list, of a CSV file, of a pattern."""

from __future__ import annotations

import csv
import glob
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from edgecal.adapters.images import is_image
from edgecal.adapters.pictures import PictureFile, name_below
from edgecal.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

LIST_SUFFIXES: Final = (".txt", ".lst", ".list")
CSV_SUFFIX: Final = ".csv"
_PATTERN: Final = "*?["
_COLUMNS: Final = ("path", "file", "image")
_LONGEST_LINE: Final = 8192
"""Twice the longest path that Linux takes: what has longer lines is no list."""
_REMEDY_PICTURES: Final = "put PNG, JPEG, BMP, WebP or TIFF files there"


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """Pictures in files of their own, in the order in which they are to be read."""

    where: str
    folder: Path
    """From where names count."""
    pictures: Sequence[PictureFile]
    behind: Sequence[Path] = ()
    """The list that names them, if there is one."""

    @property
    def files(self) -> Sequence[Path]:
        """Name every file that the pictures depend on."""
        return [*self.behind, *(one.path for one in self.pictures)]

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self.pictures)

    def __iter__(self) -> Iterator[PictureFile]:
        """Give them in order."""
        return iter(self.pictures)


def images_in_folder(folder: Path) -> ImageFiles:
    """Find every picture below a folder, sorted by relative path; hidden ones are left out."""
    files: list[Path] = []
    for root, folders, names in os.walk(folder, onerror=raise_unlistable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(root) / name for name in names if is_image(name)]
    if not files:
        raise DatasetError(
            "there is no image in this folder, nor below it",
            where=str(folder),
            remedy=_REMEDY_PICTURES,
        )
    return ImageFiles(where=str(folder), folder=folder, pictures=_named(files, folder))


def is_pattern(spec: str) -> bool:
    """Tell whether a word holds what a shell would replace by names."""
    return any(character in spec for character in _PATTERN)


def images_by_pattern(pattern: str) -> ImageFiles:
    """Find every picture that a pattern matches, sorted by path; `**` stands for any folders.

    Names count from the last folder before the first `*`, `?` or `[`. Hidden files are left out.
    """
    parts = Path(pattern).parts
    fixed = next(number for number, part in enumerate(parts) if is_pattern(part))
    folder = Path(*parts[:fixed])
    found = [Path(name) for name in glob.iglob(pattern, recursive=True)]  # noqa: PTH207 - a whole path
    files = [path for path in set(found) if is_image(path.name) and path.is_file()]
    if not files:
        others = f"; of {len(set(found))} names that match, none is a picture" if found else ""
        raise DatasetError(
            f"no image matches this pattern{others}",
            where=pattern,
            remedy="try it with ls; '**' stands for any number of folders, and quotes keep the "
            "shell from replacing it",
        )
    return ImageFiles(where=pattern, folder=folder, pictures=_named(files, folder))


def images_in_list(path: Path) -> ImageFiles:
    """Read a list: one path a line, relative to the list.

    Blank lines and those that begin with `#` are left out. The order is the list's, and what is
    named twice counts twice.
    """
    pictures = []
    for number, line in enumerate(_lines(path), start=1):
        text = line.strip()
        if text and not text.startswith("#"):
            pictures.append(_listed(text, path, number, label=None))
    return _of_list(path, pictures)


def images_in_csv(path: Path) -> ImageFiles:
    """Read a CSV file with a header: paths relative to it, and labels where it has them.

    Paths stand in the column `path`, `file` or `image`, else in the first one; a column `label`
    may say what a picture shows. Commas, semicolons or tabs separate, whichever the header has.
    """
    lines = _lines(path)
    pictures: list[PictureFile] = []
    try:
        header = next(lines, "")
        rows = csv.reader(lines, delimiter=max(",;\t", key=header.count))
        names = next(csv.reader([header], delimiter=max(",;\t", key=header.count)), [])
        paths, labels = _columns(names, path)
        for row in rows:
            number = rows.line_num + 1  # the header was taken from it
            if not any(cell.strip() for cell in row):
                continue
            text = row[paths].strip() if len(row) > paths else ""
            if not text:
                raise DatasetError(
                    f"there is no path in column {names[paths]!r}",
                    where=f"{path}:{number}",
                    remedy="write the path of a picture there, or remove the row",
                )
            has_label = labels is not None and len(row) > labels
            label = row[labels].strip() if has_label and labels is not None else None
            pictures.append(_listed(text, path, number, label=label or None))
    except csv.Error as error:
        raise DatasetError(
            f"this is no CSV file: {error}",
            where=str(path),
            remedy="write it as UTF-8 with a header, one picture a row",
        ) from error
    return _of_list(path, pictures)


def check_present(pictures: Iterable[PictureFile]) -> None:
    """Find out before the work whether every listed file is there; the first that is not is named.

    Raises
    ------
    DatasetError
        If one is missing.
    """
    for one in pictures:
        try:
            missing = not one.path.is_file()
        except (OSError, ValueError):
            missing = True  # reading would say the same
        if missing:
            raise DatasetError(
                "there is no such image",
                where=one.where,
                remedy="paths count from the list's own folder; correct or remove the line, or "
                "pass --skip-unreadable",
            )


def raise_unlistable(error: OSError) -> NoReturn:
    """Say which folder cannot be listed."""
    raise DatasetError(
        f"cannot list the folder: {error.strerror}",
        where=str(error.filename),
        remedy="check its permissions",
    ) from error


def _named(files: list[Path], folder: Path) -> list[PictureFile]:
    return [
        PictureFile(path=path, name=name_below(path, folder), where=str(path))
        for path in sorted(files)
    ]


def _listed(text: str, path: Path, number: int, *, label: str | None) -> PictureFile:
    file = path.parent / text
    return PictureFile(
        path=file,
        name=name_below(file, path.parent),
        where=f"{path}:{number} ({text})",
        label=label,
    )


def _of_list(path: Path, pictures: list[PictureFile]) -> ImageFiles:
    if not pictures:
        raise DatasetError(
            "the list names no image",
            where=str(path),
            remedy="write the path of one picture a line, relative to this file",
        )
    return ImageFiles(where=str(path), folder=path.parent, pictures=pictures, behind=[path])


def _columns(names: list[str], path: Path) -> tuple[int, int | None]:
    """Find the columns of paths and labels."""
    words = [name.strip().casefold() for name in names]
    if not any(words) or any(is_image(word.rsplit("/", 1)[-1]) for word in words):
        raise DatasetError(
            f"expected a header that names the columns, found {','.join(names)[:60]!r}",
            where=f"{path}:1",
            remedy="write a first line like 'path,label'; a list without columns is a .txt file",
        )
    paths = next((words.index(name) for name in _COLUMNS if name in words), 0)
    return paths, words.index("label") if "label" in words else None


def _lines(path: Path) -> Iterator[str]:
    """Read lines of text with whatever ends they have; bytes that are no text stay as they are."""
    try:
        with path.open("rb") as stream:
            number = 0
            while line := stream.readline(_LONGEST_LINE):
                number += 1
                if len(line) == _LONGEST_LINE or b"\0" in line:
                    raise DatasetError(
                        f"expected a list of images, found {line[:40]!r}",
                        where=f"{path}:{number}",
                        remedy="write the path of one picture a line",
                    )
                text = line.decode("utf-8", "surrogateescape")
                yield text.removeprefix("\ufeff") if number == 1 else text
    except OSError as error:
        raise DatasetError(
            f"cannot read the list: {error.strerror}",
            where=str(path),
            remedy="check the path and its permissions",
        ) from error
