"""A black box of the user's own, and a model that softcam can name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from softcam.backbones import create_black_box
from softcam.nn import SoftCAM, convert


@pytest.fixture
def toy(make_toy: Callable[..., nn.Module]) -> nn.Module:
    return make_toy()


@pytest.fixture(scope="session")
def named_black_box() -> nn.Module:
    torch.manual_seed(1)
    return create_black_box("timm:test_resnet", num_classes=3, drop_rate=0.25).eval()


@pytest.fixture(scope="session")
def named(named_black_box: nn.Module) -> SoftCAM:
    return convert(named_black_box)
