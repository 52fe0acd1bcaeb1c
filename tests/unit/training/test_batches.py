from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import SequentialSampler

from softcam.data import ImageDataset, Manifest
from softcam.imaging import Preprocessing
from softcam.nn import SoftCAM, convert
from softcam.training import Learner, Recipe
from softcam.training.batches import ImageBatches, Part, Share, Split, StepSampler
from softcam.training.cache import RowSampler
from softcam.training.module import Task

SPLITS = [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (1, 6)]
pytestmark = pytest.mark.filterwarnings("ignore:.*self.log.*")


def collect(count: int, batch_size: int, world: int, accumulate: int, **options: Any) -> list[list[Part]]:
    """Return the parts of each step over all processes."""
    order = range(count)
    samplers = [
        StepSampler(order, batch_size=batch_size, split=Split(rank, world, accumulate), **options)
        for rank in range(world)
    ]
    parts = [list(sampler) for sampler in samplers]
    assert len({len(own) for own in parts} | {len(sampler) for sampler in samplers}) == 1
    steps = range(0, len(parts[0]), accumulate)
    return [[own[first + number] for own in parts for number in range(accumulate)] for first in steps]


def real_rows(step: list[Part]) -> list[int]:
    return sorted(row for part in step if part.share.images for row in part.rows)


@pytest.mark.parametrize(("world", "accumulate"), SPLITS)
@pytest.mark.parametrize("count", [12, 13, 14, 23])
def test_the_steps_are_those_of_one_process(count: int, world: int, accumulate: int) -> None:
    steps = collect(count, 12, world, accumulate)
    whole = [list(range(first, min(first + 12, count))) for first in range(0, count, 12)]
    assert [real_rows(step) for step in steps] == whole
    for step, rows in zip(steps, whole, strict=True):
        sizes = [len(part.rows) if part.share.images else 0 for part in step]
        assert len(step) == world * accumulate
        assert max(sizes) - min(sizes) <= 1
        assert {part.share.size for part in step} == {len(rows)}


@pytest.mark.parametrize(("world", "accumulate"), SPLITS)
def test_the_mean_of_weighted_means_is_the_mean_of_all(world: int, accumulate: int) -> None:
    generator = torch.Generator().manual_seed(0)
    values, weights = torch.rand(2, 19, generator=generator, dtype=torch.float64)
    for step in collect(19, 12, world, accumulate, weights=weights):
        rows = real_rows(step)
        images = sum(part.share.images * values[part.rows].mean() for part in step) / len(step)
        assert float(images) == pytest.approx(float(values[rows].mean()), rel=1e-12)
        shares = [part.share.weights * (values * weights)[part.rows].sum() / weights[part.rows].sum() for part in step]
        expected = (values * weights)[rows].sum() / weights[rows].sum()
        assert float(sum(shares)) / len(step) == pytest.approx(float(expected), rel=1e-12)


def test_a_whole_step_has_factors_of_exactly_one() -> None:
    weights = torch.rand(23, generator=torch.Generator().manual_seed(0))
    parts = list(StepSampler(range(23), batch_size=10, weights=weights))
    assert [part.share for part in parts] == [Share(10), Share(10), Share(3)]


def test_a_process_without_an_image_repeats_one_that_counts_for_nothing() -> None:
    (_, second) = StepSampler(range(5), batch_size=4, split=Split(1, 2))
    assert second == Part([4], Share(1, 0.0, 0.0))
    (_, first) = StepSampler(range(5), batch_size=4, split=Split(0, 2))
    assert first == Part([4], Share(1, 2.0, 2.0))


def test_the_epoch_reaches_the_order() -> None:
    sampler = StepSampler(RowSampler(40, views=1, seed=0), batch_size=40)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first
    StepSampler(SequentialSampler(range(3)), batch_size=2).set_epoch(5)


def test_images_come_as_batches(manifest: Manifest) -> None:
    images = ImageDataset(manifest.subset("train"), Preprocessing(size=16))
    batches = ImageBatches(images)
    assert len(batches) == 24
    inputs, targets, indices, share = batches[Part([3, 1], Share(4, 0.5))]
    assert torch.equal(inputs, torch.stack([images[3][0], images[1][0]]))
    assert (targets.tolist(), indices.tolist(), share) == ([1, 1], [3, 1], Share(4, 0.5))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3, stride=4), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.pool(self.body(images)).flatten(1))


IMAGES = torch.randn(7, 1, 40, 40, generator=torch.Generator().manual_seed(1))
TARGETS = torch.tensor([0, 1, 2, 0, 0, 0, 1])
WEIGHTS = torch.tensor([0.2, 1.0, 5.0])


def gradients(model: SoftCAM, parts: list[Part], targets: Tensor, *, teacher: bool, **changes: Any) -> list[Tensor]:
    """Return the mean over parts of the gradients, as processes and micro-batches average them."""
    model, multi_label = copy.deepcopy(model), targets.ndim == 2
    recipe = Recipe.from_dict({"name": "r", "stages": [{"epochs": 1}], **changes})
    torch.manual_seed(5)
    learner = Learner(
        model,
        recipe,
        task=Task(3, multi_label, WEIGHTS),
        steps_per_epoch=1,
        teacher=Net() if teacher else None,
    )
    for number, part in enumerate(parts):
        loss = learner.training_step(
            (IMAGES[part.rows], targets[part.rows], torch.tensor(part.rows), part.share), number
        )
        (loss / len(parts)).backward()
    return [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize(("world", "accumulate"), SPLITS[1:])
@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("teacher", [False, True])
def test_a_split_step_has_the_gradient_of_the_whole_one(
    world: int, accumulate: int, multi_label: bool, teacher: bool
) -> None:
    torch.manual_seed(0)
    model = convert(Net().eval(), images=IMAGES)
    targets = torch.eye(3)[TARGETS] if multi_label else TARGETS
    weights = None if multi_label else WEIGHTS[TARGETS]
    settings = {"penalty": {"l1": 0.01, "l2": 0.1}, "loss": {"label_smoothing": 0.1}}
    (step,) = collect(7, 12, world, accumulate, weights=weights)
    (whole,) = collect(7, 12, 1, 1, weights=weights)
    ours = gradients(model, step, targets, teacher=teacher, **settings)
    expected = gradients(model, whole, targets, teacher=teacher, **settings)
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
