from __future__ import annotations

import base64
import hmac
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.adapters.known_hosts import (
    HostKey,
    KnownHosts,
    append_host_key,
    host_name,
    load_host_keys,
)
from edgecal.errors import HostKeyError, InputError


def key(seed: int, key_type: str = "ssh-ed25519") -> HostKey:
    body = bytes([seed]) * 32
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in (key_type.encode(), body))
    return HostKey(key_type, blob)


OLD, NEW = key(1), key(2)


def known(tmp_path: Path, *lines: str) -> KnownHosts:
    path = tmp_path / "known_hosts"
    path.write_text("\n".join(lines), encoding="utf-8")
    return load_host_keys([path])


def line(hosts: str, one: HostKey = OLD) -> str:
    return f"{hosts} {one.key_type} {one.base64}"


def hashed(name: str) -> str:
    salt = bytes(range(20))
    digest = hmac.digest(salt, name.encode(), "sha1")
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize(
    ("hosts", "name"),
    [
        ("xavier", "xavier"),
        ("orin,xavier,10.0.0.7", "10.0.0.7"),
        ("Xavier.Lab", "xavier.lab"),
        ("*.lab", "xavier.lab"),
        ("xavier-?", "xavier-3"),
        ("[xavier]:2222", "[xavier]:2222"),
        ("[*.lab]:2222", "[xavier.lab]:2222"),
        (hashed("xavier"), "xavier"),
        (hashed("[xavier]:2222"), "[xavier]:2222"),
    ],
)
def test_a_host_is_found_as_openssh_finds_it(tmp_path: Path, hosts: str, name: str) -> None:
    assert known(tmp_path, line(hosts)).keys(name) == (OLD,)


@pytest.mark.parametrize(
    ("hosts", "name"),
    [
        ("xavier", "xavier2"),
        ("xavier", "[xavier]:2222"),
        ("*.lab,!spare.lab", "spare.lab"),
        ("!spare.lab", "xavier.lab"),
        ("[xavier]:2222", "x"),
        (hashed("xavier"), "orin"),
        ("|1|notbase64|", "xavier"),
        ("|1|", "xavier"),
    ],
)
def test_a_host_is_not_found_by_anything_else(tmp_path: Path, hosts: str, name: str) -> None:
    assert known(tmp_path, line(hosts)).keys(name) == ()


def test_a_host_may_have_several_keys_of_one_type(tmp_path: Path) -> None:
    assert known(tmp_path, line("xavier", OLD), line("xavier", NEW)).keys("xavier") == (OLD, NEW)


def test_damaged_lines_comments_and_authorities_are_passed_over(tmp_path: Path) -> None:
    found = known(
        tmp_path,
        "# a comment",
        "",
        "xavier",
        "xavier ssh-ed25519",
        "xavier ssh-ed25519 not!base64",
        f"xavier ssh-rsa {OLD.base64}",
        "xavier 2048 65537 1234567890",
        "\tgarbage \ufffd\x00 in here",
        "@cert-authority " + line("*", NEW),
        "@unheard-of " + line("*", NEW),
        "  " + line("xavier") + "  user@host trailing words",
    )
    assert found.keys("xavier") == (OLD,)


def test_a_revoked_key_is_revoked_although_it_is_listed(tmp_path: Path) -> None:
    found = known(tmp_path, line("xavier"), "@revoked " + line("*"))
    revoked = found.revoked("xavier", OLD)
    assert revoked is not None
    assert revoked.where.endswith("known_hosts:2")
    assert found.revoked("xavier", NEW) is None


def test_absent_files_hold_nothing(tmp_path: Path) -> None:
    assert load_host_keys([tmp_path / "none", tmp_path / "no" / "folder"]).lines == ()


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=str(tmp_path)):
        load_host_keys([tmp_path])


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_fingerprints_and_hashes_are_those_of_ssh_keygen(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    append_host_key(path, "xavier", 2222, OLD, replace=False)
    told = subprocess.run(["ssh-keygen", "-lf", path], capture_output=True, text=True, check=True)
    assert OLD.fingerprint in told.stdout
    subprocess.run(["ssh-keygen", "-H", "-f", path], capture_output=True, check=True)
    assert "xavier" not in path.read_text()
    assert load_host_keys([path]).keys("[xavier]:2222") == (OLD,)


def test_the_first_key_makes_a_private_file_in_a_private_folder(tmp_path: Path) -> None:
    path = tmp_path / ".ssh" / "known_hosts"
    append_host_key(path, "Xavier", 22, OLD, replace=False)
    assert path.read_text() == line("xavier") + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_tilde_is_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    append_host_key(Path("~/.ssh/known_hosts"), "xavier", 22, OLD, replace=False)
    assert load_host_keys([Path("~/.ssh/known_hosts")]).keys("xavier") == (OLD,)


def test_a_key_after_a_missing_last_newline_gets_its_own_line(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_bytes(line("orin").encode())
    append_host_key(path, "xavier", 2222, NEW, replace=False)
    assert path.read_text() == line("orin") + "\n" + line("[xavier]:2222", NEW) + "\n"


def test_a_known_key_is_not_written_twice(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(line("*"))
    append_host_key(path, "xavier", 22, OLD, replace=True)
    assert path.read_text() == line("*")


def test_another_key_is_replaced_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(line("xavier"))
    with pytest.raises(HostKeyError, match="known by another key"):
        append_host_key(path, "xavier", 22, NEW, replace=False)
    assert path.read_text() == line("xavier")
    append_host_key(path, "xavier", 22, NEW, replace=True)
    assert path.read_text() == line("xavier", NEW) + "\n"


def test_replacing_keeps_other_hosts_on_a_shared_line(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(line("orin,xavier,10.0.0.7") + " comment\n" + line(hashed("xavier")) + "\n")
    path.chmod(0o644)
    append_host_key(path, "xavier", 22, NEW, replace=True)
    assert path.read_text() == (line("orin,10.0.0.7") + " comment\n" + line("xavier", NEW) + "\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [child.name for child in tmp_path.iterdir()] == ["known_hosts"]


def test_a_revoked_key_is_never_added(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text("@revoked " + line("*"))
    with pytest.raises(HostKeyError, match="revoked"):
        append_host_key(path, "xavier", 22, OLD, replace=True)


def test_a_link_to_the_file_stays_a_link(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles"
    real.write_text(line("xavier"))
    link = tmp_path / "known_hosts"
    link.symlink_to(real)
    append_host_key(link, "xavier", 22, NEW, replace=True)
    assert link.is_symlink()
    assert real.read_text() == line("xavier", NEW) + "\n"


def test_what_is_no_file_is_left_alone() -> None:
    with pytest.raises(InputError, match="not a regular file"):
        append_host_key(Path("/dev/null"), "xavier", 22, NEW, replace=True)
    assert Path("/dev/null").is_char_device()


@given(before=st.binary(max_size=200))
def test_every_other_byte_of_a_file_survives(before: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "known_hosts"
        path.write_bytes(before)
        append_host_key(path, "xavier", 22, OLD, replace=False)
        append_host_key(path, "xavier", 22, NEW, replace=True)
        newline = b"" if not before or before.endswith(b"\n") else b"\n"
        assert path.read_bytes() == before + newline + line("xavier", NEW).encode() + b"\n"


@pytest.mark.parametrize(
    ("host", "port", "name"),
    [("Xavier.local", 22, "xavier.local"), ("10.0.0.7", 2222, "[10.0.0.7]:2222")],
)
def test_a_port_other_than_22_is_part_of_the_name(host: str, port: int, name: str) -> None:
    assert host_name(host, port) == name
