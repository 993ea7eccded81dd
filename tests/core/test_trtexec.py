from __future__ import annotations

from dataclasses import replace

import pytest

from edgecal.core.build import BuildOptions, BuildRequest, ShapeRange, span_of
from edgecal.core.target import BuilderFact
from edgecal.core.trtexec import bench_argv, build_argv, run_argv
from edgecal.core.versions import parse_tensorrt
from edgecal.errors import BuildError, IncompatibleError

SHAPES = {"input:0": (1, 3, 8, 8), "mask": (1, 4)}


def request(
    version: str | None,
    options: BuildOptions | None = None,
    *,
    dynamic: bool = False,
    cache_file: str | None = "calibration.cache",
    fp16_layers: tuple[str, ...] = (),
    timing_cache: str | None = None,
) -> BuildRequest:
    tensorrt = parse_tensorrt(version) if version else None
    return BuildRequest(
        builder=BuilderFact(
            name="trtexec", path="/usr/src/tensorrt/bin/trtexec", tensorrt=tensorrt
        ),
        options=options or BuildOptions(),
        shapes={"input:0": span_of([(1, 3, 8, 8)]), "mask": span_of([(1, 4)])},
        dynamic=frozenset({"input:0"} if dynamic else ()),
        outputs=("out",),
        model_file="model.onnx",
        cache_file=cache_file,
        fp16_layers=fp16_layers,
        timing_cache=timing_cache,
    )


def test_no_flag_is_safe_for_an_unknown_version() -> None:
    with pytest.raises(BuildError, match="not known"):
        build_argv(request(None))


def test_what_a_version_cannot_do_is_refused_with_the_way_out() -> None:
    layers = ("conv1",)
    with pytest.raises(IncompatibleError, match=r"came with 8\.4") as caught:
        build_argv(request("8.2.1", fp16_layers=layers))
    assert "--builder tensorrt" in caught.value.remedy
    with pytest.raises(IncompatibleError, match="forbids FP16"):
        build_argv(request("8.5.2", BuildOptions(fp16=False), fp16_layers=layers))
    for name in ("a,b", "it's"):
        with pytest.raises(IncompatibleError, match="takes names apart"):
            build_argv(request("8.5.2", fp16_layers=(name,)))
    with pytest.raises(IncompatibleError, match="TensorRT 11 removed them") as caught:
        build_argv(request("11.4.1"))
    assert "--tensorrt 11.4" in caught.value.remedy
    with pytest.raises(IncompatibleError, match="no flag for FP16"):
        build_argv(request("11.4.1", BuildOptions(precision="fp16"), cache_file=None))


@pytest.mark.parametrize(
    ("version", "skip", "workspace", "explicit"),
    [
        ("7.1.3", "--buildOnly", "--workspace=512", True),
        ("8.2.1", "--buildOnly", "--workspace=512", False),
        ("8.4.1", "--buildOnly", "--memPoolSize=workspace:512", False),
        ("8.5.2", "--buildOnly", "--memPoolSize=workspace:512", False),
        ("8.6.2", "--skipInference", "--memPoolSize=workspace:512", False),
        ("10.3.0", "--skipInference", "--memPoolSize=workspace:512", False),
    ],
)
def test_flags_follow_the_version(
    version: str, skip: str, workspace: str, *, explicit: bool
) -> None:
    argv = build_argv(request(version, BuildOptions(workspace_mib=512), timing_cache="/r/t.cache"))
    assert argv[0] == "/usr/src/tensorrt/bin/trtexec"
    assert {"--onnx=model.onnx", "--int8", "--calib=calibration.cache", "--fp16"} <= set(argv)
    assert {skip, workspace} <= set(argv)
    assert ("--explicitBatch" in argv) is explicit
    assert {"--buildOnly", "--skipInference"} & set(argv) == {skip}
    assert ("--timingCacheFile=/r/t.cache" in argv) is (version != "7.1.3")


def test_an_fp16_build_names_neither_int8_nor_the_cache() -> None:
    argv = build_argv(
        request(
            "8.2.1",
            BuildOptions(precision="fp16", fp16=False),
            cache_file=None,
            dynamic=True,
            fp16_layers=("conv1",),
        )
    )
    assert "--fp16" in argv
    assert not any("int8" in word.lower() or "alib" in word for word in argv)
    assert not any("layerPrecisions" in word for word in argv)


def test_a_network_with_pairs_of_its_own_needs_no_cache() -> None:
    layers = ("conv1",)  # of a list for caches: here the network says what stays out of INT8
    weak = build_argv(request("8.6.2", cache_file=None, dynamic=True, fp16_layers=layers))
    assert {"--int8", "--fp16"} <= set(weak)
    assert "--stronglyTyped" not in weak
    plain = build_argv(request("8.0.1", BuildOptions(fp16=False), cache_file=None))
    assert "--int8" in plain
    assert "--fp16" not in plain
    for version in ("9.3.0", "10.3.0", "10.16.2", "11.0.0", "11.4.1"):
        strong = build_argv(request(version, cache_file=None, dynamic=True, fp16_layers=layers))
        assert "--stronglyTyped" in strong
        assert not {"--int8", "--fp16"} & set(strong)
        for word in (*weak, *strong):
            assert "alib" not in word
            assert "recision" not in word
    assert "--stronglyTyped" not in build_argv(request("10.3.0"))
    fp16 = BuildOptions(precision="fp16")
    assert "--stronglyTyped" not in build_argv(request("10.3.0", fp16, cache_file=None))


def test_fp16_and_dla_are_asked_for_as_wanted() -> None:
    plain = build_argv(request("8.5.2", BuildOptions(fp16=False)))
    assert "--fp16" not in plain
    assert not any("DLA" in word for word in plain)
    dla = build_argv(request("8.5.2", BuildOptions(dla_core=1)))
    assert {"--useDLACore=1", "--allowGPUFallback"} <= set(dla)
    strict = build_argv(request("8.5.2", BuildOptions(dla_core=0, gpu_fallback=False)))
    assert "--allowGPUFallback" not in strict


def test_layers_kept_in_fp16_are_listed_strictly_unless_the_dla_decides() -> None:
    layers = ("conv1", "model/head:0")
    argv = build_argv(request("8.4.1", fp16_layers=layers))
    assert "--layerPrecisions=conv1:fp16,'model/head:0':fp16" in argv
    assert "--precisionConstraints=obey" in argv
    argv = build_argv(request("8.4.1", BuildOptions(dla_core=0), fp16_layers=layers))
    assert "--precisionConstraints=prefer" in argv


def test_dynamic_inputs_get_one_shape_and_names_with_colons_stand_in_quotes() -> None:
    argv = build_argv(request("8.5.2", dynamic=True))
    assert "--optShapes='input:0':1x3x8x8" in argv
    assert "--maxShapesCalib='input:0':1x3x8x8" in argv
    run = run_argv(
        request("8.5.2", dynamic=True),
        inputs={"input:0": "a.bin", "mask": "b.bin"},
        shapes=SHAPES,
        output="o",
    )
    assert "--loadInputs='input:0':a.bin,mask:b.bin" in run
    assert "--shapes='input:0':1x3x8x8" in run
    assert "--exportOutput=o" in run
    assert not any("Shapes" in word for word in build_argv(request("8.5.2")))


def test_a_profile_spans_the_shapes_and_calibration_stays_at_the_usual_one() -> None:
    span = ShapeRange((1, 3, 8, 8), (4, 3, 8, 8), (8, 3, 8, 8))
    options = BuildOptions(profile=(("input:0", span),))
    argv = build_argv(request("8.5.2", options, dynamic=True))
    assert "--minShapes='input:0':1x3x8x8" in argv
    assert "--maxShapes='input:0':8x3x8x8" in argv
    assert "--minShapesCalib='input:0':4x3x8x8" in argv
    # it is run with the golden samples all the same
    run = run_argv(
        request("8.5.2", options, dynamic=True), inputs={"input:0": "a"}, shapes=SHAPES, output="o"
    )
    assert "--shapes='input:0':1x3x8x8" in run


def test_latency_is_measured_over_many_runs() -> None:
    argv = bench_argv(
        request("8.5.2", BuildOptions(dla_core=0)),
        inputs={"x": "a"},
        shapes={"x": (1,)},
        output="t",
    )
    assert {"--exportTimes=t", "--loadInputs=x:a", "--useDLACore=0", "--duration=5"} <= set(argv)
    assert not any("exportOutput" in word for word in argv)


def test_an_engine_spans_the_golden_samples_and_each_run_has_its_own_shape() -> None:
    varied = span_of([(1, 3, 8, 8), (2, 3, 6, 9), (2, 3, 6, 9)])
    asked = replace(request("8.5.2", dynamic=True), shapes={"input:0": varied})
    argv = build_argv(asked)
    for flag in ("min=1x3x6x8", "opt=2x3x6x9", "max=2x3x8x9"):
        which, _, shape = flag.partition("=")
        assert f"--{which}Shapes='input:0':{shape}" in argv
    assert "--maxShapesCalib='input:0':2x3x6x9" in argv
    for sizes in ((1, 3, 8, 8), (2, 3, 6, 9)):
        run = run_argv(asked, inputs={"input:0": "a"}, shapes={"input:0": sizes}, output="o")
        assert f"--shapes='input:0':{'x'.join(map(str, sizes))}" in run
