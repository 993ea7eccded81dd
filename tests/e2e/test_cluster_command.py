"""`--cluster` and `edgecal worker` with a real scheduler: as on one machine, to the byte."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.clusters import CHECKOUT, make_identity, start, start_scheduler, start_worker
from tests.networks import conv_net, floats, save

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.clusters import Identity

FILES = ("calibration.cache", "histograms.npz", "golden.npz")
CHANCE = ("name", "created", "counter")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, data that grows, and the bundle that this machine makes of them alone."""
    folder = tmp_path_factory.mktemp("desk")
    save(conv_net(size=48), folder / "net.onnx")
    growing = np.linspace(0.2, 9, 400)[:, None, None, None]
    np.save(folder / "data.npy", (floats(400, 3, 48, 48) * growing).astype(np.float32))
    code, said = calibrate(folder, "alone.edgecal")
    assert code == 0, said
    return folder


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return make_identity(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def cluster(
    identity: Identity, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """A scheduler with TLS and two workers."""
    folder = tmp_path_factory.mktemp("cluster")
    with ExitStack() as stack:
        url, _ = stack.enter_context(start_scheduler(folder / "scheduler", *identity.of_dask))
        for name in ("a", "b"):
            words = ("--name", name, "--threads", "2", *identity.options)
            stack.enter_context(start_worker(url, *words, folder=folder / name))
        yield url, folder


def calibrate(folder: Path, out: str, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "edgecal", "calibrate", "net.onnx", "--data", "data.npy"),
            *("--tensorrt", "8.5", "-o", out, *words),
        ],
        cwd=folder,
        env={"PYTHONPATH": str(CHECKOUT), "HOME": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stderr


def numbers(folder: Path, bundle: str) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / bundle / "manifest.json").read_text())
    return {key: value for key, value in manifest.items() if key not in CHANCE}


def assert_same(folder: Path, bundle: str) -> None:
    for name in FILES:
        assert (folder / bundle / name).read_bytes() == (
            folder / "alone.edgecal" / name
        ).read_bytes()
    assert numbers(folder, bundle) == numbers(folder, "alone.edgecal")


def test_what_cannot_be_trusted_or_is_not_there_is_said_in_a_sentence(
    desk: Path, cluster: tuple[str, Path], tmp_path: Path
) -> None:
    url, _ = cluster
    cases = [
        (("tcp://10.1.2.3:8786",), "plain TCP to another machine"),
        ((url, *make_identity(tmp_path / "other").options), "TLS fails"),
        ((url, "--cluster-ca", "ca.pem"), "our own (cert) is missing"),
        ((url, "--backend", "tensorrt"), "in one piece"),
    ]
    for words, what in cases:
        code, said = calibrate(desk, "never.edgecal", "--cluster", *words)
        assert (code, what in said) == (2, True), said
        assert "Traceback" not in said
    assert not (desk / "never.edgecal").exists()


def test_workers_give_the_same_bundle_to_the_byte(
    desk: Path, identity: Identity, cluster: tuple[str, Path]
) -> None:
    url, folder = cluster
    code, said = calibrate(desk, "spread.edgecal", "--cluster", url, *identity.options)
    assert code == 0, said
    assert "worker a measures, 2 batches at a time" in said
    assert "worker b measures, 2 batches at a time" in said
    assert_same(desk, "spread.edgecal")
    # the network lies at each worker, once
    assert [len(list((folder / name).rglob("files/*"))) for name in ("a", "b")] == [1, 1]


def test_a_worker_that_is_killed_costs_nothing_but_time(
    desk: Path, identity: Identity, cluster: tuple[str, Path], tmp_path: Path
) -> None:
    url, _ = cluster
    words = ("--name", "doomed", "--threads", "1", *identity.options)
    with ExitStack() as stack:
        doomed = stack.enter_context(start_worker(url, *words, folder=tmp_path / "doomed"))
        command = start(
            *("edgecal", "calibrate", "net.onnx", "--data", "data.npy", "--tensorrt", "8.5"),
            *("-o", "survived.edgecal", "--cluster", url, *identity.options),
            folder=desk,
        )
        stack.callback(command.close)
        command.heard("worker doomed measures")
        doomed.process.send_signal(signal.SIGSTOP)  # with a shard in its hands
        time.sleep(0.5)
        doomed.end(signal.SIGKILL)
        assert command.wait() == 0, command.said
        assert "worker doomed was lost; others measure what it was at" in "".join(command.said)
    assert_same(desk, "survived.edgecal")
