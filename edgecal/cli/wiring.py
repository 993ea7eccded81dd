"""The composition root: the only place that picks adapters, each imported when it is needed."""

from __future__ import annotations

import getpass
import os
import socket
import time
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Literal

from rich.markup import escape

from edgecal.cli.printable import printable
from edgecal.cli.story import Story
from edgecal.core.targets import parse_target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from edgecal.adapters.batches import WrittenBatches
    from edgecal.adapters.bundle import Bundle
    from edgecal.adapters.cache_files import CacheFile
    from edgecal.adapters.cluster.near import DaskCluster
    from edgecal.adapters.demo_data import DemoData
    from edgecal.adapters.facts_cache import FactsCache
    from edgecal.adapters.journal import DatabaseJournal
    from edgecal.adapters.known_hosts import HostKey
    from edgecal.adapters.loopback import LoopbackServer
    from edgecal.adapters.onnx_model import OnnxModel
    from edgecal.adapters.plain_network import PlainNetwork
    from edgecal.adapters.signed_bundles import SignedBundle
    from edgecal.adapters.ssh_route import KnownAs
    from edgecal.cli.backends import NativeRequest
    from edgecal.cli.cluster import ClusterRequest
    from edgecal.core.caffe_names import CaffeLayer
    from edgecal.core.conversion import ScaleSet
    from edgecal.core.findings import Finding
    from edgecal.core.graph import TensorInfo
    from edgecal.core.hosts import HostFacts
    from edgecal.core.manifest import Manifest
    from edgecal.core.placement import Placement
    from edgecal.core.platforms import Platforms
    from edgecal.core.preprocess import Preprocess
    from edgecal.core.project import Project
    from edgecal.core.shapes import GivenShape
    from edgecal.core.target import Target
    from edgecal.core.versions import TensorRTVersion
    from edgecal.ports import Backend, Builder, Dataset, Network, TensorRTCalibrator
    from edgecal.workflows.calibrate import Calibration
    from edgecal.workflows.collect import Statistics
    from edgecal.workflows.resume import Keeper
    from edgecal.workflows.rollout.draft import Look
    from edgecal.workflows.rollout.listeners import Listeners
    from edgecal.workflows.rollout.tasks import Hands
    from edgecal.workflows.rollout.work import Crew
    from edgecal.workflows.sharding import Shards
    from edgecal.workflows.world import World


def project() -> Project:
    """Read the nearest `edgecal.toml`."""
    from edgecal.adapters.project import find_project

    return find_project(Path.cwd(), warn=_warn)


def read_toml(file: Path) -> dict[str, object]:
    """Decode a TOML file."""
    from edgecal.adapters import project as adapter

    return adapter.read_toml(file)


def platforms() -> Platforms:
    """Read the platform tables."""
    from edgecal.adapters.tables import load_platforms

    return load_platforms()


def target(
    text: str, *, builder: str | None = None, known: Mapping[str, Target] | None = None
) -> Target:
    """Find a target by what the user calls it: in `known`, else in what lies around."""
    from dataclasses import replace

    if known is None:
        known = project().targets
        known = known if text in known else inventory().targets
    found = parse_target(text, known)
    return replace(found, builder=builder) if builder else found


def model(path: Path, shapes: Mapping[str, GivenShape] | None = None) -> OnnxModel:
    """Read an ONNX file, and settle the shapes of dynamic inputs."""
    from edgecal.adapters.onnx_model import read_model, settle_shapes

    return settle_shapes(read_model(path), shapes or {})


def backend(network: OnnxModel) -> Backend:
    """Make the ONNX Runtime backend for a network."""
    from edgecal.adapters.ort_backend import OrtBackend

    return OrtBackend(network)


def dataset(
    spec: str,
    inputs: Sequence[TensorInfo],
    *,
    preprocess: Preprocess | None,
    skip_unreadable: bool,
    limit: int | None,
) -> Dataset:
    """Open calibration data."""
    from edgecal.adapters.datasets import open_dataset

    return open_dataset(
        spec, inputs, preprocess=preprocess, skip_unreadable=skip_unreadable, limit=limit
    )


def check_batches(
    folder: Path, inputs: Sequence[TensorInfo], *, prefix: str, suffix: str, data: Path
) -> None:
    """Make sure, before the work, that batch files of this network's input can be written there."""
    from edgecal.adapters.batches import BatchWords, check_batch_folder, only_float_input

    only_float_input(inputs, str(folder))
    check_batch_folder(folder, BatchWords(prefix=prefix, suffix=suffix), data=data)


def write_batches(
    folder: Path,
    source: Dataset,
    *,
    prefix: str,
    suffix: str,
    batch_size: int,
    progress: Callable[[int], None],
) -> WrittenBatches:
    """Write data as batch files, all of them or none."""
    from edgecal.adapters import batches

    return batches.write_batches(
        folder,
        source,
        words=batches.BatchWords(prefix=prefix, suffix=suffix),
        batch_size=batch_size,
        progress=progress,
    )


def bundle(path: Path) -> Bundle:
    """Read a bundle and check every file of it."""
    from edgecal.adapters.bundle import read_bundle

    return read_bundle(path)


def make_keys(private: Path, public: Path, *, passphrase: bytes | None) -> str:
    """Make a pair of keys; gives their fingerprint."""
    from edgecal.adapters import keys

    return keys.make_keys(private, public, passphrase=passphrase).fingerprint


def sign(
    path: Path,
    *,
    key: Path,
    passphrase: Callable[[], bytes],
    counter: int | None,
    targets: Sequence[str],
) -> SignedBundle:
    """Sign a bundle whose files are whole."""
    from edgecal.adapters import signed_bundles

    return signed_bundles.sign_bundle(
        path, key=key, passphrase=passphrase, counter=counter, targets=targets
    )


def verify(path: Path, keys: Sequence[Path]) -> tuple[Bundle, str]:
    """Verify a bundle; gives the fingerprint of the key that did."""
    from edgecal.adapters import signed_bundles

    return signed_bundles.verify_bundle(path, keys)


def read_cache(path: Path) -> CacheFile:
    """Read a calibration cache: a file, or that of a bundle."""
    from edgecal.adapters.cache_files import read_cache_file

    return read_cache_file(path)


def check_new(path: Path, *, inputs: Sequence[Path] = ()) -> None:
    """Make sure, before the work, that a file may be written there."""
    from edgecal.adapters.cache_files import check_new_file

    check_new_file(path, inputs=inputs)


def write_new(path: Path, data: bytes, *, inputs: Sequence[Path] = ()) -> None:
    """Write a file, whole or not at all, and never over one of the inputs."""
    from edgecal.adapters.cache_files import write_new_file

    write_new_file(path, data, inputs=inputs)


def read_record(path: Path) -> bytes | None:
    """Read the record that lies beside a cache or bundle, if one does."""
    from edgecal.adapters import cache_files

    return cache_files.read_record(path)


def write_with_record(path: Path, data: bytes, record: bytes, *, inputs: Sequence[Path]) -> None:
    """Write a cache and, before it, the record of how it was made."""
    from edgecal.adapters import cache_files

    cache_files.write_with_record(path, data, record, inputs=inputs)


def check_new_bundle(path: Path, *, source: Path) -> None:
    """Make sure, before the work, that a bundle made of another one may be written there."""
    from edgecal.adapters import cache_files

    cache_files.check_new_bundle(path, source=source)


def write_bundle_with_record(
    path: Path, manifest: Manifest, data: bytes, record: bytes, *, source: Path
) -> None:
    """Write a bundle with another one's files but this cache and manifest, and its record."""
    from edgecal.adapters import cache_files

    cache_files.write_bundle_with_record(path, manifest, data, record, source=source)


def recognise(file: CacheFile) -> str:
    """Tell which format a file has; a bundle holds a calibration cache."""
    from edgecal.core.formats.registry import recognise as recognise_data

    if file.manifest is not None:
        return "trt"
    return recognise_data(file.data, name=file.path.name)


def read_scales(file: CacheFile, word: str, *, segment: str | None) -> ScaleSet:
    """Read scales of any format, Q/DQ networks apart."""
    from edgecal.adapters import scale_files

    return scale_files.read_scales(file.data, word, source=str(file.path), segment=segment)


def write_scales(
    scales: ScaleSet, word: str, *, tensorrt: TensorRTVersion | None, source: str
) -> bytes:
    """Write scales in any format, Q/DQ networks apart."""
    from edgecal.adapters import scale_files

    return scale_files.write_scales(scales, word, tensorrt=tensorrt, source=source)


def quantize(
    network: Path, scales: ScaleSet, *, placement: Literal["gpu", "dla"], fp16: bool
) -> tuple[bytes, Placement]:
    """Write a network with quantize/dequantize pairs for these scales."""
    from edgecal.adapters.qdq import write_qdq

    values = {entry.tensor: entry.scale for entry in scales.entries}
    return write_qdq(model(network), values, placement=placement, fp16=fp16)


def unquantize(network: Path) -> PlainNetwork:
    """Take a network with quantize/dequantize pairs apart: plain network and scales."""
    from edgecal.adapters.qdq_reader import read_qdq

    return read_qdq(network)


def caffe_layers(prototxt: Path) -> Sequence[CaffeLayer]:
    """Read the layers of a Caffe network."""
    from edgecal.adapters.caffe import read_prototxt

    return read_prototxt(read_cache(prototxt).data, source=str(prototxt))


def check_destination(path: Path) -> None:
    """Make sure, before the work, that a bundle can be written there."""
    from edgecal.adapters.bundle import check_destination as check

    check(path)


def save_bundle(
    path: Path,
    *,
    network: OnnxModel,
    data: str,
    source: Dataset,
    statistics: Statistics,
    calibration: Calibration,
) -> Bundle:
    """Write a bundle, whole or not at all."""
    from edgecal import __version__
    from edgecal.adapters.bundle import write_bundle
    from edgecal.core.manifest import MODEL_FILE, bundle_name
    from edgecal.workflows.calibrate import make_manifest

    manifest = make_manifest(
        calibration,
        statistics,
        source,
        name=bundle_name(path.name),
        model=network.record(),
        data=data,
        now=now(),
        version=__version__,
    )
    contents: dict[str, bytes | Path] = {MODEL_FILE: network.path}
    contents.update({name: network.path.parent / name for name in network.external_data})
    contents.update(calibration.files)
    return write_bundle(path, manifest, contents)


def keeper(out: Path, network: OnnxModel, *, resume: bool, tell: Callable[[str], object]) -> Keeper:
    """Make what keeps an unfinished pass, beside the bundle that is to be written."""
    from edgecal import __version__
    from edgecal.adapters.checkpoints import CheckpointFile, checkpoint_path
    from edgecal.core.shapes import by_x
    from edgecal.workflows.resume import Keeper

    return Keeper(
        CheckpointFile(
            checkpoint_path(out), warn=lambda text: tell(f"[yellow]warning[/] {_plain(text)}")
        ),
        of={
            "network": network.digest,
            "shapes": ", ".join(f"{name}={by_x(one)}" for name, one in network.settled.items()),
            "edgecal": __version__,
        },
        resume=resume,
        clock=monotonic,
        tell=lambda text: tell(_plain(text)),
    )


def _plain(text: str) -> str:
    return escape(printable(text))


def now() -> datetime:
    """Tell the time: aware, UTC."""
    return datetime.now(timezone.utc)


def workers() -> int:
    """Give the cores that this process may use."""
    return len(os.sched_getaffinity(0))


def builders() -> dict[str, Builder]:
    """Give every kind of builder, by name."""
    from edgecal.adapters.reference_builder import ReferenceBuilder
    from edgecal.adapters.tensorrt_builder import TensorRTBuilder
    from edgecal.adapters.trtexec_builder import TrtexecBuilder

    return {one.name: one for one in (TrtexecBuilder(), TensorRTBuilder(), ReferenceBuilder())}


def world(
    *,
    limit_rate: float | None = None,
    bastion_rate: float | None = None,
    connections: int | None = None,
    transfers: int | None = None,
    builds: int | None = None,
) -> World:
    """Put together what pushes and questions to targets need.

    Parameters
    ----------
    limit_rate, bastion_rate
        Bytes a second that uploads to all targets may take together, and through one bastion.
    connections
        How many may be opened at once through one bastion.
    transfers, builds
        How many targets may be sent to, and may build, at once.
    """
    from edgecal.adapters.scripts import load_scripts
    from edgecal.adapters.ssh import connect
    from edgecal.adapters.ssh_route import find_bastion
    from edgecal.workflows.limits import LimitOptions, shared_limits
    from edgecal.workflows.world import World

    return World(
        connect=connect,
        scripts=load_scripts(),
        builders=builders(),
        platforms=platforms(),
        now=now,
        owner=owner(),
        limits=shared_limits(
            LimitOptions(
                connections=connections,
                transfers=transfers,
                builds=builds,
                rate=limit_rate,
                bastion_rate=bastion_rate,
            ),
            bastion=find_bastion,
            clock=monotonic,
            sleep=time.sleep,
        ),
    )


def owner() -> str:
    """Name who runs this, as records and journals have it."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def journal(url: str = "") -> DatabaseJournal:
    """Open the journal of rollouts: SQLite in the user's state folder, or any database by URL."""
    from edgecal.adapters.journal import DatabaseJournal

    return DatabaseJournal(url)


def now_ms() -> int:
    """Tell the time in milliseconds since 1970, as the journal does."""
    return time.time_ns() // 1_000_000


def listeners(
    *,
    events: str | Path | None,
    hook: Sequence[str],
    metrics: str | Path | None,
    warn: Callable[[str], object],
) -> Listeners:
    """Put together who hears of a rollout besides the one who watches.

    Parameters
    ----------
    events
        A file to append lines of JSON to, or `-` for stdout.
    hook
        A command and its arguments; none if empty.
    metrics
        A file to keep figures for Prometheus in.
    warn
        Hears plain text, from any thread, of what went wrong; the rollout goes on.

    Raises
    ------
    InputError
        If a file cannot be written, or holds something else.
    """
    from edgecal.adapters import rollout_outputs as outputs
    from edgecal.workflows.rollout.listeners import (
        EventLines,
        Hook,
        Listener,
        Listeners,
        Metrics,
    )

    several: list[Listener] = []
    if metrics is not None:
        figures = outputs.open_figures(Path(metrics).expanduser(), warn=warn)
        several.append(Metrics(figures, clock=monotonic))
    if hook:
        several.append(Hook(outputs.Hooks(hook, warn=warn)))
    if events is not None:
        lines = (
            outputs.stdout_lines(warn=warn)
            if events == "-"
            else outputs.open_lines(Path(events).expanduser(), warn=warn)
        )
        several.append(EventLines(lines, clock=monotonic, now_ms=now_ms))
    return Listeners(several)


def host_key(asked: Target) -> HostKey:
    """Ask a target for its host key, without logging in."""
    from edgecal.adapters.ssh import fetch_host_key

    return fetch_host_key(asked)


def known_keys(asked: Target) -> tuple[KnownAs, tuple[HostKey, ...]]:
    """Tell where a target's host key is kept, and which ones are known already."""
    from edgecal.adapters.known_hosts import host_name, load_host_keys
    from edgecal.adapters.ssh_route import known_as

    place = known_as(asked)
    return place, load_host_keys([place.file]).keys(host_name(place.host, place.port))


def remember_key(place: KnownAs, key: HostKey, *, replace: bool) -> None:
    """Write a host key down, in place of another if told so."""
    from edgecal.adapters.known_hosts import append_host_key

    append_host_key(place.file, place.host, place.port, key, replace=replace)


def demo_data(folder: Path) -> DemoData:
    """Unpack the demo's network and pictures."""
    from edgecal.adapters.demo_data import unpack_demo

    return unpack_demo(folder)


def loopback(folder: Path) -> LoopbackServer:
    """Start a throw-away SSH server on this machine."""
    from edgecal.adapters.loopback import start_loopback

    return start_loopback(folder)


def run_onnx(path: Path) -> Network:
    """Load an ONNX file as it stands, with all of ONNX Runtime's optimisations."""
    from edgecal.adapters.ort_backend import load_network

    return load_network(path)


def facts_cache(note: Callable[[str], object] = lambda _text: None) -> FactsCache:
    """Open what targets last said of themselves; `note` hears what could not be kept or used."""
    from edgecal.adapters.facts_cache import FactsCache, state_folder

    return FactsCache(state_folder() / "facts", note=note)


def inventory(file: Path | None = None) -> Project:
    """Read an inventory of any kind; by default the nearest `fleet.toml`, else `edgecal.toml`.

    Settings for work stand in `edgecal.toml`, unless another file of its form was given.
    """
    from dataclasses import replace

    from edgecal.adapters.inventory import find_inventory, read_inventory
    from edgecal.core.project import Project

    given = read_inventory(file, warn=_warn) if file else None
    if given is not None and given.is_ours:
        return given
    here = project()
    if given is None:
        found = find_inventory(Path.cwd())
        if found is None or (
            here.source and here.targets and len(Path(here.source).parts) > len(found.parts)
        ):  # both lie in the working directory or above it: the longer path is the nearer one
            return here
        given = read_inventory(found, warn=_warn)
        if given != replace(Project(), source=given.source, inventory=given.inventory):
            _warn(f"{found}: only [targets] and [groups] of it count; see edgecal.toml")
    return replace(here, source=given.source, inventory=given.inventory)


@cache
def _warn(text: str) -> None:
    """Say something once, however often settings are read."""
    Story().tell(f"[yellow]warning[/] {escape(text)}")


def host_facts() -> HostFacts:
    """Look at what this machine has for calibrating."""
    from edgecal.adapters.host import read_host

    return read_host()


def tensorrt_package() -> str | None:
    """Tell which TensorRT this Python has."""
    from edgecal.adapters import host

    return host.tensorrt_package()


def tensorrt_calibrator(
    network: OnnxModel, native: NativeRequest, *, out: Path
) -> TensorRTCalibrator:
    """Make the TensorRT backend for a network; what TensorRT says goes beside the bundle."""
    from edgecal.adapters.trt_backend import HostTensorRT
    from edgecal.adapters.trt_places import InContainer, OtherPython, Place, ThisPython

    place: Place = ThisPython()
    if native.container is not None:
        place = InContainer(native.container)
    elif native.python is not None:
        place = OtherPython(native.python)
    return HostTensorRT(
        model=network.path,
        tensorrt=native.tensorrt,
        log=out.with_name(f"{out.name}.tensorrt.log"),
        host=native.host,
        platforms=platforms(),
        place=place,
    )


def process_name() -> str:
    """Name this process, for others on the network."""
    return f"{socket.gethostname()}-{os.getpid()}"


def cluster(request: ClusterRequest, tell: Callable[[str], object]) -> DaskCluster:
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


@contextmanager
def hands(
    crew: Crew, over: ClusterRequest | None, tell: Callable[[str], object]
) -> Iterator[Hands]:
    """Give those who do a rollout's work: threads here, or the workers of a cluster."""
    from edgecal.workflows.rollout.afar import ClusterHands
    from edgecal.workflows.rollout.threads import ThreadHands

    if over is None:
        yield ThreadHands(crew)
        return
    with (
        cluster(over, tell) as where,
        ClusterHands(where, crew.job, crew.bundles, tell=crew.tell) as found,
    ):
        _warn_of_missing(where, list(crew.targets))
        yield found


@contextmanager
def looks(
    bundles: Sequence[Bundle],
    names: Sequence[str],
    over: ClusterRequest | None,
    tell: Callable[[str], object],
) -> Iterator[Look | None]:
    """Give those who find out what a rollout would do; nothing without a cluster."""
    from edgecal.core.rollout.job import Job
    from edgecal.workflows.rollout.afar import ClusterHands

    if over is None:
        yield None
        return
    with (
        cluster(over, tell) as where,
        ClusterHands(where, Job(), bundles, tell=lambda *_: None) as found,
    ):
        _warn_of_missing(where, names)
        yield found.look


def _warn_of_missing(where: DaskCluster, names: Sequence[str]) -> None:
    from edgecal.workflows.rollout.afar import without_worker

    missing = without_worker(where, names)
    if missing:
        _warn(
            f"no worker may touch {', '.join(map(printable, missing))}: as good as offline until "
            "one comes that has them in its inventory"
        )


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
        measurer = Measurer(lambda digest: load_packed(store.read(digest)), fastest_sweep)
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


def source_findings(
    of: Bundle, *, model: str | None = None, data: str | None = None, deep: bool = False
) -> tuple[Finding, ...]:
    """Hold a bundle against its source network and data: as given, else as the project says."""
    from edgecal.adapters.sources import find_data, find_model
    from edgecal.core.freshness import judge_data, judge_model, named_sources

    model, data = named_sources(of.manifest, project(), model=model, data=data)
    return (
        *judge_model(of.manifest, find_model(model, of.manifest, deep=deep)),
        *judge_data(of.manifest, find_data(data, of.manifest, deep=deep)),
    )
