"""A program that compiles the counting loop by numba, and writes it as an object file.

It is a process of its own because numba takes 110 MiB, which who counts has no use for.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np

from edgecal.adapters.counting import PART, count_in_a_loop
from edgecal.adapters.machine_code import ARGUMENTS, SYMBOL, host_machine

_LANGUAGE_OF_C = ("llvm.", "mem")
"""How names begin that the code may ask for: instructions, and what fills and copies memory."""


def main() -> None:
    """Compile, and write what came out to standard output."""
    numba: Any = importlib.import_module("numba")
    types, array = numba.types, numba.carray
    # as NumPy divides: a test for zero in the loop would keep it from running in vectors
    options = {"error_model": "numpy"}
    count = numba.njit(**options)(count_in_a_loop)

    def entry(  # noqa: PLR0917 - C has no keywords
        values: Any, sizes: Any, grids: Any, counts: Any, small: Any, room: Any
    ) -> Any:
        size, start, least, most, rows, offset, bins, few, rank = array(sizes, 9)
        ends = array(room, (2, few))
        rest = array(room, 2 * few + 2 + rows + few + rank)[2 * few :].view(np.float32)
        seen, rest = rest[:2], rest[2:]
        peaks, rest = rest[:rows], rest[rows:]
        tables = array(small, 2 * bins + PART)
        return count(
            array(values, size),
            start,
            least,
            most,
            array(grids, (rows, 4)),
            offset,
            array(counts, bins),
            ends,
            seen,
            peaks,
            tables[:bins],
            tables[bins : 2 * bins],
            tables[2 * bins :],
            rest[:few],
            rest[few:],
        )

    pointers = [types.CPointer(getattr(types, one)) for one in ARGUMENTS]
    compiled = numba.cfunc(types.int64(*pointers), **options)(entry)
    sys.stdout.buffer.write(_alone(compiled.inspect_llvm(), compiled.native_name))


def _alone(code: str, name: str) -> bytes:
    """Make an object of one function with all that it calls: it needs no numba to run."""
    llvm: Any = importlib.import_module("llvmlite.binding")
    machine = host_machine()
    module = llvm.parse_assembly(code)
    for function in module.functions:
        if function.name == name:
            function.name = SYMBOL
        elif not function.is_declaration:
            function.linkage = "internal"
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(module, builder)
    asked = [one.name for one in module.functions if one.is_declaration]
    if not all(one.startswith(_LANGUAGE_OF_C) for one in asked):
        raise RuntimeError(f"this numba makes code that cannot run without it: {asked}")
    data: bytes = machine.emit_object(module)
    return data


if __name__ == "__main__":
    main()
