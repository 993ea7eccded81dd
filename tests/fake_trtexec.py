"""A stand-in for trtexec, as far as edgecal talks to it.

`outputs.json` beside it holds, by digest of the input files, what a run of an engine gives. Written
after the public sources and logs of TensorRT 8.5: nothing here comes from a device. What it does
beside the ordinary stands in a file `mode` next to it: `fail`, `silent` (no word about the cache),
`mismatch`, `calibrates`, `wrong` (outputs negated), `slow` (builds until killed, or ten minutes).
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def setting(name: str, default: str) -> str:
    """Read a file beside this program."""
    file = HERE / name
    return file.read_text().strip() if file.exists() else default


def option(name: str) -> str | None:
    """Find `--name=value`; an empty text for a bare `--name`."""
    for argument in sys.argv[1:]:
        key, _, value = argument.partition("=")
        if key == f"--{name}":
            return value
    return None


def build(code: str, mode: str) -> None:
    """Write an `engine`, and a log as TensorRT's."""
    calib, model, engine = option("calib"), option("onnx"), option("saveEngine")
    if not calib or not model or not engine or option("int8") is None:
        sys.exit("[E] Unknown option")
    lines = Path(calib).read_text().splitlines()
    print(f"&&&& RUNNING TensorRT.trtexec [TensorRT v{code}] # {' '.join(sys.argv)}")
    if mode == "slow":
        for second in range(6000):
            print(f"[V] tactic {second}", flush=True)
            time.sleep(0.1)
    if mode == "mismatch" or not lines[0].startswith(f"TRT-{code}-"):
        print("[E] Calibration table does not match calibrator algorithm type.")
    if mode == "calibrates":
        print("[I] Starting Calibration.")
    elif mode != "silent":
        print("[I] Reading Calibration Cache for calibrator: EntropyCalibration2")
        print("[I] Generated calibration scales using calibration cache. Make sure that ...")
        for line in lines[1:]:
            name = line.rpartition(": ")[0]
            print(
                f"[V] INT8 Inference Tensor scales and zero-points: {name} scale and zero-point "
                "Quantization(scale: {0.1,}, zero-point: {0,})"
            )
    if mode == "fail":
        print("[E] Error[10]: Could not find any implementation for node conv1.")
        print(f"&&&& FAILED TensorRT.trtexec [TensorRT v{code}]")
        sys.exit(1)
    Path(engine).write_bytes(Path(model).read_bytes())
    print(f"&&&& PASSED TensorRT.trtexec [TensorRT v{code}]")


def run(engine: str, mode: str) -> None:
    """Look the outputs of the given inputs up and write what trtexec would."""
    inputs, output = option("loadInputs"), option("exportOutput")
    if inputs is None or output is None or not Path(engine).exists():
        sys.exit("[E] Unknown option")
    known = json.loads((HERE / "outputs.json").read_text())
    whole = hashlib.sha256()
    for part in inputs.split(","):
        whole.update(Path(part.rpartition(":")[2]).read_bytes())
    results = known[whole.hexdigest()]
    if mode == "wrong":
        for result in results:
            result["values"] = [-value for value in result["values"]]
    Path(output).write_text(json.dumps(results))


def main() -> None:
    """Do what argv says."""
    version, mode = setting("version", "8502"), setting("mode", "")
    if option("help") is not None:
        print(f"&&&& RUNNING TensorRT.trtexec [TensorRT v{version}] # trtexec --help")
        return
    engine = option("loadEngine")
    if engine is None:
        build(re.sub(r"\D", "", version), mode)
    else:
        run(engine, mode)


if __name__ == "__main__":
    main()
