"""A small model, and the files that come of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import softcam
from softcam.export import ExportReport, export_onnx
from softcam.nn import SoftCAM, convert

SIZE = (32, 48)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, *SIZE, generator=torch.Generator().manual_seed(9))


@pytest.fixture
def toy(make_toy: Callable[..., nn.Module]) -> nn.Module:
    return make_toy(num_classes=3)


@pytest.fixture
def model(toy: nn.Module, images: Tensor) -> SoftCAM:
    """A model with maps of 4 x 6 cells."""
    return convert(toy, images=images)


@pytest.fixture
def bundle(model: SoftCAM, tmp_path: Path) -> Path:
    """The model as a folder that says all it can."""
    return softcam.save(
        model,
        tmp_path / "model",
        classes=["intact", "cracked", "soiled"],
        preprocessing={"size": 64, "fit": "squash", "mean": [0.5] * 3, "std": [0.25] * 3},
        thresholds={"cracked": 0.25},
    )


@pytest.fixture
def exported(model: SoftCAM, tmp_path: Path) -> ExportReport:
    return export_onnx(model, tmp_path / "out" / "model.onnx")
