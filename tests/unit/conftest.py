"""A black box of the user's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn


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
def make_toy() -> Callable[..., Toy]:
    """Build a toy in eval mode, with the same weights each time."""

    def build(num_classes: int = 2) -> Toy:
        torch.manual_seed(0)
        return Toy(num_classes).eval()

    return build
