"""The reference builder on a target: an INT8 Q/DQ network made from the cache, run by ONNX Runtime.

Runs as a zipapp of edgecal's own modules. `build` writes the network, or takes one that carries its
scales already, and prints one line of JSON with what it used; `run` runs the golden inputs and
writes all outputs as .npz.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from edgecal.adapters.onnx_model import read_model
from edgecal.adapters.qdq import write_qdq
from edgecal.core.cache import parse_cache
from edgecal.core.reference import RESULT_PREFIX
from edgecal.errors import EdgecalError


def build(model_file: str, cache_file: str, output: str) -> None:
    """Write the INT8 network that the cache describes."""
    cache = parse_cache(Path(cache_file).read_bytes(), source=cache_file)
    model = read_model(Path(model_file))
    data, placement = write_qdq(model, cache.scales())
    if not placement.activations:
        sys.exit("no tensor of the network has an entry in the cache")
    _write(output, data)
    names = [entry.tensor for entry in cache.entries]
    known = set(model.graph.tensors)
    result = {
        "used": [name for name in names if name in known],
        "missing": list(placement.without_scale),
        "unused": [name for name in names if name not in known],
        "quantized": len(placement.activations),
    }
    print(f"{RESULT_PREFIX}{json.dumps(result)}")


def take(model_file: str, output: str) -> None:
    """Take a network that carries its scales as it is."""
    data = Path(model_file).read_bytes()
    try:
        nodes = onnx.load_model_from_string(data).graph.node
    except DecodeError as error:
        sys.exit(f"{model_file}: this is no network: {error}")
    quantized = sum(node.op_type == "QuantizeLinear" for node in nodes)
    if not quantized:
        sys.exit("the network has no Q/DQ pairs, and there is no cache")
    _write(output, data)
    result = {"used": [], "missing": [], "unused": [], "quantized": quantized, "explicit": True}
    print(f"{RESULT_PREFIX}{json.dumps(result)}")


def run(model_file: str, spec_file: str, output: str, *, as_written: bool) -> None:
    """Run every golden input and write the outputs under `<run>/<position>`, names beside them.

    Parameters
    ----------
    as_written
        Compute every Q/DQ pair: ONNX Runtime cannot fuse those of a network typed float16.
    """
    import onnxruntime  # heavy, and only needed here

    spec = json.loads(Path(spec_file).read_text("utf-8"))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if as_written:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(
        model_file, sess_options=options, providers=["CPUExecutionProvider"]
    )
    names = [one.name for one in session.get_outputs()]
    arrays = {"names": np.asarray(names, dtype=np.str_)}
    for number, inputs in enumerate(spec):
        feeds = {
            one["name"]: np.fromfile(one["file"], dtype=one["dtype"]).reshape(one["shape"])
            for one in inputs
        }
        for position, value in enumerate(session.run(names, feeds)):
            arrays[f"{number}/{position}"] = value
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    _write(output, buffer.getvalue())


def _write(name: str, data: bytes) -> None:
    with Path(name).open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def main() -> None:
    """Do what argv says."""
    parser = argparse.ArgumentParser(prog="reference.pyz", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build")
    building.add_argument("model")
    building.add_argument("output")
    building.add_argument("cache", nargs="?")
    running = commands.add_parser("run")
    running.add_argument("model")
    running.add_argument("spec")
    running.add_argument("output")
    running.add_argument("--as-written", action="store_true")
    given = parser.parse_args()
    try:
        if given.command == "run":
            run(given.model, given.spec, given.output, as_written=given.as_written)
        elif given.cache is None:
            take(given.model, given.output)
        else:
            build(given.model, given.cache, given.output)
    except EdgecalError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
