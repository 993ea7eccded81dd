"""Dask itself, over TLS on loopback: who is there, who is trusted, calls, and what is lost."""

from __future__ import annotations

import signal
import socket
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import distributed  # noqa: TID253 - what is tested
import pytest

from edgecal import __version__
from edgecal.adapters.cluster.near import DaskCluster, open_cluster
from edgecal.core.clusters import Certificates, parse_cluster
from edgecal.core.manifest import digest_of
from edgecal.errors import ClusterError, WorkerError
from tests.clusters import make_identity, start, start_scheduler, start_worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.clusters import Identity


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return make_identity(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def url(identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start_scheduler(tmp_path_factory.mktemp("scheduler"), *identity.of_dask) as (address, _):
        yield address


def certificates(identity: Identity) -> Certificates:
    return Certificates(ca=str(identity.ca), cert=str(identity.cert), key=str(identity.key))


def connect(
    url: str, identity: Identity | None, notes: list[str] | None = None, version: str = __version__
) -> DaskCluster:
    return open_cluster(
        parse_cluster(url),
        certificates(identity) if identity else Certificates(),
        insecure=False,
        version=version,
        note=(notes if notes is not None else []).append,
    )


def test_what_does_not_answer_as_a_scheduler_is_told_apart(
    url: str, identity: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecal.adapters.cluster.security._ANSWER_S", 0.5)
    with closing(socket.create_server(("127.0.0.1", 0))) as mute:
        port = mute.getsockname()[1]
        with pytest.raises(
            ClusterError, match="answer as a scheduler of Dask does: it says nothing"
        ):
            connect(f"tcp://127.0.0.1:{port}", None)
        with pytest.raises(ClusterError, match="it says nothing"):
            connect(f"tls://127.0.0.1:{port}", identity)
    with pytest.raises(ClusterError, match="no scheduler answers"):
        connect(f"tcp://127.0.0.1:{port}", None)
    with pytest.raises(ClusterError, match="nothing says with which certificates"):
        connect(url, None)
    with pytest.raises(ClusterError, match="TLS fails"):
        connect(url, make_identity(tmp_path / "other"))
    identity.key.with_name("bad.pem").write_text("no certificate")
    bad = Certificates(ca=str(identity.ca), cert=str(identity.key.with_name("bad.pem")))
    with pytest.raises(ClusterError, match="certificates cannot be used"):
        open_cluster(parse_cluster(url), bad, insecure=False, version="1", note=lambda _text: None)
    with monkeypatch.context() as patch:
        patch.setattr(distributed, "__version__", "2020.1.0")
        with pytest.raises(ClusterError, match=r"has Dask distributed 20.*, and here it is 2020"):
            connect(url, identity)
    with pytest.raises(ClusterError, match="it says nothing") as error:
        connect(url.replace("tls:", "tcp:"), None)
    assert "is it tls:// there?" in error.value.remedy


def test_workers_that_are_none_of_ours_or_of_another_version_or_second_are_not_used(
    url: str, identity: Identity, tmp_path: Path
) -> None:
    notes: list[str] = []
    words = ("--tls-ca-file", str(identity.ca), "--tls-cert", str(identity.cert))
    with ExitStack() as stack:
        plain = start(
            *("dask", "worker", url, "--no-nanny", "--no-dashboard", "--nthreads", "1"),
            *(*words, "--tls-key", str(identity.key)),
            folder=tmp_path,
        )
        stack.callback(plain.close)
        ours = start_worker(url, "--name", "ours", *identity.options, folder=tmp_path / "ours")
        stack.enter_context(ours)
        plain.heard("Registered to")
        with connect(url, identity, notes, version="0.0.0") as cluster:
            assert cluster.workers() == ()
        assert len(notes) == 2
        assert any("not one that 'edgecal worker' started" in one for one in notes)
        assert any(f"ours is not used: it is edgecal {__version__}" in one for one in notes)
        with connect(url, identity) as cluster:
            (known,) = cluster.workers()
            assert (known.name, known.targets) == ("ours", frozenset())
            assert cluster.call(known.address, "missing", (digest_of(b""),)) == (digest_of(b""),)
            with pytest.raises(ClusterError, match="no digest"):  # as it was raised there
                cluster.call(known.address, "missing", ("x",))
            with pytest.raises(RuntimeError, match="AttributeError"):  # a bug of ours, not a loss
                cluster.call(known.address, "measure", 1)
        second = start(
            *("edgecal", "worker", url, "--name", "ours", *identity.options), folder=tmp_path
        )
        stack.callback(second.close)
        assert second.wait() == 2
        assert "give it another --name than the others have" in "".join(second.said)


def test_a_scheduler_that_goes_away_ends_its_workers_and_what_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecal.adapters.cluster.near._CONNECT_S", 2.0)
    with start_scheduler(tmp_path / "scheduler") as (url, process), ExitStack() as stack:
        worker = stack.enter_context(start_worker(url, folder=tmp_path / "a"))
        cluster = stack.enter_context(connect(url, None))
        (known,) = cluster.workers()
        process.end(signal.SIGKILL)
        with pytest.raises(WorkerError):
            cluster.call(known.address, "missing", ())
        assert worker.wait() == 2
        assert "the scheduler has gone away" in "".join(worker.said)
