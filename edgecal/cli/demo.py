"""`edgecal demo`: the whole job on this machine, for real, on a target that is this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from edgecal.cli.options import JsonOption, QuietOption, VerboseOption
from edgecal.cli.story import Story

if TYPE_CHECKING:
    from rich.console import Console

    from edgecal.adapters.demo_data import DemoData
    from edgecal.adapters.loopback import LoopbackServer
    from edgecal.core.target import Target
    from edgecal.ports import Dataset

_TENSORRT: Final = "8.5"
_BATCH: Final = 50


def demo(
    *,
    folder: Annotated[Path, typer.Option("--dir", help="Where the demo's files go.")] = Path(
        "edgecal-demo"
    ),
    serve: Annotated[
        bool,
        typer.Option(
            "--serve", help="Keep the target running afterwards, to try the other commands on it."
        ),
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run the whole job on this machine; no Jetson and no GPU needed.

    Calibrates a small image classifier that ships with edgecal on its real pictures, pushes the
    bundle over a real SSH connection to a throw-away target on loopback, builds there with the
    reference builder (ONNX Runtime in place of TensorRT), verifies, activates, and compares
    accuracies.

    [bold]Example[/]

    edgecal demo
    """
    from rich.markup import escape

    from edgecal.cli.calibrated import show_bundles
    from edgecal.cli.watch import watch_pushes
    from edgecal.cli.wiring import bundling, datasets, lookup, machine, networks, remote
    from edgecal.core.preprocess import parse_preprocess
    from edgecal.core.wanted import wanted_versions
    from edgecal.workflows.calibrate import calibrate
    from edgecal.workflows.collect import CalibrateOptions
    from edgecal.workflows.evaluate import top1
    from edgecal.workflows.report import PushOptions

    story = Story(as_json=as_json, quiet=quiet, verbose=verbose)
    started = machine.now()
    folder = folder.resolve()
    data = datasets.demo_data(folder)
    story.tell(f"[bold]1. calibrate[/] {data.model.name} on {escape(str(data.calibration))}")
    network = networks.model(data.model)
    backend = networks.backend(network)
    settings = parse_preprocess(lookup.read_toml(data.preprocess), source=str(data.preprocess))

    def pictures(where: Path) -> Dataset:
        return datasets.open_dataset(
            str(where), network.graph.inputs, preprocess=settings, skip_unreadable=False, limit=None
        )

    source = pictures(data.calibration)
    versions = wanted_versions(lookup.platforms(), tensorrt=[_TENSORRT])
    with story.progress() as progress:
        statistics, (done,) = calibrate(
            backend, source, versions, CalibrateOptions(workers=machine.workers()), progress
        )
    bundle = bundling.save_bundle(
        folder / "fashion.edgecal",
        network=network,
        data=str(data.calibration),
        source=source,
        statistics=statistics,
        calibration=done,
    )
    seconds = (machine.now() - started).total_seconds()
    if not story.quiet:
        show_bundles(story.err, [(bundle, done)], statistics, seconds)

    with remote.loopback(folder / "ssh") as server:
        target = _target(server, folder)
        why = f" ({server.reason})" if server.reason else ""
        story.tell(
            f"[bold]2. push[/] over SSH to {server.user}@{server.host}:{server.port}, "
            f"served by {server.kind}{escape(why)}"
        )
        silent = Story(quiet=quiet, verbose=verbose, out=story.err)
        (report,) = watch_pushes([bundle], [target], PushOptions(), remote.world(), silent)
        if report.error is not None:
            raise report.error

        story.tell(
            "[bold]3. compare[/] the network and the engine that is now active, on 1000 pictures"
        )
        engine = folder / "target/models/fashion/current" / "model.int8.onnx"
        labels = {Path(name).name: label for name, label in data.labels.items() if "test/" in name}
        test = pictures(data.test)
        fp32 = top1(networks.run_onnx(data.model), test, labels, batch=_BATCH)
        int8 = top1(networks.run_onnx(engine), test, labels, batch=_BATCH)
        document = {
            "schema": "edgecal.demo/1",
            "fp32_top1": fp32,
            "int8_top1": int8,
            "samples": len(test),
            "seconds": round((machine.now() - started).total_seconds(), 3),
            "bundle": str(bundle.path),
            "target": target.name,
            "release": report.release,
            "engine": str(engine),
            "ssh": server.kind,
        }
        story.result(document, lambda console: _show(console, document))
        _write_project(data, target)
        if serve:
            _serve(story, folder)


def _show(console: Console, document: dict[str, object]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("top-1 accuracy", "FP32", "INT8", "pictures"):
        table.add_column(column)
    table.add_row(
        "", f"{document['fp32_top1']:.1%}", f"{document['int8_top1']:.1%}", str(document["samples"])
    )
    console.print(table)
    console.print(f"bundle  {escape(str(document['bundle']))}")
    console.print(f"engine  {escape(str(document['engine']))}")
    console.print(f"took    {document['seconds']:.1f} s")


def _target(server: LoopbackServer, folder: Path) -> Target:
    from edgecal.core.target import Target

    return Target(
        name="demo",
        host=server.host,
        port=server.port,
        user=server.user,
        root=str(folder / "target"),
        python=sys.executable,
        identity_file=str(server.identity_file),
        known_hosts=str(server.known_hosts),
    )


def _write_project(data: DemoData, target: Target) -> None:
    """Leave an edgecal.toml, so that the other commands need no options in the demo's folder."""
    lines = [
        "# Written by 'edgecal demo'; the target answers while 'edgecal demo --serve' runs.",
        "",
    ]
    lines += ["[calibrate]", f'model = "{data.model.name}"', 'data = "data/calibration"']
    lines += ['output = "fashion.edgecal"', f'tensorrt = "{_TENSORRT}"', ""]
    settings = data.preprocess.read_text("utf-8").splitlines()
    lines += ["[preprocess]", *(line for line in settings if not line.startswith("#")), ""]
    lines += ["[push]", 'bundle = "fashion.edgecal"', ""]
    lines += ["[targets.demo]", f'host = "{target.host}"', f"port = {target.port}"]
    for key in ("user", "root", "python", "identity_file", "known_hosts"):
        lines.append(f'{key} = "{getattr(target, key)}"')
    (data.folder / "edgecal.toml").write_text("\n".join(lines) + "\n", "utf-8")


def _serve(story: Story, folder: Path) -> None:
    import threading

    story.tell(f"the target stays up; in another terminal: [bold]cd {folder}[/] and try")
    story.tell("  edgecal status --target demo")
    story.tell("  edgecal push --target demo")
    story.tell("press Ctrl-C here to stop it")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        story.tell("stopped")
