from __future__ import annotations

from dataclasses import replace

from edgecal.core.build import BuildOptions, BuildResult, Proof, count_entries, release_id
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
        identity(again="2026-11-21T12:00:00Z"),
    ]
    assert len({base, *others}) == 1 + len(others)
    assert identity(builder=replace(BUILDER, path="/elsewhere")) == base
    assert identity(facts=replace(FACTS, disk_free_bytes=1)) == base


def test_counts_are_unknown_where_the_log_does_not_say() -> None:
    result = BuildResult(proof=Proof.PROVED, reason="", used=("a", "b"), missing=())
    assert count_entries(result) == {"used": 2, "missing": 0, "unused": None}
