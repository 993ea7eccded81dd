from __future__ import annotations

from dataclasses import replace

import pytest

from edgecal.adapters.tables import load_platforms
from edgecal.core.build import BuildOptions
from edgecal.core.compat import Pairing, check_pairing, choose_builder
from edgecal.core.findings import Severity, refused
from edgecal.core.target import BuilderFact, PythonFact, Target, TargetFacts
from edgecal.core.versions import parse_tensorrt

PLATFORMS = load_platforms()
REFERENCE = BuilderFact(name="onnxruntime", path="/usr/bin/python3")


def trtexec(version: str | None) -> BuilderFact:
    found = parse_tensorrt(version) if version else None
    return BuilderFact(name="trtexec", path="/usr/src/tensorrt/bin/trtexec", tensorrt=found)


def pairing(
    *,
    bundle: str = "8.5.2",
    builder: BuilderFact | None = None,
    module: str | None = "agx-xavier",
    **facts: object,
) -> Pairing:
    row = PLATFORMS.module(module) if module else None
    made = TargetFacts(
        root="/home/nvidia/.edgecal",
        is_jetson=module is not None,
        module=module,
        dla_cores=row.dla_cores if row else None,
        disk_free_bytes=10**9,
    )
    return Pairing(
        bundle="net",
        bundle_tensorrt=parse_tensorrt(bundle),
        target=Target(name="xavier", host="xavier"),
        facts=replace(made, **facts),  # type: ignore[arg-type]
        module=row,
        builder=builder or trtexec("8.5.2.2"),
        options=BuildOptions(),
    )


def rules(pair: Pairing, severity: Severity = Severity.ERROR) -> set[str]:
    return {one.rule for one in check_pairing(pair) if one.severity is severity}


@pytest.mark.parametrize(
    ("bundle", "target", "fits"),
    [
        ("7.1.3", "7.1.0", True),
        ("8.5.2", "8.5.2.2", True),
        ("8.5.2", "8.5.10", True),
        ("8.5.2", "8.6.1", False),
        ("8.6.2", "10.3.0.30", False),
        ("10.3.0", "10.13.2.6", False),
        ("10.3.0", "10.3.0.26", True),
        ("8.5.2", None, False),
    ],
)
def test_a_cache_fits_its_own_major_minor_only(
    bundle: str, target: str | None, *, fits: bool
) -> None:
    pair = pairing(bundle=bundle, builder=trtexec(target))
    assert ("tensorrt-version" not in rules(pair)) is fits
    for finding in check_pairing(pair):
        if finding.rule == "tensorrt-version" and not fits:
            assert bundle.rpartition(".")[0] in finding.message
            assert finding.remedy


def test_another_patch_is_a_note_and_the_same_one_is_nothing() -> None:
    assert rules(pairing(builder=trtexec("8.5.3")), Severity.NOTE) == {"tensorrt-version"}
    assert check_pairing(pairing(builder=trtexec("8.5.2"))) == ()


def test_a_cache_headed_for_another_minor_than_tensorrt_wrote_it_for_must_be_accepted() -> None:
    written = parse_tensorrt("8.5.2")
    pair = replace(pairing(bundle="10.3.0", builder=trtexec("10.3.0")), restamped_from=written)
    refusal, deprecated = check_pairing(pair)
    assert deprecated.rule == "implicit-int8-deprecated"
    assert (refusal.rule, refusal.severity) == ("tensorrt-version", Severity.ERROR)
    assert "8.5.2" in refusal.message
    assert "10.3.0" in refusal.message
    assert "--accept-restamped" in refusal.remedy
    warning, _ = check_pairing(replace(pair, accept_restamped=True))
    assert (warning.rule, warning.severity) == ("tensorrt-version", Severity.WARNING)
    # accepting is no way around the version that the header names
    elsewhere = replace(pair, builder=trtexec("10.7.0"), accept_restamped=True)
    assert rules(elsewhere) == {"tensorrt-version"}
    back = replace(pair, builder=trtexec("8.5.2"), accept_restamped=True)
    assert rules(back) == {"tensorrt-version"}
    patched = replace(pairing(bundle="8.5.3", builder=trtexec("8.5.3")), restamped_from=written)
    assert check_pairing(patched) == ()


def test_the_reference_builder_is_judged_by_no_version_and_says_what_it_is() -> None:
    pair = pairing(module=None, builder=REFERENCE)
    assert not refused(check_pairing(pair))
    assert rules(pair, Severity.NOTE) == {"reference-builder"}
    assert rules(pairing(builder=REFERENCE), Severity.WARNING) == {"reference-builder"}


def test_the_reference_builder_makes_int8_networks_and_nothing_else() -> None:
    pair = pairing(module=None, builder=REFERENCE)
    fp16 = replace(pair, options=replace(pair.options, precision="fp16"))
    assert rules(fp16) == {"builder-unsupported"}


def test_tensorrt_11_takes_no_cache() -> None:
    assert "implicit-int8-removed" in rules(pairing(builder=trtexec("11.4.1")))


def test_trtexec_before_7_1_is_too_old() -> None:
    assert "builder-unsupported" in rules(pairing(bundle="6.0.1", builder=trtexec("6.0.1")))


@pytest.mark.parametrize("module", ["nano", "tx1", "tx2"])
def test_modules_without_int8_are_refused_although_one_counts_6_2(module: str) -> None:
    assert "int8-unsupported" in rules(pairing(module=module))
    assert "int8-unsupported" not in rules(pairing(module="xavier-nx-8gb"))


@pytest.mark.parametrize(
    ("module", "core", "rule"),
    [
        ("agx-xavier", 1, None),
        ("agx-xavier", 2, "dla-core"),
        ("orin-nano-8gb", 0, "dla-absent"),
        ("orin-nx-8gb", 1, "dla-core"),
    ],
)
def test_dla_cores_are_those_of_the_module(module: str, core: int, rule: str | None) -> None:
    pair = replace(pairing(module=module), options=BuildOptions(dla_core=core))
    assert rules(pair) == ({rule} if rule else set())


def test_what_nobody_knows_yields_no_finding() -> None:
    pair = replace(pairing(module=None, builder=trtexec("8.5.2")), options=BuildOptions(dla_core=3))
    unknown = replace(pair, facts=replace(pair.facts, disk_free_bytes=None), needed_bytes=10**12)
    assert rules(unknown) == set()


def test_too_little_disk_is_refused_with_both_numbers() -> None:
    (finding,) = check_pairing(replace(pairing(builder=trtexec("8.5.2")), needed_bytes=2 * 10**9))
    assert finding.rule == "disk-space"
    assert "1908 MiB" in finding.message
    assert "954 MiB" in finding.message


def test_missing_programs_and_an_unwritable_root_are_refused_and_a_closed_gpu_is_warned_of() -> (
    None
):
    assert rules(pairing(missing_tools=("setsid", "mv -T"))) == {"target-tools"}
    assert rules(pairing(root_writable=False)) == {"root-writable"}
    assert rules(pairing(gpu_access=False), Severity.WARNING) == {"gpu-access"}


def test_a_target_on_which_nothing_builds_is_told_what_it_lacks() -> None:
    python = PythonFact(path="/usr/bin/python3", version="3.8.10")
    for module, words in (("agx-xavier", "nvidia-tensorrt"), (None, "3.10")):
        pair = replace(pairing(module=module, python=python), builder=None)
        (finding,) = check_pairing(pair)
        assert finding.rule == "builder-missing"
        assert words in finding.remedy


def test_trtexec_comes_first_and_of_several_the_one_that_fits() -> None:
    version = parse_tensorrt("8.5.2")
    facts = pairing().facts
    both = replace(facts, builders=(REFERENCE, trtexec("10.3.0"), trtexec("8.5.2")))
    assert choose_builder(both, asked=None, tensorrt=version) == trtexec("8.5.2")
    assert choose_builder(both, asked="onnxruntime", tensorrt=version) == REFERENCE
    only = replace(facts, builders=(REFERENCE,))
    assert choose_builder(only, asked=None, tensorrt=version) is None
    elsewhere = replace(only, is_jetson=False)
    assert choose_builder(elsewhere, asked=None, tensorrt=version) == REFERENCE
    assert choose_builder(elsewhere, asked="trtexec", tensorrt=version) is None
