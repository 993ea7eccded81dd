"""`edgecal worker` and `--cluster`: what is refused before anything is connected to."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgecal.cli.app import main
from tests.networks import conv_net, floats, save

if TYPE_CHECKING:
    from pathlib import Path


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("tcp://10.0.0.1:8786",), "plain TCP to another machine"),
        (("10.0.0.1:8786",), "write tls://10.0.0.1:8786"),
        (("tcp://127.0.0.1:1", "--listen", "10.0.0.1"), "plain TCP to another machine"),
        (("tcp://127.0.0.1:1", "--listen", "::1"), "expected a name or address"),
        (("tcp://127.0.0.1:1", "--on", "all"), "a worker touches nothing that was not written"),
        (("tcp://127.0.0.1:1", "--inventory", "none.toml"), "none.toml"),
        (("tcp://127.0.0.1:1", "--limit-rate", "fast"), "expected bytes a second"),
        (("tcp://127.0.0.1:1", "--cluster-key", "k"), "the authority (ca) is missing"),
        (("tcp://127.0.0.1:1",), "no scheduler answers"),
        (
            ("tls://127.0.0.1:1", "--cluster-ca", "no", "--cluster-cert", "no"),
            "no such certificate",
        ),
    ],
)
def test_a_worker_does_not_start_where_it_should_not(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    what: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run("worker", *words) == 2
    assert what in " ".join(capsys.readouterr().err.split())


def test_without_dask_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "distributed", None)
    save(conv_net(), tmp_path / "net.onnx")
    assert run("worker", "tcp://127.0.0.1:1") == 2
    assert "pip install 'edgecal[cluster]'" in capsys.readouterr().err
    np.savez(tmp_path / "data.npz", image=floats(20, 3, 8, 8))
    words = ("calibrate", "net.onnx", "--data", "data.npz", "--tensorrt", "8.5", "-o", "n.edgecal")
    assert run(*words, "--cluster", "tcp://127.0.0.1:1", "--json") == 2
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["error"]["code"]) == ("edgecal.error/1", "dependency")


def test_what_is_derived_from_a_bundle_needs_no_cluster(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("calibrate", "--from", "x", "--cluster", "tcp://127.0.0.1:1", "-o", "y") == 2
    assert "--cluster belongs to a pass over data" in capsys.readouterr().err
