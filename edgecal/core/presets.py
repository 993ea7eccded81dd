"""How well-known families of networks want their pictures: settings by name, with their source."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Settings of preprocessing; the size is the network's own where that is fixed."""

    settings: Mapping[str, object]
    """As in a TOML table, the size apart."""
    size: tuple[int, int] | None
    """Height and width where the network leaves them open; `None` keeps the picture's own."""
    crop_share: float | None = None
    """Side of the crop, which the network gets, by the side that was resized to."""
    source: str
    """Who publishes these numbers."""


# torchvision gives mean and deviation of pixels from 0 to 1, in RGB
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)

PRESETS: Final[Mapping[str, Preset]] = MappingProxyType(
    {
        "imagenet": Preset(
            settings={
                "fit": "shorter",
                "color": "rgb",
                "mean": [round(255 * mean, 3) for mean in _IMAGENET_MEAN],
                "scale": [1 / (255 * std) for std in _IMAGENET_STD],
            },
            size=(224, 224),
            crop_share=224 / 256,
            source="pytorch/vision, torchvision/transforms/_presets.py: ImageClassification",
        ),
        "yolo": Preset(
            settings={"fit": "letterbox", "fill": 114, "color": "rgb", "scale": 1 / 255},
            size=(640, 640),
            source="ultralytics/ultralytics, ultralytics/data/augment.py: LetterBox",
        ),
        "ssd": Preset(
            settings={"fit": "stretch", "color": "bgr", "mean": [104, 117, 123]},
            size=(300, 300),
            # the SSDs on MobileNet take other numbers: 127.5, and 0.007843 to multiply with
            source="weiliu89/caffe, branch ssd: VGG16 SSD300; opencv/opencv, "
            "samples/dnn/README.md: VGG16-SSD, 300x300, 104 117 123, BGR",
        ),
        "caffe-bgr": Preset(
            settings={"fit": "stretch", "color": "bgr", "mean": [104, 117, 123]},
            size=None,
            source="BVLC/caffe: the mean pixel of its ilsvrc_2012_mean, 104.007 116.669 122.679 in "
            "BGR, in whole numbers as in opencv/opencv, samples/dnn/models.yml: googlenet",
        ),
    }
)
"""By the name that `--preset` takes."""
