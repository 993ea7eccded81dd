"""The way to targets: connections, host keys, builders, what they last said."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from edgecal.cli.wiring import lookup, machine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgecal.adapters.facts_cache import FactsCache
    from edgecal.adapters.known_hosts import HostKey
    from edgecal.adapters.loopback import LoopbackServer
    from edgecal.adapters.ssh_route import KnownAs
    from edgecal.core.target import Target
    from edgecal.ports import Builder
    from edgecal.workflows.world import World


def world(
    *,
    limit_rate: float | None = None,
    bastion_rate: float | None = None,
    connections: int | None = None,
    transfers: int | None = None,
    builds: int | None = None,
) -> World:
    """Put together what pushes and questions to targets need.

    Parameters
    ----------
    limit_rate, bastion_rate
        Bytes a second that uploads to all targets may take together, and through one bastion.
    connections
        How many may be opened at once through one bastion.
    transfers, builds
        How many targets may be sent to, and may build, at once.
    """
    from edgecal.adapters.scripts import load_scripts
    from edgecal.adapters.ssh import connect
    from edgecal.adapters.ssh_route import find_bastion
    from edgecal.workflows.limits import LimitOptions, shared_limits
    from edgecal.workflows.world import World

    return World(
        connect=connect,
        scripts=load_scripts(),
        builders=builders(),
        platforms=lookup.platforms(),
        now=machine.now,
        owner=machine.owner(),
        limits=shared_limits(
            LimitOptions(
                connections=connections,
                transfers=transfers,
                builds=builds,
                rate=limit_rate,
                bastion_rate=bastion_rate,
            ),
            bastion=find_bastion,
            clock=time.monotonic,
            sleep=time.sleep,
        ),
    )


def builders() -> dict[str, Builder]:
    """Give every kind of builder, by name."""
    from edgecal.adapters.reference_builder import ReferenceBuilder
    from edgecal.adapters.tensorrt_builder import TensorRTBuilder
    from edgecal.adapters.trtexec_builder import TrtexecBuilder

    return {one.name: one for one in (TrtexecBuilder(), TensorRTBuilder(), ReferenceBuilder())}


def host_key(asked: Target) -> HostKey:
    """Ask a target for its host key, without logging in."""
    from edgecal.adapters.ssh import fetch_host_key

    return fetch_host_key(asked)


def known_keys(asked: Target) -> tuple[KnownAs, tuple[HostKey, ...]]:
    """Tell where a target's host key is kept, and which ones are known already."""
    from edgecal.adapters.known_hosts import host_name, load_host_keys
    from edgecal.adapters.ssh_route import known_as

    place = known_as(asked)
    return place, load_host_keys([place.file]).keys(host_name(place.host, place.port))


def remember_key(place: KnownAs, key: HostKey, *, replace: bool) -> None:
    """Write a host key down, in place of another if told so."""
    from edgecal.adapters.known_hosts import append_host_key

    append_host_key(place.file, place.host, place.port, key, replace=replace)


def facts_cache(note: Callable[[str], object] = lambda _text: None) -> FactsCache:
    """Open what targets last said of themselves; `note` hears what could not be kept or used."""
    from edgecal.adapters.facts_cache import FactsCache
    from edgecal.adapters.user_folders import state_folder

    return FactsCache(state_folder() / "facts", note=note)


def loopback(folder: Path) -> LoopbackServer:
    """Start a throw-away SSH server on this machine."""
    from edgecal.adapters.loopback import start_loopback

    return start_loopback(folder)
