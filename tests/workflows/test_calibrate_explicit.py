"""Bundles of form `qdq`: one pass with caches beside them, and out of each other without any."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper

from edgecal.adapters.bundle import read_bundle
from edgecal.adapters.onnx_model import read_model
from edgecal.adapters.ort_backend import OrtBackend
from edgecal.adapters.qdq import write_qdq
from edgecal.cli.wiring import bundling, datasets
from edgecal.core.cache import parse_cache
from edgecal.core.golden import parse_golden
from edgecal.core.manifest import CACHE_FILE, GOLDEN_FILE, HISTOGRAMS_FILE, MODEL_FILE, QDQ_FILE
from edgecal.core.quant import cosine
from edgecal.core.versions import parse_tensorrt
from edgecal.errors import BundleError, InputError
from edgecal.workflows.calibrate import RecordedData, calibrate, recalibrate
from edgecal.workflows.collect import CalibrateOptions
from tests.networks import conv_net, floats, network, save, tensor

if TYPE_CHECKING:
    from pathlib import Path

    from edgecal.adapters.bundle import Bundle

SAMPLES = floats(24, 3, 8, 8)


def silent(_what: str, _done: int, _total: int) -> None:
    """Tell nobody."""


class Desk:
    """A network, data, and bundles made of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        save(conv_net(), folder / "net.onnx")
        np.save(folder / "data.npy", SAMPLES)

    def full(self, *versions: str, fp16: bool = True) -> list[Bundle]:
        """Go through the data."""
        model = read_model(self.folder / "net.onnx")
        data = str(self.folder / "data.npy")
        source = datasets.open_dataset(
            data, model.graph.inputs, preprocess=None, skip_unreadable=False, limit=None
        )
        statistics, made = calibrate(
            OrtBackend(model),
            source,
            [parse_tensorrt(version) for version in versions],
            CalibrateOptions(algorithm="minmax", fp16=fp16),
            silent,
        )
        return [
            bundling.save_bundle(
                self.folder / f"full-{one.tensorrt.major_minor}.edgecal",
                network=model,
                data=data,
                source=source,
                statistics=statistics,
                calibration=one,
            )
            for one in made
        ]

    def derived(self, parent: Bundle, *versions: str, fp16: bool = True) -> list[Bundle]:
        """Do without data."""
        model = read_model(parent.path / MODEL_FILE)
        statistics, made = recalibrate(
            OrtBackend(model),
            parent,
            [parse_tensorrt(version) for version in versions],
            CalibrateOptions(algorithm="minmax", fp16=fp16),
            silent,
            source=str(parent.path),
        )
        return [
            bundling.save_bundle(
                self.folder / f"derived-{one.tensorrt.major_minor}.edgecal",
                network=model,
                data="data.npy",
                source=RecordedData(kind="npy"),
                statistics=statistics,
                calibration=one,
            )
            for one in made
        ]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def files_of(bundle: Bundle) -> list[str]:
    return sorted(one.name for one in bundle.path.iterdir())


def has_float16(bundle: Bundle) -> bool:
    proto = onnx.load(bundle.path / QDQ_FILE)
    return any(one.data_type == onnx.TensorProto.FLOAT16 for one in proto.graph.initializer)


class TestABundleIsRefused:
    def test_whose_network_has_no_place_for_a_pair(self, tmp_path: Path) -> None:
        nodes = [helper.make_node("Exp", ["x"], ["y"])]
        made = network(nodes, [tensor("x", ["n", 4])], [tensor("y", ["n", 4])])
        model = read_model(save(made, tmp_path / "net.onnx"))
        np.save(tmp_path / "data.npy", floats(16, 4))
        source = datasets.open_dataset(
            str(tmp_path / "data.npy"),
            model.graph.inputs,
            preprocess=None,
            skip_unreadable=False,
            limit=None,
        )
        with pytest.raises(InputError, match="no place for a Q/DQ pair"):
            calibrate(
                OrtBackend(model),
                source,
                [parse_tensorrt("11.0")],
                CalibrateOptions(algorithm="minmax"),
                silent,
            )

    def test_whose_network_with_the_scales_is_damaged_or_gone(self, desk: Desk) -> None:
        (bundle,) = desk.full("11.0")
        file = bundle.path / QDQ_FILE
        whole = file.read_bytes()
        file.write_bytes(whole[:-1])
        with pytest.raises(BundleError, match="the bundle is corrupt: manifest says"):
            read_bundle(bundle.path)
        file.unlink()
        with pytest.raises(BundleError, match="this file is missing"):
            read_bundle(bundle.path)

    @pytest.mark.parametrize(("version", "name"), [("11.0", QDQ_FILE), ("8.5", CACHE_FILE)])
    def test_whose_manifest_does_not_list_its_scales(
        self, desk: Desk, version: str, name: str
    ) -> None:
        (bundle,) = desk.full(version)
        manifest = bundle.path / "manifest.json"
        manifest.write_text(manifest.read_text().replace(f'"{name}"', '"other"'))
        with pytest.raises(BundleError, match=f"lists no {name}"):
            read_bundle(bundle.path)


def test_one_pass_gives_caches_and_a_network_of_the_same_scales(desk: Desk) -> None:
    old, new = desk.full("8.5.2", "11.0.0")
    assert (old.manifest.form, new.manifest.form) == ("cache", "qdq")
    assert old.manifest.explicit is None
    own = sorted([MODEL_FILE, "manifest.json", GOLDEN_FILE, HISTOGRAMS_FILE])
    assert files_of(old) == sorted([*own, CACHE_FILE])
    assert files_of(new) == sorted([*own, QDQ_FILE])
    given = (desk.folder / "net.onnx").read_bytes()
    assert (new.path / MODEL_FILE).read_bytes() == given
    scales = parse_cache((old.path / CACHE_FILE).read_bytes()).scales()
    network_, placed = write_qdq(read_model(old.path / MODEL_FILE), scales, fp16=True)
    assert (new.path / QDQ_FILE).read_bytes() == network_
    explicit = new.manifest.explicit
    assert explicit is not None
    assert (explicit.activations, explicit.weights) == (len(placed.activations), 2)
    assert read_bundle(new.path).manifest == new.manifest


def test_what_is_not_quantized_is_float16_unless_that_is_forbidden(desk: Desk) -> None:
    explicit = []
    for fp16 in (True, False):
        (bundle,) = desk.full("11.0", fp16=fp16)
        assert has_float16(bundle) is fp16
        explicit.append(bundle.manifest.explicit)
    assert [one and (one.fp16, str(one.minimum_tensorrt)) for one in explicit] == [
        (True, "10.0.0"),
        (False, "8.0.0"),
    ]


def test_the_network_gives_what_its_golden_runs_were_simulated_to_give(desk: Desk) -> None:
    import onnxruntime

    for fp16, close in ((False, 1e-6), (True, 1e-3)):
        (bundle,) = desk.full("11.0", fp16=fp16)
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        session = onnxruntime.InferenceSession(
            str(bundle.path / QDQ_FILE), options, providers=["CPUExecutionProvider"]
        )
        for run in parse_golden((bundle.path / GOLDEN_FILE).read_bytes(), source="golden"):
            (scores,) = session.run(None, dict(run.inputs))
            assert scores.dtype == np.float32
            assert 1 - cosine(run.int8["scores"], np.asarray(scores)) < close
            assert not np.array_equal(run.int8["scores"], run.fp32["scores"])


def test_either_form_comes_out_of_the_other_without_data(desk: Desk) -> None:
    old, new = desk.full("10.3.0", "11.0.0")
    (desk.folder / "data.npy").unlink()
    (to_new,) = desk.derived(old, "11.0.0")
    (to_old,) = desk.derived(new, "10.3.0")
    assert (to_new.path / QDQ_FILE).read_bytes() == (new.path / QDQ_FILE).read_bytes()
    assert (to_old.path / CACHE_FILE).read_bytes() == (old.path / CACHE_FILE).read_bytes()
    assert to_old.manifest.explicit is None
    assert to_new.manifest.derived_from == old.manifest_digest
    (single,) = desk.derived(to_new, "11.0.0", fp16=False)
    assert not has_float16(single)


def test_every_version_from_11_on_is_of_that_form_and_none_before(desk: Desk) -> None:
    (parent,) = desk.full("8.5.2")
    made = desk.derived(parent, "7.1.3", "10.16.2", "11.0.0", "11.4.1", "12.0.0")
    assert [one.manifest.form for one in made] == ["cache", "cache", "qdq", "qdq", "qdq"]
