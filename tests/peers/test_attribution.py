"""Maps against what the libraries themselves return."""

from __future__ import annotations

import warnings

import cv2
import numpy as np
import pytest
import torch
from captum.attr import GuidedBackprop, IntegratedGradients
from pytorch_grad_cam import GradCAM, LayerCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from softcam.attribution import attribute


class Net(nn.Module):
    """A small classifier with ReLU modules and a nonlinear head."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.Tanh())
        self.head = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).mean((-2, -1)))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


IMAGES = torch.randn(3, 3, 20, 28, generator=torch.Generator().manual_seed(1))
TARGET = torch.tensor([0, 2, 1])


@pytest.mark.parametrize(("method", "library"), [("grad_cam", GradCAM), ("layer_cam", LayerCAM)])
def test_scaled_and_resized_our_cams_are_the_librarys(method: str, library: type, net: Net) -> None:
    ours = attribute(method, net, IMAGES, TARGET).numpy()
    cam = library(net, [net.features])
    theirs = cam(IMAGES, [ClassifierOutputTarget(int(index)) for index in TARGET])
    for mine, other in zip(ours, theirs, strict=True):
        scaled = (mine - mine.min()) / (1e-7 + (mine - mine.min()).max())
        resized = cv2.resize(scaled.astype(np.float32), (28, 20))
        resized = (resized - resized.min()) / (1e-7 + (resized - resized.min()).max())
        np.testing.assert_allclose(resized, other, atol=1e-5)


def test_integrated_gradients_are_captums(net: Net) -> None:
    theirs = IntegratedGradients(net).attribute(IMAGES, target=TARGET, n_steps=50).sum(1)
    torch.testing.assert_close(
        attribute("integrated_gradients", net, IMAGES, TARGET), theirs.float(), rtol=1e-4, atol=1e-6
    )


def test_guided_backprop_is_captums_where_all_activations_are_relu_modules(net: Net) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = GuidedBackprop(net).attribute(IMAGES.clone().requires_grad_(), target=TARGET).sum(1)
    torch.testing.assert_close(attribute("guided_backprop", net, IMAGES, TARGET), theirs.float())
