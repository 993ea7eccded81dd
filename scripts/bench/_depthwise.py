"""Trains a small network of residual depthwise blocks with ReLU6 on Fashion-MNIST, in PyTorch.

Such networks are where a search by divergence alone goes wrong: their activations pile up at 6.

    python _depthwise.py PIXELS.npz WEIGHTS.npz
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from _networks import DEPTHWISE, DEPTHWISE_STEM
from torch import nn

EPOCHS: Final = 3
PICTURES: Final = 20_000
"""Of the training set: minutes, not an hour, and no worse a test of calibration."""

_BATCH: Final = 128
_RATE: Final = 0.1


class _Block(nn.Module):
    """Widen, filter each channel, narrow; beside a shortcut where it fits."""

    def __init__(self, narrow: int, wide: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = narrow * expansion
        self.fits = stride == 1 and narrow == wide
        layers = _unit(narrow, inner, 1) if expansion > 1 else []
        layers += _unit(inner, inner, 3, stride=stride, groups=inner)
        layers += _unit(inner, wide, 1)[:2]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layers(x)
        return x + y if self.fits else y


def _unit(
    narrow: int, wide: int, size: int, *, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    padding = size // 2
    conv = nn.Conv2d(narrow, wide, size, stride, padding, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(wide), nn.ReLU6()]


def _network() -> nn.Sequential:
    layers: list[nn.Module] = _unit(1, DEPTHWISE_STEM, 3)
    narrow = DEPTHWISE_STEM
    for expansion, wide, repeats, first_stride, _ in DEPTHWISE:
        for number in range(repeats):
            layers.append(_Block(narrow, wide, expansion, 1 if number else first_stride))
            narrow = wide
    layers += [*_unit(narrow, 4 * narrow, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4 * narrow, 10))


def train(pixels: Any, labels: Any) -> nn.Sequential:  # noqa: ANN401 - torch.Tensor has no stubs
    """Train with a one-cycle learning rate and a fixed seed."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the same weights everywhere; and threads that wait cost more
    model = _network()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=_RATE, momentum=0.9, nesterov=True, weight_decay=1e-4
    )
    steps = len(pixels) // _BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=_RATE, total_steps=EPOCHS * steps
    )
    for epoch in range(EPOCHS):
        losses = []
        for part in torch.randperm(len(pixels))[: steps * _BATCH].split(_BATCH):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(pixels[part]), labels[part])
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        print(
            f"epoch {epoch + 1} of {EPOCHS}: loss {np.mean(losses):.3f}",
            file=sys.stderr,
            flush=True,
        )
    return model.eval()


def main() -> None:
    """Train and write the weights, in the order of the layers."""
    source, destination = map(Path, sys.argv[1:])
    with np.load(source) as data:
        pixels, labels = (torch.from_numpy(data[one][:PICTURES]) for one in ("pixels", "labels"))
    state = train(pixels, labels).state_dict()
    np.savez(destination, **{name: value.numpy() for name, value in state.items()})


if __name__ == "__main__":
    main()
