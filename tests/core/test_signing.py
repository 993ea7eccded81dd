from __future__ import annotations

import fnmatch
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.build import BuildOptions
from edgecal.core.manifest import parse_manifest, serialize_manifest, write_document
from edgecal.core.rules.pairing import Pairing
from edgecal.core.rules.signatures import signature
from edgecal.core.signing import (
    MOST_COUNTER,
    check_layout,
    manifest_to_sign,
    names_device,
    parse_patterns,
    parse_policy,
    spelled,
)
from edgecal.core.target import SigningFacts, Target, TargetFacts
from edgecal.core.versions import parse_tensorrt
from edgecal.errors import BundleError, InputError
from tests.core.test_manifest import MANIFEST

if TYPE_CHECKING:
    from edgecal.core.findings import Finding

PLAIN = serialize_manifest(replace(MANIFEST, targets=None))
KEY = f"sha256:{'0' * 64}"
WITH_KEY = SigningFacts(present=True, openssl=True, keys=(KEY,))


@pytest.mark.parametrize(
    "text", ["", "a b", "cam[7]", "a/b", "{a,b}", "$(x)", "a\n", "ü", "x" * 256]
)
def test_a_pattern_that_a_shell_could_misread_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected a device's name"):
        parse_patterns([text], source="--targets")


@given(
    st.text("ab.*?-", min_size=1, max_size=8),
    st.text("ab.-", min_size=1, max_size=8),
)
def test_patterns_match_as_a_shell_does(pattern: str, name: str) -> None:
    assert names_device([pattern], name) == fnmatch.fnmatchcase(name, pattern)


@pytest.mark.parametrize("counter", [0, -1, MOST_COUNTER + 1])
def test_a_counter_that_no_shell_could_compare_is_refused(counter: int) -> None:
    with pytest.raises(InputError, match="expected a counter"):
        manifest_to_sign(PLAIN, counter=counter, targets=[], source="manifest.json")


def test_what_is_not_a_manifest_is_not_signed() -> None:
    with pytest.raises(BundleError):
        manifest_to_sign(b"{}", counter=None, targets=[], source="manifest.json")


@pytest.mark.parametrize(
    "data",
    [
        json.dumps(json.loads(PLAIN)).encode(),
        PLAIN.replace(b"\n", b"\r\n"),
        PLAIN + b"\n",
        PLAIN.replace(b'  "counter": 7,\n', b'  "counter": 1,\n  "counter": 7,\n'),
        PLAIN[:-3] + b',\n  "targets": []\n}\n',
        PLAIN[:-3] + b',\n  "targets": [\n    "cam[7]"\n  ]\n}\n',
    ],
)
def test_a_layout_that_a_device_would_not_read_is_told(data: bytes) -> None:
    parse_manifest(data, source="manifest.json")
    with pytest.raises((BundleError, InputError)):
        check_layout(data, source="manifest.json")


def test_signing_without_words_changes_nothing() -> None:
    check_layout(PLAIN, source="manifest.json")
    assert manifest_to_sign(PLAIN, counter=None, targets=[], source="manifest.json") == PLAIN


def test_signing_keeps_what_a_later_edgecal_may_have_written() -> None:
    later = write_document({**json.loads(PLAIN), "later": {"a": [1.5e-7, "\u2028"]}})
    data = manifest_to_sign(later, counter=9, targets=["cam*"], source="manifest.json")
    check_layout(data, source="manifest.json")
    assert json.loads(data) == {**json.loads(later), "counter": 9, "targets": ["cam*"]}
    manifest = parse_manifest(data, source="manifest.json")
    assert (manifest.counter, manifest.targets) == (9, ("cam*",))
    again = manifest_to_sign(data, counter=None, targets=[], source="manifest.json")
    assert again == data


@pytest.mark.parametrize("targets", ['"cam7"', "[7]", "{}"])
def test_targets_that_are_no_list_of_names_are_no_manifest(targets: str) -> None:
    data = PLAIN[:-3] + f',\n  "targets": {targets}\n}}\n'.encode()
    with pytest.raises(BundleError):
        parse_manifest(data, source="manifest.json")


@given(st.text(min_size=1))
def test_a_name_is_spelled_as_the_manifest_spells_it(name: str) -> None:
    for extra in ("plain", "\ud800"):  # the second makes the whole manifest ASCII
        data = write_document({"files": {name: {}}, "more": extra})
        assert f'    "{spelled(name, data)}": {{}}' in data.decode().split("\n")


@pytest.mark.parametrize(
    "line",
    [
        "require_signature",
        "require_signature = yes",
        "Name=x",
        "name=a b",
        "counter.x=",
        "counter=1",
    ],
)
def test_a_line_that_is_not_understood_is_a_problem_and_not_a_wish(line: str) -> None:
    assert parse_policy(["name=a", line]).problem == line


def test_a_policy_with_comments_blanks_and_windows_line_ends_is_read() -> None:
    policy = parse_policy(["# ours\r", "", "require_signature=yes\r", " name=cam7 ", "counter.a=1"])
    assert (policy.required, policy.name, policy.problem) == (True, "cam7", None)


def judge(
    signing: SigningFacts | None,
    *,
    signed: bool | None = True,
    signed_for: tuple[str, ...] | None = None,
    require: bool = False,
    user: str = "nvidia",
) -> list[tuple[str, str]]:
    pair = Pairing(
        bundle="net",
        bundle_tensorrt=parse_tensorrt("8.5.2"),
        target=Target(name="cam", host="cam", require_signature=require),
        facts=TargetFacts(root="/r", is_jetson=True, user=user, signing=signing),
        module=None,
        builder=None,
        options=BuildOptions(),
        signed=signed,
        signed_for=signed_for,
    )
    found: list[Finding] = list(signature(pair))
    assert all(one.rule == "signature" and one.remedy for one in found)
    return [(one.severity.value, one.message) for one in found]


def only(found: list[tuple[str, str]], severity: str, words: str) -> None:
    ((weight, message),) = found
    assert weight == severity
    assert words in message


def test_whatever_is_required_and_cannot_be_is_an_error() -> None:
    required = replace(WITH_KEY, required=True)
    only(judge(required, signed=False), "error", "its policy requires a signature")
    only(judge(WITH_KEY, signed=False, require=True), "error", "edgecal.toml requires")
    only(judge(replace(required, keys=())), "error", "no key")
    only(judge(SigningFacts(present=False), require=True), "error", "no key")
    only(judge(replace(required, openssl=False)), "error", "no openssl")
    only(judge(replace(required, problem="its policy says 'x'")), "error", "cannot be followed")


def test_keys_that_are_none_refuse_a_signed_bundle_even_where_nothing_is_required() -> None:
    only(judge(replace(WITH_KEY, keys=(), unusable_keys=("/k.pem",))), "error", "/k.pem")


def test_a_bundle_for_other_devices_is_an_error() -> None:
    named = replace(WITH_KEY, name="dock1")
    only(judge(named, signed_for=("cam*", "x")), "error", "cam*, x, and this device is dock1")
    only(judge(WITH_KEY, signed_for=("cam*",)), "error", "does not know what it is called")
    assert judge(named, signed_for=("d*",)) == []


def test_what_nobody_could_verify_weighs_less_where_nothing_is_required() -> None:
    only(judge(SigningFacts(present=False)), "note", "no key")
    only(judge(replace(WITH_KEY, openssl=False)), "warning", "no openssl")


def test_rights_of_the_pushing_user_are_a_warning() -> None:
    loose = replace(WITH_KEY, writable=("/etc/edgecal/keys",))
    only(judge(loose), "warning", "nvidia could change what judges signatures: /etc/edgecal/keys")
    assert judge(loose, signed=False) == []
    found = judge(replace(loose, required=True), signed=False)
    assert [severity for severity, _ in found] == ["error", "warning"]


def test_nothing_is_said_where_no_signature_is_required_or_there() -> None:
    assert judge(WITH_KEY, signed=False) == []
    assert judge(SigningFacts(present=False), signed=False) == []
    assert judge(WITH_KEY) == []
    assert judge(None) == []
    assert judge(WITH_KEY, signed=None, require=True) == []
