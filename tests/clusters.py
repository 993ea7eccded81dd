"""Clusters to test against: a scheduler of Dask and edgecal workers, each a process on loopback.

`HereCluster` has its workers in this process, for what does not depend on Dask.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import json
import os
import pickle
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edgecal.errors import EdgecalError, WorkerError
from edgecal.ports import ClusterWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

T = TypeVar("T")

CHECKOUT = Path(__file__).resolve().parents[1]
_DEADLINE_S = 60.0
_POLL_S = 0.02


@dataclass
class Process:
    """A program that runs, and what it has said."""

    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.said.append(line)

    def heard(self, pattern: str) -> None:
        """Wait until it says something of this form."""
        wait_for(lambda: re.search(pattern, "".join(self.said)), self._dead)

    def _dead(self) -> str:
        return "" if self.process.poll() is None else "".join(self.said)

    def end(self, signal_number: int) -> int:
        """Send it a signal and wait; gives its exit code."""
        self.process.send_signal(signal_number)
        return self.wait()

    def wait(self) -> int:
        """Wait until it ends by itself."""
        code = self.process.wait(_DEADLINE_S)
        self._reader.join(_DEADLINE_S)
        return code

    def close(self) -> None:
        """End it however it is."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(_DEADLINE_S)
        self._reader.join(_DEADLINE_S)
        if self.process.stderr:
            self.process.stderr.close()


def wait_for(found: Callable[[], T], dead: Callable[[], str] = lambda: "") -> T:
    """Ask again and again until the answer is yes, or something."""
    limit = time.monotonic() + _DEADLINE_S
    while not (answer := found()):
        assert not (said := dead()), said
        assert time.monotonic() < limit, "it took too long"
        time.sleep(_POLL_S)
    return answer


def start(*argv: str, folder: Path, environment: Mapping[str, str] | None = None) -> Process:
    """Start a Python program in a folder, whose home it is."""
    return Process(
        subprocess.Popen(
            [sys.executable, "-m", *argv],
            cwd=folder,
            env={
                **{key: one for key, one in os.environ.items() if key != "SSH_AUTH_SOCK"},
                "HOME": str(folder),
                "PYTHONPATH": str(CHECKOUT),
                "XDG_STATE_HOME": str(folder / "state"),
                "XDG_CACHE_HOME": str(folder / "cache"),
                "DASK_DISTRIBUTED__DASHBOARD__LINK": "",
                **(environment or {}),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
    )


@contextlib.contextmanager
def start_scheduler(folder: Path, *words: str) -> Iterator[tuple[str, Process]]:
    """Start `dask scheduler`; gives its address."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "scheduler.json"
    process = start(
        *("dask", "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"),
        *("--scheduler-file", str(file), *words),
        folder=folder,
    )
    try:
        wait_for(lambda: re.search("tcp|tls", file.read_text() if file.exists() else ""))
        yield json.loads(file.read_text())["address"], process
    finally:
        process.close()


@contextlib.contextmanager
def start_worker(url: str, *words: str, folder: Path) -> Iterator[Process]:
    """Start `edgecal worker` and wait until it has joined."""
    folder.mkdir(parents=True, exist_ok=True)
    process = start("edgecal", "worker", url, *words, folder=folder)
    try:
        process.heard("has joined")
        yield process
    finally:
        process.close()


@dataclass(frozen=True)
class Identity:
    """An authority's certificate, one that it signed, and the key of that."""

    ca: Path
    cert: Path
    key: Path

    @property
    def options(self) -> tuple[str, ...]:
        """Give what edgecal takes."""
        return (
            *("--cluster-ca", str(self.ca), "--cluster-cert", str(self.cert)),
            *("--cluster-key", str(self.key)),
        )

    @property
    def of_dask(self) -> tuple[str, ...]:
        """Give what `dask scheduler` takes."""
        return (
            *("--protocol", "tls", "--tls-ca-file", str(self.ca)),
            *("--tls-cert", str(self.cert), "--tls-key", str(self.key)),
        )


def make_identity(folder: Path) -> Identity:
    """Make an authority, and a certificate by it."""
    folder.mkdir(parents=True)
    authority, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a cluster's authority")])
    ca = _certificate(issuer, issuer, authority, authority, ca=True)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a host")])
    cert = _certificate(subject, issuer, own, authority, ca=False)
    made = Identity(folder / "ca.pem", folder / "host.pem", folder / "host.key")
    made.ca.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    made.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        own.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return made


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    ca: bool,
) -> x509.Certificate:
    now = dt.datetime.now(dt.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(signer, hashes.SHA256())
    )


class HereCluster:
    """Workers that are threads here; what goes to them and back is pickled as it really is.

    See `edgecal.ports.Cluster`. It may be told what happens as an operation begins.
    """

    def __init__(self, happens: Callable[[str, str], object] = lambda _worker, _what: None) -> None:
        self.calls: list[tuple[str, str]] = []
        self._happens = happens
        self._desks: dict[str, tuple[ClusterWorker, Mapping[str, Callable[..., Any]]]] = {}
        self._lost: dict[str, threading.Event] = {}
        self._ears: dict[str, Callable[[bytes], object]] = {}

    def join(
        self,
        name: str,
        operations: Mapping[str, Callable[..., Any]],
        *,
        targets: frozenset[str] = frozenset(),
        threads: int = 2,
        onnxruntime: str = "1",
    ) -> str:
        """Add a worker; gives its address."""
        address = f"tcp://here:{len(self._lost) + 1}"
        worker = ClusterWorker(
            address=address,
            name=name,
            targets=targets,
            threads=threads,
            edgecal="1",
            onnxruntime=onnxruntime,
        )
        self._desks[address] = worker, operations
        self._lost[address] = threading.Event()
        return address

    def lose(self, address: str) -> None:
        """End a worker in the middle of whatever it does; its threads run on, unheard."""
        self._desks.pop(address, None)
        self._lost[address].set()

    def say(self, topic: str, message: bytes) -> None:
        """Be what a worker says something with."""
        self._ears[topic](message)

    def workers(self) -> tuple[ClusterWorker, ...]:
        return tuple(worker for worker, _ in self._desks.values())

    def call(self, worker: str, operation: str, *args: object) -> Any:  # noqa: ANN401 - the port's
        lost = self._lost[worker]
        self.calls.append((worker, operation))
        if not lost.is_set():
            self._happens(worker, operation)
        if lost.is_set():
            raise WorkerError("the worker was lost", where=worker, remedy="start it again")
        done: list[bytes] = []
        over = threading.Event()
        work = self._desks[worker][1][operation]
        words = pickle.dumps(args)
        threading.Thread(target=_answer, args=(work, words, done, over), daemon=True).start()
        while not over.wait(_POLL_S):
            if lost.is_set():
                raise WorkerError("the worker was lost", where=worker, remedy="start it again")
        good, value = pickle.loads(done[0])
        if good:
            return value
        raise value

    def listen(self, topic: str, hear: Callable[[bytes], object]) -> None:
        self._ears[topic] = hear


def _answer(
    work: Callable[..., Any], words: bytes, done: list[bytes], over: threading.Event
) -> None:
    try:
        done.append(pickle.dumps((True, work(*pickle.loads(words)))))
    except EdgecalError as error:
        done.append(pickle.dumps((False, error)))
    over.set()
