"""What is settled before a push: shapes over all golden runs, and numbers that an engine takes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgecal.adapters.tables import load_platforms
from edgecal.adapters.trtexec_builder import TrtexecBuilder
from edgecal.core.build import BuildOptions, ShapeRange
from edgecal.core.golden import GoldenRun, serialize_golden
from edgecal.core.manifest import CACHE_FILE, GOLDEN_FILE, MANIFEST_FILE, TensorRecord
from edgecal.core.probes import parse_probe
from edgecal.core.target import BuilderFact
from edgecal.core.versions import parse_tensorrt
from edgecal.errors import BundleError, IncompatibleError
from edgecal.workflows.job_files import GOLDEN_SPEC
from edgecal.workflows.plan import Plan, make_plan
from edgecal.workflows.rebuild import StoredBundle
from tests.bundles import make_bundles

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from edgecal.adapters.bundle import Bundle

FACTS = parse_probe(
    "edgecal:schema=1\nedgecal:root=/home/me/.edgecal\nedgecal:probe=complete\n",
    load_platforms(),
    source="here",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundles(tmp_path_factory.mktemp("bundles"), "8.5.2")[0]


def plan(
    made: Bundle,
    samples: Sequence[npt.NDArray[np.generic]],
    declared: tuple[int, ...],
    *,
    version: str = "8.5.2",
    dla_core: int | None = None,
) -> Plan:
    """Plan a build of a network whose one input had these golden samples."""
    record = TensorRecord(name="x", dtype=str(samples[0].dtype), shape=declared)
    manifest = replace(made.manifest, model=replace(made.manifest.model, inputs=(record,)))
    answer = np.zeros((1, 2), np.float32)
    runs = [
        GoldenRun(inputs={"x": value}, fp32={"y": answer}, int8={"y": answer}) for value in samples
    ]
    bundle = StoredBundle(
        where="here",
        manifest=manifest,
        manifest_digest=made.manifest_digest,
        contents={
            MANIFEST_FILE: b"{}",
            GOLDEN_FILE: serialize_golden(runs),
            CACHE_FILE: (made.path / CACHE_FILE).read_bytes(),
        },
    )
    return make_plan(
        bundle,
        BuilderFact(name="trtexec", path="trtexec", tensorrt=parse_tensorrt(version)),
        TrtexecBuilder(),
        facts=FACTS,
        options=BuildOptions(dla_core=dla_core),
        name="net",
    )


def contents(made: Plan, name: str) -> bytes:
    with made.files[name].open() as stream:
        return stream.read()


def pictures(*shapes: tuple[int, ...]) -> list[npt.NDArray[np.generic]]:
    return [np.zeros(shape, np.float32) for shape in shapes]


def test_a_dla_takes_no_golden_samples_that_vary(made: Bundle) -> None:
    with pytest.raises(IncompatibleError, match="no dynamic dimensions"):
        plan(made, pictures((1, 4), (2, 4)), (-1, 4), dla_core=0)
    plan(made, pictures((2, 4), (2, 4)), (-1, 4), dla_core=0)


def test_golden_samples_of_other_ranks_are_a_damaged_bundle(made: Bundle) -> None:
    with pytest.raises(BundleError, match="number of dimensions at input 'x'"):
        plan(made, pictures((1, 4), (1, 4, 1)), (-1, 4))


def test_an_engine_takes_every_golden_sample_and_each_runs_in_its_own_shape(made: Bundle) -> None:
    planned = plan(made, pictures((1, 6), (3, 4), (3, 4)), (-1, -1))
    assert planned.request.profile() == {"x": ShapeRange((1, 4), (3, 4), (3, 6))}
    assert "--minShapes=x:1x4" in planned.argv
    assert "--maxShapes=x:3x6" in planned.argv
    argvs = planned.kind.run_argvs(planned.request, planned.runs, "out")
    shown = [word for argv in argvs for word in argv if word.startswith("--shapes")]
    assert shown == ["--shapes=x:1x6", "--shapes=x:3x4", "--shapes=x:3x4"]


def test_numbers_beyond_int32_are_refused_where_there_is_no_int64(made: Bundle) -> None:
    large = [np.asarray([[2**31]], np.int64)]
    with pytest.raises(IncompatibleError, match="beyond INT32"):
        plan(made, large, (1, 1))
    plan(made, large, (1, 1), version="10.3.0")


def test_tensorrt_before_10_gets_int64_inputs_as_int32(made: Bundle) -> None:
    tokens = [np.asarray([[1, -(2**31), 7]], np.int64)]
    old, new = (plan(made, tokens, (1, 3), version=one) for one in ("8.5.2", "10.3.0"))
    assert contents(old, old.runs[0].inputs["x"]) == tokens[0].astype("<i4").tobytes()
    assert contents(new, new.runs[0].inputs["x"]) == tokens[0].astype("<i8").tobytes()
    # who reads the description converts by itself, and a rebuild gets back what there was
    for one in (old, new):
        (((described,),),) = (json.loads(contents(one, GOLDEN_SPEC)),)
        assert described["dtype"] == "<i8"
        assert contents(one, described["file"]) == tokens[0].astype("<i8").tobytes()
