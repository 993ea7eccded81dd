"""`edgecal cache check`: whether a cache belongs to a network, and what TensorRT will miss."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from edgecal.cli.cache.network import network_path
from edgecal.cli.options import JsonOption, QuietOption, VerboseOption
from edgecal.cli.printable import printable
from edgecal.cli.story import Story

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgecal.adapters.cache_files import CacheFile
    from edgecal.adapters.onnx_model import OnnxModel
    from edgecal.core.findings import Finding
    from edgecal.core.preprocess import Preprocess
    from edgecal.core.versions import TensorRTVersion
    from edgecal.workflows.check_cache import CacheCheck, Observed

T = TypeVar("T")

_DLA = "For a DLA"
_DATA = "Against data"

_SHOWN: Final = 10
_SAMPLES: Final = 8
_WIDEST: Final = 48


def check(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A calibration cache, or a bundle.", show_default=False
        ),
    ],
    *,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL.onnx",
            help="The network it is to be used with.",
            show_default="the bundle's own",
        ),
    ] = None,
    tensorrt: Annotated[
        str | None,
        typer.Option(metavar="X.Y.Z", help="Who will read it.", show_default="the header's"),
    ] = None,
    dla: Annotated[
        bool,
        typer.Option("--dla", help="A DLA will run it, not the GPU.", rich_help_panel=_DLA),
    ] = False,
    no_gpu_fallback: Annotated[
        bool,
        typer.Option(
            "--no-gpu-fallback", help="The GPU will not help the DLA.", rich_help_panel=_DLA
        ),
    ] = False,
    no_fp16: Annotated[
        bool, typer.Option("--no-fp16", help="No FP16 beside INT8.", rich_help_panel=_DLA)
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Run a few samples and compare ranges; a folder of images, .npy, .npz or "
            "module:function.",
            rich_help_panel=_DATA,
            show_default=False,
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, help="How many of them.", rich_help_panel=_DATA)
    ] = _SAMPLES,
    preprocess: Annotated[
        Path | None,
        typer.Option(
            help="TOML file, as for calibrate.",
            rich_help_panel=_DATA,
            show_default="the bundle's, or edgecal.toml's",
        ),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Check whether a cache belongs to a network, and tell what TensorRT will not find in it.

    A cache of an earlier export is recognised even where its names still hit tensors: by scales
    that must be equal, by ranges that cannot be, and with --data by what the network really does.
    The exit code is 3 if there is an error, else 0.

    [bold]Examples[/]

    edgecal cache check resnet50.cache --model resnet50.onnx

    edgecal cache check net.edgecal --dla --no-gpu-fallback --data photos/
    """
    from edgecal.cli.wiring import caches, datasets, networks
    from edgecal.core.document import read_document
    from edgecal.core.findings import refused
    from edgecal.core.oddities import explain_header
    from edgecal.core.versions import parse_tensorrt
    from edgecal.workflows.check_cache import check_cache, observe

    story = Story(as_json=as_json, quiet=quiet, verbose=verbose)
    given = parse_tensorrt(tensorrt) if tensorrt else None
    source = caches.read_cache(file)
    document = read_document(source.data, source=str(file))
    meaning = explain_header(document)
    scales: dict[str, float] = {}
    for entry in document.entries:
        if (scale := entry.scale) is not None:
            scales.setdefault(entry.tensor, scale)
    network = networks.model(network_path(file, source.manifest, model))
    findings = [*document.findings, *_model_changed(source, network)]
    observed = None
    if data is not None:
        settings, assumed = _preprocess(source, network, preprocess)
        dataset = datasets.open_dataset(
            data,
            network.graph.inputs,
            preprocess=settings,
            skip_unreadable=False,
            limit=samples,
        )
        if dataset.preprocess is not None:  # other data comes prepared
            findings += assumed
        with story.progress() as progress:
            observed = observe(
                networks.backend(network), dataset, samples=samples, progress=progress
            )
    done = check_cache(
        scales,
        network.graph,
        written_by=meaning.tensorrt or given,
        algorithm=meaning.algorithm or "",
        read_by=given or meaning.tensorrt,
        dla=dla,
        gpu_fallback=not no_gpu_fallback,
        fp16=not no_fp16,
        observed=observed,
    )
    findings += done.findings
    if as_json:
        from edgecal.cli.cache.rows import json_rows

        story.out.file.write(json_rows(_document(done, findings, given or meaning.tensorrt)))
    else:
        story.out.file.write("\n".join(_lines(done, findings, observed, story)) + "\n")
        story.out.file.flush()  # findings follow on stderr
        story.findings(findings)
    raise typer.Exit(3 if refused(findings) else 0)


def _model_changed(source: CacheFile, network: OnnxModel) -> Iterator[Finding]:
    """Hold a bundle's record against the network; no guess is needed there."""
    from edgecal.core.findings import Finding, Severity

    if source.manifest is None:
        return
    record = source.manifest.model
    if record.canonical_digest != network.canonical_digest:
        yield Finding(
            rule="stale-model",
            severity=Severity.ERROR,
            subject=str(network.path),
            message=f"the bundle was made for another network: {record.source.path}, digest "
            f"{record.canonical_digest[:19]}, and this one has {network.canonical_digest[:19]}",
            remedy="calibrate this network; new weights need it too",
        )


def _preprocess(
    source: CacheFile, network: OnnxModel, file: Path | None
) -> tuple[Preprocess | None, tuple[Finding, ...]]:
    """Take the settings that are nearest: given, of the bundle, of the project; else assume."""
    from edgecal.cli.wiring import lookup
    from edgecal.core.preprocess import assume_preprocess, fit_to_network, parse_preprocess

    inputs = network.graph.inputs
    if file is not None:
        settings = parse_preprocess(lookup.read_toml(file), source=str(file))
        return fit_to_network(settings, inputs), ()
    recorded = source.manifest.data.preprocess if source.manifest is not None else None
    if recorded is not None:
        return parse_preprocess(recorded, source=str(source.path)), ()
    ours = lookup.project().preprocess
    if ours is not None:
        return fit_to_network(ours, inputs), ()
    if not inputs:
        return None, ()
    settings, finding = assume_preprocess(inputs)
    return settings, (finding,)


def _document(
    done: CacheCheck, findings: Sequence[Finding], tensorrt: TensorRTVersion | None
) -> dict[str, object]:
    coverage, agreement = done.coverage, done.agreement
    return {
        "schema": "edgecal.cache-check/1",
        "tensorrt": None if tensorrt is None else str(tensorrt),
        "covered": list(coverage.covered),
        "missing": list(coverage.missing),
        "unknown": list(coverage.unknown),
        "needless": list(coverage.needless),
        "helpers": [
            {"name": one.name, "node": one.node, "role": one.role} for one in coverage.helpers
        ],
        "holes": [
            {
                "name": one.name,
                "kind": one.kind,
                "node": one.node,
                "cost": one.cost,
                "why": one.why,
            }
            for one in coverage.holes
        ],
        "data": None
        if agreement is None
        else {
            "compared": agreement.compared,
            "far_off": list(agreement.far_off),
            "median": agreement.median,
            "correlation": agreement.correlation,
        },
        "findings": [finding.to_json() for finding in findings],
    }


def _lines(
    done: CacheCheck, findings: Sequence[Finding], observed: Observed | None, story: Story
) -> Iterator[str]:
    coverage, agreement = done.coverage, done.agreement
    total = len(coverage.covered) + len(coverage.missing)
    yield _verdict(done, findings)
    yield (
        f"  activations  {len(coverage.covered)} of {total} have an entry, "
        f"{len(coverage.missing)} missing"
    )
    yield f"  helpers      {len(coverage.helpers)} entries of the parser's own tensors"
    yield f"  needless     {len(coverage.needless)} entries of integers, masks or constants"
    yield f"  unknown      {len(coverage.unknown)} entries match nothing"
    if agreement is not None and observed is not None:
        yield (
            f"  data         {observed.samples} samples: the median of {agreement.compared} "
            f"tensors reaches {agreement.median:.2f} of its range, {len(agreement.far_off)} are "
            f"far off, rank correlation {agreement.correlation:.2f}"
        )
    yield from _missing(done, story)
    yield from _unknown(done, story)
    if coverage.helpers:
        yield from _helpers(done, story)


def _verdict(done: CacheCheck, findings: Sequence[Finding]) -> str:
    from edgecal.core.findings import Severity, refused
    from edgecal.core.staleness import RULE

    errors = {finding.rule for finding in findings if finding.severity is Severity.ERROR}
    if errors & {RULE, "stale-model"}:
        return "stale: this cache was made for another network, or an earlier export"
    if refused(findings):
        return "refused: this cache does not do for this network"
    if done.stale:
        return "suspicious: this cache may have been made for another network"
    if any(finding.severity is Severity.WARNING for finding in findings):
        return "fits, with gaps: nothing says that this cache is of another network"
    return "fits: nothing says that this cache is of another network"


def _missing(done: CacheCheck, story: Story) -> Iterator[str]:
    holes = [hole for hole in done.coverage.holes if hole.kind in {"activation", "constant"}]
    if not holes:
        return
    rows = [("missing", "cost", "node", "why it matters")]
    for hole in _first(holes, story):
        node = "network input" if hole.node is None else printable(hole.node)
        rows.append((printable(hole.name), hole.cost, node, printable(hole.why)))
    yield ""
    yield from _table(rows)
    yield from _rest(len(holes), story)


def _unknown(done: CacheCheck, story: Story) -> Iterator[str]:
    from edgecal.core.renames import guess_renames

    unknown = done.coverage.unknown
    if not unknown:
        return
    shown = _first(unknown, story)
    guesses = guess_renames(shown, done.coverage.missing)
    rows = [("unknown", "perhaps")]
    rows += [(printable(name), printable(guesses.get(name, "-"))) for name in shown]
    yield ""
    yield from _table(rows)
    yield from _rest(len(unknown), story)


def _helpers(done: CacheCheck, story: Story) -> Iterator[str]:
    """Group helpers by what they are for, and name their nodes."""
    groups: dict[str, list[str]] = {}
    for helper in done.coverage.helpers:
        node = "unknown node" if helper.node is None else printable(helper.node)
        groups.setdefault(printable(helper.role), []).append(node)
    rows = [("helpers", "", "of nodes")]
    for role, nodes in _first(list(groups.items()), story):
        named = list(dict.fromkeys(nodes))
        shown = named if story.verbose else named[:3]
        more = f" and {len(named) - len(shown)} more" if len(named) > len(shown) else ""
        rows.append((role, str(len(nodes)), ", ".join(shown) + more))
    yield ""
    yield from _table(rows)
    yield from _rest(len(groups), story)


def _first(members: Sequence[T], story: Story) -> Sequence[T]:
    return members if story.verbose else members[:_SHOWN]


def _rest(count: int, story: Story) -> Iterator[str]:
    if count > _SHOWN and not story.verbose:
        yield f"and {count - _SHOWN} more (-v)"


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Align columns by hand: a table of rich takes minutes for 100,000 rows."""
    widths = [min(max(map(len, column)), _WIDEST) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(
            f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)
        ).rstrip()
