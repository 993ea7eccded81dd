"""Every row of `tests/golden/pairings.csv`: cache, target, options, and what the rules must say."""

from __future__ import annotations

import csv
import itertools
import re
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer

from edgecal.adapters.tables import load_platforms
from edgecal.cli.app import app
from edgecal.core.build import BuildOptions
from edgecal.core.compat import (
    CACHE_RULES,
    RULES,
    CacheFacts,
    Pairing,
    check_pairing,
    choose_builder,
    suspicious_scales,
)
from edgecal.core.document import read_document
from edgecal.core.explicit import minimum_tensorrt
from edgecal.core.freshness import FRESHNESS_RULES
from edgecal.core.manifest import CoverageRecord, ExplicitRecord
from edgecal.core.rules.explanation import explain_rule
from edgecal.core.target import BuilderFact, SigningFacts, Target, TargetFacts
from edgecal.core.versions import parse_tensorrt

PLATFORMS = load_platforms()
TABLE = Path(__file__).parents[1] / "golden" / "pairings.csv"
ROWS = list(csv.DictReader(TABLE.read_text("utf-8").splitlines()))
MIB = 2**20
COMMAND = re.compile(r"edgecal (?:calibrate|cache|push|check|probe|targets)\b[^;']*")

Row = dict[str, str]


def words(text: str) -> dict[str, str]:
    return {key: value for key, _, value in (word.partition("=") for word in text.split())}


def cache_of(row: Row) -> CacheFacts:
    more = words(row["more"])
    if row["header"].startswith("qdq"):
        fp16 = row["header"].endswith("fp16")
        return CacheFacts(
            bundle="net",
            tensorrt=parse_tensorrt(row["bundle"]),
            header=None,
            header_text="",
            inputs=("image",),
            explicit=ExplicitRecord(
                minimum_tensorrt=minimum_tensorrt(fp16=fp16), fp16=fp16, activations=2, weights=2
            ),
        )
    scales = {"nan": "7fc00000", "inf": "7f800000", "0": "0"}
    body = f"x: 3c010a14\ny: {scales.get(more.get('scale', ''), '3c010a14')}\n"
    document = read_document(f"{row['header']}\n{body}".encode(), source="golden")
    missing: tuple[str, ...] = ("image",) if "missing-input" in more else ()
    activations = 34
    if "missing" in more:
        count, _, activations_text = more["missing"].partition("/")
        missing = tuple(f"t{number}" for number in range(int(count)))
        activations = int(activations_text)
    return CacheFacts(
        bundle="net",
        tensorrt=parse_tensorrt(row["bundle"]),
        header=document.header,
        header_text=document.header_text,
        written_by_tensorrt=row["wrote"].startswith("tensorrt"),
        scales=suspicious_scales(document),
        coverage=CoverageRecord(
            activations=activations,
            covered=activations - len(missing),
            constants=0,
            missing=missing,
        ),
        inputs=("image",),
        dynamic_inputs={"image": (-1, 3, 224, 224)} if "dynamic" in more else {},
    )


def builders_of(row: Row) -> tuple[BuilderFact, ...]:
    if row["tensorrt"] == "-":
        return ()
    if row["tensorrt"] == "ort":
        return (BuilderFact(name="onnxruntime", path="/usr/bin/python3"),)
    version = None if row["tensorrt"] == "?" else parse_tensorrt(row["tensorrt"])
    path = "/usr/src/tensorrt/bin/trtexec"
    return (BuilderFact(name="trtexec", path=path, tensorrt=version),)


def mebibytes(text: str) -> int | None:
    return None if text == "?" else int(text) * MIB


def pairing_of(row: Row) -> Pairing:
    options, more = words(row["options"]), words(row["more"])
    slug, _, soc = row["device"].partition(" ")
    module = PLATFORMS.module(slug)
    assert module or slug in {"", "x86", "soc"}, slug
    release = PLATFORMS.release_for_jetpack(row["jetpack"]) if row["jetpack"] else None
    assert bool(release) == bool(row["jetpack"]), row["jetpack"]
    host = [one for one in PLATFORMS.host_gpus if one.compute_capability == more.get("host")]
    free, _, needed = more.get("disk", "?/?").partition("/")
    available, _, model = more.get("memory", "?/?").partition("/")
    facts = TargetFacts(
        root="/home/nvidia/.edgecal",
        is_jetson=slug != "x86",
        root_writable=False if "unwritable" in more else None,
        builders=builders_of(row),
        module=module.slug if module else None,
        soc=module.soc if module else soc or None,
        compute_capability=PLATFORMS.compute_capability(module.soc if module else soc),
        gpu_access=False if "gpu-closed" in more else None,
        disk_free_bytes=mebibytes(free),
        memory_available_bytes=mebibytes(available),
        missing_tools=tuple(filter(None, [more.get("lacks")])),
        signing=SigningFacts(
            present=True,
            openssl=True,
            required="requires" in more,
            name="cam7",
            keys=("sha256:00",) if "keys" in more else (),
            writable=("/etc/edgecal/keys",) if "keys" in more.get("writes", "") else (),
        ),
    )
    target = Target(name="target", host="target", builder=options.get("builder"))
    tensorrt = parse_tensorrt(row["bundle"])
    wrote = row["wrote"].removeprefix("tensorrt").strip()
    cache = cache_of(row)
    minimum = cache.explicit.minimum_tensorrt if cache.explicit else None
    return Pairing(
        bundle="net",
        bundle_tensorrt=tensorrt,
        target=target,
        facts=facts,
        module=module,
        builder=choose_builder(facts, asked=target.builder, tensorrt=tensorrt, minimum=minimum),
        options=BuildOptions(
            dla_core=int(options["dla"]) if "dla" in options else None,
            gpu_fallback="no-gpu-fallback" not in options,
            fp16="no-fp16" not in options,
        ),
        needed_bytes=mebibytes(needed),
        restamped_from=parse_tensorrt(wrote) if wrote[:1].isdigit() else None,
        accept_restamped="accept-restamped" in options,
        cache=cache,
        release=release,
        model_bytes=mebibytes(model),
        host=host[0] if host else None,
        platforms=PLATFORMS,
        signed="signed" in more or "signed-for" in more,
        signed_for=(more["signed-for"],) if "signed-for" in more else None,
    )


@pytest.mark.parametrize("row", ROWS, ids=[row["what"] for row in ROWS])
def test_a_pairing_has_exactly_the_findings_of_the_table(row: Row) -> None:
    found = [f"{one.severity.value}:{one.rule}" for one in check_pairing(pairing_of(row))]
    assert sorted(found) == sorted(row["expected"].split())


def test_the_table_holds_at_least_60_pairings_no_two_alike() -> None:
    assert len(ROWS) >= 60
    assert len({row["what"] for row in ROWS}) == len(ROWS)
    without_name = {tuple(value for key, value in row.items() if key != "what") for row in ROWS}
    assert len(without_name) == len(ROWS)


def test_the_table_has_a_row_for_every_rule() -> None:
    expected = {word.partition(":")[2] for row in ROWS for word in row["expected"].split()}
    assert expected == {*RULES, *CACHE_RULES}


def test_a_thousand_targets_are_judged_within_a_second() -> None:
    pairs = list(itertools.islice(itertools.cycle(map(pairing_of, ROWS)), 1000))
    began = time.process_time()
    assert sum(len(check_pairing(pair)) for pair in pairs) > 1000
    assert time.process_time() - began < 1


def test_every_finding_has_a_message_and_a_remedy_of_one_line_each() -> None:
    for row in ROWS:
        for finding in check_pairing(pairing_of(row)):
            assert finding.message
            assert finding.remedy
            assert "\n" not in finding.message + finding.remedy
            assert "None" not in finding.message + finding.remedy


def parses(line: str) -> bool:
    """Tell whether the command line is one that the parser accepts."""
    _, name, *rest = shlex.split(line)
    command: Any = typer.main.get_command(app)
    while name in getattr(command, "commands", ()):
        command = command.commands[name]
        if hasattr(command, "commands"):
            name, *rest = rest
    if hasattr(command, "commands"):
        return False
    if rest:  # a bare name in running text means the command, not a call of it
        command.make_context(name, list(rest)).close()
    return True


def test_every_edgecal_command_of_a_remedy_is_one_that_the_parser_accepts() -> None:
    lines = {
        line
        for row in ROWS
        for finding in check_pairing(pairing_of(row))
        for line in COMMAND.findall(finding.remedy)
    }
    assert {line.split()[1] for line in lines} == {"calibrate", "cache"}
    assert len(lines) > 10
    for line in lines:
        assert parses(line), line


def test_the_ways_out_of_a_minmax_cache_and_of_tensorrt_11_are_named() -> None:
    by_name = {row["what"]: row for row in ROWS}
    for what, rule, named in (
        (
            "MinMax for trtexec",
            "trtexec-reads-entropy2",
            ("cache restamp", "the tensorrt builder", "python3-libnvinfer"),
        ),
        ("10.16 on 11.4", "implicit-int8-removed", ("calibrate --from", "--to qdq", "--fp16")),
        ("Q/DQ pairs for a DLA of TensorRT 8", "dla-takes-caches", ("--from", "--tensorrt 8.5 ")),
        ("Q/DQ pairs in FP16 on 8.5", "tensorrt-version", ("--from", "--tensorrt 8.5 ")),
        ("--no-fp16 for a network in FP16", "types-in-network", ("--tensorrt 11.0 ", "--no-fp16")),
        ("8.5.2 on 8.6.1", "tensorrt-version", ("--tensorrt 8.6 ", "net-8.6.edgecal")),
        ("TX2 although 6.2 is above 6.1", "int8-unsupported", ("--precision fp16",)),
        ("V100 for JetPack 7", "host-gpu-window", ("tensorrt:25.10-py3", "A100")),
        ("Blackwell for JetPack 6", "host-gpu-window", ("tensorrt:24.08-py3", "T4")),
    ):
        (remedy,) = {
            one.remedy for one in check_pairing(pairing_of(by_name[what])) if one.rule == rule
        }
        assert all(word in remedy for word in named), remedy


def test_a_bundle_elsewhere_is_named_as_the_shell_wants_it() -> None:
    pair = pairing_of(next(row for row in ROWS if row["what"] == "10.16 on 11.4"))
    assert pair.cache is not None
    elsewhere = replace(pair, cache=replace(pair.cache, path="my bundles/net.edgecal"))
    (finding,) = check_pairing(elsewhere)
    assert "convert 'my bundles/net.edgecal' --to" in finding.remedy


@pytest.mark.parametrize("slug", sorted({**RULES, **CACHE_RULES, **FRESHNESS_RULES}))
def test_every_rule_says_what_it_weighs_why_from_where_and_the_way_out(slug: str) -> None:
    rules: dict[str, Any] = {**RULES, **CACHE_RULES, **FRESHNESS_RULES}
    explained = explain_rule(slug, rules[slug])
    assert explained.says.endswith(".")
    assert explained.source
    assert explained.remedy
    named = set(re.findall(r"\b(error|warning|note)\b", explained.severity))
    given = {
        word.partition(":")[0]
        for row in ROWS
        for word in row["expected"].split()
        if word.partition(":")[2] == slug
    }
    assert named
    assert given <= named, f"{slug} gives {given - named}, which its docstring does not say"
    # the slug is what the function is called, so that one finds the other
    if slug not in FRESHNESS_RULES:
        assert rules[slug].__name__ == slug.replace("-", "_")
