"""Times of `edgecal cache show` and `diff` on 100,000 tensors, and of refusing 100 MB of junk.

Run it in the checkout, with the Python that has edgecal: `python scripts/bench/cache.py`. Each time
is the best of three whole runs of the command, start-up included.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

TENSORS: Final = 100_000
JUNK_BYTES: Final = 100_000_000
RUNS: Final = 3

# the commands as `edgecal cache show` and `edgecal cache diff` call them
PROGRAM: Final = "import sys; from edgecal.cli.app import main; main(sys.argv[1:])"


def write_table(path: Path, *, seed: int) -> None:
    """Write a table of a network that nobody has: names of usual length, scales of usual size."""
    draw = random.Random(seed)
    with path.open("w", encoding="utf-8", newline="\n") as out:
        out.write("TRT-8502-EntropyCalibration2\n")
        for number in range(TENSORS):
            scale = 2 ** draw.uniform(-10, 2)
            bits = struct.unpack(">I", struct.pack(">f", scale))[0]
            out.write(f"/model.{number}/conv/Conv_output_0: {bits:x}\n")


def write_junk(folder: Path) -> list[Path]:
    """Write what is taken for a cache by mistake, at its worst."""
    noise = random.Random(0).randbytes(JUNK_BYTES)
    text = b"{'name': 'conv1', 'scale': 0.0078, 'note': 'this is no cache'}\n"
    contents = {
        "noise.bin": noise,
        "noise-on-one-line.bin": noise.replace(b"\n", b" "),
        "zeros.bin": bytes(JUNK_BYTES),
        "text.txt": text * (JUNK_BYTES // len(text)),
        "newlines.txt": b"\n" * JUNK_BYTES,
        "one-tensor-again-and-again.cache": b"TRT-8502-EntropyCalibration2\n"
        + b"x: 3c010a14\n" * (JUNK_BYTES // 12),
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in contents]


def best(*arguments: str | Path, code: int = 0) -> float:
    """Run a command a few times; gives the seconds of the fastest run."""
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *map(str, arguments)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        times.append(time.perf_counter() - began)
        if done.returncode != code:
            sys.exit(f"{arguments} ended with {done.returncode}: {done.stderr.decode()}")
    return min(times)


def main() -> None:
    """Print a line for every command."""
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        left, right = folder / "left.cache", folder / "right.cache"
        write_table(left, seed=0)
        write_table(right, seed=1)
        print(f"{best('--version'):6.2f} s  start-up alone")
        print(f"{best('cache', 'show', left, '--json'):6.2f} s  show --json, {TENSORS} tensors")
        print(f"{best('cache', 'show', left):6.2f} s  show")
        print(f"{best('cache', 'diff', left, right, '--json'):6.2f} s  diff --json, all changed")
        print(f"{best('cache', 'diff', left, right):6.2f} s  diff, all changed")
        print(f"{best('cache', 'diff', left, left):6.2f} s  diff, all alike")
        for junk in write_junk(folder):
            size = junk.stat().st_size // 1_000_000
            print(f"{best('cache', 'show', junk, code=2):6.2f} s  refusing {junk.name}, {size} MB")


if __name__ == "__main__":
    main()
