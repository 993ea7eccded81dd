"""A library of ours in the place of NVIDIA's driver: device memory is the host's."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

import pytest

_SOURCE: Final = """
#include <stdlib.h>
#include <string.h>
typedef unsigned long long device;
int cuInit(unsigned flags) { return FAILS; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &memset; return 0; }
int cuCtxSetCurrent(void *context) { return context != (void *)&memset; }
int cuStreamCreate(void **stream, unsigned flags) { *stream = &memcpy; return 0; }
int cuStreamSynchronize(void *stream) { return stream != (void *)&memcpy; }
int cuMemAlloc_v2(device *to, size_t size) { *to = (device)malloc(size); return FULL; }
int cuMemFree_v2(device at) { free((void *)at); return 0; }
int cuMemcpyHtoD_v2(device to, const void *from, size_t size)
{ memcpy((void *)to, from, size); return 0; }
int cuMemcpyDtoH_v2(void *to, device from, size_t size)
{ memcpy(to, (void *)from, size); return 0; }
int cuMemsetD8_v2(device at, unsigned char value, size_t size)
{ memset((void *)at, value, size); return 0; }
"""


def make_libcuda(folder: Path, *, init: int = 0, alloc: int = 0) -> None:
    """Put it into a folder; `init` and `alloc` are what the calls of these kinds give."""
    (folder / "libcuda.so.1").write_bytes(_compiled(init, alloc))


@cache
def _compiled(init: int, alloc: int) -> bytes:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "cuda.c", Path(folder) / "libcuda.so.1"
        source.write_text(_SOURCE)
        subprocess.run(
            [
                *(compiler, "-shared", "-fPIC", f"-DFAILS={init}", f"-DFULL={alloc}"),
                *("-o", str(library), str(source)),
            ],
            check=True,
        )
        return library.read_bytes()
