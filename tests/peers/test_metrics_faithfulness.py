"""Faithfulness metrics against captum's ablation and grad-cam's imputation and confidence changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation
from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence, IncreaseInConfidence
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from softcam.metrics.faithfulness import average_drop, confidence_increase, deletion_curve, highlight
from softcam.metrics.fills import NoisyLinearFill

TARGET = torch.tensor([0, 2, 1])


@pytest.fixture
def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Conv2d(2, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(800, 3), nn.Softmax(1)).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 2, 12, 12, generator=torch.Generator().manual_seed(1))


def test_first_step_of_a_deletion_is_the_ablation_of_the_best_patch(model: nn.Module, images: Tensor) -> None:
    grid = torch.arange(9).reshape(1, 1, 3, 3)
    patches = grid.repeat_interleave(4, 2).repeat_interleave(4, 3)
    effects = FeatureAblation(model).attribute(images, target=TARGET, feature_mask=patches.expand(3, 2, 12, 12))
    maps = effects[:, 0].detach()
    curve = deletion_curve(model, images, maps, TARGET, patch=4, steps=1)
    torch.testing.assert_close(curve[:, 0] - curve[:, 1], maps.amax((1, 2)).double(), rtol=1e-4, atol=1e-6)


def test_linear_imputation_without_noise_is_that_of_road(images: Tensor) -> None:
    removed = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(2)) < 0.5
    ours = NoisyLinearFill(noise=0)(images)(removed)
    for got, image, mask in zip(ours, images, removed, strict=True):
        peer = NoisyLinearImputer(noise=0)(image, (~mask).float())
        torch.testing.assert_close(got, peer, rtol=1e-4, atol=1e-5)


def test_drop_and_increase_on_highlighted_images(model: nn.Module, images: Tensor) -> None:
    cams = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(3))
    cams = cams / cams.amax((1, 2), keepdim=True)
    targets = [ClassifierOutputTarget(int(t)) for t in TARGET]
    with torch.no_grad():
        before = model(images).gather(1, TARGET[:, None])[:, 0]
        after = model(highlight(images, cams)).gather(1, TARGET[:, None])[:, 0]
    drops = DropInConfidence()(images, cams.numpy(), targets, model)
    # grad-cam leaves out the division by the probability that the reference has.
    np.testing.assert_allclose((average_drop(before, after) * before).numpy(), drops, atol=1e-6)
    rises = IncreaseInConfidence()(images, cams.numpy(), targets, model)
    np.testing.assert_array_equal(confidence_increase(before, after).numpy(), rises)
    assert 0 < rises.sum() < 3
