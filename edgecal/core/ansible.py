"""What `ansible-inventory --list` prints, and so does every inventory script of Ansible.

Of the variables of a host only those are settings that say how to reach it, and `edgecal_NAME` for
every setting of a target. The rest are kept for selections and never shown: they hold passwords.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from edgecal.core.inventory import ALL, GroupEntry, Inventory, TargetEntry, resolve
from edgecal.core.project import Places, read_settings
from edgecal.core.selection import FACT_NAMES
from edgecal.errors import InventoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PREFIX: Final = "edgecal_"
# docs.ansible.com, "Connecting to hosts: behavioral inventory parameters"; the older names with ssh
_CONNECTION: Final = {
    "ansible_host": "host",
    "ansible_ssh_host": "host",
    "ansible_port": "port",
    "ansible_ssh_port": "port",
    "ansible_user": "user",
    "ansible_ssh_user": "user",
    "ansible_ssh_private_key_file": "identity_file",
    "ansible_private_key_file": "identity_file",
}
_BY_SSH: Final = frozenset({"ssh", "smart", "paramiko", "paramiko_ssh", "ansible.builtin.ssh"})


def parse_ansible(
    document: object, *, source: str, warn: Callable[[str], object] = lambda _text: None
) -> Inventory:
    """Read a decoded inventory; relative paths in it mean the folder of `source`.

    Parameters
    ----------
    warn
        Hears of hosts that are left out, for Ansible reaches them otherwise than by SSH.

    Raises
    ------
    InventoryError
        If it is none, or a setting in it does not hold.
    """
    if not isinstance(document, dict):
        raise _no_inventory(source, "an object of groups", document)
    meta = _object(document.get("_meta", {}), f"{source}: _meta")
    hostvars = {
        name: _object(values, f"{source}: _meta.hostvars[{name!r}]")
        for name, values in _object(meta.get("hostvars", {}), f"{source}: _meta.hostvars").items()
    }
    tables = {
        name: {"hosts": table} if isinstance(table, list) else _object(table, f"{source}: {name}")
        for name, table in document.items()
        if name != "_meta"
    }
    hosts = {name: _names(table, "hosts", source, name) for name, table in tables.items()}
    # children may be named that have no table of their own: empty groups are left out
    children = {
        name: tuple(one for one in _names(table, "children", source, name) if one in tables)
        for name, table in tables.items()
    }
    names = dict.fromkeys([*(one for group in hosts.values() for one in group), *hostvars])
    groups = _by_precedence(
        [_group(name, tables[name], hosts[name], children[name], source) for name in tables],
        {name: _priority(table) for name, table in tables.items()},
        source,
    )
    places = Places(source)
    targets = [_target(name, hostvars.get(name, {}), places) for name in names]
    away = {
        one.name
        for one in targets
        if (way := hostvars.get(one.name, {}).get("ansible_connection")) is not None
        and way not in _BY_SSH
    }
    for name in sorted(away):
        warn(f"{source}: {name} is left out, for Ansible reaches it otherwise than by SSH")
    groups = [
        GroupEntry(
            name=one.name,
            where=one.where,
            targets=tuple(target for target in one.targets if target not in away),
            children=one.children,
            settings=one.settings,
            variables=one.variables,
        )
        for one in groups
    ]
    return resolve([one for one in targets if one.name not in away], groups, last_wins=True)


def _group(
    name: str,
    table: Mapping[str, Any],
    hosts: tuple[str, ...],
    children: tuple[str, ...],
    source: str,
) -> GroupEntry:
    values = _object(table.get("vars", {}), f"{source}: {name}.vars")
    settings, variables = _split(values, Places(source), name, "vars")
    if "host" in settings:
        del settings["host"]  # one address for all: Ansible would take it, and nobody means it
    return GroupEntry(
        name=name,
        where=f"{source}: {name}",
        targets=() if name == ALL else hosts,
        children=() if name == ALL else children,
        settings=settings,
        variables=variables,
    )


def _target(name: str, values: Mapping[str, Any], places: Places) -> TargetEntry:
    settings, variables = _split(values, places, "_meta", "hostvars", name)
    return TargetEntry(
        name=name,
        where=places.of("_meta", "hostvars", name),
        settings=settings,
        variables=variables,
    )


def _split(
    values: Mapping[str, Any], places: Places, *path: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tell settings from other variables."""
    settings: dict[str, Any] = {}
    variables: dict[str, Any] = {}
    for name, given in values.items():
        value = _plain(given)
        setting = _CONNECTION.get(name) or (
            name.removeprefix(_PREFIX) if name.startswith(_PREFIX) else None
        )
        if setting is not None:
            _refuse_riddles(name, value, places.of(*path, key=name))
            if setting == "port" and isinstance(value, str) and value.isdecimal():
                value = int(value)  # as every variable given by key=value in an INI file
            # the first name counts: ansible_host goes before ansible_ssh_host
            if name == f"{_PREFIX}{setting}" or setting not in settings or "_ssh_" not in name:
                settings[setting] = value
        elif isinstance(value, str | int | float) and not _is_reserved(name):
            variables[name] = value
    return read_settings(settings, places, *path), variables


def _is_reserved(name: str) -> bool:
    return name.startswith("ansible_") or name in FACT_NAMES


def _plain(value: object) -> object:
    """Unwrap a text that Ansible marks as not to be expanded."""
    if isinstance(value, dict) and value.keys() == {"__ansible_unsafe"}:
        return value["__ansible_unsafe"]
    return value


def _refuse_riddles(name: str, value: object, where: str) -> None:
    if isinstance(value, dict) and "__ansible_vault" in value:
        raise InventoryError(
            f"{name} is encrypted", where=where, remedy="give it in the open: it is no secret"
        )
    words = value if isinstance(value, list) else [value]
    if any(isinstance(one, str) and ("{{" in one or "{%" in one) for one in words):
        raise InventoryError(
            f"{name} is a template that only Ansible can expand: {value!r}",
            where=where,
            remedy="write what it stands for",
        )


def _priority(table: Mapping[str, Any]) -> int:
    values = table.get("vars")
    given = values.get("ansible_group_priority", 1) if isinstance(values, dict) else 1
    try:
        return int(given)
    except (TypeError, ValueError):
        return 1


def _by_precedence(
    groups: list[GroupEntry], priorities: Mapping[str, int], source: str
) -> list[GroupEntry]:
    """Sort groups as Ansible merges them: by depth, then priority, then name; the last one wins."""
    depth = dict.fromkeys((one.name for one in groups), 0)
    level = 0
    current = {child for one in groups for child in one.children}
    children = {one.name: one.children for one in groups}
    while current:
        level += 1
        if level > len(groups):
            raise InventoryError(
                "groups are below themselves",
                where=source,
                remedy="ask Ansible: 'ansible-inventory --graph'",
            )
        depth.update(dict.fromkeys(current, level))
        current = {child for name in current for child in children[name]}
    return sorted(groups, key=lambda one: (depth[one.name], priorities[one.name], one.name))


def _names(table: Mapping[str, Any], key: str, source: str, group: str) -> tuple[str, ...]:
    names = table.get(key, [])
    if isinstance(names, list) and all(isinstance(one, str) and one for one in names):
        return tuple(names)
    raise _no_inventory(f"{source}: {group}.{key}", "a list of names", names)


def _object(value: object, where: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise _no_inventory(where, "an object", value)


def _no_inventory(where: str, expected: str, found: object) -> InventoryError:
    return InventoryError(
        f"expected {expected}, found {found!r:.60}",
        where=where,
        remedy="give what 'ansible-inventory --list' prints",
    )
