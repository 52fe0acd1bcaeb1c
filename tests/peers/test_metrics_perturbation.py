"""Infidelity and sensitivity against captum, ROAD against grad-cam, similarity of maps against scikit-image.

The peers' own random draws are replaced by those of the metric, so that both measure the same thing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from captum.metrics import infidelity as captum_infidelity
from captum.metrics import sensitivity_max as captum_sensitivity
from pytorch_grad_cam.metrics.perturbation_confidence import (
    PerturbationConfidenceMetric,
    RemoveLeastRelevantFirst,
    RemoveMostRelevantFirst,
)
from pytorch_grad_cam.metrics.road import NoisyLinearImputer, ROADCombined
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from skimage.metrics import structural_similarity as skimage_similarity
from torch import Tensor, nn

from softcam.metrics import Regions, infidelity, max_sensitivity, road
from softcam.metrics.queries import Explain
from softcam.metrics.similarity import structural_similarity

TARGET = torch.tensor([0, 2, 1])
PERCENTILES = [10, 20, 30, 40, 50, 60, 70, 80, 90]


@pytest.fixture
def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Conv2d(2, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(648, 3), nn.Softmax(1)).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 2, 11, 11, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def maps() -> Tensor:
    # Without ties, from 0 to 1.
    order = torch.rand(3, 121, generator=torch.Generator().manual_seed(3)).argsort(1)
    return (order / 120).reshape(3, 11, 11)


def in_kind(explain: Explain) -> Callable[..., Tensor | tuple[Tensor]]:
    """Captum hands the images over in a tuple, the noisy ones not, and wants maps alike."""

    def call(inputs: Tensor | tuple[Tensor], target: Tensor) -> Tensor | tuple[Tensor]:
        return (explain(inputs[0], target),) if isinstance(inputs, tuple) else explain(inputs, target)

    return call


@pytest.mark.parametrize("scaled", [True, False])
def test_infidelity_of_squares(model: nn.Module, images: Tensor, maps: Tensor, scaled: bool) -> None:
    regions = Regions(patch=4, samples=12, seed=3)
    squares = regions.draw_squares(3, (11, 11))

    def remove_next(inputs: Tensor) -> tuple[Tensor, Tensor]:
        removed = next(squares)[:, None].expand_as(inputs)
        return removed.float(), inputs.masked_fill(removed, 0)

    # A channel carries half of a pixel's evidence; the mask stands for the change of an attribution's input.
    attributions = maps[:, None].expand(3, 2, 11, 11) / 2
    theirs = captum_infidelity(
        model,
        remove_next,
        images,
        attributions,
        target=TARGET,
        n_perturb_samples=12,
        max_examples_per_batch=3,
        normalize=scaled,
    )
    assert next(squares, None) is None
    ours = infidelity(model, images, maps, TARGET, regions=regions, scaled=scaled)
    torch.testing.assert_close(ours, theirs.double(), rtol=1e-3, atol=1e-6)


def test_sensitivity_to_the_same_noise(model: nn.Module, images: Tensor) -> None:
    generator = torch.Generator().manual_seed(7)

    def explain(batch: Tensor, target: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = batch.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(model(leaf).gather(1, target[:, None]).sum(), leaf)
        return gradient.sum(1)

    def move(inputs: Tensor) -> Tensor:
        noise = 2 * torch.rand(inputs.shape, generator=generator, dtype=torch.float64) - 1
        return inputs + (0.1 * noise).float()

    theirs = captum_sensitivity(
        in_kind(explain), images, perturb_func=move, n_perturb_samples=6, max_examples_per_batch=3, target=TARGET
    )
    ours = max_sensitivity(explain, images, TARGET, radius=0.1, samples=6, seed=7)
    torch.testing.assert_close(ours, theirs.double(), rtol=1e-4, atol=1e-6)


def test_sensitivity_of_an_empty_map_is_absolute_in_captum_and_undefined_here(images: Tensor) -> None:
    def appear(batch: Tensor, target: Tensor) -> Tensor:
        return batch[:, 0] * float(not torch.equal(batch, images))

    assert (captum_sensitivity(in_kind(appear), images, n_perturb_samples=1, target=TARGET) > 1).all()
    assert max_sensitivity(appear, images, TARGET).isnan().all()


def test_road_without_noise(model: nn.Module, images: Tensor, maps: Tensor) -> None:
    targets = [ClassifierOutputTarget(int(t)) for t in TARGET]
    # grad-cam removes what is not below the percentile: one pixel more than a tenth of the 120 others.
    shares = [(121 - round(1.2 * p)) / 121 for p in reversed(PERCENTILES)]
    ours = road(model, images, maps, TARGET, shares=shares, noise=0)
    for curve, order in [(ours.morf, RemoveMostRelevantFirst), (ours.lerf, RemoveLeastRelevantFirst)]:
        for column, percentile in enumerate(reversed(PERCENTILES)):
            peer = PerturbationConfidenceMetric(order(percentile, NoisyLinearImputer(noise=0)))
            theirs = peer(images, maps.double().numpy(), targets, model, return_diff=False)
            np.testing.assert_allclose(curve[:, column].numpy(), theirs, atol=1e-5)


def test_road_combined_up_to_its_noise(model: nn.Module, images: Tensor, maps: Tensor) -> None:
    targets = [ClassifierOutputTarget(int(t)) for t in TARGET]
    shares = [(121 - round(1.2 * p)) / 121 for p in reversed(PERCENTILES)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = ROADCombined(PERCENTILES)(images, maps.double().numpy(), targets, model)
    ours = road(model, images, maps, TARGET, shares=shares).combined.mean(1)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-3)
    assert np.abs(theirs).max() > 5e-3


def test_structural_similarity(maps: Tensor) -> None:
    first, second = maps - 0.5, maps.roll(1, 2) ** 2 - 0.3
    shifted = [(0.5 + m / m.abs().amax((1, 2), keepdim=True) / 2).double().numpy() for m in (first, second)]
    theirs = [skimage_similarity(a, b, data_range=1.0) for a, b in zip(*shifted, strict=True)]
    assert structural_similarity(first.double(), second.double()).tolist() == pytest.approx(theirs, rel=1e-5)
