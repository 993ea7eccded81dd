"""Clusters: joined by a controller, or worked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecal.cli.story import warn_once

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgecal.adapters.cluster.near import DaskCluster
    from edgecal.adapters.onnx_model import OnnxModel
    from edgecal.cli.cluster import ClusterRequest
    from edgecal.core.target import Target
    from edgecal.workflows.sharding import Shards
    from edgecal.workflows.world import World


def connect(request: ClusterRequest, tell: Callable[[str], object]) -> DaskCluster:
    """Connect to a cluster; `tell` hears of workers that cannot be used."""
    from edgecal import __version__
    from edgecal.adapters.cluster.near import open_cluster

    return open_cluster(
        request.address,
        request.certificates,
        insecure=request.insecure,
        version=__version__,
        note=tell,
    )


def shards(where: DaskCluster, network: OnnxModel, tell: Callable[[str], object]) -> Shards:
    """Spread a pass over data over the workers of a cluster."""
    from edgecal.adapters.ort_backend import OrtBackend
    from edgecal.workflows.sharding import Shards

    backend = OrtBackend(network)
    return Shards(where, pack=backend.pack, runtime=backend.version, tell=tell)


def run_worker(
    request: ClusterRequest,
    *,
    name: str,
    targets: Mapping[str, Target],
    threads: int,
    listen: str | None,
    world: World,
    tell: Callable[[str], object],
) -> int | None:
    """Work for controllers until a signal ends it, and give its number; nothing if cut off."""
    from edgecal import __version__
    from edgecal.adapters.binning import fastest_sweep
    from edgecal.adapters.cluster import worker
    from edgecal.adapters.cluster.store import Store, store_folder
    from edgecal.adapters.ort_backend import OrtBackend, load_packed
    from edgecal.core.clusters import parse_listen
    from edgecal.workflows.measuring import Measurer
    from edgecal.workflows.rollout.post import Post

    store = Store(store_folder())
    store.tidy()
    host, port = parse_listen(listen) if listen else (None, 0)

    def duties(say: Callable[[str, bytes], object]) -> worker.Duties:
        measurer = Measurer(
            lambda digest: load_packed(store.read(digest)), lambda: fastest_sweep(warn_once)
        )
        post = Post(targets, world, store.bundle, say=say, tell=tell)
        return worker.Duties(
            operations={
                "missing": store.missing,
                "put": store.put,
                "prove": measurer.prove,
                "measure": measurer.measure,
                "work": post.work,
                "look": post.look,
                "halt": post.halt,
                "still-there": post.still_there,
            },
            stop=post.stop,
        )

    return worker.run_worker(
        request.address,
        request.certificates,
        worker.WorkerSettings(name=name, threads=threads, host=host, port=port),
        about={
            "name": name,
            "targets": tuple(targets),
            "threads": threads,
            "edgecal": __version__,
            "onnxruntime": OrtBackend.version,
        },
        duties=duties,
        joined=lambda address: tell(f"worker {name} has joined {request.address} as {address}"),
    )
