"""A black box small enough to convert in milliseconds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn


class BlackBox(nn.Module):
    """Two strided convolutions with a batch norm, then mean -> dropout -> linear."""

    def __init__(self, num_classes: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, stride=2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 6, 3, padding=1, stride=2),
            nn.ReLU(),
        )
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(6, num_classes)
        norm = self.body[1]
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.drop(self.body(images).mean((2, 3))))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def black_box() -> BlackBox:
    """A small classifier in eval mode: 16x20 px to 4x5 cells, 6 channels, 4 classes."""
    return BlackBox().eval()


@pytest.fixture
def make_black_box() -> Callable[..., BlackBox]:
    """The class of `black_box`, for other arguments or to derive from."""
    return BlackBox


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 16, 20)
