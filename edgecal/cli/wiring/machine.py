"""What this machine is: its clock, cores, name and user, and what it has for calibrating."""

from __future__ import annotations

import getpass
import os
import socket
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgecal.core.hosts import HostFacts


def now() -> datetime:
    """Tell the time: aware, UTC."""
    return datetime.now(timezone.utc)


def now_ms() -> int:
    """Tell the time in milliseconds since 1970, as the journal does."""
    return time.time_ns() // 1_000_000


def workers() -> int:
    """Give the cores that this process may use."""
    return len(os.sched_getaffinity(0))


def owner() -> str:
    """Name who runs this, as records and journals have it."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def process_name() -> str:
    """Name this process, for others on the network."""
    return f"{socket.gethostname()}-{os.getpid()}"


def host_facts() -> HostFacts:
    """Look at what this machine has for calibrating."""
    from edgecal.adapters.host import read_host

    return read_host()


def tensorrt_package() -> str | None:
    """Tell which TensorRT this Python has."""
    from edgecal.adapters import host

    return host.tensorrt_package()
