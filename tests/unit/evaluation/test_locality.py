from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from softcam.evaluation.locality import Question, ask, describe_locality, measure_locality, share_scales
from softcam.evaluation.models import Contestants
from softcam.evaluation.predictions import Predictions
from softcam.nn import SoftCAM, convert


class Local(nn.Module):
    """Cells of 4x4 px; with a share of the mean over the whole image in each."""

    def __init__(self, shared: float = 0.0) -> None:
        super().__init__()
        self.shared = shared
        self.patches = nn.Conv2d(3, 6, 4, 4)
        self.classifier = nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.patches(images)
        features = features + self.shared * features.mean((2, 3), keepdim=True)
        return self.classifier(features.mean((2, 3)))


def create(shared: float = 0.0) -> SoftCAM:
    torch.manual_seed(0)
    return convert(Local(shared).eval(), images=torch.randn(2, 3, 16, 16))


IMAGES = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
TARGETS = torch.tensor([0, 1, 2, 0, 1, 2])


def question(model: SoftCAM, batch_size: int = 6) -> Question:
    return ask(model, IMAGES, TARGETS, batch_size=batch_size)


def test_the_question_is_the_label_rather_than_its_rival() -> None:
    model = create()
    asked = question(model, 4)
    with torch.no_grad():
        logits = model(IMAGES)
    others = logits.scatter(1, TARGETS[:, None], -torch.inf)
    assert asked.rivals.tolist() == others.argmax(1).tolist()
    expected = logits.gather(1, TARGETS[:, None])[:, 0] - others.max(1).values
    torch.testing.assert_close(asked.all_maps(IMAGES).mean((1, 2)), expected, rtol=1e-4, atol=1e-5)


def test_cells_of_their_own_pixels_are_local() -> None:
    found = measure_locality(question(create()), windows=(4, 8), seed=0)
    assert found.context_swap.shape == (6, 2)
    assert np.allclose(found.context_swap, 0, atol=1e-5)
    assert (found.receptive_field < 4 * 2**0.5 / 2).all()
    assert found.windows == (4, 8)


def test_cells_that_share_a_mean_are_not() -> None:
    much, little = (measure_locality(question(create(shared)), windows=(4, 12), seed=0) for shared in (20.0, 1.0))
    assert much.context_swap.mean() > 0.3 > little.context_swap.mean() > 0.01
    assert (much.receptive_field > 4).all()


def test_batches_do_not_change_the_numbers() -> None:
    model = create(shared=5.0)
    whole, parts = (measure_locality(question(model, size), windows=(4, 8), seed=0) for size in (6, 2))
    for name in ("receptive_field", "context_swap", "near_zero_share", "shares"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-4, atol=1e-5)


def test_the_seed_chooses_the_other_images() -> None:
    model = create(shared=5.0)
    swaps = [measure_locality(question(model), windows=(4,), seed=seed).context_swap for seed in range(4)]
    assert any(not np.allclose(swap, swaps[0]) for swap in swaps[1:])


def test_shares_of_several_scales_add_up() -> None:
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU(), nn.Conv2d(4, 5, 2, 2), nn.ReLU())
    black_box = nn.Sequential(trunk, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)).eval()
    model = convert(black_box, at=("0.1", "0.3"), num_classes=3, images=IMAGES).eval()
    asked = question(model)
    shares = share_scales(asked)
    assert shares.shape == (6, 2)
    assert np.allclose(shares.sum(1), 1)
    with torch.no_grad():
        fine, coarse = (scale.logits for scale in model.scales(IMAGES))
    rows = torch.arange(6)
    parts = [part[rows, TARGETS] - part[rows, asked.rivals] for part in (fine, coarse)]
    assert np.allclose(shares[:, 0], (parts[0].abs() / (parts[0].abs() + parts[1].abs())).numpy(), atol=1e-5)
    assert share_scales(question(create())).shape == (6, 1)


def test_what_the_metrics_hold(world: Any, models: Contestants, predictions: Predictions) -> None:
    settings = world.settings(located=5, windows=(0.25, 0.75))
    found = describe_locality(models, world.manifest.subset("test"), predictions, settings)
    assert set(found) == {"receptive_field", "context_swap", "scales", "images"}
    assert list(found["context_swap"]) == ["16", "48"]
    assert found["images"] == 5
    assert found["scales"] == []
    assert 0 < found["receptive_field"]["low"] <= found["receptive_field"]["value"] <= 64
    assert found["receptive_field"]["n"] == 5


@pytest.mark.parametrize("located", [0, 1])
def test_locality_can_be_left_out(world: Any, models: Contestants, predictions: Predictions, located: int) -> None:
    settings = replace(world.settings(), located=located)
    assert describe_locality(models, world.manifest.subset("test"), predictions, settings) == {}
