"""A small model with evidence, and images that differ."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from softcam.imaging import Preprocessing
from softcam.nn import SoftCAM, convert


class Toy(nn.Module):
    """A classifier that neither timm nor torchvision knows."""

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=8, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.pool(self.norm(self.stem(images)).relu()).flatten(1))


@pytest.fixture
def black_box() -> Toy:
    torch.manual_seed(0)
    return Toy(3).eval()


@pytest.fixture
def model(black_box: Toy) -> SoftCAM:
    return convert(black_box)


@pytest.fixture
def preprocessing() -> Preprocessing:
    return Preprocessing(size=32)


@pytest.fixture
def pictures() -> list[npt.NDArray[np.uint8]]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (40, 48 + i, 3), dtype=np.uint8) for i in range(7)]
