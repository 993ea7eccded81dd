"""Finds rows of the platform tables by whatever a user calls them."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Final

from edgecal.core.platforms import Container, HostGpu, JetPackRelease, Module

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgecal.core.platforms import Platforms

    Row = Module | JetPackRelease | HostGpu | Container

_KIND_WORD = re.compile(r"(?:jetpack|l4t)\s+", re.IGNORECASE)
_BETWEEN_CARDS = re.compile(r"[,;/]\s*")
_OPTIONAL_LETTER = re.compile(r"(?P<name>\w+)\((?P<letter>\w)\)")
_SECOND_NAME = re.compile(r"(?P<name>.+) \((?P<second>.+)\)")
_WORD = re.compile(r"[a-z0-9]+")
_NEAR: Final = 0.5


def find_rows(platforms: Platforms, name: str) -> tuple[Row, ...]:
    """Find every row that a name may mean.

    Parameters
    ----------
    name
        A module's slug, name or part number; a JetPack or an L4T release (`5.1.2`,
        `jetpack 5.1.2`); a host GPU's name (`RTX 3090`) or compute capability; an image, its
        last part or its tag. `7.0` is both a JetPack and a compute capability.
    """
    wanted = _plain(name)
    bare = _plain(_KIND_WORD.sub("", name.strip(), count=1))
    of_jetpack = bare != wanted
    exact = [
        row
        for row in _rows(platforms)
        if (bare if isinstance(row, JetPackRelease) else wanted) in _names(row)
        and (not of_jetpack or isinstance(row, JetPackRelease))
    ]
    if exact or of_jetpack:
        return tuple(exact)
    return tuple(gpu for gpu in platforms.host_gpus if is_card_of(gpu, name))


def near_misses(platforms: Platforms, name: str) -> tuple[str, ...]:
    """Give names of the tables that look like one they do not hold, the nearest first."""
    wanted = _plain(_KIND_WORD.sub("", name.strip(), count=1))
    names = {shown: None for row in _rows(platforms) for shown in _names(row)}
    return tuple(difflib.get_close_matches(wanted, names, n=5, cutoff=_NEAR))


def row_name(row: Row) -> str:
    """Give a name under which `find_rows` finds the row."""
    if isinstance(row, Module):
        return row.slug
    if isinstance(row, JetPackRelease):
        return f"jetpack {row.jetpack}"
    return row.compute_capability if isinstance(row, HostGpu) else row.image


def is_card_of(gpu: HostGpu, name: str) -> bool:
    """Tell whether a card such as `NVIDIA GeForce RTX 3090` is of the row's compute capability."""
    words = _WORD.findall(name.casefold())
    return any(_in_order(_card_words(card), words) for card in _cards(gpu))


def _rows(platforms: Platforms) -> Iterator[Row]:
    yield from platforms.modules
    yield from platforms.releases
    yield from platforms.host_gpus
    yield from platforms.containers


def _names(row: Row) -> tuple[str, ...]:
    if isinstance(row, Module):
        return (row.slug, _plain(row.name), *row.part_numbers, row.compute_capability)
    if isinstance(row, JetPackRelease):
        return (_plain(row.jetpack), *([row.l4t] if row.l4t else []))
    if isinstance(row, HostGpu):
        return (row.compute_capability, _plain(row.gpu), *(_plain(card) for card in _cards(row)))
    last = row.image.rpartition("/")[2]
    return (row.image, last, last.rpartition(":")[2])


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _cards(gpu: HostGpu) -> Iterator[str]:
    """Split `Tesla P4, P40; GTX 10xx`; `L40(S)` is two cards, `GB10 (DGX Spark)` two names."""
    for card in _BETWEEN_CARDS.split(gpu.gpu):
        if match := _OPTIONAL_LETTER.fullmatch(card):
            yield match["name"]
            yield match["name"] + match["letter"]
        elif match := _SECOND_NAME.fullmatch(card):
            yield match["name"]
            yield match["second"]
        else:
            yield card


def _card_words(card: str) -> list[str]:
    """Give patterns of a card's words: `xx` is any of 50 to 90, `A-series` is A and a number.

    GeForce numbers end in 50 to 90; the 4000 of a Quadro or an Ada workstation card is none.
    """
    words = _WORD.findall(card.casefold())
    if words[-1:] == ["series"]:
        return [*words[:-2], rf"{words[-2]}[0-9]+"]
    return [word.replace("xx", "[5-9]0") for word in words if word != "tesla"]


def _in_order(patterns: list[str], words: list[str]) -> bool:
    left = iter(words)
    return all(any(re.fullmatch(pattern, word) for word in left) for pattern in patterns)
