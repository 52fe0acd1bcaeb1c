from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from softcam.nn.watch import PoolingWatch

POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "torch.mean": lambda x: torch.mean(x, dim=(2, 3)),
    "Tensor.mean": lambda x: x.mean((2, 3)),
    "Tensor.mean keepdim": lambda x: x.mean((2, 3), keepdim=True),
    "torch.sum": lambda x: torch.sum(x, dim=(2, 3)),
    "Tensor.sum": lambda x: x.sum(dim=(2, 3)),
    "torch.amax": lambda x: torch.amax(x, dim=(2, 3)),
    "Tensor.amax": lambda x: x.amax((2, 3)),
    "avg_pool2d": lambda x: F.avg_pool2d(x, (4, 5)),
    "max_pool2d": lambda x: F.max_pool2d(x, (4, 5)),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 1),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, 1),
    "AvgPool2d": nn.AvgPool2d((4, 5)),
    "MaxPool2d": nn.MaxPool2d((4, 5)),
    "AdaptiveAvgPool2d": nn.AdaptiveAvgPool2d(1),
    "AdaptiveMaxPool2d": nn.AdaptiveMaxPool2d(1),
    "channels last": lambda x: x.permute(0, 2, 3, 1).mean((1, 2)),
    "tokens": lambda x: x.flatten(2).transpose(1, 2).mean(1),
}

NOT_POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "smaller grid": lambda x: F.avg_pool2d(x, 2),
    "all of it": lambda x: x.mean((1, 2, 3)),
    "channels": lambda x: x.mean(1),
    "vectors": lambda x: x[:, :, 0, 0].mean(1),
    "one row": lambda x: x.mean(2),
    "images": lambda x: x.mean((0, 2)),
    "not a reduction": F.relu,
}


@pytest.fixture
def features() -> Tensor:
    return torch.randn(2, 3, 4, 5)


@pytest.mark.parametrize("name", POOLINGS)
def test_a_pooling_is_seen(name: str, features: Tensor) -> None:
    with PoolingWatch() as watch:
        output = POOLINGS[name](features)
    assert watch.calls == 1
    assert watch.features is not None
    assert torch.equal(watch.features.flatten().sort()[0], features.flatten().sort()[0])
    assert torch.equal(output, POOLINGS[name](features))


@pytest.mark.parametrize("name", NOT_POOLINGS)
def test_other_calls_are_not_poolings(name: str, features: Tensor) -> None:
    with PoolingWatch() as watch:
        output = NOT_POOLINGS[name](features)
    assert watch.calls == 0
    assert watch.features is None
    assert torch.equal(output, NOT_POOLINGS[name](features))


def test_the_last_pooling_counts(features: Tensor) -> None:
    gated = features * 2
    with PoolingWatch() as watch:
        features.mean((2, 3))
        gated.mean((2, 3))
    assert watch.calls == 2
    assert watch.features is gated


@pytest.mark.parametrize(("at", "expected"), [(0, [7.0, 1.0]), (1, [1.0, 7.0]), (2, [1.0, 1.0]), (-1, [1.0, 1.0])])
def test_a_substitute_takes_the_place_of_one_call(at: int, expected: list[float]) -> None:
    ones, sevens = torch.ones(1, 2, 3, 3), torch.full((1, 2, 4, 4), 7.0)
    with PoolingWatch(sevens, at=at):
        first = ones.mean((2, 3))
        second = F.adaptive_avg_pool2d(ones.clone(), 1)
    assert [first[0, 0].item(), second[0, 0, 0, 0].item()] == expected


def test_a_substitute_is_pooled_as_the_call_says() -> None:
    with PoolingWatch(torch.arange(8.0).reshape(1, 2, 2, 2), at=0):
        summed = torch.ones(1, 2, 3, 3).sum(dim=(2, 3), keepdim=True)
    assert summed.tolist() == [[[[6.0]], [[22.0]]]]


def test_nothing_is_watched_outside(features: Tensor) -> None:
    watch = PoolingWatch()
    with watch:
        pass
    features.mean((2, 3))
    assert watch.calls == 0


@pytest.mark.parametrize(
    "drop",
    [
        nn.Dropout(0.3).eval(),
        lambda x: F.dropout(x, 0.3, training=False),
        lambda x: F.dropout(x, p=0.3, training=False),
        lambda x: torch.dropout(x, 0.3, train=False),
    ],
)
def test_dropout_after_the_pooling_is_noted(features: Tensor, drop: Callable[[Tensor], Tensor]) -> None:
    with PoolingWatch() as watch:
        drop(features.mean((2, 3)))
    assert watch.dropout == 0.3


def test_dropout_by_default_is_a_half(features: Tensor) -> None:
    with PoolingWatch() as watch:
        F.dropout(features.mean((2, 3)))
    assert watch.dropout == 0.5


def test_dropout_before_the_pooling_is_none_of_the_head(features: Tensor) -> None:
    with PoolingWatch() as watch:
        F.dropout(features, 0.3).mean((2, 3))
    assert watch.dropout == 0.0


def test_mean_and_maximum_of_one_map_count_as_one_call(features: Tensor) -> None:
    other = features + 1
    with PoolingWatch() as watch:
        other.mean((2, 3))
        features.mean((2, 3))
        features.amax((2, 3))
    assert watch.features is features
    assert (watch.number, watch.calls) == (1, 3)
    substitute = torch.arange(24.0).reshape(1, 2, 3, 4)
    with PoolingWatch(substitute, at=1):
        found = [other.mean((2, 3)), features.mean((2, 3)), features.amax((2, 3))]
    assert torch.equal(found[0], other.mean((2, 3)))
    assert [part.tolist() for part in found[1:]] == [[[5.5, 17.5]], [[11.0, 23.0]]]


def test_a_map_that_was_written_into_is_another(features: Tensor) -> None:
    # Squeeze-and-excitation may scale the map in place whose mean it has taken.
    with PoolingWatch() as watch:
        features *= features.mean((2, 3), keepdim=True)
        features.mean((2, 3))
    assert watch.number == 1


def test_inference_mode_does_not_matter() -> None:
    with torch.inference_mode(), PoolingWatch() as watch:
        features = torch.zeros(1, 2, 3, 4)
        features.mean((2, 3))
        features.amax((2, 3))
    assert watch.number == 0
