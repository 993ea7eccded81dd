"""Addresses of Dask clusters, and which of them may be talked to."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from edgecal.errors import InputError

OPTION: Final = "--cluster"
_FORM: Final = re.compile(
    r"(?:(?P<scheme>[a-z]+)://)?(?:\[(?P<bracketed>[0-9A-Fa-f:.]+)\]|(?P<host>[^:/\s\[\]@]+))"
    r":(?P<port>[0-9]{1,5})/?"
)
_SCHEMES: Final = ("tcp", "tls")


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """Files in PEM form that both ends of a connection prove themselves with."""

    ca: str | None = None
    """Who signs them. Whoever has a certificate signed by it may run anything in the cluster."""
    cert: str | None = None
    key: str | None = None
    """May lie in the certificate's own file."""

    def or_those(self, others: Certificates) -> Certificates:
        """Take others where none was given."""
        return others if self == Certificates() else self


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterAddress:
    """Where a scheduler or a worker listens."""

    scheme: str
    host: str
    port: int

    @property
    def encrypted(self) -> bool:
        """Tell whether both ends prove who they are, and nobody else can read or write."""
        return self.scheme == "tls"

    @property
    def loopback(self) -> bool:
        """Tell whether nothing leaves this machine; names other than localhost are not trusted."""
        if self.host.lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        """Write it as Dask does."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_cluster(text: str, *, source: str = OPTION) -> ClusterAddress:
    """Read an address such as tls://scheduler:8786.

    Raises
    ------
    InputError
        If it has another form, or another protocol than tls or tcp.
    """
    match = _FORM.fullmatch(text)
    if match is None or match["scheme"] not in _SCHEMES or not 0 < int(match["port"]) < 1 << 16:
        bare = match is not None and match["scheme"] is None
        raise InputError(
            f"expected a scheduler's address like tls://scheduler:8786, found {text!r:.100}",
            where=source,
            remedy=f"write tls://{text:.80}; only on this machine tcp:// does as well"
            if bare
            else "copy what 'dask scheduler' says of itself: protocol, host and port",
        )
    return ClusterAddress(
        scheme=match["scheme"], host=match["bracketed"] or match["host"], port=int(match["port"])
    )


def parse_listen(text: str) -> tuple[str, int]:
    """Read HOST or HOST:PORT, where others reach this machine; port 0 takes any.

    Raises
    ------
    InputError
        If it has another form.
    """
    try:
        found = parse_cluster(f"tcp://{text}")
    except InputError:
        with_port = _FORM.fullmatch(f"{text}:1")
        if with_port is None or with_port["scheme"] is not None:
            raise InputError(
                f"expected a name or address of this machine, found {text!r:.100}",
                where="--listen",
                remedy="write it like 10.0.0.7 or 10.0.0.7:9000",
            ) from None
        return with_port["bracketed"] or with_port["host"], 0
    return found.host, found.port


def check_secure(address: ClusterAddress, *, insecure: bool, source: str = OPTION) -> None:
    """Refuse plain TCP to other machines.

    Whoever reaches a port of a Dask cluster without TLS can run code in every worker, and workers
    hold the SSH keys of the devices.

    Parameters
    ----------
    insecure
        Whether the user has said that this network is closed to everyone else.

    Raises
    ------
    InputError
        If that is refused.
    """
    if address.encrypted or address.loopback or insecure:
        return
    raise InputError(
        f"{address} is plain TCP to another machine: whoever reaches it can run anything where "
        "the SSH keys of the devices are",
        where=source,
        remedy=f"use TLS: start scheduler and workers with certificates, and write "
        f"tls://{str(address).partition('://')[2]}; on a network that is closed to everyone else, "
        "--insecure-cluster",
    )


def check_certificates(certificates: Certificates, *, source: str) -> None:
    """Make sure that certificates are given whole or not at all.

    Raises
    ------
    InputError
        If one is missing.
    """
    given = [certificates.ca, certificates.cert]
    if certificates != Certificates() and None in given:
        missing = "the authority (ca)" if certificates.ca is None else "our own (cert)"
        raise InputError(
            f"of the certificates for TLS, {missing} is missing",
            where=source,
            remedy="give ca and cert, and key if that is not in the certificate's own file; or "
            "none of them, where Dask's own configuration names them",
        )
