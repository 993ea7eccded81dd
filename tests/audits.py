"""Targets, releases and bundles as an audit finds them."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from edgecal.core.manifest import CACHE_FILE, MODEL_FILE, Digest
from edgecal.core.target import BuilderFact, Target, TargetFacts
from edgecal.core.target_state import ActiveRelease, BundleFacts, LastFacts, TargetState
from edgecal.core.versions import parse_tensorrt

SEEN = datetime(2026, 11, 21, 12, 0, tzinfo=timezone.utc)
TRTEXEC = "/usr/src/tensorrt/bin/trtexec"


def digest(letter: str) -> Digest:
    return Digest(f"sha256:{letter * 64}")


def facts(
    tensorrt: str | None, *, module: str | None = None, l4t: str | None = None
) -> TargetFacts:
    version = parse_tensorrt(tensorrt) if tensorrt else None
    return TargetFacts(
        root="/home/nvidia/.edgecal",
        is_jetson=True,
        tensorrt=version,
        builders=(BuilderFact(name="trtexec", path=TRTEXEC, tensorrt=version),) if version else (),
        module=module,
        l4t=l4t,
        jetpack="5.1.2",
        gpu_access=True,
        power_mode="MAXN",
    )


def state(
    name: str,
    tensorrt: str | None = "8.5.2.2",
    *active: ActiveRelease,
    module: str | None = "agx-xavier",
    l4t: str | None = "35.4.1",
) -> TargetState:
    return TargetState(
        last=LastFacts(
            target=Target(name=name, host=name),
            facts=facts(tensorrt, module=module, l4t=l4t),
            seen=SEEN,
            live=True,
        ),
        active=active,
    )


RECORD: dict[str, Any] = {
    "bundle": {
        "name": "net-8.5",
        "manifest": digest("1"),
        "tensorrt": "8.5.2",
        "created": "2026-11-01T00:00:00+00:00",
    },
    "cache": {"bundled": digest("c"), "built_from": digest("d")},
    "builder": {"name": "trtexec", "path": TRTEXEC, "tensorrt": "8.5.2"},
    "engine": {"file": "model.engine", "digest": digest("e")},
    "files": {MODEL_FILE: digest("a"), CACHE_FILE: digest("d")},
}
FOUND: dict[str, Digest | None] = {
    "model.engine": digest("e"),
    MODEL_FILE: digest("a"),
    CACHE_FILE: digest("d"),
}
BUNDLE = BundleFacts(
    name="net-8.5",
    path="out/net-8.5.edgecal",
    tensorrt=parse_tensorrt("8.5.2"),
    manifest=digest("1"),
    network=digest("a"),
    files={MODEL_FILE: digest("a"), CACHE_FILE: digest("c")},
)


def release(record: dict[str, Any] | None = RECORD, **found: Digest | None) -> ActiveRelease:
    changed = {key.replace("__", "."): value for key, value in found.items()}
    return ActiveRelease(
        model="net-8.5", release="0123456789abcdef", record=record, found={**FOUND, **changed}
    )
