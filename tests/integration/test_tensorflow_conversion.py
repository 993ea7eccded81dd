"""The commands shown for networks of TensorFlow are run, and what they write is calibrated."""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgecal.adapters.onnx_model import read_model
from edgecal.adapters.ort_backend import OrtBackend
from edgecal.core.tensors import activations
from edgecal.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

MAKE = """
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

image = tf.keras.Input((16, 16, 3), name="image")
x = tf.keras.layers.Conv2D(4, 3, padding="same")(image)
x = tf.keras.layers.BatchNormalization()(x)
x = tf.keras.layers.GlobalAveragePooling2D()(tf.keras.layers.ReLU()(x))
net = tf.keras.Model(image, tf.keras.layers.Dense(5, activation="softmax")(x))
net.export("saved")
net.save("net.h5")
net.save("net.keras")
with open("net.tflite", "wb") as file:
    file.write(tf.lite.TFLiteConverter.from_keras_model(net).convert())
spec = tf.TensorSpec([None, 16, 16, 3], tf.float32, name="image")
traced = tf.function(lambda image: net(image)).get_concrete_function(spec)
frozen = convert_variables_to_constants_v2(traced).graph.as_graph_def()
with open("frozen.pb", "wb") as file:
    file.write(frozen.SerializeToString())
x = np.random.default_rng(0).random((2, 16, 16, 3)).astype("f")
np.savez("known.npz", x=x, y=net(x).numpy())
"""

missing = [name for name in ("tensorflow", "tf2onnx") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(
    bool(missing), reason=f"needs the extra 'tensorflow': no {', '.join(missing)}"
)


def run(words: list[str], folder: Path) -> None:
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, **quiet},
        check=True,
        capture_output=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tensorflow")
    run(["-c", MAKE], made)
    return made


@pytest.mark.parametrize("name", ["saved", "frozen.pb", "net.h5", "net.keras", "net.tflite"])
def test_the_command_shown_gives_the_same_network(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError) as caught:
        read_model(folder / name)
    command = caught.value.remedy.partition("; python ")[2].partition(" (of the float")[0]
    words = shlex.split(command)
    run(words, folder)
    monkeypatch.chdir(folder)
    backend = OrtBackend(read_model(folder / words[words.index("--output") + 1]))
    with np.load(folder / "known.npz") as file:
        known = dict(file)
    (image,) = backend.graph.inputs
    found = backend.expose(activations(backend.graph)).run({image.name: known["x"]})
    (scores,) = backend.graph.outputs
    assert np.allclose(found[scores.name], known["y"], atol=1e-5)
