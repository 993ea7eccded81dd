"""The counting loop as machine code, kept once it was compiled.

llvmlite, which numba brings, loads it: that takes 45 MiB, where numba itself takes 110.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from importlib.util import cache_from_source
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from edgecal.adapters.user_folders import cache_folder
from edgecal.adapters.whole_files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SYMBOL: Final = "edgecal_count"
_COMPILER: Final = "edgecal.adapters.counting_compiler"
_MADE_OF: Final = ("counting.py", "counting_compiler.py", "machine_code.py")
_LONGEST_S: Final = 120.0
_DIGEST_BYTES: Final = 32


def load_counting(warn: Callable[[str], object]) -> Callable[[int, int, int], None] | None:
    """Load the loop, having it compiled if need be; nothing where that is not possible here.

    Parameters
    ----------
    warn
        Hears why, where numba is installed.

    Returns
    -------
    Callable
        Takes the address of a table of `COLUMNS`, how many rows it has, and the address of room
        to work in; lets other threads work meanwhile.
    """
    try:
        llvm = _llvm()
        about = f"numba {version('numba')}, llvmlite {version('llvmlite')}"
        data = _kept_or_compiled(f"{about}, {llvm.get_host_cpu_name()}, {_features(llvm)}")
    except ImportError:
        return None
    except (OSError, subprocess.SubprocessError) as error:
        warn(
            "numba is installed, but cannot compile what counts values: OpenCV counts them, to "
            f"the same bits but slower ({_reason(error)})"
        )
        return None
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), host_machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(data))
    engine.finalize_object()
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
    function: Any = prototype(engine.get_function_address(SYMBOL))
    function.owner = engine  # which has the memory that it lies in
    return cast("Callable[[int, int, int], None]", function)


def _reason(error: Exception) -> str:
    """Give the last line of what the compiler said, if it was it that failed."""
    said: bytes = getattr(error, "stderr", None) or b""
    lines = said.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip() if lines else str(error)


def host_machine() -> Any:
    """Describe this host's processor to LLVM, with all that it can do."""
    llvm = _llvm()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=_features(llvm),
        opt=3,
        codemodel="jitdefault",
        jit=True,
    )


def _llvm() -> Any:
    llvm = importlib.import_module("llvmlite.binding")
    with contextlib.suppress(RuntimeError):  # newer ones do so by themselves, and refuse
        llvm.initialize()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


def _features(llvm: Any) -> str:
    features: str = llvm.get_host_cpu_features().flatten()
    return features


def _kept_or_compiled(about: str) -> bytes:
    """Give the object file for such a host, of such a compiler."""
    sources = b"".join(Path(__file__).with_name(one).read_bytes() for one in _MADE_OF)
    key = hashlib.sha256(sources + about.encode()).hexdigest()[:16]
    places = [Path(one, f"{SYMBOL}-{key}.o") for one in _folders()]
    for place in places:
        with contextlib.suppress(OSError):
            kept = place.read_bytes()
            digest, data = kept[:_DIGEST_BYTES], kept[_DIGEST_BYTES:]
            if digest == hashlib.sha256(data).digest():
                return data
    data = _compiled()
    for place in places:
        with contextlib.suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            write_whole(place, hashlib.sha256(data).digest() + data)
            break
    return data


def _folders() -> Iterator[Path]:
    """Name where compiled code may be kept: beside Python's own, else in the user's folder."""
    yield Path(cache_from_source(__file__)).parent
    with contextlib.suppress(RuntimeError):  # there is no home
        yield cache_folder()


def _compiled() -> bytes:
    """Run the compiler, which finds the modules that this process finds.

    Raises
    ------
    OSError, subprocess.SubprocessError
        If it cannot be run, or cannot do it with the numba that is here.
    """
    paths = os.pathsep.join(str(Path(one).absolute()) for one in sys.path)
    with tempfile.TemporaryDirectory() as folder:  # Python looks for modules here, too
        done = subprocess.run(
            [sys.executable, "-m", _COMPILER],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            check=True,
            timeout=_LONGEST_S,
        )
    return done.stdout
