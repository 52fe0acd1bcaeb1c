"""A black box of the user's own, and a model that softcam can name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from softcam.backbones import create_black_box
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
def toy() -> Toy:
    torch.manual_seed(0)
    return Toy().eval()


@pytest.fixture(scope="session")
def named_black_box() -> nn.Module:
    torch.manual_seed(1)
    return create_black_box("timm:test_resnet", num_classes=3, drop_rate=0.25).eval()


@pytest.fixture(scope="session")
def named(named_black_box: nn.Module) -> SoftCAM:
    return convert(named_black_box)
