"""Who exists: targets, the groups they are in, and what each inherits from its groups."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from edgecal.core.target import Target
from edgecal.errors import InventoryError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Scalar = str | int | float | bool

ALL: Final = "all"
"""The group of every target; what it sets holds for each that sets nothing else."""
COMMANDS: Final = ("exec", "pre_build", "post_build", "health")
"""Settings of a target that say what to run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """Targets with all they inherit, in the order in which they are written down."""

    targets: Mapping[str, Target] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The targets of each group, those of its children too, in the inventory's order."""
    variables: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict)
    """What else is written of each target, for selections; it may hold secrets: never shown."""
    patterns: tuple[tuple[str, ...], ...] = ()
    """Patterns of an ssh_config's `Host` lines: names that may be used without being listed."""

    def memberships(self) -> Mapping[str, tuple[str, ...]]:
        """Name the groups that each target is in; `all` goes without saying."""
        found: dict[str, list[str]] = {name: [] for name in self.targets}
        for group, members in self.groups.items():
            for name in members if group != ALL else ():
                found[name].append(group)
        return {name: tuple(groups) for name, groups in found.items()}

    def without_commands(self) -> Inventory:
        """Give the inventory without what it says to run on targets."""
        none: dict[str, Any] = dict.fromkeys(COMMANDS, ())
        return replace(
            self, targets={name: replace(one, **none) for name, one in self.targets.items()}
        )

    def commands(self) -> tuple[str, ...]:
        """Name the settings that say what to run on targets."""
        return tuple(
            name for name in COMMANDS if any(getattr(one, name) for one in self.targets.values())
        )

    def admitting(self, names: Sequence[str]) -> Inventory:
        """Give the inventory with those of these names that only its patterns know."""
        new = [
            name
            for name in dict.fromkeys(names)
            if name not in self.targets
            and name not in self.groups
            and any(matches_host_line(name, line) for line in self.patterns)
        ]
        if not new:
            return self
        targets = {**self.targets, **{name: Target(name=name, host=name) for name in new}}
        return replace(self, targets=targets, groups={**self.groups, ALL: tuple(targets)})


def matches_host_line(name: str, patterns: Sequence[str]) -> bool:
    """Tell whether a `Host` line applies: one pattern does, and none that begins with `!` does."""
    denied = [one[1:] for one in patterns if one.startswith("!")]
    allowed = [one for one in patterns if not one.startswith("!")]
    return any(_glob(name, one) for one in allowed) and not any(_glob(name, one) for one in denied)


def _glob(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern.replace("[", "[[]"))  # ssh_config(5) knows * and ? alone


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupEntry:
    """A group as it is written down."""

    name: str
    where: str
    targets: tuple[str, ...] = ()
    """Names and globs."""
    children: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of `Target`, by field."""
    variables: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetEntry:
    """A target as it is written down, before it inherits."""

    name: str
    where: str
    groups: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, Scalar] = field(default_factory=dict)


def resolve(
    targets: Sequence[TargetEntry], groups: Sequence[GroupEntry], *, last_wins: bool = False
) -> Inventory:
    """Let every target inherit: its own word goes first, then a child group's over its parent's.

    Parameters
    ----------
    last_wins
        Whether of two groups that say different things, neither of them the other's child, the
        later one in `groups` is heard. Else that is an error.

    Raises
    ------
    InventoryError
        If a group or target is named that is not there, a group is its own child, or two groups
        contradict each other.
    """
    by_name = {one.name: one for one in groups}
    everyone = [one.name for one in targets]
    _check_names(targets, by_name)
    below = _descendants(by_name)
    direct = _direct_members(targets, groups, everyone)
    members: dict[str, tuple[str, ...]] = {}
    for name in dict.fromkeys([ALL, *by_name]):
        inside = {one for group in (name, *below.get(name, ())) for one in direct.get(group, ())}
        members[name] = tuple(one for one in everyone if name == ALL or one in inside)
    inside_of: dict[str, list[GroupEntry]] = {name: [] for name in everyone}
    for group in groups:
        for name in members[group.name]:
            inside_of[name].append(group)
    found: dict[str, Target] = {}
    variables: dict[str, Mapping[str, Scalar]] = {}
    for one in targets:
        parents = inside_of[one.name]
        settings = _inherit(
            one, [(at, at.settings) for at in parents], one.settings, below, last_wins
        )
        variables[one.name] = _inherit(
            one, [(at, at.variables) for at in parents], one.variables, below, last_wins
        )
        found[one.name] = Target(name=one.name, **{"host": one.name, **settings})
    return Inventory(targets=found, groups=members, variables=variables)


def _check_names(targets: Sequence[TargetEntry], groups: Mapping[str, GroupEntry]) -> None:
    known = sorted({ALL, *groups})
    entries = [
        *((one.name, one.where, one.groups) for one in targets),
        *((one.name, one.where, one.children) for one in groups.values()),
    ]
    for entry, where, named in entries:
        for name in named:
            if name not in groups and name != ALL:
                raise InventoryError(
                    f"{entry!r} names the group {name!r}, which is not there; groups are "
                    f"{', '.join(known)}",
                    where=where,
                    remedy=f"correct the name, or write a table [groups.{name}]",
                )


def _direct_members(
    targets: Sequence[TargetEntry], groups: Sequence[GroupEntry], everyone: Sequence[str]
) -> dict[str, set[str]]:
    """List who is in each group by its own word or by theirs, children apart."""
    found: dict[str, set[str]] = {one.name: set() for one in groups}
    names = set(everyone)
    for group in groups:
        for pattern in group.targets:
            matched = (
                {pattern}
                if pattern in names
                else {name for name in everyone if fnmatchcase(name, pattern)}
            )
            if not matched:
                raise InventoryError(
                    f"the group {group.name!r} names the target {pattern!r}, which is not there",
                    where=group.where,
                    remedy=f"correct the name, or write a table [targets.{pattern}]",
                )
            found[group.name] |= matched
    for one in targets:
        for name in one.groups:
            found.setdefault(name, set()).add(one.name)
    return found


def _descendants(groups: Mapping[str, GroupEntry]) -> dict[str, frozenset[str]]:
    """Name all groups below each; every other one is below `all`."""
    below: dict[str, frozenset[str]] = {}
    for name in _children_first(groups):
        children = [one for one in groups[name].children if one != ALL]
        below[name] = frozenset(children).union(*(below[one] for one in children))
    below[ALL] = frozenset(groups) - {ALL}
    return below


def _children_first(groups: Mapping[str, GroupEntry]) -> list[str]:
    """Sort groups; without recursion, since chains come from files and may be long."""
    done: dict[str, bool] = {}  # False: it waits for its children
    order: list[str] = []
    for start in groups:
        stack = [start]
        while stack:
            name = stack[-1]
            if name not in done:
                done[name] = False
                for child in groups[name].children:
                    if child == ALL or done.get(child) is False:
                        raise InventoryError(
                            f"the group {child!r} is below itself, through {name!r}",
                            where=groups[name].where,
                            remedy=f"take {child!r} out of the children of {name!r}",
                        )
                    if child not in done:
                        stack.append(child)
                continue
            stack.pop()
            if not done[name]:
                done[name] = True
                order.append(name)
    return order


def _inherit(
    target: TargetEntry,
    given: Sequence[tuple[GroupEntry, Mapping[str, Any]]],
    own: Mapping[str, Any],
    below: Mapping[str, frozenset[str]],
    last_wins: bool,  # noqa: FBT001 - handed through
) -> dict[str, Any]:
    """Merge what groups say with a target's own word."""
    says: dict[str, list[tuple[GroupEntry, Any]]] = {}
    for group, values in given:
        for key, value in values.items():
            says.setdefault(key, []).append((group, value))
    merged: dict[str, Any] = {}
    for key, voices in says.items():
        if key in own:
            continue
        names = {group.name for group, _ in voices}
        nearest = [(group, value) for group, value in voices if not below[group.name] & names]
        group, value = nearest[-1]
        for other, another in nearest:
            if another != value and not last_wins:
                raise InventoryError(
                    f"{target.name!r} is in the groups {other.name!r} and {group.name!r}, which "
                    f"differ in {key!r}",
                    where=target.where,
                    remedy=f"write {key} for the target itself, or let one group be a child of "
                    "the other",
                )
        merged[key] = value
    return {**merged, **own}
