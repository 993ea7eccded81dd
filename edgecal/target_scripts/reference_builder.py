"""The reference builder on a target: an INT8 Q/DQ network made from the cache, run by ONNX Runtime.

Runs as a zipapp of edgecal's own modules. `build` writes the network and prints one line of JSON
with what it used; `run` runs the golden inputs and writes all outputs as .npz.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from pathlib import Path

import numpy as np

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


def run(model_file: str, spec_file: str, output: str) -> None:
    """Run every golden input and write the outputs under `<run>/<position>`, names beside them."""
    import onnxruntime  # heavy, and only needed here

    spec = json.loads(Path(spec_file).read_text("utf-8"))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
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
    building.add_argument("cache")
    building.add_argument("output")
    running = commands.add_parser("run")
    running.add_argument("model")
    running.add_argument("spec")
    running.add_argument("output")
    given = parser.parse_args()
    try:
        if given.command == "build":
            build(given.model, given.cache, given.output)
        else:
            run(given.model, given.spec, given.output)
    except EdgecalError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
