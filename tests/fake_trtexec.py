"""A stand-in for trtexec of TensorRT 7.1 to 11.4, as strict and as careless as the real one.

Flags by version, what is refused, and what it says follow NVIDIA's public sources of trtexec at
the release tags, strings of libnvinfer 8.4 and public logs; nothing here comes from a device. Its
table of flags is its own, so that a slip in edgecal's shows. It is careless as the real one is:
`--int8` without `--calib`, and a `--calib` file that is not there, make an engine of made-up scales
without a word. One thing it is stricter in: flags of types beside `--stronglyTyped` end it, where
the real one may only warn.

Beside it lie `version` (a header code such as 8502), `outputs.json` (by digest of the input files,
what a run of an engine gives), and `mode`, for what it does beside the ordinary: `fail`, `silent`
(no word about the cache), `mismatch`, `calibrates`, `wrong` (outputs negated), `nan`, `slow`
(builds until killed, or ten minutes), `falls-back` (the DLA refuses a layer), `float` (nothing in
the engine is INT8), `unlisted` (no word about the engine's layers).
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
END = (99, 0)

# flag: first and past-the-last version; a flag of this table takes a value where it is listed below
FLAGS = {
    **dict.fromkeys(
        (
            *("onnx", "saveEngine", "loadEngine", "useDLACore", "allowGPUFallback", "verbose"),
            *("minShapes", "optShapes", "maxShapes", "shapes", "inputIOFormats"),
            *("outputIOFormats", "exportTimes", "exportProfile", "dumpProfile", "dumpOutput"),
            *("iterations", "duration", "warmUp", "avgRuns", "percentile", "useCudaGraph"),
            *("useSpinWait", "device", "help", "loadInputs", "exportOutput", "noTF32"),
        ),
        ((7, 0), END),
    ),
    **dict.fromkeys(("int8", "fp16", "best", "calib"), ((7, 0), (11, 0))),
    **dict.fromkeys(("minShapesCalib", "optShapesCalib", "maxShapesCalib"), ((7, 1), (11, 0))),
    **dict.fromkeys(("explicitBatch", "buildOnly", "workspace"), ((7, 0), (10, 0))),
    **dict.fromkeys(("maxBatch", "batch", "deploy", "model", "output"), ((7, 0), (9, 0))),
    **dict.fromkeys(("separateProfileRun", "noDataTransfers"), ((7, 2), END)),
    "timingCacheFile": ((8, 0), END),
    **dict.fromkeys(("profilingVerbosity", "exportLayerInfo", "dumpLayerInfo"), ((8, 2), END)),
    "precisionConstraints": ((8, 2), (11, 0)),
    "memPoolSize": ((8, 4), END),
    **dict.fromkeys(("layerPrecisions", "layerOutputTypes"), ((8, 4), (11, 0))),
    **dict.fromkeys(
        ("skipInference", "layerDeviceTypes", "buildDLAStandalone", "versionCompatible"),
        ((8, 6), END),
    ),
    "stronglyTyped": ((9, 0), END),
    "calibProfile": ((9, 0), (11, 0)),
}
BARE = {
    *("allowGPUFallback", "verbose", "dumpProfile", "dumpOutput", "useCudaGraph", "useSpinWait"),
    *("help", "noTF32", "int8", "fp16", "best", "explicitBatch", "buildOnly", "separateProfileRun"),
    *("noDataTransfers", "dumpLayerInfo", "skipInference", "buildDLAStandalone"),
    *("versionCompatible", "stronglyTyped"),
}
TIMING_MAGIC = "timing cache of "


class Program:
    """One call of it."""

    def __init__(self, code: str, mode: str, words: list[str]) -> None:
        self.code, self.mode, self.words = code, mode, words
        step = 1000 if len(code) < 5 else 10000
        self.version = (int(code) // step, int(code) % step // 100)
        self.options: dict[str, str] = {}

    def say(self, level: str, text: str) -> None:
        print(f"[11/21/2026-12:00:00] [{level}] {text}")

    def end(self, word: str, text: str = "") -> None:
        """Say how it ended, as the real one does, and end."""
        if text:
            self.say("E", text)
        print(f"&&&& {word} TensorRT.trtexec [TensorRT v{self.code}] # trtexec", flush=True)
        sys.exit(0 if word == "PASSED" else 1)

    def parse(self) -> None:
        """Take the arguments apart; the first unknown one ends it."""
        for argument in self.words:
            key, equals, value = argument.removeprefix("--").partition("=")
            since, until = FLAGS.get(key, (END, END))
            known = argument.startswith("--") and since <= self.version < until
            if not known or bool(equals) == (key in BARE) or (equals and not value):
                print("=== Model Options ===\n  --onnx=<file>  ONNX model")
                self.end("FAILED", f"Unknown option: {argument}")
            self.options[key] = value

    def run(self) -> None:
        print(
            f"&&&& RUNNING TensorRT.trtexec [TensorRT v{self.code}] # trtexec "
            + " ".join(self.words),
            flush=True,
        )
        self.parse()
        if "help" in self.options:
            self.end("PASSED")
        core = self.options.get("useDLACore")
        if core is not None and (10, 7) < self.version < (11, 4):
            self.end("FAILED", f"Cannot create DLA engine, {core} not available")
        if "loadEngine" in self.options:
            if "saveEngine" in self.options:
                self.end("FAILED", "Incompatible load and save engine options selected")
            self.infer()
        else:
            self.build()

    # --- building --------------------------------------------------------------------------------

    def build(self) -> None:
        """Write an `engine`, and a log as TensorRT's."""
        options = self.options
        model = Path(options.get("onnx", ""))
        if not model.is_file():
            self.end("FAILED", f"Could not open file {model}")
        if self.version == (7, 1) and "explicitBatch" not in options:
            self.end("FAILED", "Network has dynamic or shape inputs, but no explicit batch")
        self.check_values()
        if self.mode == "slow":
            for second in range(6000):
                self.say("V", f"[TRT] Tactic: {second} Time: 0.1")
                sys.stdout.flush()
                time.sleep(0.1)
        timing = self.load_timing()
        int8 = self.find_scales(pairs=b"QuantizeLinear" in model.read_bytes())
        if self.mode == "falls-back" and "useDLACore" in options:
            self.refuse_layer()
        if self.mode == "fail":
            self.end("FAILED", "Error[10]: Could not find any implementation for node conv1.")
        self.list_layers(int8=int8 and self.mode != "float")
        if "saveEngine" in options:
            Path(options["saveEngine"]).write_bytes(model.read_bytes())
        if timing is not None:
            timing.write_text(f"{TIMING_MAGIC}{self.code}\n")
        if not {"buildOnly", "skipInference"} & set(options):
            self.say("I", "Starting inference")
        self.end("PASSED")

    def check_values(self) -> None:
        """End at values that the real one cannot read."""
        options = self.options
        forms = {
            "memPoolSize": r"(workspace|dlaSRAM|dlaLocalDRAM|dlaGlobalDRAM):[0-9.]+(,.*)?",
            "workspace": r"[0-9]+",
            "useDLACore": r"[0-9]+",
            "precisionConstraints": "none|obey|prefer",
            **dict.fromkeys(
                ("minShapes", "optShapes", "maxShapes"), r"(('[^']+'|[^':,]+):[0-9x]+,?)+"
            ),
            "layerPrecisions": r"(('[^',]+'|[^':,]+):(fp32|fp16|int32|int8),?)+",
        }
        for key, form in forms.items():
            if key in options and not re.fullmatch(form, options[key]):
                self.end("FAILED", f"Invalid value for --{key}: {options[key]}")
        if "stronglyTyped" in options and {"int8", "fp16", "best", "calib"} & set(options):
            self.end("FAILED", "Invalid usage, types are not to be set if graph is strongly typed")
        if "layerPrecisions" in options and options.get("precisionConstraints", "none") == "none":
            self.say("W", "--layerPrecisions has no effect without --precisionConstraints")
        if "layerPrecisions" in options and "fp16" not in options:
            self.end("FAILED", "Error[4]: layer precision is set to fp16, but fp16 is not enabled")

    def load_timing(self) -> Path | None:
        """Read the timing cache; a damaged one ends the build."""
        if "timingCacheFile" not in self.options:
            return None
        file = Path(self.options["timingCacheFile"])
        if not file.parent.is_dir():
            self.say("W", f"Could not write timing cache to: {file}")
            return None
        if not file.exists():
            self.say("W", f"Could not read timing cache from: {file}. A new one will be written.")
        elif file.read_text() != f"{TIMING_MAGIC}{self.code}\n":
            self.end("FAILED", "TimingCache creation failed")
        else:
            self.say("I", f"Loaded {file.stat().st_size} bytes of timing cache from {file}")
        return file

    def find_scales(self, *, pairs: bool) -> bool:
        """Take them from the network's own pairs, else from a cache; tell whether there are any."""
        if not pairs:
            return "int8" in self.options and bool(self.calibrate())
        if "calib" in self.options:
            self.say("W", "[TRT] Calibrator won't be used in explicit precision mode.")
        return bool({"stronglyTyped", "int8"} & set(self.options)) or self.version >= (11, 0)

    def calibrate(self) -> list[str]:
        """Read the cache as TensorRT does; gives the tensors of its entries."""
        name = self.options.get("calib")
        try:
            lines = Path(name).read_text("utf-8", "surrogateescape").split("\n") if name else []
        except OSError:
            lines = []  # calibrates on one batch of noise, and says nothing
        if self.mode == "calibrates":
            self.say("I", "[TRT] Starting Calibration.")
            return []
        if not lines or self.mode == "silent":
            return []
        self.say("I", "[TRT] Reading Calibration Cache for calibrator: EntropyCalibration2")
        if self.mode == "mismatch" or lines[0] != f"TRT-{self.code}-EntropyCalibration2":
            self.say("E", "[TRT] Calibration table does not match calibrator algorithm type.")
            self.end("FAILED", 'Error[3]: Tensor "input" is bound to nullptr')
        entries = []
        for line in filter(None, lines[1:]):
            tensor, _, bits = line.rpartition(": ")
            if not re.fullmatch("[0-9a-f]{1,8}", bits):
                self.end(
                    "FAILED",
                    f"Could not parse the following line from the calibration cache: {line}",
                )
            entries.append(tensor)
        self.say(
            "I",
            "[TRT] Generated calibration scales using calibration cache. Make sure that "
            "calibration cache has latest scales.",
        )
        if "verbose" in self.options and self.version >= (8, 0):
            for tensor in entries:
                self.say(
                    "V",
                    f"[TRT] INT8 Inference Tensor scales and zero-points: {tensor} scale and "
                    "zero-point Quantization(scale: {0.1,}, zero-point: {0,})",
                )
        return entries

    def refuse_layer(self) -> None:
        """Have the DLA refuse a layer: an error where the GPU may not take it."""
        if "allowGPUFallback" not in self.options:
            self.end("FAILED", "Error[9]: softmax: DLA does not support it, GPU fallback is off")
        if self.version < (8, 4):
            said = "Default DLA is enabled but layer softmax is not supported on DLA, falling back"
            self.say("W", f"[TRT] {said} to GPU.")
        else:
            said = "Unsupported on DLA. Switching this layer's device type to GPU."
            self.say("W", f"[TRT] Layer 'softmax' (SOFTMAX): {said}")

    def list_layers(self, *, int8: bool) -> None:
        """Print two layers of the engine: one in the lowest precision, one in FP32."""
        if "verbose" not in self.options or self.mode == "unlisted":
            return
        kind = "Int8" if int8 else "Half" if "fp16" in self.options else "Float"
        self.say("V", "[TRT] Engine Layer Information:")
        given, made = ("x[Float(1,8)]", f"y[{kind}(1,8)]")
        if self.version >= (8, 5):
            given, made = "x (Float[1,8])", f"y ({kind}[1,8])"
        print(f"Layer(CaskConvolution): conv1 + relu1, Tactic: 0x01, {given} -> {made}")
        print(f"Layer(Reformat): out, Tactic: 0x00, {made} -> {given}")

    # --- running ---------------------------------------------------------------------------------

    def infer(self) -> None:
        """Look the outputs of the given inputs up and write what trtexec would."""
        inputs = self.options.get("loadInputs", "")
        if not Path(self.options["loadEngine"]).is_file():
            self.end("FAILED", f"Error opening engine file: {self.options['loadEngine']}")
        known = json.loads((HERE / "outputs.json").read_text())
        whole = hashlib.sha256()
        for part in filter(None, inputs.split(",")):
            file = Path(part.rpartition(":")[2])
            if not file.is_file():
                self.end("FAILED", f"Cannot open file {file}!")
            whole.update(file.read_bytes())
        if whole.hexdigest() not in known:
            self.end("FAILED", "Unexpected input size")
        if "exportOutput" in self.options:
            self.export_outputs(known[whole.hexdigest()])
        if "exportTimes" in self.options:
            self.export_times()
        self.end("PASSED")

    def export_outputs(self, results: list[dict[str, object]]) -> None:
        """Write outputs as C++ streams do: six digits, `nan` and `inf` bare, names as they are."""
        with Path(self.options["exportOutput"]).open("w") as out:
            out.write("[\n")
            for number, result in enumerate(results):
                values = [float(one) for one in result["values"]]  # type: ignore[attr-defined]
                if self.mode == "wrong":
                    values = [-value for value in values]
                if self.mode == "nan":
                    values[0] = float("nan")
                listed = ", ".join(f"{value:.6g}" for value in values)
                out.write(f'{", " if number else "  "}{{ "name" : "{result["name"]}"\n')
                out.write(f'  , "dimensions" : "{result["dimensions"]}"\n')
                out.write(f'  , "values" : [ {listed} ]\n  }}\n')
            out.write("]\n")

    def export_times(self) -> None:
        """Write the times of as many runs as were asked for, with the keys of this version."""
        copy_in, copy_out = ("h2dMs", "d2hMs") if self.version >= (8, 2) else ("inMs", "outMs")
        with Path(self.options["exportTimes"]).open("w") as out:
            out.write("[\n")
            for number in range(int(self.options.get("iterations", "10"))):
                latency = 2 + number / 100
                out.write(f'{", " if number else "  "}{{ "startComputeMs" : {number}, ')
                out.write(f'"{copy_in}" : 0.5, "computeMs" : {latency - 1:g}, "{copy_out}" : 0.5, ')
                out.write(f'"latencyMs" : {latency:g} }}\n')
            out.write("]\n")


def setting(name: str, default: str) -> str:
    """Read a file beside this program."""
    file = HERE / name
    return file.read_text().strip() if file.exists() else default


def main() -> None:
    """Do what argv says."""
    code = re.sub(r"\D", "", setting("version", "8502"))
    Program(code, setting("mode", ""), sys.argv[1:]).run()


if __name__ == "__main__":
    main()
