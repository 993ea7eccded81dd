"""`edgecal targets`: what the platform tables say of modules, JetPacks, host GPUs, containers."""

from __future__ import annotations

import enum
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from edgecal.cli.options import JsonOption, QuietOption, VerboseOption
from edgecal.cli.story import Story

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console
    from rich.table import Table as Grid

    from edgecal.core.platform_search import Row
    from edgecal.core.platforms import Container, HostGpu, JetPackRelease, Module, Platforms

_WIDTH: Final = 100
_FOLDS: Final = frozenset({"slug", "GPU", "image", "evidence", "INT8", "DLA"})
"""Columns whose cells take several lines where a terminal is narrow."""
_REGISTRY: Final = "nvcr.io/nvidia/"

group = typer.Typer(
    name="targets",
    help="Look up Jetson modules, JetPack releases, host GPUs and containers.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


class Table(str, enum.Enum):
    """One of the tables."""

    MODULES = "modules"
    JETPACKS = "jetpacks"
    GPUS = "gpus"
    CONTAINERS = "containers"


@group.command(name="list")
def list_tables(
    table: Annotated[
        Table | None,
        typer.Argument(help="Which one.", show_default="all of them"),
    ] = None,
    *,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """List the platform tables; what no source confirms has a question mark.

    [bold]Example[/]

    edgecal targets list modules
    """
    from edgecal.cli.wiring import lookup

    story = Story(as_json=as_json, quiet=quiet, verbose=verbose)
    platforms = lookup.platforms()
    wanted = [table] if table else list(Table)
    document = {
        "schema": "edgecal.targets/1",
        **{one.value: [row_document(row) for row in _rows(platforms, one)] for one in wanted},
    }
    story.result(document, lambda console: _show_tables(console, platforms, wanted))


@group.command()
def show(
    name: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME",
            help="A module (orin-nx-16gb, p3767-0000), a JetPack or L4T release (5.1.2, 35.4.1), "
            "a GPU (T4, 8.6) or an image (23.01-py3).",
        ),
    ],
    *,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show everything the tables say of one module, release, GPU or image, and who says so.

    [bold]Examples[/]

    edgecal targets show orin-nx-16gb

    edgecal targets show jetpack 5.1.2
    """
    from edgecal.cli.wiring import lookup
    from edgecal.core.platform_search import find_rows, near_misses
    from edgecal.errors import InputError

    story = Story(as_json=as_json, quiet=quiet, verbose=verbose)
    platforms = lookup.platforms()
    text = " ".join(name)
    rows = find_rows(platforms, text)
    if not rows:
        near = near_misses(platforms, text)
        raise InputError(
            f"no row of the platform tables is called {text!r}",
            where="targets show",
            remedy=f"{'perhaps you meant ' + ', '.join(near) + '; ' if near else ''}"
            "'edgecal targets list' shows all names",
        )
    document = {
        "schema": "edgecal.targets/1",
        "rows": [{"table": _table_of(row).value, **row_document(row)} for row in rows],
    }
    story.result(document, lambda console: _show_rows(console, rows))


def row_document(row: Row) -> dict[str, Any]:
    """Give a row's columns as they stand in its table; unknown is null."""
    from edgecal.core.versions import TensorRTVersion

    cells = asdict(row)
    if hasattr(row, "tensorrt"):
        version = row.tensorrt
        cells["tensorrt"] = str(version) if isinstance(version, TensorRTVersion) else None
    return cells


def _rows(platforms: Platforms, table: Table) -> Sequence[Row]:
    rows: dict[Table, Sequence[Row]] = {
        Table.MODULES: platforms.modules,
        Table.JETPACKS: platforms.releases,
        Table.GPUS: platforms.host_gpus,
        Table.CONTAINERS: platforms.containers,
    }
    return rows[table]


def _table_of(row: Row) -> Table:
    from edgecal.core.platforms import HostGpu, JetPackRelease, Module

    if isinstance(row, Module):
        return Table.MODULES
    if isinstance(row, JetPackRelease):
        return Table.JETPACKS
    return Table.GPUS if isinstance(row, HostGpu) else Table.CONTAINERS


def doubt(value: object, *, verified: bool) -> str:
    """Write a cell: `-` where nothing is known, a question mark where nobody confirms it."""
    if value is None or value == "":
        return "-"
    text = {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else value
    return f"{text}{'' if verified else '?'}"


def _span(first: str | None, last: str | None, *, verified: bool) -> str:
    if first is None and last is None:
        return "-"
    return f"{doubt(first or '', verified=verified)} .. {last or '-'}"


def _module_cells(module: Module) -> list[str]:
    return [
        doubt(module.slug, verified=module.verified),
        module.soc,
        module.compute_capability,
        doubt(module.dla_cores, verified=module.dla_cores_verified),
        doubt(module.int8, verified=module.int8_verified),
        doubt(module.memory_gb, verified=module.memory_gb_verified),
        _span(module.first_jetpack, module.last_jetpack, verified=module.first_jetpack_verified),
        _span(module.first_tensorrt, module.last_tensorrt, verified=True),
    ]


def _release_cells(release: JetPackRelease) -> list[str]:
    version = str(release.tensorrt) if release.tensorrt else release.tensorrt_major_minor
    dla = None if release.dla is None else ", ".join(release.dla) or "none"
    return [
        release.jetpack,
        release.l4t or "-",
        doubt(version, verified=release.verified),
        doubt(release.cuda, verified=release.cuda_verified),
        release.ubuntu or "-",
        release.python or "-",
        doubt(release.implicit_int8, verified=release.verified),
        doubt(dla, verified=release.verified),
    ]


def _gpu_columns(gpus: Sequence[HostGpu]) -> list[str]:
    """Give the TensorRTs that the table judges, oldest first."""
    from edgecal.core.versions import parse_tensorrt

    named = {
        version
        for gpu in gpus
        for column in (gpu.runs, gpu.runs_unverified, gpu.cannot_run, gpu.cannot_run_unverified)
        for version in column
    }
    return sorted(named, key=parse_tensorrt)


def _gpu_cells(gpu: HostGpu, versions: Sequence[str]) -> list[str]:
    answers = {
        **dict.fromkeys(gpu.cannot_run_unverified, "no?"),
        **dict.fromkeys(gpu.runs_unverified, "yes?"),
        **dict.fromkeys(gpu.cannot_run, "no"),
        **dict.fromkeys(gpu.runs, "yes" if gpu.int8_verified else "yes?"),
    }
    return [gpu.gpu, gpu.compute_capability, *(answers.get(one, "-") for one in versions)]


def _container_cells(container: Container) -> list[str]:
    return [
        container.image.removeprefix(_REGISTRY),
        doubt(str(container.tensorrt) if container.tensorrt else None, verified=container.verified),
        container.runs_on,
        container.jetpack or "-",
        container.evidence,
        "best" if container.best_match else "",
    ]


def _show_tables(console: Console, platforms: Platforms, wanted: Sequence[Table]) -> None:
    versions = _gpu_columns(platforms.host_gpus)
    heads: dict[Table, tuple[str, Sequence[str]]] = {
        Table.MODULES: (
            "Jetson modules",
            ("slug", "SoC", "capability", "DLA", "INT8", "GB", "JetPack", "TensorRT"),
        ),
        Table.JETPACKS: (
            "JetPack releases, oldest first; INT8: from a calibration cache; DLA: by TensorRT",
            ("JetPack", "L4T", "TensorRT", "CUDA", "Ubuntu", "Python", "INT8", "DLA"),
        ),
        Table.GPUS: (
            "Host GPUs: on which TensorRT they do INT8",
            ("GPU", "capability", *versions),
        ),
        Table.CONTAINERS: (
            f"Containers, oldest first; all images begin with {_REGISTRY}",
            ("image", "TensorRT", "runs on", "JetPack", "evidence", "take"),
        ),
    }
    cells: dict[Table, Callable[[Any], list[str]]] = {
        Table.MODULES: _module_cells,
        Table.JETPACKS: _release_cells,
        Table.GPUS: lambda gpu: _gpu_cells(gpu, versions),
        Table.CONTAINERS: _container_cells,
    }
    for table in wanted:
        title, head = heads[table]
        print_table(console, title, head, [cells[table](row) for row in _rows(platforms, table)])
    console.print(
        "?: no source confirms it   -: unknown   "
        "'edgecal targets show NAME' tells more, and the source",
        style="dim",
    )


def print_table(
    console: Console, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Print rows under a title."""
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold")
    for word in head:
        grid.add_column(word, header_style="dim", overflow="fold", no_wrap=word not in _FOLDS)
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    print_grid(console, grid)
    console.print()


def print_grid(console: Console, grid: Grid) -> None:
    """Print a table in the terminal's width, or in 100 columns where there is none."""
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    console.print(grid, soft_wrap=False, crop=False)


_LABELS: Final = {
    "ubuntu": "Ubuntu",
    "python": "Python",
    "gpu": "GPU",
    "l4t": "L4T",
    "jetpack": "JetPack",
    "soc": "SoC",
    "cuda": "CUDA",
    "int8": "INT8",
    "dla": "DLA by TensorRT",
    "dla_cores": "DLA cores",
    "dla_generation": "DLA generation",
    "implicit_int8": "INT8 from a cache",
    "int8_tensor_cores": "INT8 tensor cores",
    "memory_gb": "memory, GB",
    "tensorrt": "TensorRT",
    "tensorrt_major_minor": "TensorRT major.minor",
    "first_tensorrt": "first TensorRT",
    "last_tensorrt": "last TensorRT",
    "first_jetpack": "first JetPack",
    "last_jetpack": "last JetPack",
    "runs": "runs TensorRT",
    "runs_unverified": "runs TensorRT, not confirmed",
    "cannot_run": "cannot run TensorRT",
    "cannot_run_unverified": "cannot run TensorRT, not confirmed",
}


def _show_rows(console: Console, rows: Sequence[Row]) -> None:
    from rich.table import Table as Grid
    from rich.text import Text

    for number, row in enumerate(rows):
        cells = row_document(row)
        grid = Grid(box=None, show_header=False, pad_edge=False)
        grid.add_column(style="bold", no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row("table", _table_of(row).value)
        for key, value in cells.items():
            if key.endswith("_verified") or key == "verified":
                continue
            if isinstance(value, list | tuple):
                text = ", ".join(value) or ("none" if key == "dla" else "-")
            else:
                text = doubt(value, verified=cells.get(f"{key}_verified", True))
                text = text.replace("; ", "\n") if key == "source" else text
            grid.add_row(_LABELS.get(key, key.replace("_", " ")), Text(text))
        grid.add_row("confirmed", "yes" if cells["verified"] else "no: inferred, or from memory")
        if number:
            console.print()
        print_grid(console, grid)
    console.print("?: no source confirms it   -: unknown", style="dim")
