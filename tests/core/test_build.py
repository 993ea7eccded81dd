from __future__ import annotations

from dataclasses import replace

import pytest

from edgecal.core.build import (
    BuildOptions,
    BuildRequest,
    BuildResult,
    Proof,
    ShapeRange,
    count_entries,
    release_id,
    span_of,
    split_log,
    with_pairs,
)
from edgecal.core.manifest import digest_of
from edgecal.core.target import BuilderFact, TargetFacts
from edgecal.core.versions import parse_tensorrt

FACTS = TargetFacts(root="/r", is_jetson=True, module="agx-xavier")
BUILDER = BuilderFact(name="trtexec", path="/t", tensorrt=parse_tensorrt("8.5.2.2"))


def identity(**changes: object) -> str:
    given: dict[str, object] = {
        "manifest": digest_of(b"manifest"),
        "builder": BUILDER,
        "facts": FACTS,
        "options": BuildOptions(),
        **changes,
    }
    return release_id(**given)  # type: ignore[arg-type]


def test_a_release_is_named_by_all_that_decides_its_engine_and_nothing_else() -> None:
    base = identity()
    assert len(base) == 16
    assert int(base, 16) >= 0
    others = [
        identity(manifest=digest_of(b"other")),
        identity(builder=replace(BUILDER, name="onnxruntime")),
        identity(builder=replace(BUILDER, tensorrt=parse_tensorrt("8.5.2.3"))),
        identity(facts=replace(FACTS, module="orin-nx-16gb")),
        identity(options=BuildOptions(dla_core=0)),
        identity(options=BuildOptions(fp16=False)),
        identity(options=BuildOptions(precision="fp16")),
        identity(options=BuildOptions(workspace_mib=512)),
        identity(options=BuildOptions(layout="deepstream")),
        identity(
            options=BuildOptions(profile=(("x", ShapeRange((1, 3), (1, 3), (2, 3))),)),
        ),
        identity(again="2026-11-21T12:00:00Z"),
    ]
    assert len({base, *others}) == 1 + len(others)
    assert identity(builder=replace(BUILDER, path="/elsewhere")) == base
    assert identity(facts=replace(FACTS, disk_free_bytes=1)) == base


@pytest.mark.parametrize(
    ("types", "proof", "said"),
    [
        (None, Proof.NOT_APPLICABLE, "does not list the engine's layers"),
        ({"Float": 3, "Half": 9}, Proof.UNPROVEN, "none of the 12 layers"),
        ({"Float": 1, "Int8": 5}, Proof.PROVED, "5 of the 6 layers"),
    ],
)
def test_int8_of_a_network_with_pairs_is_proved_by_the_types_of_its_layers(
    types: dict[str, int] | None, proof: Proof, said: str
) -> None:
    read = BuildResult(
        proof=Proof.REFUTED, reason="of a cache", used=(), missing=("a",), precisions=types
    )
    result = with_pairs(read)
    assert result.proof is proof
    assert said in result.reason
    assert (result.used, result.missing, result.unused) == (None, None, None)
    assert result.precisions == types


def test_counts_are_unknown_where_the_log_does_not_say() -> None:
    result = BuildResult(proof=Proof.PROVED, reason="", used=("a", "b"), missing=())
    assert count_entries(result) == {"used": 2, "missing": 0, "unused": None}


def test_an_option_left_at_its_default_names_no_other_release() -> None:
    # an edgecal with more options has to know the releases of one with fewer
    assert identity(options=BuildOptions()) == "8ea1c889371c16ae"


def test_lines_end_at_line_feeds_alone_and_any_byte_survives() -> None:
    data = "a\x0cb\u2028c\r\n".encode() + b"\xff\n\nend"
    lines = list(split_log(data))
    assert lines == ["a\x0cb\u2028c", "\udcff", "", "end"]
    assert list(split_log(b"")) == []


def test_only_dynamic_inputs_have_a_profile_and_by_default_that_of_the_golden_inputs() -> None:
    span = ShapeRange((1, 3), (2, 3), (4, 3))
    request = BuildRequest(
        builder=BUILDER,
        options=BuildOptions(profile=(("a", span),)),
        shapes={
            "a": span_of([(1, 3)]),
            "b": span_of([(1, 5), (4, 2), (1, 5)]),
            "fixed": span_of([(7,)]),
        },
        dynamic=frozenset({"a", "b"}),
        outputs=("y",),
        model_file="model.onnx",
        cache_file=None,
    )
    assert request.profile() == {"a": span, "b": ShapeRange((1, 2), (1, 5), (4, 5))}
