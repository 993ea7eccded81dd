"""`edgecal probe`: what a target is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecal.cli.options import JsonOption, QuietOption, TargetOption
from edgecal.cli.story import Story, size_text

if TYPE_CHECKING:
    from rich.console import Console

    from edgecal.core.target import TargetFacts


def probe(*, target: TargetOption, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Ask a target what it is: TensorRT, JetPack, module, DLA, memory, disk; one round trip.

    [bold]Example[/]

    edgecal probe --target nvidia@xavier.local
    """
    from edgecal.cli import wiring
    from edgecal.core.probes import facts_to_json
    from edgecal.workflows.targets import probe_target

    story = Story(as_json=as_json, quiet=quiet)
    facts = probe_target(wiring.target(target), wiring.world())
    document = {"schema": "edgecal.probe/1", "target": target, "facts": facts_to_json(facts)}
    story.result(document, lambda console: _show(console, facts))


def _show(console: Console, facts: TargetFacts) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    python = facts.python
    rows = {
        "host": f"{facts.user}@{facts.hostname}",
        "board": facts.model or ("a Jetson" if facts.is_jetson else "no Jetson"),
        "module": facts.module,
        "JetPack": f"{facts.jetpack or 'unknown'} (L4T {facts.l4t})" if facts.l4t else None,
        "TensorRT": str(facts.tensorrt) if facts.tensorrt else None,
        "builders": ", ".join(
            f"{one.name} {one.tensorrt or ''}({one.path})" for one in facts.builders
        )
        or "none",
        "CUDA": facts.cuda,
        "compute capability": facts.compute_capability,
        "DLA cores": None if facts.dla_cores is None else str(facts.dla_cores),
        "GPU access": {True: "yes", False: "no", None: None}[facts.gpu_access],
        "Python": python
        and f"{python.version} ({python.path}); numpy {python.numpy or '-'}, onnx "
        f"{python.onnx or '-'}, onnxruntime {python.onnxruntime or '-'}",
        "memory": facts.memory_bytes
        and f"{size_text(facts.memory_available_bytes or 0)} "
        f"of {size_text(facts.memory_bytes)} free",
        "disk": facts.disk_free_bytes and f"{size_text(facts.disk_free_bytes)} free",
        "power mode": facts.power_mode,
        "edgecal's folder": facts.root,
        "lacks": ", ".join(facts.missing_tools) or "nothing",
    }
    for key, value in rows.items():
        table.add_row(key, escape(str(value)) if value else "[dim]unknown[/]")
    console.print(table)
