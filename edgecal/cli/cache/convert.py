"""`edgecal cache convert`: scales from one format into another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgecal.cli.cache.network import network_path
from edgecal.cli.options import JsonOption, QuietOption, VerboseOption
from edgecal.cli.printable import printable
from edgecal.cli.story import Story
from edgecal.core.cache import entry_of_scale
from edgecal.core.conversion import ScaleSet, judge_names
from edgecal.core.wanted import wanted_versions
from edgecal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from edgecal.core.findings import Finding
    from edgecal.core.versions import TensorRTVersion

Target = Literal["gpu", "dla"]
_QDQ = "Q/DQ networks"
_NAMES_CONSTANTS = 10
_SAVED_MODEL = "saved_model.pb"


def convert(
    file: Annotated[Path, typer.Argument(help="A cache, a bundle, or any format that --to names.")],
    *,
    to: Annotated[
        str,
        typer.Option(
            metavar="FORMAT",
            help="trt, nvdla, ranges, ort-text, ort-json, ort-flatbuffers, ppq, qat-json, json, "
            "csv or qdq.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write.", show_default=False)
    ],
    given: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FORMAT",
            help="What FILE is: as above, or tftrt.",
            show_default="recognised",
        ),
    ] = None,
    tensorrt: Annotated[
        str | None,
        typer.Option(
            metavar="X.Y[.Z]",
            help="For --to trt from a format that does not say which TensorRT it is for.",
            show_default=False,
        ),
    ] = None,
    prototxt: Annotated[
        Path | None,
        typer.Option(
            help="The Caffe network, for --to nvdla: renames by layer index, since nvdla_compiler "
            "looks up layers by name.",
            show_default=False,
        ),
    ] = None,
    segment: Annotated[
        str | None,
        typer.Option(
            help="Which engine's table, where a TF-TRT file has several.", show_default=False
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="The float32 network to quantize.",
            rich_help_panel=_QDQ,
            show_default="the bundle's",
        ),
    ] = None,
    placement: Annotated[
        Target,
        typer.Option(
            help="gpu: pairs where TensorRT fuses them. dla: on every tensor.",
            rich_help_panel=_QDQ,
        ),
    ] = "gpu",
    fp16: Annotated[
        bool,
        typer.Option(
            "--fp16",
            help="Type as float16 what is not quantized: with strong typing, as TensorRT 11 has "
            "it, it would run in float32 otherwise.",
            rich_help_panel=_QDQ,
            show_default=False,
        ),
    ] = False,
    plain_model: Annotated[
        Path | None,
        typer.Option(
            help="From a Q/DQ network: where its plain network goes.",
            rich_help_panel=_QDQ,
            show_default="OUTPUT with .onnx",
        ),
    ] = None,
    precision: Annotated[
        Path | None,
        typer.Option(
            help="From a Q/DQ network: where the list of layers to keep in FP16 goes.",
            rich_help_panel=_QDQ,
            show_default="OUTPUT with .precision.json",
        ),
    ] = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write the scales of FILE in another format; names and numbers stay as they are.

    A TensorRT cache converted to a TensorRT cache is the same file, byte for byte. With
    [bold]--to qdq[/] the scales go into the network as quantize/dequantize pairs, the only form
    that TensorRT 11 takes; from such a network come the plain one, the cache, and the layers to
    keep in FP16.

    [bold]Examples[/]

    edgecal cache convert detector.cache --to json -o detector.json

    edgecal cache convert calibration.flatbuffers --to trt --tensorrt 8.5.2 -o detector.cache

    edgecal cache convert detector.cache --to qdq --model detector.onnx --fp16 -o detector.int8.onnx

    edgecal cache convert detector.qat.onnx --to trt --tensorrt 8.5.2 -o detector.cache
    """
    from edgecal.cli.wiring import caches, lookup, new_files

    story = Story(as_json=as_json, verbose=verbose, quiet=quiet)
    if (file / _SAVED_MODEL).is_file():
        file /= _SAVED_MODEL
    source = caches.read_cache(file)
    word = given or caches.recognise(source)
    _check_words(word, to)
    inputs = [one for one in (file, model, prototxt) if one is not None]
    new_files.check(output, inputs=inputs)
    version = None
    if tensorrt is not None:
        (version,) = wanted_versions(lookup.platforms(), tensorrt=[tensorrt])
    files: dict[Path, bytes] = {}
    findings: list[Finding] = []
    report: Mapping[str, object] = {}
    if word == "qdq":
        scales, files, findings = _take_apart(
            file,
            plain_model or output.with_suffix(".onnx"),
            precision or output.with_suffix(".precision.json"),
            version,
        )
        for path in files:
            new_files.check(path, inputs=[*inputs, output])
    else:
        scales = caches.read_scales(source, word, segment=segment)
    if prototxt is not None:
        scales = _rename(scales, prototxt, word, to)
    if to == "qdq":
        network = network_path(file, source.manifest, model)
        data, report, more = _quantize(network, scales, placement, fp16=fp16)
        findings += more
    elif word == to == "trt" and tensorrt is None:
        data = source.data
    else:
        data = caches.write_scales(scales, to, tensorrt=version, source=str(file))
        findings += judge_names(scales.entries, to)
    for path, content in files.items():
        new_files.write(path, content, inputs=inputs)
    new_files.write(output, data, inputs=inputs)
    story.findings(findings)
    document = {
        "schema": "edgecal.cache-convert/1",
        "from": word,
        "to": to,
        "output": str(output),
        "files": [str(path) for path in files],
        "tensors": len(scales.entries),
        "fp16_layers": list(scales.fp16_layers),
        **report,
        "findings": [finding.to_json() for finding in findings],
    }
    story.result(document, lambda console: _show(console, document))


def _take_apart(
    file: Path, plain_model: Path, precision: Path, tensorrt: TensorRTVersion | None
) -> tuple[ScaleSet, dict[Path, bytes], list[Finding]]:
    """Give the scales of a Q/DQ network, the files that go beside them, and what to know."""
    from edgecal.cli.wiring import networks
    from edgecal.core.precision import Precision, serialize_precision

    plain = networks.unquantize(file)
    # TensorRT 10 calls the layer it makes of a constant so; older names count layers
    suffix = "_output" if tensorrt is not None and tensorrt.major == _NAMES_CONSTANTS else ""
    entries = tuple(
        entry_of_scale(f"{name}{suffix if name in plain.constants else ''}", scale)
        for name, scale in plain.scales.items()
    )
    layers = Precision(fp16_layers=plain.fp16_layers)
    return (
        ScaleSet(entries=entries, fp16_layers=plain.fp16_layers),
        {plain_model: plain.model, precision: serialize_precision(layers)},
        [*plain.findings],
    )


def _rename(scales: ScaleSet, prototxt: Path, word: str, to: str) -> ScaleSet:
    from edgecal.cli.wiring import caches
    from edgecal.core.caffe_names import rename_for_nvdla, rename_for_tensorrt

    if (word == "nvdla") == (to == "nvdla"):
        raise InputError(
            f"names are changed on the way to NVDLA or from it, not from {word} to {to}",
            where="--prototxt",
            remedy="leave --prototxt out",
        )
    rename = rename_for_nvdla if to == "nvdla" else rename_for_tensorrt
    return replace(scales, entries=rename(scales.entries, caches.caffe_layers(prototxt)))


def _quantize(
    network: Path, scales: ScaleSet, placement: Target, *, fp16: bool
) -> tuple[bytes, Mapping[str, object], tuple[Finding, ...]]:
    from edgecal.cli.wiring import networks
    from edgecal.core.qdq_report import judge_placement, report_placement

    data, placed = networks.quantize(network, scales, placement=placement, fp16=fp16)
    return data, report_placement(placed), judge_placement(placed)


def _check_words(word: str, to: str) -> None:
    from edgecal.core.formats.registry import READABLE, WRITABLE

    for option, given, known in (("--from", word, READABLE), ("--to", to, WRITABLE)):
        if given not in known:
            raise InputError(
                f"expected one of {', '.join(known)}, found {given!r}",
                where=option,
                remedy="give one of these words",
            )


def _show(console: Console, document: Mapping[str, Any]) -> None:
    def line(text: str) -> None:
        console.print(printable(text, console.encoding), markup=False)

    what = f"{document['tensors']} tensors, {document['from']} to {document['to']}"
    line(f"{document['output']}: {what}")
    for path in document["files"]:
        line(f"  beside it  {path}")
    if document["to"] == "qdq":
        line(
            f"  quantized  {len(document['activations'])} activations, "
            f"{len(document['weights'])} weights"
        )
        line(f"  left float {len(document['left_float'])} operators")
    if document["fp16_layers"]:
        line(f"  keep FP16  {', '.join(document['fp16_layers'])}")
