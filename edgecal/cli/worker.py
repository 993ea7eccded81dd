"""`edgecal worker`: this machine works for controllers elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from edgecal.cli.cluster import (
    ClusterCaOption,
    ClusterCertOption,
    ClusterKeyOption,
    InsecureClusterOption,
    cluster_request,
)
from edgecal.cli.options import (
    BuildsOption,
    ConnectionsOption,
    LimitRateOption,
    OnOption,
    QuietOption,
    TransfersOption,
    VerboseOption,
)
from edgecal.cli.printable import printable
from edgecal.cli.selecting import hit_targets, some_names
from edgecal.cli.story import Story

if TYPE_CHECKING:
    from edgecal.cli.cluster import ClusterRequest
    from edgecal.core.target import Target


def worker(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="The scheduler, such as tls://scheduler:8786.",
            show_default=False,
        ),
    ],
    *,
    inventory: Annotated[
        Path | None,
        typer.Option(
            "--inventory",
            metavar="FILE",
            help="The targets that this worker may touch, and how to reach them from here. "
            "Nothing a controller says adds to them.",
            show_default="none: this worker only measures",
        ),
    ] = None,
    on: OnOption = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="What controllers call this worker.", show_default="host name and process"
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Batches measured at once. Pushes wait for devices and are not counted.",
            show_default="cores",
        ),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST[:PORT]",
            help="How the scheduler reaches this machine: workers are called, so that a firewall "
            "must let it in.",
            show_default="what leads to the scheduler, any port",
        ),
    ] = None,
    limit_rate: LimitRateOption = None,
    connections: ConnectionsOption = None,
    transfers: TransfersOption = None,
    builds: BuildsOption = None,
    insecure_cluster: InsecureClusterOption = False,
    ca: ClusterCaOption = None,
    cert: ClusterCertOption = None,
    key: ClusterKeyOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Work for 'edgecal rollout' and 'edgecal calibrate' with --cluster, until Ctrl-C.

    A worker stands near its devices: it logs in to them with the keys of this machine, and touches
    only those of its own inventory. The controller keeps the decisions and the journal.

    Workers meet their controllers at a scheduler of Dask, which the extra 'cluster' brings along.
    Whoever may connect to it can run anything at every worker: off this machine it takes TLS, with
    certificates signed by an authority made for this cluster alone.

    [bold]Examples[/]

    dask scheduler --protocol tls --tls-ca-file ca.pem --tls-cert host.pem --tls-key host.key

    edgecal worker tls://control:8786 --inventory fleet.toml --on site-a --name site-a
    --cluster-ca ca.pem --cluster-cert host.pem --cluster-key host.key

    On one machine, without certificates:

    dask scheduler --host 127.0.0.1

    edgecal worker tcp://127.0.0.1:8786
    """
    from edgecal.cli.interrupts import SIGNALLED
    from edgecal.cli.wiring import clusters, lookup, machine, remote
    from edgecal.core.bandwidth import parse_rate
    from edgecal.errors import ClusterError, InputError

    story = Story(quiet=quiet, verbose=verbose)
    request = cluster_request(
        url,
        lookup.project(),
        insecure=insecure_cluster,
        ca=ca,
        cert=cert,
        key=key,
        source="edgecal worker",
    )
    _check_listen(listen, request)
    if on is not None and inventory is None:
        raise InputError(
            "--on narrows an inventory, and none is given",
            where="--on",
            remedy="give --inventory FILE: a worker touches nothing that was not written down",
        )
    targets = {} if inventory is None else _targets(inventory, on, story)
    called = name or machine.process_name()
    story.tell(
        f"worker {escape(printable(called))} may touch "
        + (escape(some_names(tuple(targets), verbose=verbose)) or "no target: it only measures")
    )
    number = clusters.run_worker(
        request,
        name=called,
        targets=targets,
        threads=threads or machine.workers(),
        listen=listen,
        world=remote.world(
            limit_rate=parse_rate(limit_rate, source="--limit-rate") if limit_rate else None,
            connections=connections,
            transfers=transfers,
            builds=builds,
        ),
        tell=lambda text: story.tell(escape(printable(text))),
    )
    if number is None:
        raise ClusterError(
            "the scheduler has gone away",
            where=str(request.address),
            remedy="start it again, then this worker; what it was at is found at the devices",
        )
    story.tell(f"worker {escape(printable(called))} has ended")
    raise typer.Exit(SIGNALLED + number)


def _check_listen(listen: str | None, request: ClusterRequest) -> None:
    from dataclasses import replace

    from edgecal.core.clusters import check_secure, parse_listen

    if listen is not None:
        host, _ = parse_listen(listen)
        own = replace(request.address, host=host)
        check_secure(own, insecure=request.insecure, source="--listen")


def _targets(inventory: Path, on: str | None, story: Story) -> dict[str, Target]:
    from edgecal.cli.wiring import lookup

    found = lookup.inventory(inventory).inventory
    if on is None:
        return dict(found.targets)
    return hit_targets(on, found, story, asking="strangers")
