"""TLS for a Dask cluster, and a first knock at its door that says what is wrong."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgecal.errors import ClusterError, DependencyError

if TYPE_CHECKING:
    from edgecal.core.clusters import Certificates, ClusterAddress

_ANSWER_S: Final = 5.0


def load_dask() -> Any:
    """Import Dask distributed, and keep its loggers from writing over the story.

    Raises
    ------
    DependencyError
        If it is not installed.
    """
    try:
        import distributed  # noqa: PLC0415 - an extra, and a second to import
    except ImportError as error:
        raise DependencyError(
            f"more than one machine needs Dask distributed, which is not installed ({error})",
            where="--cluster",
            remedy="pip install 'edgecal[cluster]', here, at the scheduler and at every worker",
        ) from error
    import logging  # noqa: PLC0415 - for this alone

    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return distributed


def make_security(address: ClusterAddress, certificates: Certificates) -> Any:
    """Make Dask's own value of certificates: those given, else those that Dask was configured with.

    Raises
    ------
    ClusterError
        If TLS is wanted and there are none, or they cannot be read.
    """
    dask = load_dask()
    if not address.encrypted:
        return dask.Security(require_encryption=False)
    files = {
        name: str(_file(file))
        for name, file in (("ca", certificates.ca), ("cert", certificates.cert))
        if file
    }
    given: dict[str, Any] = {}
    if files:
        key = str(_file(certificates.key)) if certificates.key else files["cert"]
        given = {"tls_ca_file": files["ca"]}
        for role in ("client", "worker"):
            given |= {f"tls_{role}_cert": files["cert"], f"tls_{role}_key": key}
    security = dask.Security(require_encryption=True, **given)
    try:
        contexts = [
            security.get_connection_args(role)["ssl_context"] for role in ("client", "worker")
        ]
    except (OSError, ssl.SSLError, ValueError) as error:
        raise ClusterError(
            f"the certificates cannot be used: {error}",
            where=", ".join(files.values()) or "Dask's own configuration",
            remedy="give files in PEM form: the authority, our certificate, and its key without "
            "a passphrase",
        ) from error
    if None in contexts:
        raise ClusterError(
            "the address says TLS, and nothing says with which certificates",
            where=str(address),
            remedy="give --cluster-ca, --cluster-cert and --cluster-key, or a table [cluster] "
            "with ca, cert and key in edgecal.toml",
        )
    return security


def knock(address: ClusterAddress, security: Any) -> None:
    """Find out quickly and in plain words why a scheduler cannot be talked to.

    Raises
    ------
    ClusterError
        If nobody listens, TLS fails, or whoever answers is no scheduler of this version of Dask.
    """
    _knock(address, security)
    dask = load_dask()
    try:
        there = asyncio.run(_version(dask, address, security))
    except Exception as error:  # whatever breaks off in Dask and the layers below it
        raise _no_scheduler(address, str(error) or type(error).__name__) from error
    if there != dask.__version__:
        raise ClusterError(
            f"the scheduler has Dask distributed {there}, and here it is {dask.__version__}",
            where=str(address),
            remedy="install the same version here, at the scheduler and at every worker: others do "
            "not understand each other",
        )


async def _version(dask: Any, address: ClusterAddress, security: Any) -> str:
    words = security.get_connection_args("client")
    async with dask.rpc(str(address), connection_args=words) as scheduler:
        answer = await asyncio.wait_for(scheduler.versions(), _ANSWER_S)
    return str(answer["packages"]["distributed"])


def _knock(address: ClusterAddress, security: Any) -> None:
    try:
        plain = socket.create_connection((address.host, address.port), timeout=_ANSWER_S)
    except OSError as error:
        raise ClusterError(
            f"no scheduler answers: {error.strerror or error}",
            where=str(address),
            remedy="start one with 'dask scheduler', and check host, port and what lies between",
        ) from error
    with plain:
        try:
            if not address.encrypted:
                _hear(plain, address)
                return
            context = security.get_connection_args("client")["ssl_context"]
            with context.wrap_socket(plain) as secured:
                _hear(secured, address)
        except TimeoutError as error:
            raise _no_scheduler(address, "it says nothing") from error
        except ssl.SSLError as error:
            raise ClusterError(
                f"TLS fails: {error.reason or error}",
                where=str(address),
                remedy="the scheduler's certificate and ours must be signed by the authority that "
                "the other side was given, and not have run out; is it tls:// there?",
            ) from error
        except OSError as error:
            raise _no_scheduler(address, error.strerror or str(error)) from error


def _hear(connection: socket.socket, address: ClusterAddress) -> None:
    if not connection.recv(1):  # a scheduler speaks first; TLS 1.3 refuses a certificate only here
        raise _no_scheduler(address, "it hung up")


def _no_scheduler(address: ClusterAddress, what: str) -> ClusterError:
    other = "tcp" if address.encrypted else "tls"
    return ClusterError(
        f"something listens there, but it does not answer as a scheduler of Dask does: {what}",
        where=str(address),
        remedy=f"is it {other}:// there? 'dask scheduler' says its address when it starts",
    )


def _file(name: str) -> Path:
    file = Path(name).expanduser()
    if not file.is_file():
        raise ClusterError(
            "there is no such certificate or key",
            where=str(file),
            remedy="check --cluster-ca, --cluster-cert and --cluster-key, or [cluster] in "
            "edgecal.toml",
        )
    return file
