"""TensorRT versions: read from any spelling, compare, turn into header codes and back.

One release has many names: `8.5.2.2` (Python), `8.5.2-1+cuda11.4` (deb package), `8502` (the
header of a calibration cache and the library), `[TensorRT v8502]` (the banner of trtexec, which on
newer releases ends with the build number: `[TensorRT v101602] [b10]`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering
from typing import Final

from edgecal.errors import InputError

_FIRST_MAJOR_OF_LONG_CODES: Final = 10
_SHORTEST_LONG_CODE: Final = 10_000

_CODE = re.compile(r"[0-9]{4,6}")
_BANNER = re.compile(
    r"TensorRT v(?P<code>[0-9]{4,6})\]?(?:\s*\[b(?P<build>[0-9]{1,6})\])?(?![0-9])"
)
_DOTTED = re.compile(
    r"(?P<major>[0-9]{1,2})\.(?P<minor>[0-9]{1,2})"
    r"(?:\.(?P<patch>[0-9]{1,2})(?:\.(?P<build>[0-9]{1,6}))?)?"
    r"(?:-[0-9A-Za-z.+~-]+|\.post[0-9]+)?"  # a deb's revision; a wheel's post-release
)


@total_ordering
@dataclass(frozen=True, slots=True)
class TensorRTVersion:
    """A TensorRT release. `build` is `None` where the source of the version does not tell it.

    Two versions are equal if all four fields are; a version without a build number sorts before
    every build of the same patch. Compare `major_minor` to ask whether a cache may be reused.
    """

    major: int
    minor: int
    patch: int = 0
    build: int | None = None

    @property
    def major_minor(self) -> str:
        """What a calibration cache is bound to, such as `8.5`."""
        return f"{self.major}.{self.minor}"

    @property
    def major_minor_patch(self) -> str:
        """The version without its build number, which not everybody tells, such as `8.5.2`."""
        return f"{self.major_minor}.{self.patch}"

    def __str__(self) -> str:
        text = self.major_minor_patch
        return text if self.build is None else f"{text}.{self.build}"

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, TensorRTVersion):
            return NotImplemented
        return self._order() < other._order()

    def _order(self) -> tuple[int, int, int, int]:
        return self.major, self.minor, self.patch, -1 if self.build is None else self.build


def parse_tensorrt(text: str) -> TensorRTVersion:
    """Read a TensorRT version in any of the spellings in use.

    Parameters
    ----------
    text
        `8.5`, `8.5.2`, `8.5.2.2`, a deb version such as `10.3.0.30-1+cuda12.5`, a header code such
        as `8502` or `100300`, or a line that holds the banner of trtexec.

    Raises
    ------
    InputError
        If the text is none of these.
    """
    stripped = text.strip()
    if banner := _BANNER.search(stripped):
        version = version_of_code(int(banner["code"]))
        build = banner["build"]
        return version if build is None else _with_build(version, int(build))
    if _CODE.fullmatch(stripped):
        return version_of_code(int(stripped))
    if dotted := _DOTTED.fullmatch(stripped):
        major, minor, patch, build = dotted.group("major", "minor", "patch", "build")
        return TensorRTVersion(
            int(major), int(minor), int(patch or 0), None if build is None else int(build)
        )
    raise InputError(
        f"expected a TensorRT version, found {text[:60]!r}",
        where="TensorRT version",
        remedy="write it like 8.5, 8.5.2, 10.3.0.30 or 8502; 'edgecal targets list' shows some",
    )


def header_code(version: TensorRTVersion) -> int:
    """Give the integer that TensorRT prints in cache headers and banners.

    Up to 9 it is `major*1000 + minor*100 + patch` (8.5.2 is 8502, 8.5.10 of DRIVE OS is 8510), from
    10 on `major*10000 + minor*100 + patch` (NvInferRuntimeCommon.h of release/8.5 and
    NvInferRuntimeBase.h of release/10.16 in github.com/NVIDIA/TensorRT; 9.x is not confirmed).

    Raises
    ------
    InputError
        If a field is too large for its place: the code would name another release.
    """
    long = version.major >= _FIRST_MAJOR_OF_LONG_CODES
    largest_minor = 99 if long else 9
    if not (
        1 <= version.major <= 99
        and 0 <= version.minor <= largest_minor
        and 0 <= version.patch <= 99
    ):
        raise InputError(
            f"TensorRT {version} has no header code: a field is too large for its place",
            where="TensorRT version",
            remedy="check the version; no such release is known",
        )
    return version.major * (10_000 if long else 1_000) + version.minor * 100 + version.patch


def version_of_code(code: int) -> TensorRTVersion:
    """Read a header code. At least five digits are the form of TensorRT 10 and later.

    Raises
    ------
    InputError
        If the code has fewer than four digits or more than six.
    """
    if not 1_000 <= code <= 999_999:
        raise InputError(
            f"expected a TensorRT code of four to six digits, found {code}",
            where="TensorRT version",
            remedy="pass a code such as 8502 (8.5.2) or 100300 (10.3.0)",
        )
    if code >= _SHORTEST_LONG_CODE:
        return TensorRTVersion(code // 10_000, code // 100 % 100, code % 100)
    return TensorRTVersion(code // 1_000, code // 100 % 10, code % 100)


def _with_build(version: TensorRTVersion, build: int) -> TensorRTVersion:
    return TensorRTVersion(version.major, version.minor, version.patch, build)
