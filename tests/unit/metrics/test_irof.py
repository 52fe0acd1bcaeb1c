from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from softcam.metrics import area_under_curve, deletion_curve, irof

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.rand(3, 2, 6, 7, generator=GENERATOR, dtype=torch.float64)
MAPS = torch.randn(3, 6, 7, generator=GENERATOR, dtype=torch.float64)
TARGET = torch.tensor([1, 0, 1])
# Images of 5, 3 and 1 segments, labelled with gaps.
SEGMENTS = 10 * torch.randint(0, 5, (3, 6, 7), generator=GENERATOR).clamp_max(torch.tensor([4, 2, 0])[:, None, None])


def predict(images: Tensor) -> Tensor:
    positive = images.mean((1, 2, 3)) / 2
    return torch.stack([1 - positive, positive], 1)


def slow_irof(image: int, labels: Tensor, fill: float) -> float:
    names = sorted(set(labels.flatten().tolist()), key=lambda n: -float(MAPS[image][labels == n].mean()))
    changed, ratios = IMAGES[image].clone(), [1.0]
    first = float(predict(IMAGES[image : image + 1])[0, TARGET[image]])
    for name in names:
        changed[:, labels == name] = fill
        ratios.append(float(predict(changed[None])[0, TARGET[image]]) / first)
    area = sum((a + b) / 2 for a, b in pairwise(ratios))
    return 1 - area / len(names)


@pytest.mark.parametrize("fill", [0.0, 0.4])
def test_segments_equal_the_slow_reference(fill: float) -> None:
    got = irof(predict, IMAGES, MAPS, TARGET, segments=SEGMENTS, fill=fill)
    assert got.dtype == torch.float64
    assert got.tolist() == pytest.approx([slow_irof(i, SEGMENTS[i], fill) for i in range(3)])


@pytest.mark.parametrize("patch", [1, 2, 3, 4, 9])
def test_patches_equal_the_deletion_curve_of_all_patches(patch: int) -> None:
    total = -(-6 // patch) * -(-7 // patch)
    curve = deletion_curve(predict, IMAGES, MAPS, TARGET, patch=patch, steps=total, fill=0.3)
    expected = 1 - area_under_curve(curve / curve[:, :1])
    torch.testing.assert_close(irof(predict, IMAGES, MAPS, TARGET, segments=patch, fill=0.3), expected)


def test_by_hand() -> None:
    images = torch.tensor([[[[0.4, 0.8], [1.0, 0.2]]]], dtype=torch.float64)
    maps = torch.tensor([[[3.0, -1.0], [2.0, 1.0]]])
    # Of 2.4, after 0.4, 1.0, 0.2 and 0.8 are gone: 2.0, 1.0, 0.8, 0.
    area = (2.4 / 2 + 2.0 + 1.0 + 0.8 + 0.0) / 2.4 / 4
    assert irof(predict, images, maps, torch.tensor([1]), segments=1).item() == pytest.approx(1 - area)
    halves = torch.tensor([[[7, 7], [-2, -2]]])
    # The lower half has the larger mean, 1.5 over 1.
    assert irof(predict, images, maps, torch.tensor([1]), segments=halves).item() == pytest.approx(
        1 - (2.4 / 2 + 1.2) / 2.4 / 2
    )


def test_ties_go_by_number() -> None:
    images = torch.tensor([[[[0.4, 0.8]]]], dtype=torch.float64)
    flat, target = torch.ones(1, 1, 2), torch.tensor([1])
    forward = irof(predict, images, flat, target, segments=torch.tensor([[[0, 1]]]))
    backward = irof(predict, images, flat, target, segments=torch.tensor([[[1, 0]]]))
    assert forward.item() == pytest.approx(1 - (0.6 + 0.8) / 1.2 / 2)
    assert backward.item() == pytest.approx(1 - (0.6 + 0.4) / 1.2 / 2)


def test_a_rising_probability_is_below_zero() -> None:
    assert (irof(predict, IMAGES, MAPS, torch.ones(3, dtype=torch.long), segments=2, fill=2.0) < 0).all()


def test_no_probability_at_all_is_undefined() -> None:
    images = torch.cat([torch.zeros(1, 2, 6, 7), IMAGES.float()[1:]])
    got = irof(predict, images, MAPS, torch.ones(3, dtype=torch.long), segments=3)
    assert got.isnan().tolist() == [True, False, False]


def test_each_argument_matters() -> None:
    base = irof(predict, IMAGES, MAPS, TARGET, segments=2)
    variants = [
        irof(lambda x: predict(x) ** 2, IMAGES, MAPS, TARGET, segments=2),
        irof(predict, IMAGES / 2, MAPS, 1 - TARGET, segments=2),
        irof(predict, IMAGES, -MAPS, TARGET, segments=2),
        irof(predict, IMAGES, MAPS, 1 - TARGET, segments=2),
        irof(predict, IMAGES, MAPS, TARGET, segments=3),
        irof(predict, IMAGES, MAPS, TARGET, segments=2, fill="blur"),
    ]
    assert all((base != variant).all() for variant in variants)
    only_last = irof(predict, IMAGES, torch.cat([MAPS[:2], -MAPS[2:]]), TARGET, segments=2)
    assert torch.equal(base[:2], only_last[:2])
    assert base[2] != only_last[2]


def test_an_image_does_not_depend_on_the_others() -> None:
    together = irof(predict, IMAGES, MAPS, TARGET, segments=SEGMENTS)
    alone = [
        irof(predict, IMAGES[i : i + 1], MAPS[i : i + 1], TARGET[i : i + 1], segments=SEGMENTS[i : i + 1])
        for i in range(3)
    ]
    torch.testing.assert_close(together, torch.cat(alone))


def test_input_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected `segments` to be at least 1, but got 0"):
        irof(predict, IMAGES, MAPS, TARGET, segments=0)
    for segments in (SEGMENTS[:2], SEGMENTS.float(), SEGMENTS[:, :5]):
        with pytest.raises(ValueError, match=r"Expected `segments` to be a side in pixels or \(3, 6, 7\) integers"):
            irof(predict, IMAGES, MAPS, TARGET, segments=segments)
    with pytest.raises(ValueError, match=r"Expected `target` to be \(3,\) integers"):
        irof(predict, IMAGES, MAPS, TARGET.float())
    with pytest.raises(ValueError, match="Expected `fill` to be one of"):
        irof(predict, IMAGES, MAPS, TARGET, fill="white")
    with pytest.raises(ValueError, match="Expected `predict` to give probabilities"):
        irof(lambda x: 5 * predict(x), IMAGES, MAPS, TARGET)
    with pytest.raises(TypeError, match="Expected `maps` to be floating point"):
        irof(predict, IMAGES, MAPS.long(), TARGET)
