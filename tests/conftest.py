"""Servers to talk to: OpenSSH's sshd on loopback where there is one, and edgecal's own."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from edgecal.adapters.loopback import LoopbackServer, start_loopback
from edgecal.core.target import Target
from edgecal.errors import DependencyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


# a shell starts what runs in its background with interrupts ignored, and children inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)

# how long an example takes says more of the machine than of the code; CI repeats the examples that
# passed, and people's runs look for new ones
settings.register_profile(
    "edgecal",
    deadline=None,
    suppress_health_check=(HealthCheck.too_slow,),
    derandomize=os.environ.get("CI") == "1",
)
settings.load_profile("edgecal")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let people ask for what takes minutes."""
    parser.addoption(
        "--slow",
        action="store_true",
        help="walk every row of the fault table, and every kill of a rollout, over real sshds too",
    )


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty home and no agent, so that nobody's own SSH files take part."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        yield folder


@pytest.fixture(scope="session")
def start_sshd(home: Path) -> Callable[..., LoopbackServer]:
    """A real sshd with its files in a folder, setting variables; the caller closes it."""

    def start(folder: Path, **environment: str) -> LoopbackServer:
        settings = {"HOME": str(home), **environment}
        try:
            return start_loopback(folder, prefer="sshd", environment=settings)
        except DependencyError as error:
            if os.environ.get("EDGECAL_REQUIRE_SSHD") == "1":
                raise
            pytest.skip(f"needs a working sshd: {error.what}")

    return start


@pytest.fixture(scope="module")
def sshd(
    start_sshd: Callable[..., LoopbackServer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LoopbackServer]:
    """A real sshd, shared by the tests of a module."""
    with start_sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture(scope="session")
def target_of() -> Callable[[LoopbackServer], Target]:
    """How to reach a loopback server; change it with `dataclasses.replace`."""

    def make(server: LoopbackServer) -> Target:
        return Target(
            name="bench",
            host=server.host,
            user=server.user,
            port=server.port,
            identity_file=str(server.identity_file),
            known_hosts=str(server.known_hosts),
        )

    return make
