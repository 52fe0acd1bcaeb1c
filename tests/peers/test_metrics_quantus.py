"""Faithfulness, robustness and localization against Quantus, where the definitions agree; where not, it says so.

Quantus is not among the development dependencies: it requires opencv-python, whose files are those of grad-cam's
opencv-python-headless, and whose window system many machines lack. `pip install --no-deps quantus cachetools` beside
them is enough for these tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from softcam.metrics import (
    activation_precision,
    deletion_curve,
    gini,
    irof,
    max_sensitivity,
    pointing_game,
    random_logit,
    road,
    spearman,
)

quantus = pytest.importorskip("quantus", reason="pip install --no-deps quantus cachetools")

TARGET = torch.tensor([0, 1, 1, 0])
QUIET = {"disable_warnings": True, "normalise": False, "abs": False}


@pytest.fixture
def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Conv2d(1, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(800, 2), nn.Softmax(1)).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 1, 12, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def maps() -> Tensor:
    order = torch.rand(4, 144, generator=torch.Generator().manual_seed(3)).argsort(1)
    return (order / 143).reshape(4, 12, 12)


def ask(metric: Any, model: nn.Module, images: Tensor, maps: Tensor, **more: Any) -> NDArray[np.float64]:
    scores = metric(
        model=model,
        x_batch=images.numpy(),
        y_batch=TARGET.numpy(),
        a_batch=maps[:, None].numpy(),
        softmax=True,
        channel_first=True,
        device="cpu",
        **more,
    )
    return scores if isinstance(scores, dict) else np.array(scores)


def test_deletion_pixel_by_pixel(model: nn.Module, images: Tensor, maps: Tensor) -> None:
    # With several channels Quantus would remove a pixel's values one after another.
    theirs = ask(quantus.PixelFlipping(features_in_step=8, perturb_baseline=0.0, **QUIET), model, images, maps)
    ours = deletion_curve(model, images, maps, TARGET, patch=1, steps=range(8, 145, 8))
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-6)


def hardened(model: nn.Module) -> Any:
    """The share of right decisions is the probability of a model that is always sure."""
    return lambda batch: torch.nn.functional.one_hot(model(batch).argmax(1), 2).float()


def test_road_of_quantus_is_class_correctness(model: nn.Module, images: Tensor, maps: Tensor) -> None:
    percentages = [10, 30, 50, 70, 90]
    theirs = ask(quantus.ROAD(percentages=percentages, noise=0, **QUIET), model, images, maps)
    shares = [int(1.44 * p) / 144 for p in percentages]
    correct = road(hardened(model), images, maps, TARGET, shares=shares, noise=0).morf
    assert list(theirs.values()) == pytest.approx(correct.mean(0).tolist())
    # One number per share for all images; the probability, which moves, is nowhere in it.
    moving = road(model, images, maps, TARGET, shares=shares, noise=0).morf
    assert moving.unique().numel() == moving.numel()
    assert set(correct.unique().tolist()) <= {0.0, 1.0}


def test_road_of_quantus_forgets_all_batches_but_the_first(model: nn.Module, images: Tensor, maps: Tensor) -> None:
    percentages = [10, 30, 50, 70, 90]
    peer = quantus.ROAD(percentages=percentages, noise=0, **QUIET)
    theirs = ask(peer, model, images, maps, batch_size=1)
    correct = road(
        hardened(model), images, maps, TARGET, shares=[int(1.44 * p) / 144 for p in percentages], noise=0
    ).morf
    assert list(theirs.values()) == pytest.approx(correct[0].tolist())
    assert list(theirs.values()) != pytest.approx(correct.mean(0).tolist())


def test_irof_but_for_its_first_step_and_its_length(
    model: nn.Module, images: Tensor, maps: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Removed from NumPy 2.4, of which Quantus 0.6 does not know.
    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)
    halves = torch.arange(12) // 4
    labels = (3 * halves[:, None] + halves).expand(4, 12, 12)
    monkeypatch.setattr(
        "quantus.metrics.faithfulness.irof.utils.get_superpixel_segments", lambda **_: labels[0].numpy()
    )
    theirs = ask(quantus.IROF(perturb_baseline=0.0, return_aggregate=False, **QUIET), model, images, maps)
    ours = irof(model, images, maps, TARGET, segments=labels)
    curve = deletion_curve(model, images, maps, TARGET, patch=4, steps=1)
    # Quantus leaves the whole image out of the curve and does not divide by the number of segments.
    first = (1 + curve[:, 1] / curve[:, 0]) / 2
    np.testing.assert_allclose((9 * ours + first).numpy(), theirs, atol=1e-5)


def gradient(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    leaf = images.detach().requires_grad_()
    (found,) = torch.autograd.grad(model(leaf).gather(1, target[:, None]).sum(), leaf)
    return found.sum(1)


def explain(model: nn.Module, inputs: NDArray[np.float32], targets: NDArray[np.int64], **_: Any) -> NDArray[np.float32]:
    return gradient(model, torch.as_tensor(inputs), torch.as_tensor(targets))[:, None].numpy()


def test_sensitivity_to_the_same_noise(model: nn.Module, images: Tensor) -> None:
    generator = torch.Generator().manual_seed(7)

    def draws() -> Iterator[Tensor]:
        while True:
            yield 0.1 * (2 * torch.rand(images.shape, generator=generator, dtype=torch.float64) - 1)

    noise = draws()

    def move(arr: NDArray[np.float32], **_: Any) -> NDArray[np.float32]:
        return arr + next(noise).float().numpy().reshape(arr.shape)

    peer = quantus.MaxSensitivity(nr_samples=5, perturb_func=move, **QUIET)
    theirs = ask(peer, model, images, gradient(model, images, TARGET), explain_func=explain)
    ours = max_sensitivity(lambda x, t: gradient(model, x, t), images, TARGET, radius=0.1, samples=5, seed=7)
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-4)


def test_random_logit_of_two_classes(model: nn.Module, images: Tensor) -> None:
    def curved(inputs: Tensor, target: Tensor) -> Tensor:
        return torch.sin(inputs[:, 0] * (1 + target[:, None, None])) + inputs[:, 0] / 2

    def theirs_curved(model: nn.Module, inputs: Any, targets: Any, **_: Any) -> NDArray[np.float32]:
        return curved(torch.as_tensor(inputs), torch.as_tensor(targets))[:, None].numpy()

    peer = quantus.RandomLogit(num_classes=2, similarity_func=quantus.similarity_func.correlation_spearman, **QUIET)
    theirs = ask(peer, model, images, curved(images, TARGET), explain_func=theirs_curved)
    ours = random_logit(curved, images, TARGET, classes=2)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-6)
    assert (np.abs(theirs) < 0.99).all()


def test_spearman(maps: Tensor) -> None:
    first, second = maps.mul(10).round(), (maps + maps.roll(1, 2)).mul(10).round()
    theirs = quantus.similarity_func.correlation_spearman(
        first.flatten(1).numpy(), second.flatten(1).numpy(), batched=True
    )
    np.testing.assert_allclose(spearman(first, second).numpy(), theirs, atol=1e-6)


def test_pointing_mass_and_sparseness(model: nn.Module, images: Tensor, maps: Tensor) -> None:
    masks = torch.rand(4, 12, 12, generator=torch.Generator().manual_seed(2)) < 0.3
    masks[0] = maps[0] == maps[0].max()
    options = {"s_batch": masks[:, None].numpy()}
    hits = ask(quantus.PointingGame(**QUIET), model, images, maps, **options)
    np.testing.assert_array_equal(pointing_game(maps, masks).numpy(), hits)
    mass = ask(quantus.RelevanceMassAccuracy(**QUIET), model, images, maps, **options)
    # Quantus lets negative evidence in; these maps have none.
    np.testing.assert_allclose(activation_precision(maps, masks).numpy(), mass, atol=1e-6)
    sparse = ask(quantus.Sparseness(disable_warnings=True, normalise=False, abs=True), model, images, maps)
    np.testing.assert_allclose(gini(maps).numpy(), sparse, atol=1e-5)
