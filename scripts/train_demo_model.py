"""Train the demo network and write the pictures that ship with it in `edgecal/demo_data`.

Needs torch (CPU), onnx, onnxruntime, numpy and opencv-python-headless, and Fashion-MNIST, which
Debian packages as `dataset-fashion-mnist`. Everything is seeded. The archive of pictures comes out
the same, byte for byte, with the same OpenCV; the weights may differ between CPUs and releases of
torch, because floating-point sums are then taken in another order.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import sys
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

DEBIAN_DATA: Final = Path("/usr/share/datasets/fashion-mnist")
DEMO_DATA: Final = Path(__file__).resolve().parent.parent / "edgecal" / "demo_data"

SEED: Final = 20170825
THREADS: Final = 2  # fixed: the number of threads decides the order of sums, so the weights
BATCH: Final = 128
PEAK_LEARNING_RATE: Final = 0.1
SHIFT: Final = 2  # pixels a training picture may move, each way
TOLERANCE: Final = 1e-4  # largest difference of a logit, PyTorch to ONNX Runtime

# Mean 0.2860 and deviation 0.3530 of the training set, in steps of a pixel; one spelling of each,
# used by the training and written to preprocess.toml.
MEAN: Final = 72.93  # 0.2860 * 255
SCALE: Final = 0.01110926  # 1 / (0.3530 * 255)

SIDE: Final = 28
CLASSES: Final = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
CALIBRATION_COUNT: Final = 256
TEST_COUNT: Final = 1000

OPSET: Final = 17
IR_VERSION: Final = 8  # what opset 17 came with (onnx 1.12); TensorRT's parser need not be newer

PREPROCESS: Final = f"""\
# What the demo network expects of a picture.
color = "gray"
resize = [{SIDE}, {SIDE}]
mean = [{MEAN}]
scale = [{SCALE}]
layout = "nchw"
dtype = "float32"
"""

NOTICE: Final = """\
# The demo network and its pictures

## Pictures

`fashion.zip` holds pictures of Fashion-MNIST by Zalando SE,
<https://github.com/zalandoresearch/fashion-mnist>, as Debian packages it (`dataset-fashion-mnist`).
Pixels and labels are unchanged; the pictures were chosen with a fixed seed, evenly over the ten
classes, and written as 8-bit grayscale PNG, 28x28.

- `calibration/`: {calibration_count} of the 60,000 pictures of the training set
- `test/`: {test_count} of the 10,000 pictures of the test set
- `labels.csv`: the class of each

In both folders every run of ten pictures that starts at a multiple of ten holds each class once, so
the first pictures of a folder are a fair sample of it too.

## Network

`fashion_cnn.onnx` was trained by `scripts/train_demo_model.py` on the 60,000 pictures of the
training set for {epochs} epochs; it holds the weights of the last one. `preprocess.toml` says what
it expects of a picture. ONNX Runtime on the CPU, in FP32, measures:

| pictures | correct | accuracy |
| --- | --- | --- |
| the test set of Fashion-MNIST | {full_correct} of {full_count} | {full_accuracy:.2%} |
| `test/` of `fashion.zip` | {shipped_correct} of {shipped_count} | {shipped_accuracy:.2%} |

## Licence of Fashion-MNIST

The MIT License (MIT)

Copyright © 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial
portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES
OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


# --- Fashion-MNIST -------------------------------------------------------------------------------


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of unsigned bytes, the format of MNIST.

    Parameters
    ----------
    path : Path

    Returns
    -------
    ndarray of uint8
        Of the shape that the file's header states.

    Raises
    ------
    SystemExit
        If the file is absent or holds anything but unsigned bytes.
    """
    if not path.is_file():
        raise SystemExit(f"{path}: no such file\n  try: apt-get install dataset-fashion-mnist")
    data = gzip.decompress(path.read_bytes())
    if data[:3] != b"\x00\x00\x08":
        raise SystemExit(f"{path}: expected an IDX file of unsigned bytes, found {data[:4]!r}")
    rank = data[3]
    shape = np.frombuffer(data, ">u4", count=rank, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def read_split(folder: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read the pictures, shape (n, 28, 28), and labels, shape (n,), of "train" or "t10k"."""
    images = read_idx(folder / f"{split}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{split}-labels-idx1-ubyte.gz")
    if images.shape != (len(labels), SIDE, SIDE):
        raise SystemExit(f"{folder}: {split} has pictures {images.shape}, labels {labels.shape}")
    return images, labels


def choose_evenly(
    labels: NDArray[np.uint8], *, count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Choose pictures so that each run of ten holds each class once, in random order.

    Parameters
    ----------
    labels : ndarray of uint8, shape (n,)
    count : int
        Need not be a multiple of the number of classes.
    rng : Generator

    Returns
    -------
    ndarray of int64, shape (count,)
        Indices into `labels`.
    """
    of_class = [iter(rng.permutation(np.flatnonzero(labels == c))) for c in range(len(CLASSES))]
    chosen: list[int] = []
    while len(chosen) < count:
        chosen += [int(next(of_class[c])) for c in rng.permutation(len(CLASSES))]
    return np.array(chosen[:count], np.int64)


def preprocess(images: NDArray[np.uint8], *, mean: float, scale: float) -> NDArray[np.float32]:
    """Turn pictures of shape (n, 28, 28) into what the network takes, shape (n, 1, 28, 28)."""
    return ((images[:, None].astype(np.float32) - np.float32(mean)) * np.float32(scale)).astype(
        np.float32
    )


# --- the network in PyTorch ----------------------------------------------------------------------


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where channels change."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut: nn.Conv2d | None = None
        self.shortcut_bn: nn.BatchNorm2d | None = None
        if channels_in != channels_out:
            self.shortcut = nn.Conv2d(channels_in, channels_out, 1, bias=False)
            self.shortcut_bn = nn.BatchNorm2d(channels_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the activation of the block."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.shortcut is not None and self.shortcut_bn is not None:
            x = self.shortcut_bn(self.shortcut(x))
        return functional.relu(x + y)


class FashionCnn(nn.Module):
    """Three residual blocks between a convolution and a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(16)
        self.block1 = Residual(16, 32)
        self.block2 = Residual(32, 32)
        self.block3 = Residual(32, 64)
        self.classifier = nn.Linear(64, len(CLASSES))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits, shape (n, 10), of pictures of shape (n, 1, 28, 28)."""
        x = functional.relu(self.stem_bn(self.stem(image)))
        x = functional.max_pool2d(x, 2)
        x = self.block2(self.block1(x))
        x = functional.max_pool2d(x, 2)
        x = self.block3(x)
        logits: torch.Tensor = self.classifier(x.mean(dim=(2, 3)))
        return logits


# --- training ------------------------------------------------------------------------------------


def augmented_batches(
    images: NDArray[np.uint8], labels: NDArray[np.uint8], *, rng: np.random.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield one epoch in random order, each picture shifted and perhaps mirrored.

    The last, smaller batch is left out: the order is another one in every epoch.
    """
    padded = np.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)))
    order = rng.permutation(len(images))
    for start in range(0, len(images) - BATCH + 1, BATCH):
        picks = order[start : start + BATCH]
        tops, lefts = rng.integers(0, 2 * SHIFT + 1, size=(2, BATCH, 1))
        rows = tops + np.arange(SIDE)
        columns = lefts + np.arange(SIDE)
        mirrored = rng.random((BATCH, 1)) < 0.5
        columns = np.where(mirrored, columns[:, ::-1], columns)
        batch = padded[picks[:, None, None], rows[:, :, None], columns[:, None, :]]
        yield (
            torch.from_numpy(preprocess(batch, mean=MEAN, scale=SCALE)),
            torch.from_numpy(labels[picks].astype(np.int64)),
        )


def predict(model: FashionCnn, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logits of preprocessed pictures, as PyTorch computes them."""
    model.eval()
    with torch.inference_mode():
        parts = [model(part).numpy() for part in torch.from_numpy(pixels).split(1000)]
    return np.concatenate(parts)


def count_correct(logits: NDArray[np.float32], labels: NDArray[np.uint8]) -> int:
    """Count the pictures whose largest logit is that of their label."""
    return int((logits.argmax(axis=1) == labels).sum())


def train(
    train_set: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    test_set: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    *,
    epochs: int,
) -> FashionCnn:
    """Train with SGD and a one-cycle learning rate; print the test accuracy of every epoch.

    The test set is only looked at: the weights of the last epoch are the result, whatever it says.
    """
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(mode=True)
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    model = FashionCnn().to(memory_format=torch.channels_last)  # a third faster on a CPU
    optimizer = torch.optim.SGD(
        model.parameters(), lr=PEAK_LEARNING_RATE, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=PEAK_LEARNING_RATE,
        total_steps=epochs * (len(train_set[0]) // BATCH),
        pct_start=0.25,
    )
    test_pixels = preprocess(test_set[0], mean=MEAN, scale=SCALE)
    started_s = time.perf_counter()
    for epoch in range(1, epochs + 1):
        model.train()
        losses: list[float] = []
        for pixels, wanted in augmented_batches(*train_set, rng=rng):
            optimizer.zero_grad()
            loss = functional.cross_entropy(
                model(pixels.contiguous(memory_format=torch.channels_last)), wanted
            )
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        correct = count_correct(predict(model, test_pixels), test_set[1])
        print(
            f"epoch {epoch:2}/{epochs}  loss {np.mean(losses):.4f}  "
            f"test accuracy {correct / len(test_pixels):.2%}  "
            f"{time.perf_counter() - started_s:.0f} s",
            flush=True,
        )
    return model.eval()


# --- the network in ONNX -------------------------------------------------------------------------


class OnnxGraph:
    """Nodes and weights under the names that PyTorch gives the modules.

    Why not torch.onnx.export: it folds BatchNormalization into Conv, which a demo of what a builder
    fuses should keep, and its names and doc strings differ from release to release.
    """

    def __init__(self, model: FashionCnn) -> None:
        self._state = model.state_dict()
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, name: str) -> str:
        """Add a parameter of the PyTorch model; return its name."""
        self.weights.append(numpy_helper.from_array(self._state[name].contiguous().numpy(), name))
        return name

    def node(
        self,
        kind: str,
        name: str,
        inputs: Sequence[str],
        *,
        output: str | None = None,
        **attributes: float | list[int],
    ) -> str:
        """Add a node; return its output, called after it unless `output` says otherwise."""
        output = output or f"{name}_out"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=name, **attributes))
        return output

    def conv_bn(self, conv: nn.Conv2d, name: str, bn: nn.BatchNorm2d, bn_name: str, x: str) -> str:
        """Add a convolution without bias, then its BatchNormalization."""
        kernel = list(conv.kernel_size)
        x = self.node(
            "Conv",
            name,
            [x, self.weight(f"{name}.weight")],
            kernel_shape=kernel,
            pads=[side // 2 for side in kernel * 2],
            strides=[1, 1],
        )
        of_bn = ("weight", "bias", "running_mean", "running_var")
        inputs = [x, *(self.weight(f"{bn_name}.{part}") for part in of_bn)]
        return self.node("BatchNormalization", bn_name, inputs, epsilon=bn.eps)

    def max_pool(self, name: str, x: str) -> str:
        """Add a pooling that halves height and width."""
        return self.node("MaxPool", name, [x], kernel_shape=[2, 2], strides=[2, 2])

    def residual(self, block: Residual, name: str, x: str) -> str:
        """Add a residual block."""
        y = self.conv_bn(block.conv1, f"{name}.conv1", block.bn1, f"{name}.bn1", x)
        y = self.node("Relu", f"{name}.relu1", [y])
        y = self.conv_bn(block.conv2, f"{name}.conv2", block.bn2, f"{name}.bn2", y)
        if block.shortcut is not None and block.shortcut_bn is not None:
            x = self.conv_bn(
                block.shortcut, f"{name}.shortcut", block.shortcut_bn, f"{name}.shortcut_bn", x
            )
        return self.node("Relu", f"{name}.relu2", [self.node("Add", f"{name}.add", [x, y])])


def to_onnx(model: FashionCnn) -> onnx.ModelProto:
    """Write the trained network as ONNX: `image` in, `logits` out, any `batch`."""
    graph = OnnxGraph(model)
    x = graph.conv_bn(model.stem, "stem", model.stem_bn, "stem_bn", "image")
    x = graph.max_pool("pool1", graph.node("Relu", "stem_relu", [x]))
    x = graph.residual(model.block1, "block1", x)
    x = graph.residual(model.block2, "block2", x)
    x = graph.max_pool("pool2", x)
    x = graph.residual(model.block3, "block3", x)
    x = graph.node("GlobalAveragePool", "average", [x])
    x = graph.node("Flatten", "flatten", [x], axis=1)
    classifier = [graph.weight("classifier.weight"), graph.weight("classifier.bias")]
    graph.node("Gemm", "classifier", [x, *classifier], output="logits", transB=1)

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, SIDE, SIDE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(CLASSES)])
    network = helper.make_model(
        helper.make_graph(graph.nodes, "fashion_cnn", [image], [logits], graph.weights),
        producer_name="edgecal",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(network, full_check=True)
    return network


def infer(network: bytes, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logits of preprocessed pictures, as ONNX Runtime computes them on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    steps = range(0, len(pixels), 1000)
    return np.concatenate(
        [session.run(["logits"], {"image": pixels[i : i + 1000]})[0] for i in steps]
    )


# --- the archive of pictures ---------------------------------------------------------------------


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Encode an 8-bit grayscale picture."""
    import cv2

    done, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not done:
        raise SystemExit("OpenCV could not encode a PNG")
    return bytes(data)


def build_archive(
    train_set: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    test_set: tuple[NDArray[np.uint8], NDArray[np.uint8]],
) -> bytes:
    """Choose the pictures that ship and pack them, with their labels, into a zip.

    Entries are sorted, dated 1980-01-01 and stored, PNG being compressed already: the same pictures
    give the same bytes.
    """
    rng = np.random.default_rng(SEED)
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["file", "label", "name"])
    files: dict[str, bytes] = {}
    for folder, (images, labels), count in (
        ("calibration", train_set, CALIBRATION_COUNT),
        ("test", test_set, TEST_COUNT),
    ):
        for number, pick in enumerate(choose_evenly(labels, count=count, rng=rng)):
            name = f"{folder}/{number:05}.png"
            files[name] = encode_png(images[pick])
            rows.writerow([name, int(labels[pick]), CLASSES[labels[pick]]])
    files["labels.csv"] = table.getvalue().encode()

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, on every system
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name])
    return packed.getvalue()


def read_shipped(
    archive_path: Path, preprocess_path: Path
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Read `test/` back from the files that ship: preprocessed pictures, and labels."""
    import cv2

    recipe = tomllib.loads(preprocess_path.read_text(encoding="utf-8"))
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    with zipfile.ZipFile(archive_path) as archive:
        table = archive.read("labels.csv").decode().splitlines()
        for row in csv.DictReader(table):
            if row["file"].startswith("test/"):
                data = np.frombuffer(archive.read(row["file"]), np.uint8)
                images.append(np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8))
                labels.append(int(row["label"]))
    pixels = preprocess(np.stack(images), mean=recipe["mean"][0], scale=recipe["scale"][0])
    return pixels, np.array(labels, np.uint8)


# --- all of it -----------------------------------------------------------------------------------


def main() -> None:
    """Train, write the four files, and measure what was written."""
    parser = argparse.ArgumentParser(description="Train the demo network; write what ships.")
    parser.add_argument("--data", type=Path, default=DEBIAN_DATA, help="folder of Fashion-MNIST")
    parser.add_argument("--out", type=Path, default=DEMO_DATA, help="folder for the files")
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    out: Path = options.out

    train_set = read_split(options.data, "train")
    test_set = read_split(options.data, "t10k")
    model = train(train_set, test_set, epochs=options.epochs)

    network = to_onnx(model).SerializeToString(deterministic=True)
    pixels = preprocess(test_set[0], mean=MEAN, scale=SCALE)
    logits = infer(network, pixels)
    difference = float(np.abs(logits - predict(model, pixels)).max())
    print(f"ONNX Runtime and PyTorch differ by at most {difference:.2e} in a logit")
    if difference >= TOLERANCE:
        raise SystemExit(f"that is {TOLERANCE:g} or more: nothing written")

    out.mkdir(parents=True, exist_ok=True)
    (out / "fashion_cnn.onnx").write_bytes(network)
    (out / "fashion.zip").write_bytes(build_archive(train_set, test_set))
    (out / "preprocess.toml").write_text(PREPROCESS, encoding="utf-8")

    full_correct = count_correct(logits, test_set[1])
    shipped_pixels, shipped_labels = read_shipped(out / "fashion.zip", out / "preprocess.toml")
    shipped_logits = infer((out / "fashion_cnn.onnx").read_bytes(), shipped_pixels)
    shipped_correct = count_correct(shipped_logits, shipped_labels)
    full_accuracy = full_correct / len(logits)
    shipped_accuracy = shipped_correct / len(shipped_labels)
    print(f"full test set: {full_correct} of {len(logits)}, {full_accuracy:.2%}")
    print(f"shipped PNGs:  {shipped_correct} of {len(shipped_labels)}, {shipped_accuracy:.2%}")
    notice = NOTICE.format(
        calibration_count=CALIBRATION_COUNT,
        test_count=TEST_COUNT,
        epochs=options.epochs,
        full_correct=f"{full_correct:,}",
        full_count=f"{len(logits):,}",
        full_accuracy=full_accuracy,
        shipped_correct=f"{shipped_correct:,}",
        shipped_count=f"{len(shipped_labels):,}",
        shipped_accuracy=shipped_accuracy,
    )
    (out / "NOTICE.md").write_text(notice, encoding="utf-8")
    for path in sorted(out.iterdir()):
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
