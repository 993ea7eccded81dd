"""Options of commands that use a cluster, and what they come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgecal.core.clusters import Certificates, ClusterAddress
    from edgecal.core.project import Project

PANEL = "More than one machine"

ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="URL",
        help="Let the workers of this Dask scheduler do the work, such as tls://scheduler:8786; "
        "see 'edgecal worker --help'.",
        rich_help_panel=PANEL,
        show_default=False,
    ),
]
InsecureClusterOption = Annotated[
    bool,
    typer.Option(
        "--insecure-cluster",
        help="Allow tcp:// to other machines: on a network that is closed to everyone else.",
        rich_help_panel=PANEL,
    ),
]
ClusterCaOption = Annotated[
    str | None,
    typer.Option(
        "--cluster-ca",
        metavar="FILE",
        help="For TLS: the authority that signed the certificates of this cluster, and no others.",
        rich_help_panel=PANEL,
        show_default="table cluster in edgecal.toml, else Dask's configuration",
    ),
]
ClusterCertOption = Annotated[
    str | None,
    typer.Option(
        "--cluster-cert",
        metavar="FILE",
        help="For TLS: our own certificate.",
        rich_help_panel=PANEL,
        show_default=False,
    ),
]
ClusterKeyOption = Annotated[
    str | None,
    typer.Option(
        "--cluster-key",
        metavar="FILE",
        help="For TLS: its key, if that is not in the same file.",
        rich_help_panel=PANEL,
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterWords:
    """What the command line says of a cluster."""

    cluster: ClusterOption = None
    insecure_cluster: InsecureClusterOption = False
    cluster_ca: ClusterCaOption = None
    cluster_cert: ClusterCertOption = None
    cluster_key: ClusterKeyOption = None

    def request(self, project: Project) -> ClusterRequest | None:
        """Read it; nothing where no cluster is named.

        Raises
        ------
        InputError
            As `cluster_request` does.
        """
        return (
            None
            if self.cluster is None
            else cluster_request(
                self.cluster,
                project,
                insecure=self.insecure_cluster,
                ca=self.cluster_ca,
                cert=self.cluster_cert,
                key=self.cluster_key,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRequest:
    """Which cluster, and how to prove who we are."""

    address: ClusterAddress
    certificates: Certificates
    insecure: bool


def cluster_request(
    url: str,
    project: Project,
    *,
    insecure: bool,
    ca: str | None,
    cert: str | None,
    key: str | None,
    source: str = "--cluster",
) -> ClusterRequest:
    """Read the options; nothing is connected to yet.

    Raises
    ------
    InputError
        If the address is none, or is plain TCP to another machine, or certificates are missing.
    """
    from edgecal.core.clusters import (
        Certificates,
        check_certificates,
        check_secure,
        parse_cluster,
    )

    address = parse_cluster(url, source=source)
    check_secure(address, insecure=insecure, source=source)
    given = Certificates(ca=ca, cert=cert, key=key)
    check_certificates(given, source="--cluster-ca, --cluster-cert, --cluster-key")
    return ClusterRequest(
        address=address, certificates=given.or_those(project.cluster), insecure=insecure
    )
