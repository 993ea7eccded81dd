"""`edgecal doctor`: what this host can calibrate for, and what it lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from edgecal.cli.audit import age_text
from edgecal.cli.options import InventoryOption, JsonOption, QuietOption, VerboseOption
from edgecal.cli.printable import printable
from edgecal.cli.story import Story, size_text

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import Console

    from edgecal.core.hosts import HostFacts
    from edgecal.core.project import Project
    from edgecal.core.target_state import LastFacts
    from edgecal.workflows.doctor import Diagnosis, TargetNeed

_SHORT: Final = {
    "ready": "yes",
    "installable": "once TensorRT is there",
    "unknown": "nobody says",
    "gpu-unfit": "no: not with this GPU",
    "no-gpu": "no: there is no GPU",
    "no-calibration": "no: takes no cache",
}
_TOLD: Final = frozenset({"ready", "installable", "no-calibration"})
"""Where there is something to do on this host, so that the steps are shown unasked."""


def doctor(
    *,
    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--for",
            metavar="TARGET",
            help="Ask this target what it needs; repeatable.",
            show_default="what is known of the inventory",
        ),
    ] = None,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Tell what this machine can calibrate for, by TensorRT itself and on its CPU.

    What a GPU can run comes from the platform tables; nothing is installed or started.

    [bold]Examples[/]

    edgecal doctor

    edgecal doctor --for nvidia@xavier.local
    """
    from edgecal.cli.wiring import lookup, machine
    from edgecal.workflows.doctor import diagnose

    story = Story(as_json=as_json, quiet=quiet, verbose=verbose)
    project = lookup.inventory(inventory)
    known = _known(targets, project, story)
    diagnosis = diagnose(
        machine.host_facts(), lookup.platforms(), known, only_targets=targets is not None
    )
    now, every = machine.now(), verbose or targets is not None
    story.result(diagnosis.to_json(), lambda console: _show(console, diagnosis, now, every=every))


def _known(asked: list[str] | None, project: Project, story: Story) -> list[LastFacts]:
    """Ask the targets named by --for; of the inventory take what it last said."""
    from rich.markup import escape

    from edgecal.cli.wiring import remote
    from edgecal.core.targets import parse_target
    from edgecal.workflows.audit import examine_facts, recall

    world = remote.world()
    memory = remote.facts_cache(lambda text: story.detail(escape(text)))
    if asked is None:
        return [recall(target, memory, world) for target in project.targets.values()]
    found = []
    for text in asked:
        last, error = examine_facts(parse_target(text, project.targets), world, memory)
        if error is not None:
            if last.facts is None:
                raise error
            story.tell(
                f"[yellow]warning[/] {escape(printable(str(error)))}\n"
                "  below stands what it last said"
            )
        found.append(last)
    return found


def _show(console: Console, diagnosis: Diagnosis, now: datetime, *, every: bool) -> None:
    _show_host(console, diagnosis.host)
    if diagnosis.targets:
        _show_targets(console, diagnosis, now)
    _show_ways(console, diagnosis, every=every)
    _show_cpu(console, diagnosis)


def _show_host(console: Console, host: HostFacts) -> None:
    from rich.table import Table
    from rich.text import Text

    from edgecal.cli.targets import print_grid

    grid = Table(box=None, show_header=False, pad_edge=False)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    gpus = [
        f"{gpu.name}, compute capability {gpu.compute_capability or 'unknown'}"
        + (f", {size_text(gpu.memory_bytes)}" if gpu.memory_bytes else "")
        for gpu in host.gpus
    ]
    toolkit = f"toolkit {host.cuda_toolkit or 'none'}"
    driver = f"driver {host.driver or 'none'}"
    runs = f" (up to CUDA {host.cuda_driver})" if host.cuda_driver else ""
    docker = {
        True: "with NVIDIA's container toolkit",
        False: "without NVIDIA's container toolkit: no GPU in containers",
        None: "whether containers get the GPU is not known: its daemon does not answer",
    }[host.docker_gpus]
    rows = {
        "machine": f"{host.arch}, {host.cores} cores, Python {host.python}",
        "GPU": "\n".join(gpus) or "none: neither nvidia-smi nor libcuda shows one",
        "CUDA": f"{toolkit}, {driver}{runs}",
        "TensorRT": f"Python package {host.tensorrt_package or 'none'}, "
        f"libnvinfer {host.tensorrt_library or 'none'}",
        "ONNX Runtime": host.onnxruntime or "none",
        "Docker": f"{host.docker}, {docker}" if host.docker else "none",
    }
    for key, value in rows.items():
        grid.add_row(key, Text(printable_lines(value)))
    print_grid(console, grid)
    console.print()


def printable_lines(text: str) -> str:
    """Write what a driver calls its GPU so that it cannot move the cursor."""
    return "\n".join(printable(line) for line in text.split("\n"))


def _show_targets(console: Console, diagnosis: Diagnosis, now: datetime) -> None:
    from edgecal.cli.targets import print_table

    rows = [_target_cells(need, now) for need in diagnosis.targets]
    print_table(
        console,
        "Targets",
        ("target", "module", "JetPack", "TensorRT", "as of", "this host, natively"),
        rows,
    )


def _target_cells(need: TargetNeed, now: datetime) -> list[str]:
    facts, seen = need.last.facts, need.last.seen
    if facts is None or seen is None:
        name = need.last.target.name
        return [printable(name), "-", "-", "-", "never", f"edgecal doctor --for {printable(name)}"]
    return [
        printable(need.last.target.name),
        facts.module or "-",
        facts.jetpack or "-",
        str(facts.tensorrt) if facts.tensorrt else "none",
        "now" if need.last.live else age_text(seen, now),
        _SHORT[need.way.verdict.value] if need.way else "it has no TensorRT to calibrate for",
    ]


def _show_ways(console: Console, diagnosis: Diagnosis, *, every: bool) -> None:
    from rich.text import Text

    from edgecal.cli.targets import print_table

    if not diagnosis.ways:
        return
    rows = [
        [way.tensorrt.major_minor, jetpack or "-", _SHORT[way.verdict.value]]
        for jetpack, way in diagnosis.ways
    ]
    print_table(
        console,
        "Calibrating by TensorRT itself",
        ("for TensorRT", "of JetPack", "on this host"),
        rows,
    )
    told = [way for _, way in diagnosis.ways if every or way.verdict.value in _TOLD]
    for way in told:
        commands = diagnosis.commands[way.tensorrt.major_minor]
        if way.steps or commands:
            console.print(Text(f"TensorRT {way.tensorrt.major_minor}: {printable(way.reason)}"))
            for number, step in enumerate(way.steps):
                console.print(Text(f"  {'or ' if number else ''}{step}"))
            if way.steps and commands:
                console.print("  then:")
            for number, command in enumerate(commands):
                console.print(Text(f"  {'or ' if number else ''}{command}"))
            console.print()
    if len(told) < len(diagnosis.ways):
        console.print("-v tells which hosts could; 'edgecal targets list gpus' shows all.\n")


def _show_cpu(console: Console, diagnosis: Diagnosis) -> None:
    from rich.text import Text

    from edgecal.core.hosts import takes_caches
    from edgecal.workflows.doctor import cpu_command

    versions = [way.tensorrt.major_minor for _, way in diagnosis.ways if takes_caches(way.tensorrt)]
    if not versions:
        return
    version = diagnosis.host.onnxruntime
    if version is None:
        console.print(
            "On this CPU ONNX Runtime calibrates for all of them, once it is installed:\n"
            "  python3 -m pip install onnxruntime"
        )
        return
    console.print(
        f"[bold]On this CPU ONNX Runtime {version} calibrates for all of them now, with no GPU:[/]"
    )
    console.print(Text(f"  {cpu_command(versions[0] if len(versions) == 1 else 'X.Y')}"))
