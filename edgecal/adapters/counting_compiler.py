"""A program that compiles the counting loop by numba, and writes it as an object file.

It is a process of its own because numba takes 110 MiB, which who counts has no use for.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from edgecal.adapters.counting import COLUMNS, PART, STOP, count_in_a_loop
from edgecal.adapters.machine_code import SYMBOL, host_machine

_BYTES = 4
"""Of a float32 or an int32."""
_LANGUAGE_OF_C = ("llvm.", "mem")
"""How names begin that the code may ask for: instructions, and what fills and copies memory."""


def main() -> None:
    """Compile, and write what came out to standard output."""
    numba: Any = importlib.import_module("numba")
    types, array = numba.types, numba.carray
    # as NumPy divides: a test for zero in the loop would keep it from running in vectors
    options = {"error_model": "numpy"}
    count = numba.njit(**options)(count_in_a_loop)
    int32s, float32s, int64s = (
        _pointer_to(numba, one) for one in (types.int32, types.float32, types.int64)
    )

    def entry(table: Any, length: Any, small: Any) -> None:
        rows = array(table, (length, COLUMNS))
        for each in range(length):
            row = rows[each]
            start, seen, values, size, few = row[0], row[1], row[2], row[3], row[4]
            rank, room, least, most, offset = row[5], row[6], row[7], row[8], row[9]
            number, bins, grids, counts = row[10], row[11], row[12], row[13]
            tops = room + 2 * few * _BYTES
            tables = array(small, PART + 2 * bins)
            rows[each, STOP] = count(
                array(float32s(values), size),
                start,
                least,
                most,
                array(float32s(grids), (number, 4)),
                offset,
                array(int64s(counts), bins),
                array(int32s(room), (2, few)),
                array(float32s(seen), 2),
                array(float32s(seen + 2 * _BYTES), number),
                tables[PART : PART + bins],
                tables[PART + bins :],
                tables[:PART],
                array(float32s(tops), few),
                array(float32s(tops + few * _BYTES), rank),
            )

    arguments = types.CPointer(types.int64), types.int64, types.CPointer(types.uint16)
    compiled = numba.cfunc(types.void(*arguments), **options)(entry)
    sys.stdout.buffer.write(_alone(compiled.inspect_llvm(), compiled.native_name))


def _pointer_to(numba: Any, kind: Any) -> Any:
    """Make a function that takes an address for what it is."""
    pointer = numba.types.CPointer(kind)

    def at(_context: Any, _address: Any) -> Any:
        def generate(target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], target.get_value_type(pointer))

        return pointer(numba.types.int64), generate

    return numba.extending.intrinsic(at)


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
