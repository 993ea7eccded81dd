"""The platform tables of `targets/` as values: modules, JetPack releases, host GPUs, containers.

`targets/README.md` says what each column means and where the facts come from. An empty cell is
unknown, which is `None` here.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from edgecal.core.versions import TensorRTVersion, parse_tensorrt
from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_T = TypeVar("_T")

_PART_NUMBER = re.compile(r"p[0-9]{4}-[0-9]{4}")
_L4T = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,4}){1,2}")
_CURRENT: Final = "current"
_REMEDY: Final = "repair the table, or reinstall edgecal; targets/README.md explains the columns"


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A Jetson module, or a set of modules that differ in nothing TensorRT cares about."""

    slug: str
    name: str
    family: str
    part_numbers: tuple[str, ...]
    device_tree: tuple[str, ...]
    """Words of the device tree that name the module, in lower case."""
    soc: str
    compute_capability: str
    dla_cores: int
    dla_cores_verified: bool
    dla_generation: int | None
    int8: bool
    int8_verified: bool
    memory_gb: int | None
    """Nominal; `None` where the row covers several sizes."""
    memory_gb_verified: bool
    first_jetpack: str | None
    first_jetpack_verified: bool
    last_jetpack: str | None
    first_tensorrt: str | None
    last_tensorrt: str | None
    verified: bool
    notes: str
    source: str

    def may_have(self, memory_bytes: int | None) -> bool:
        """Tell whether a kernel that sees so much memory may run on this module.

        Jetsons show less than the nominal size, since firmware and GPU keep some, but more than
        half of it; the sizes of a family differ by a factor of two.
        """
        if memory_bytes is None or self.memory_gb is None:
            return True
        nominal = self.memory_gb * 2**30
        return nominal // 2 < memory_bytes <= nominal


@dataclass(frozen=True, slots=True, kw_only=True)
class JetPackRelease:
    """What one JetPack installs on one L4T release."""

    jetpack: str
    """For people: public tables disagree on some names."""
    l4t: str | None
    tensorrt: TensorRTVersion | None
    tensorrt_major_minor: str | None
    cuda: str | None
    cuda_verified: bool
    ubuntu: str | None
    python: str | None
    implicit_int8: str | None
    """INT8 from a calibration cache: `yes`, `no`, `deprecated` (still works) or `removed`."""
    dla: tuple[str, ...] | None
    """The SoCs whose DLA this TensorRT builds for; `None` where nobody says."""
    verified: bool
    notes: str
    source: str

    @property
    def is_preview(self) -> bool:
        """Developer previews and early access are no release to aim at."""
        return self.jetpack.endswith((" DP", " EA"))


@dataclass(frozen=True, slots=True, kw_only=True)
class HostGpu:
    """Host GPUs of one compute capability, and the TensorRT releases they can calibrate with."""

    gpu: str
    compute_capability: str
    architecture: str
    int8: bool
    int8_verified: bool
    int8_tensor_cores: bool | None
    first_tensorrt: str | None
    first_tensorrt_verified: bool
    last_tensorrt: str | None
    """`current` where TensorRT has not dropped it."""
    last_tensorrt_verified: bool
    runs: tuple[str, ...]
    runs_unverified: tuple[str, ...]
    cannot_run: tuple[str, ...]
    cannot_run_unverified: tuple[str, ...]
    verified: bool
    notes: str
    source: str

    def can_calibrate(self, tensorrt: TensorRTVersion) -> bool | None:
        """Tell whether this GPU can calibrate with that TensorRT; `None` where nobody says."""
        asked = (tensorrt.major, tensorrt.minor)
        first = self.first_tensorrt if self.first_tensorrt_verified else None
        last = self.last_tensorrt if self.last_tensorrt_verified else None
        dropped = last is not None and last != _CURRENT and asked > _order(last)
        too_new = first is not None and asked < _order(first)
        if not self.int8 or dropped or too_new or tensorrt.major_minor in self.cannot_run:
            return False
        known = [_order(text) for text in (*self.runs, first, last) if text not in {None, _CURRENT}]
        if not known or asked < min(known) or (asked > max(known) and last != _CURRENT):
            return None
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """An image that holds a TensorRT."""

    image: str
    tensorrt: TensorRTVersion | None
    tensorrt_major_minor: str | None
    runs_on: str
    """`host` or `device`."""
    evidence: str
    jetpack: str | None
    """The JetPacks of the same TensorRT major.minor, for people."""
    best_match: bool
    verified: bool
    notes: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Platforms:
    """All tables, in file order: releases and containers from the oldest to the newest."""

    modules: tuple[Module, ...]
    releases: tuple[JetPackRelease, ...]
    host_gpus: tuple[HostGpu, ...]
    containers: tuple[Container, ...]

    def module(self, slug: str) -> Module | None:
        """Find a module by its slug."""
        return _only([module for module in self.modules if module.slug == slug])

    def compute_capability(self, soc: str) -> str | None:
        """Look up what a SoC such as `tegra234` is to CUDA; never computed, never compared."""
        found = (module.compute_capability for module in self.modules if module.soc == soc)
        return next(found, None)

    def release_for_l4t(self, l4t: str) -> JetPackRelease | None:
        """Find the release of an L4T such as `35.4.1`; `32.5` is `32.5.0`.

        `None` if the tables do not know it, or if it belongs to two JetPacks, as 28.2.1 does.
        """
        if _L4T.fullmatch(l4t) is None:
            return None
        wanted = _l4t_order(l4t)
        return _only(
            [
                release
                for release in self.releases
                if release.l4t is not None and _l4t_order(release.l4t) == wanted
            ]
        )

    def release_for_jetpack(self, name: str) -> JetPackRelease | None:
        """Find the newest release of a JetPack such as `5.1.2`, by its exact name."""
        wanted = name.strip().casefold()
        newest_first = reversed(self.releases)
        return next((one for one in newest_first if one.jetpack.casefold() == wanted), None)

    def module_for(
        self,
        *,
        compatible: Sequence[str] = (),
        model: str | None = None,
        memory_bytes: int | None = None,
    ) -> Module | None:
        """Recognise a module by what its device tree says; `None` rather than a guess.

        A part number in `compatible` decides, else the longest name found in `model` or
        `compatible`. The memory then chooses between sizes: device trees of Xavier NX and of the
        AGX Orin kit name one part for two sizes.

        Parameters
        ----------
        compatible
            The entries of `/proc/device-tree/compatible`.
        model
            What `/proc/device-tree/model` says.
        memory_bytes
            `MemTotal` of `/proc/meminfo`.
        """
        parts = {part for entry in compatible for part in _PART_NUMBER.findall(entry)}
        named = [module for module in self.modules if parts.intersection(module.part_numbers)]
        if not named:
            named = self._named_in(" ".join([model or "", *compatible]).lower())
        families = {module.family for module in named}
        fitting = _having(named, memory_bytes) or _having(
            (module for module in self.modules if module.family in families), memory_bytes
        )
        return _only(fitting or named)

    def _named_in(self, text: str) -> list[Module]:
        lengths = {
            module.slug: max((len(word) for word in module.device_tree if word in text), default=0)
            for module in self.modules
        }
        longest = max(lengths.values(), default=0)
        return [module for module in self.modules if 0 < longest == lengths[module.slug]]


def newest_patch(platforms: Platforms, major: int, minor: int) -> int:
    """Give the TensorRT patch that the newest JetPack with this major.minor installs, else 0."""
    versions = (release.tensorrt for release in reversed(platforms.releases))
    found = (
        version.patch
        for version in versions
        if version is not None and (version.major, version.minor) == (major, minor)
    )
    return next(found, 0)


def jetpack_choices(platforms: Platforms) -> list[tuple[str, str]]:
    """List the JetPacks from 4.4 on (the first with a usable trtexec) by their TensorRT.

    Returns
    -------
    list of (str, str)
        The range of JetPacks, such as `4.6.1 - 4.6.6`, and its TensorRT major.minor; newest last.
    """
    first_usable = (7, 1)
    ranges: dict[str, list[str]] = {}
    for release in platforms.releases:
        if release.is_preview or release.tensorrt is None:
            continue
        if (release.tensorrt.major, release.tensorrt.minor) >= first_usable:
            ranges.setdefault(release.tensorrt.major_minor, []).append(release.jetpack)
    return [
        (names[0] if names[0] == names[-1] else f"{names[0]} - {names[-1]}", tensorrt)
        for tensorrt, names in ranges.items()
    ]


def parse_platforms(tables: Mapping[str, str]) -> Platforms:
    """Read the tables.

    Parameters
    ----------
    tables
        CSV text by file name: `modules.csv`, `jetpack.csv`, `host_gpus.csv`, `containers.csv`.

    Raises
    ------
    InputError
        If a table is missing or holds what its column cannot; it names the file and the line.
    """
    return Platforms(
        modules=tuple(_module(row) for row in _rows(tables, "modules.csv", key="slug")),
        releases=tuple(_release(row) for row in _rows(tables, "jetpack.csv")),
        host_gpus=tuple(
            _host_gpu(row) for row in _rows(tables, "host_gpus.csv", key="compute_capability")
        ),
        containers=tuple(_container(row) for row in _rows(tables, "containers.csv", key="image")),
    )


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of a table; reads its cells, and knows its address for errors."""

    where: str
    cells: Mapping[str, str | None]

    def optional(self, column: str) -> str | None:
        cell = self.cells.get(column)
        if cell is None:
            raise self.error(f"expected a column {column!r}, found none")
        return cell.strip() or None

    def text(self, column: str) -> str:
        cell = self.optional(column)
        if cell is None:
            raise self.error(f"expected a value for {column!r}, found an empty cell")
        return cell

    def several(self, column: str) -> tuple[str, ...]:
        cell = self.optional(column)
        return () if cell is None else tuple(part.strip() for part in cell.split(";"))

    def claim(self, column: str) -> bool:
        self.text(column)
        return self.flag(column) is True

    def verified(self, column: str) -> bool:
        """Read a column that is empty where there is nothing to verify."""
        return self.flag(column) is True

    def flag(self, column: str) -> bool | None:
        cell = self.optional(column)
        if cell not in {"yes", "no", None}:
            raise self.error(f"expected yes or no for {column!r}, found {cell!r}")
        return None if cell is None else cell == "yes"

    def count(self, column: str) -> int:
        self.text(column)
        return self.number(column) or 0

    def number(self, column: str) -> int | None:
        cell = self.optional(column)
        if cell is not None and not re.fullmatch(r"[0-9]{1,6}", cell):
            raise self.error(f"expected a whole number for {column!r}, found {cell!r}")
        return None if cell is None else int(cell)

    def release(self, column: str) -> str | None:
        """Read a TensorRT major.minor, which is compared as numbers later."""
        cell = self.optional(column)
        if cell is not None and not re.fullmatch(r"[0-9]+\.[0-9]+|current", cell):
            raise self.error(f"expected major.minor for {column!r}, found {cell!r}")
        return cell

    def tensorrt(self, column: str) -> TensorRTVersion | None:
        cell = self.optional(column)
        if cell is None:
            return None
        try:
            return parse_tensorrt(cell)
        except InputError as error:
            raise self.error(error.what) from error

    def error(self, what: str) -> InputError:
        return InputError(what, where=self.where, remedy=_REMEDY)


def _rows(tables: Mapping[str, str], name: str, *, key: str | None = None) -> Iterator[_Row]:
    if name not in tables:
        raise InputError("expected a platform table, found none", where=name, remedy=_REMEDY)
    seen: set[str] = set()
    reader = csv.DictReader(io.StringIO(tables[name], newline=""))
    for cells in reader:
        row = _Row(f"{name}:{reader.line_num}", cells)
        if None in cells:
            raise row.error("expected one cell per column, found more")
        if key is not None:
            if row.text(key) in seen:
                raise row.error(f"expected every {key} once, found {row.text(key)!r} again")
            seen.add(row.text(key))
        yield row


def _module(row: _Row) -> Module:
    return Module(
        slug=row.text("slug"),
        name=row.text("name"),
        family=row.text("family"),
        part_numbers=row.several("part_numbers"),
        device_tree=row.several("device_tree"),
        soc=row.text("soc"),
        compute_capability=row.text("compute_capability"),
        dla_cores=row.count("dla_cores"),
        dla_cores_verified=row.verified("dla_cores_verified"),
        dla_generation=row.number("dla_generation"),
        int8=row.claim("int8"),
        int8_verified=row.verified("int8_verified"),
        memory_gb=row.number("memory_gb"),
        memory_gb_verified=row.verified("memory_gb_verified"),
        first_jetpack=row.optional("first_jetpack"),
        first_jetpack_verified=row.verified("first_jetpack_verified"),
        last_jetpack=row.optional("last_jetpack"),
        first_tensorrt=row.release("first_tensorrt"),
        last_tensorrt=row.release("last_tensorrt"),
        verified=row.verified("verified"),
        notes=row.optional("notes") or "",
        source=row.text("source"),
    )


def _release(row: _Row) -> JetPackRelease:
    l4t = row.optional("l4t")
    if l4t is not None and _L4T.fullmatch(l4t) is None:
        raise row.error(f"expected an L4T release like 35.4.1, found {l4t!r}")
    dla = row.several("dla")
    return JetPackRelease(
        jetpack=row.text("jetpack"),
        l4t=l4t,
        tensorrt=row.tensorrt("tensorrt"),
        tensorrt_major_minor=row.release("tensorrt_major_minor"),
        cuda=row.optional("cuda"),
        cuda_verified=row.verified("cuda_verified"),
        ubuntu=row.optional("ubuntu"),
        python=row.optional("python"),
        implicit_int8=row.optional("implicit_int8"),
        dla=() if dla == ("none",) else dla or None,
        verified=row.verified("verified"),
        notes=row.optional("notes") or "",
        source=row.text("source"),
    )


def _host_gpu(row: _Row) -> HostGpu:
    return HostGpu(
        gpu=row.text("gpu"),
        compute_capability=row.text("compute_capability"),
        architecture=row.text("architecture"),
        int8=row.claim("int8"),
        int8_verified=row.verified("int8_verified"),
        int8_tensor_cores=row.flag("int8_tensor_cores"),
        first_tensorrt=row.release("first_tensorrt"),
        first_tensorrt_verified=row.verified("first_tensorrt_verified"),
        last_tensorrt=row.release("last_tensorrt"),
        last_tensorrt_verified=row.verified("last_tensorrt_verified"),
        runs=row.several("runs"),
        runs_unverified=row.several("runs_unverified"),
        cannot_run=row.several("cannot_run"),
        cannot_run_unverified=row.several("cannot_run_unverified"),
        verified=row.verified("verified"),
        notes=row.optional("notes") or "",
        source=row.text("source"),
    )


def _container(row: _Row) -> Container:
    return Container(
        image=row.text("image"),
        tensorrt=row.tensorrt("tensorrt"),
        tensorrt_major_minor=row.release("tensorrt_major_minor"),
        runs_on=row.text("runs_on"),
        evidence=row.text("evidence"),
        jetpack=row.optional("jetpack"),
        best_match=row.claim("best_match"),
        verified=row.verified("verified"),
        notes=row.optional("notes") or "",
        source=row.text("source"),
    )


def _having(modules: Iterable[Module], memory_bytes: int | None) -> list[Module]:
    return [module for module in modules if module.may_have(memory_bytes)]


def _only(found: Sequence[_T]) -> _T | None:
    return found[0] if len(found) == 1 else None


def _order(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor)


def _l4t_order(text: str) -> tuple[int, ...]:
    fields = [int(field) for field in text.split(".")]
    return tuple(fields + [0] * (3 - len(fields)))
