"""Which clusters may be talked to, found out before anything is sent."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal import errors
from edgecal.core.clusters import (
    Certificates,
    ClusterAddress,
    check_certificates,
    check_secure,
    parse_cluster,
    parse_listen,
)
from edgecal.core.project import parse_project
from edgecal.errors import (
    BusyError,
    EdgecalError,
    IncompatibleError,
    InputError,
    InventoryError,
)


@pytest.mark.parametrize(
    "text",
    [
        *("", "tls://", "tls://host", "tls://host:", "tls://host:0", "tls://host:65536"),
        *("tls://:8786", "ucx://host:1", "ws://host:1", "inproc://1", "TLS://host:1"),
        *("tls://user@host:1", "tls://host:1/path", "tls://a b:1", "tls://[::g]:1", "tls://host:٣"),
    ],
)
def test_what_is_no_scheduler_s_address_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected a scheduler's address"):
        parse_cluster(text)


def test_an_address_without_a_protocol_is_told_which_one_to_write() -> None:
    with pytest.raises(InputError) as error:
        parse_cluster("scheduler:8786")
    assert "write tls://scheduler:8786" in error.value.remedy


@pytest.mark.parametrize(
    "text",
    [
        *("tcp://10.0.0.1:1", "tcp://scheduler:1", "tcp://[2001:db8::1]:1", "tcp://0.0.0.0:1"),
        *("tcp://127.0.0.1.example.org:1", "tcp://localhost.example.org:1", "tcp://128.0.0.1:1"),
    ],
)
def test_plain_tcp_off_this_machine_is_refused_unless_the_user_insists(text: str) -> None:
    address = parse_cluster(text)
    with pytest.raises(InputError, match="plain TCP to another machine") as error:
        check_secure(address, insecure=False)
    assert text.replace("tcp", "tls") in error.value.remedy
    assert "--insecure-cluster" in error.value.remedy
    check_secure(address, insecure=True)
    check_secure(parse_cluster(text.replace("tcp", "tls")), insecure=False)


@pytest.mark.parametrize(
    "text", ["tcp://127.0.0.1:8786", "tcp://127.8.8.8:1", "tcp://[::1]:1", "tcp://localhost:1"]
)
def test_on_loopback_plain_tcp_will_do(text: str) -> None:
    check_secure(parse_cluster(text), insecure=False)


@given(
    st.sampled_from(["tls", "tcp"]),
    st.ip_addresses().map(str) | st.from_regex(r"[a-z][a-z0-9.-]{0,30}", fullmatch=True),
    st.integers(1, 65535),
)
def test_an_address_is_written_as_it_is_read(scheme: str, host: str, port: int) -> None:
    address = ClusterAddress(scheme=scheme, host=host, port=port)
    assert parse_cluster(str(address)) == address


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("10.0.0.7", ("10.0.0.7", 0)),
        ("site-a.example:9000", ("site-a.example", 9000)),
        ("[::1]", ("::1", 0)),
        ("[::1]:9", ("::1", 9)),
    ],
)
def test_where_a_worker_listens_is_a_host_and_maybe_a_port(
    text: str, found: tuple[str, int]
) -> None:
    assert parse_listen(text) == found


@pytest.mark.parametrize("text", ["", ":9", "tls://host", "tls://host:9", "a b", "host:99999"])
def test_where_a_worker_cannot_listen_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected a name or address of this machine"):
        parse_listen(text)


def test_certificates_are_given_whole_or_not_at_all() -> None:
    check_certificates(Certificates(), source="x")
    check_certificates(Certificates(ca="ca", cert="cert"), source="x")
    for part in (Certificates(ca="a"), Certificates(cert="b"), Certificates(key="c")):
        with pytest.raises(InputError, match="is missing"):
            check_certificates(part, source="x")
    ours, others = Certificates(ca="a", cert="b"), Certificates(ca="c", cert="d", key="e")
    assert ours.or_those(others) == ours
    assert Certificates().or_those(others) == others


def test_a_project_names_certificates_by_paths_beside_it() -> None:
    for table in ({"ca": "ca.pem"}, {"ca": 1}, {"host": "x"}, "ca.pem"):
        with pytest.raises(InventoryError if table != {"ca": "ca.pem"} else InputError):
            parse_project({"cluster": table}, source="/p/edgecal.toml")
    project = parse_project(
        {"cluster": {"ca": "ca.pem", "cert": "/c/host.pem", "key": "~/host.key"}},
        source="/p/edgecal.toml",
    )
    found = Certificates(ca="/p/ca.pem", cert="/c/host.pem", key="~/host.key")
    assert project.cluster == found
    assert project.without_commands().cluster == found
    assert parse_project({}, source="/p/edgecal.toml").cluster == Certificates()


def every_error() -> list[EdgecalError]:
    kinds = [
        one
        for one in vars(errors).values()
        if isinstance(one, type) and issubclass(one, EdgecalError)
    ]
    special: dict[type[EdgecalError], EdgecalError] = {
        BusyError: BusyError("what", where="w", remedy="r", holder=("lock", "1", "2")),
        IncompatibleError: IncompatibleError("what", where="w", remedy="r", findings=()),
    }
    return [special.get(kind) or kind("what", where="w", remedy="r") for kind in kinds]


@pytest.mark.parametrize("error", every_error(), ids=lambda one: type(one).__name__)
def test_an_error_comes_whole_out_of_another_process(error: EdgecalError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert vars(again) == vars(error)
    assert (str(again), again.args) == (str(error), error.args)
