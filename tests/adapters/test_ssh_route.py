"""Which server every connection to a target goes through first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgecal.adapters.ssh_route import find_bastion
from edgecal.core.target import Target
from edgecal.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """
Host gate
  HostName gate.example.org
  Port 2200
Host inner
  ProxyJump gate
Host behind-*
  ProxyJump gate
Host far
  ProxyJump inner
Host two
  ProxyJump gate,inner
Host by-address
  ProxyJump admin@gate.example.org:2200
Host tunnel-*
  ProxyCommand ssh -W %h:%p site.example.org
Host lift-*
  ProxyCommand ssm start-session --target %h
Host plain
  HostName plain.example.org
  ProxyJump none
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    file = tmp_path / ".ssh/config"
    file.write_text(CONFIG)
    return file


def bastion(name: str, port: int | None = None) -> str:
    return find_bastion(Target(name=name, host=name, port=port))


def test_settings_that_cannot_be_used_are_the_users_to_mend(config: Path) -> None:
    config.write_text("Host x\n  Port abc\n")
    with pytest.raises(InputError, match="ssh_config"):
        bastion("x")
    with pytest.raises(InputError, match="name of a host"):
        bastion("-oProxyCommand=x")


@pytest.mark.usefixtures("config")
@pytest.mark.parametrize("name", ["plain", "gate", "10.0.0.2", "elsewhere.example.org"])
def test_who_is_reached_directly_has_none(name: str) -> None:
    assert not bastion(name)


@pytest.mark.usefixtures("config")
@pytest.mark.parametrize("name", ["behind-1", "behind-2", "inner", "far", "two", "by-address"])
def test_the_first_of_all_gateways_counts(name: str) -> None:
    assert bastion(name) == "gate.example.org:2200"


@pytest.mark.usefixtures("config")
def test_a_command_that_differs_in_the_target_alone_is_one_bastion() -> None:
    assert bastion("tunnel-a") == bastion("tunnel-b", port=2222) == "ssh -W %h:%p site.example.org"
    assert bastion("lift-a") == bastion("lift-b") != bastion("tunnel-a")
