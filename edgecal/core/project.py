"""`edgecal.toml` as values: what a set-up project need not say on the command line."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from edgecal.core.clusters import Certificates, check_certificates
from edgecal.core.inventory import (
    ALL,
    COMMANDS,
    GroupEntry,
    Inventory,
    TargetEntry,
    resolve,
)
from edgecal.core.preprocess import Preprocess, parse_preprocess
from edgecal.core.rollout.settings import ROLLOUT_KEYS, RolloutDefaults, read_rollout
from edgecal.core.rollout.state import OnFailure
from edgecal.core.selection import FACT_NAMES
from edgecal.core.verification import Thresholds
from edgecal.errors import InventoryError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgecal.core.target import Target
    from edgecal.core.toml_lines import Lines


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateDefaults:
    """Table `[calibrate]`; paths are absolute, or relative to the working directory."""

    model: str | None = None
    data: str | None = None
    output: str | None = None
    tensorrt: tuple[str, ...] = ()
    jetpack: tuple[str, ...] = ()
    algorithm: str | None = None
    percentile: float | None = None
    batch_size: int | None = None
    samples: int | None = None
    backend: str | None = None
    trt_python: str | None = None
    trt_container: str | None = None
    shapes: Mapping[str, object] = field(default_factory=dict)
    """Table `[calibrate.shapes]`: shapes by input, as `parse_shape_table` reads it."""
    ranges: Mapping[str, object] = field(default_factory=dict)
    """Table `[calibrate.ranges]`: amax by name or glob, as `parse_range_table` reads it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushDefaults:
    """Table `[push]`."""

    bundle: tuple[str, ...] = ()
    dla: int | None = None
    gpu_fallback: bool = True
    fp16: bool = True
    precision: str | None = None
    workspace_mib: int | None = None
    build_timeout_minutes: float | None = None
    layout: str | None = None
    profile: Mapping[str, object] = field(default_factory=dict)
    """Table `[push.profile]`: shapes by input, as `parse_profile_table` reads it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A whole `edgecal.toml`, or the lack of one."""

    source: str | None = None
    calibrate: CalibrateDefaults = field(default_factory=CalibrateDefaults)
    preprocess: Preprocess | None = None
    push: PushDefaults = field(default_factory=PushDefaults)
    rollout: RolloutDefaults = field(default_factory=RolloutDefaults)
    thresholds: Thresholds = field(default_factory=Thresholds)
    inventory: Inventory = field(default_factory=Inventory)
    cluster: Certificates = field(default_factory=Certificates)
    """Table `[cluster]`: files for TLS to workers on other machines."""
    is_ours: bool = True
    """Whether it was read from a file of this form, and not from an inventory of another."""

    @property
    def targets(self) -> Mapping[str, Target]:
        """The targets of its inventory."""
        return self.inventory.targets

    def without_commands(self) -> Project:
        """Give the project without what it says to run, on targets and on this machine."""
        here = replace(self.calibrate, trt_python=None, trt_container=None)
        return replace(
            self,
            inventory=self.inventory.without_commands(),
            calibrate=here,
            rollout=self.rollout.without_commands(),
        )

    def commands(self) -> tuple[str, ...]:
        """Name the settings that say what to run."""
        settings = {
            **dict.fromkeys(self.inventory.commands(), True),
            "trt_python": self.calibrate.trt_python is not None,
            "trt_container": self.calibrate.trt_container is not None,
            **dict.fromkeys(self.rollout.commands(), True),
        }
        return tuple(name for name, said in settings.items() if said)


_GENERATOR = re.compile(r"[\w.]+:\w+")
"""`module:function`, where other data is a path."""
_CALIBRATE = {
    "model": "path",
    "data": "data",
    "output": "path",
    "tensorrt": "words",
    "jetpack": "words",
    "algorithm": "word",
    "percentile": "number",
    "batch_size": "count",
    "samples": "count",
    "backend": "word",
    "trt_python": "path",
    "trt_container": "word",
    "shapes": "table",
    "ranges": "table",
}
_PUSH = {
    "bundle": "paths",
    "dla": "index",
    "gpu_fallback": "flag",
    "fp16": "flag",
    "precision": "precision",
    "workspace_mib": "count",
    "build_timeout_minutes": "number",
    "layout": "layout",
    "profile": "table",
}
_WORDS = {
    "precision": ("int8", "fp16"),
    "layout": ("plain", "deepstream"),
    "failure": tuple(one.value for one in OnFailure),
}
"""Kinds of which there are a few, each by its word."""
_CLUSTER = {"ca": "path", "cert": "path", "key": "path"}
_VERIFY = {"margin": "number", "dla_margin": "number", "ceiling": "number"}
_TARGET = {
    "host": "word",
    "user": "word",
    "port": "count",
    "root": "word",
    "builder": "word",
    "dla": "index",
    "precision": "precision",
    "workspace_mib": "count",
    "python": "word",
    "identity_file": "path",
    "known_hosts": "path",
    **dict.fromkeys(COMMANDS, "argv"),
    "soak_s": "count",
    "require_signature": "flag",
}
_ENTRY = {**_TARGET, "groups": "names", "vars": "table"}
_GROUP = {
    **{name: kind for name, kind in _TARGET.items() if name != "host"},
    "targets": "names",
    "children": "names",
    "vars": "table",
}


def parse_project(
    document: Mapping[str, Any], *, source: str, lines: Lines | None = None
) -> Project:
    """Read a decoded `edgecal.toml`, or a `fleet.toml`: that has `[targets]` and `[groups]` alone.

    Parameters
    ----------
    source
        Path of the file; relative paths in it mean its folder.
    lines
        Where its tables and keys stand, for messages.

    Raises
    ------
    InventoryError
        If a table or key is unknown or its value does not fit; the message names it.
    """
    places = Places(source, lines or {})
    tables = {
        "calibrate",
        "cluster",
        "preprocess",
        "push",
        "rollout",
        "verify",
        "targets",
        "groups",
    }
    for name in document:
        if name not in tables:
            raise InventoryError(
                f"unknown table [{name}]; known are {', '.join(sorted(tables))}",
                where=places.of(name),
                remedy="correct the name, or remove the table",
            )
    return Project(
        source=source,
        calibrate=CalibrateDefaults(
            **_read(_table(document, "calibrate", source), _CALIBRATE, places, "calibrate")
        ),
        preprocess=parse_preprocess(
            _table(document, "preprocess", source), source=f"{source}: [preprocess]"
        )
        if "preprocess" in document
        else None,
        push=PushDefaults(**_read(_table(document, "push", source), _PUSH, places, "push")),
        rollout=read_rollout(
            _read(_table(document, "rollout", source), ROLLOUT_KEYS, places, "rollout"),
            lambda key: places.of("rollout", key=key),
        ),
        thresholds=Thresholds(
            **_read(_table(document, "verify", source), _VERIFY, places, "verify")
        ),
        inventory=_inventory(document, places),
        cluster=_cluster(document, places),
    )


@dataclass(frozen=True, slots=True)
class Places:
    """Where tables and keys of a file stand."""

    source: str
    lines: Lines = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """What relative paths in the file mean."""
        return posixpath.dirname(self.source)

    def of(self, *path: str, key: str | None = None) -> str:
        """Name the place of a table, or of a key in it, as well as it is known."""
        whole = path if key is None else (*path, key)
        known = next(
            (
                self.lines[whole[:end]]
                for end in range(len(whole), 0, -1)
                if whole[:end] in self.lines
            ),
            None,
        )
        line = "" if known is None else f":{known}"
        return f"{self.source}{line}: [{'.'.join(path)}]"


def read_settings(table: object, places: Places, *path: str) -> dict[str, Any]:
    """Read settings of a target that stand in any file.

    Raises
    ------
    InventoryError
        If one is unknown or its value does not fit.
    """
    return _read(table, _TARGET, places, *path)


def _cluster(document: Mapping[str, Any], places: Places) -> Certificates:
    table = _table(document, "cluster", places.source)
    found = Certificates(**_read(table, _CLUSTER, places, "cluster"))
    check_certificates(found, source=places.of("cluster"))
    return found


def _inventory(document: Mapping[str, Any], places: Places) -> Inventory:
    targets = []
    for name, table in _table(document, "targets", places.source).items():
        values = _read(table, _ENTRY, places, "targets", name)
        targets.append(
            TargetEntry(
                name=name,
                where=places.of("targets", name),
                groups=values.pop("groups", ()),
                variables=_variables(values.pop("vars", {}), places, "targets", name),
                settings=values,
            )
        )
    groups = []
    names = {one.name for one in targets}
    for name, table in _table(document, "groups", places.source).items():
        if name in names:
            raise InventoryError(
                f"{name!r} is a target and a group: nobody could tell which one is meant",
                where=places.of("groups", name),
                remedy="give one of them another name",
            )
        values = _read(table, _GROUP, places, "groups", name)
        if name == ALL and not values.keys().isdisjoint({"targets", "children"}):
            raise InventoryError(
                "the group of every target lists targets or groups",
                where=places.of("groups", name),
                remedy="leave 'targets' and 'children' out: all of them are in it",
            )
        groups.append(
            GroupEntry(
                name=name,
                where=places.of("groups", name),
                targets=values.pop("targets", ()),
                children=values.pop("children", ()),
                variables=_variables(values.pop("vars", {}), places, "groups", name),
                settings=values,
            )
        )
    return resolve(targets, groups)


def _variables(table: Mapping[str, object], places: Places, *path: str) -> dict[str, Any]:
    for name, value in table.items():
        if name in FACT_NAMES:
            raise InventoryError(
                f"the variable {name!r} is called like a fact that targets are asked for",
                where=places.of(*path, "vars", key=name),
                remedy="give it another name",
            )
        if not isinstance(value, str | int | float):
            raise InventoryError(
                f"the variable {name!r} wants a text, a number, true or false, found {value!r}",
                where=places.of(*path, "vars", key=name),
                remedy="correct the value",
            )
    return dict(table)


def _table(document: Mapping[str, Any], name: str, source: str) -> Mapping[str, Any]:
    table = document.get(name, {})
    if not isinstance(table, dict):
        raise InventoryError(
            f"expected a table [{name}], found {table!r}",
            where=source,
            remedy=f"write [{name}] on a line of its own, its keys below",
        )
    return table


def _read(table: object, known: Mapping[str, str], places: Places, *path: str) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise InventoryError(
            f"expected a table, found {table!r}",
            where=places.of(*path),
            remedy="write key = value lines",
        )
    values: dict[str, Any] = {}
    for key, value in table.items():
        where = places.of(*path, key=key)
        if key not in known:
            raise InventoryError(
                f"unknown key {key!r}; known are {', '.join(sorted(known))}",
                where=where,
                remedy="correct the name, or remove the line",
            )
        values[key] = _value(key, value, known[key], where, places.folder)
    return values


def _value(key: str, value: object, kind: str, where: str, folder: str) -> object:  # noqa: C901, PLR0911, PLR0912 - one per kind
    if kind in {"words", "paths"}:
        several = value if isinstance(value, list) else [value]
        return tuple(_value(key, one, kind.removesuffix("s"), where, folder) for one in several)
    if kind == "parts" and (text := _parts(value)) is not None:
        return text
    if kind == "argv":
        return _argv(key, value, where)
    if kind == "names" and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    if (kind == "word" and isinstance(value, str)) or (kind == "table" and isinstance(value, dict)):
        return value
    if kind in _WORDS:
        if value in _WORDS[kind]:
            return value
        raise InventoryError(
            f"{key} wants one of {', '.join(_WORDS[kind])}, found {value!r}",
            where=where,
            remedy="correct the value",
        )
    if kind == "word" and isinstance(value, float):
        raise InventoryError(  # not read as text: TOML's 10.10 is the number 10.1, another TensorRT
            f"{key} wants a text in quotes, found the number {value}",
            where=where,
            remedy=f'write it in quotes, like {key} = "10.3"',
        )
    if kind == "data" and isinstance(value, str) and _GENERATOR.fullmatch(value):
        return value
    if kind in {"path", "data"} and isinstance(value, str):
        return value if value.startswith("~") else posixpath.join(folder, value)
    if kind == "flag" and isinstance(value, bool):
        return value
    if not isinstance(value, bool):
        if kind == "number" and isinstance(value, int | float):
            return float(value)
        if kind == "count" and isinstance(value, int) and value > 0:
            return value
        if kind == "index" and isinstance(value, int) and value >= 0:
            return value
    what = {"names": "list of names", "parts": "text"}.get(kind, kind)
    raise InventoryError(
        f"{key} wants a {what}, found {value!r}", where=where, remedy="correct the value"
    )


def _parts(value: object) -> str | None:
    """Join what an option would have in one word: `[1, "10%"]` means `1,10%`."""
    several = value if isinstance(value, list) else [value]
    if all(isinstance(one, str | int) and not isinstance(one, bool) for one in several):
        return ",".join(map(str, several))
    return None


def _argv(key: str, value: object, where: str) -> tuple[str, ...]:
    """Read a program and its arguments, one word each: never a line for a shell to take apart."""
    if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
        words = tuple(value)
        if words[0] and not any("\0" in word for word in words):
            return words
    raise InventoryError(
        f"{key} wants a program and its arguments as a list of words, found {value!r}",
        where=where,
        remedy=f'write it like {key} = ["docker", "exec", "-i", "app"]',
    )
