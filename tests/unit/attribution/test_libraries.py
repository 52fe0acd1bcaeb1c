from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from softcam.attribution import attribute
from softcam.errors import MissingExtraError


@pytest.mark.parametrize(
    ("method", "module", "package"),
    [
        ("grad_cam", "pytorch_grad_cam", "grad-cam"),
        ("layer_cam", "pytorch_grad_cam", "grad-cam"),
        ("finer_cam", "pytorch_grad_cam", "grad-cam"),
        ("eigen_cam", "pytorch_grad_cam.utils.svd_on_activations", "grad-cam"),
        ("integrated_gradients", "captum.attr", "captum"),
        ("guided_backprop", "captum.attr", "captum"),
        ("smooth_grad", "captum.attr", "captum"),
        ("deep_lift", "captum.attr", "captum"),
        ("occlusion", "captum.attr", "captum"),
    ],
)
def test_methods_say_which_library_they_miss(
    method: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(MissingExtraError, match=f"'{package}'"):
        attribute(method, model, torch.zeros(1, 3, 8, 8), torch.tensor([0]))
