"""A small model with evidence, and images that differ."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from torch import nn

from softcam.imaging import Preprocessing
from softcam.nn import SoftCAM, convert


@pytest.fixture
def black_box(make_toy: Callable[..., nn.Module]) -> nn.Module:
    return make_toy(3)


@pytest.fixture
def model(black_box: nn.Module) -> SoftCAM:
    return convert(black_box)


@pytest.fixture
def preprocessing() -> Preprocessing:
    return Preprocessing(size=32)


@pytest.fixture
def pictures() -> list[npt.NDArray[np.uint8]]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (40, 48 + i, 3), dtype=np.uint8) for i in range(7)]
