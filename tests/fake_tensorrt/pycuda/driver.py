"""A stand-in for pycuda.driver: device memory is a dictionary."""

import os

MODE = os.environ.get("FAKE_TENSORRT_MODE", "")

if MODE == "no-pycuda":
    raise ImportError("libcurand.so.10: cannot open shared object file")


class Error(Exception):
    """Base of pycuda's errors."""


class MemoryError(Error):  # noqa: A001 - pycuda's own name
    """No memory left."""


HELD = {}  # type: dict[int, bytes]
PUSHED = []  # type: list[str]


class Allocation:
    """A buffer on the device."""

    def __init__(self, address: int, size: int) -> None:
        self.address = address
        self.size = size

    def __int__(self) -> int:
        return self.address


class Context:
    """A context."""

    def push(self) -> None:
        PUSHED.append("primary")


class Device:
    """The one GPU."""

    def __init__(self, index: int) -> None:
        assert index == 0

    @staticmethod
    def count() -> int:
        return 0 if MODE == "no-gpu" else 1

    def name(self) -> str:
        return "Imaginary A10"

    def compute_capability(self) -> "tuple[int, int]":
        return (7, 0) if MODE == "volta" else (8, 6)

    def retain_primary_context(self) -> Context:
        return Context()


def init() -> None:
    if MODE == "cuda-error":
        raise Error("cuInit failed: system not yet initialized")


def mem_alloc(size: int) -> Allocation:
    if MODE == "device-memory":
        raise MemoryError("cuMemAlloc failed: out of memory")
    assert PUSHED, "no context"
    address = 4096 * (len(HELD) + 1)
    HELD[address] = bytes(size)
    return Allocation(address, size)


def memcpy_htod(to: Allocation, data: bytes) -> None:
    assert len(data) == to.size
    if MODE == "copy-error":
        raise Error("cuMemcpyHtoD failed: an illegal memory access was encountered")
    HELD[to.address] = bytes(data)
