from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from softcam.metrics.faithfulness import (
    area_under_curve,
    average_drop,
    confidence_increase,
    deletion_curve,
    highlight,
    insertion_curve,
    relative_drop,
)

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.rand(3, 2, 6, 7, generator=GENERATOR, dtype=torch.float64)
MAPS = torch.randn(3, 6, 7, generator=GENERATOR, dtype=torch.float64)
TARGET = torch.tensor([1, 0, 1])
CURVES = [deletion_curve, insertion_curve]


def predict(images: Tensor) -> Tensor:
    """Half of the mean as the probability of class 1: linear in every pixel."""
    positive = images.mean((1, 2, 3)) / 2
    return torch.stack([1 - positive, positive], 1)


def slow_curve(patch: int, counts: list[int], fill: float, *, insertion: bool) -> Tensor:
    out = torch.zeros(3, len(counts), dtype=torch.float64)
    for i in range(3):
        windows = [(slice(y, y + patch), slice(x, x + patch)) for y in range(0, 6, patch) for x in range(0, 7, patch)]
        windows.sort(key=lambda w: -float(MAPS[i][w].mean()))
        for j, count in enumerate(counts):
            image = IMAGES[i].clone()
            for w in windows[count:] if insertion else windows[:count]:
                image[:, w[0], w[1]] = fill
            out[i, j] = predict(image[None])[0, TARGET[i]]
    return out


@pytest.mark.parametrize("fill", [0.0, 0.5])
@pytest.mark.parametrize("patch", [1, 2, 3, 4])
def test_curves_equal_the_slow_reference(patch: int, fill: float) -> None:
    counts = list(range(5))
    for insertion, curve in [(False, deletion_curve), (True, insertion_curve)]:
        got = curve(predict, IMAGES, MAPS, TARGET, patch=patch, steps=4, fill=fill)
        assert got.dtype == torch.float64
        torch.testing.assert_close(got, slow_curve(patch, counts, fill, insertion=insertion))


def test_curves_by_hand() -> None:
    images = torch.tensor([[[[0.4, 0.8], [1.0, 0.2]]]])
    maps = torch.tensor([[[3.0, -1.0], [2.0, 1.0]]])
    target = torch.tensor([1])
    deleted = deletion_curve(predict, images, maps, target, patch=1, steps=4)
    assert deleted[0].tolist() == pytest.approx([2.4 / 8, 2.0 / 8, 1.0 / 8, 0.8 / 8, 0.0])
    inserted = insertion_curve(predict, images, maps, target, patch=1, steps=4)
    assert inserted[0].tolist() == pytest.approx([0.0, 0.4 / 8, 1.4 / 8, 1.6 / 8, 2.4 / 8])


@pytest.mark.parametrize("curve", CURVES)
def test_given_points_are_columns_of_the_whole_curve(curve: Callable[..., Tensor]) -> None:
    whole = curve(predict, IMAGES, MAPS, TARGET, patch=2, steps=12)
    some = curve(predict, IMAGES, MAPS, TARGET, patch=2, steps=range(0, 13, 4))
    torch.testing.assert_close(some, whole[:, ::4])


def test_deletion_ends_where_insertion_begins() -> None:
    deleted = deletion_curve(predict, IMAGES, MAPS, TARGET, patch=3, steps=6, fill=0.3)
    inserted = insertion_curve(predict, IMAGES, MAPS, TARGET, patch=3, steps=6, fill=0.3)
    torch.testing.assert_close(deleted[:, 0], predict(IMAGES).gather(1, TARGET[:, None])[:, 0])
    torch.testing.assert_close(deleted[:, -1], inserted[:, 0])
    torch.testing.assert_close(deleted[:, 0], inserted[:, -1])


@pytest.mark.parametrize("curve", CURVES)
def test_each_argument_matters(curve: Callable[..., Tensor]) -> None:
    base = curve(predict, IMAGES, MAPS, TARGET, patch=2, steps=4)
    variants = [
        curve(lambda x: predict(x) ** 2, IMAGES, MAPS, TARGET, patch=2, steps=4),
        curve(predict, IMAGES / 2, MAPS, TARGET, patch=2, steps=4),
        curve(predict, IMAGES, -MAPS, TARGET, patch=2, steps=4),
        curve(predict, IMAGES, MAPS, 1 - TARGET, patch=2, steps=4),
        curve(predict, IMAGES, MAPS, TARGET, patch=3, steps=4),
        curve(predict, IMAGES, MAPS, TARGET, patch=2, steps=4, fill="blur"),
        curve(predict, IMAGES, MAPS, TARGET, patch=2, steps=4, fill="noisy_linear"),
    ]
    assert curve(predict, IMAGES, MAPS, TARGET, patch=2, steps=5).shape == (3, 6)
    assert all(not torch.allclose(base, variant) for variant in variants)


def test_only_the_order_of_the_map_matters() -> None:
    base = deletion_curve(predict, IMAGES, MAPS, TARGET, patch=2, steps=4)
    torch.testing.assert_close(deletion_curve(predict, IMAGES, 7 * MAPS - 3, TARGET, patch=2, steps=4), base)


def test_small_maps_are_resized_bilinearly() -> None:
    small = torch.tensor([[[0.0, 1.0], [3.0, 2.0]]] * 3)
    large = torch.nn.functional.interpolate(small[:, None], (6, 7), mode="bilinear")[:, 0]
    torch.testing.assert_close(
        deletion_curve(predict, IMAGES, small, TARGET, patch=2, steps=6),
        deletion_curve(predict, IMAGES, large, TARGET, patch=2, steps=6),
    )


def test_constant_map_removes_row_by_row() -> None:
    flat = torch.full((3, 2, 2), 0.1)
    rows = torch.arange(42, 0, -1, dtype=torch.float64).reshape(1, 6, 7).expand(3, 6, 7)
    torch.testing.assert_close(
        deletion_curve(predict, IMAGES, flat, TARGET, patch=1, steps=20),
        deletion_curve(predict, IMAGES, rows, TARGET, patch=1, steps=20),
    )


def test_one_forward_for_each_point_without_gradients() -> None:
    calls = []

    def spy(images: Tensor) -> Tensor:
        calls.append((images.shape, torch.is_grad_enabled(), images.requires_grad))
        return predict(images)

    deletion_curve(spy, IMAGES.clone().requires_grad_(), MAPS, TARGET, patch=2, steps=[0, 3], fill="blur")
    assert calls == [(IMAGES.shape, False, False)] * 2
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("curve", CURVES)
def test_input_is_refused(curve: Callable[..., Tensor]) -> None:
    arguments = {"images": IMAGES, "maps": MAPS, "target": TARGET, "patch": 2, "steps": 2}

    def call(**changed: object) -> Tensor:
        given = arguments | changed
        return curve(
            given.pop("predict", predict), given.pop("images"), given.pop("maps"), given.pop("target"), **given
        )

    with pytest.raises(
        ValueError, match=r"Expected `images` to be \(3, C, H, W\), one per map, but got \(2, 2, 6, 7\)"
    ):
        call(images=IMAGES[:2])
    with pytest.raises(ValueError, match=r"Expected `images` to be \(3, C, H, W\)"):
        call(images=IMAGES[:, 0])
    with pytest.raises(ValueError, match="Expected `maps` to be finite"):
        call(maps=MAPS / 0)
    with pytest.raises(ValueError, match=r"Expected `target` to be \(3,\) integers"):
        call(target=TARGET[:2])
    with pytest.raises(ValueError, match=r"Expected `target` to be \(3,\) integers"):
        call(target=TARGET.float())
    with pytest.raises(ValueError, match=r"Expected `target` to lie in \[0, 2\), but got 1 to 2"):
        call(target=TARGET.clamp_min(1) + torch.tensor([0, 0, 1]))
    with pytest.raises(ValueError, match=r"Expected `target` to lie in \[0, 2\), but got -1 to 0"):
        call(target=-TARGET)
    with pytest.raises(ValueError, match="Expected `steps` to be at most the 12 patches of side 2, but got 13"):
        call(steps=13)
    for steps in (-1, [], [3, 3], [-1, 2], [2, 1]):
        with pytest.raises(ValueError, match="Expected `steps` to be at least 0, or increasing"):
            call(steps=steps)
    with pytest.raises(ValueError, match="Expected `patch` to be at least 1"):
        call(patch=0)
    with pytest.raises(ValueError, match="Expected `fill` to be one of"):
        call(fill="white")
    with pytest.raises(ValueError, match=r"Expected `predict` to return \(3, K\), but got \(3,\)"):
        call(predict=lambda x: x.mean((1, 2, 3)))
    with pytest.raises(ValueError, match=r"Expected `predict` to give probabilities in \[0, 1\]"):
        call(predict=lambda x: predict(x) * 3)
    with pytest.raises(
        ValueError, match=r"Expected `predict` to give probabilities in \[0, 1\], but got others or NaN"
    ):
        call(predict=lambda x: predict(x) * float("nan"))


def test_half_precision_rounding_is_clamped() -> None:
    def rounded(images: Tensor) -> Tensor:
        return torch.tensor([[-5e-4, 1.0005]]).expand(len(images), 2)

    assert deletion_curve(rounded, IMAGES, MAPS, TARGET, patch=2, steps=0).tolist() == [[1.0], [0.0], [1.0]]


def test_area_by_hand() -> None:
    curves = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    assert area_under_curve(curves).tolist() == [0.25, 0.5]
    assert area_under_curve(curves, points=[0, 3, 4]).tolist() == [0.375, 0.5]
    assert area_under_curve(curves, points=[5, 8, 9]).tolist() == [0.375, 0.5]
    assert area_under_curve(torch.tensor([[1.0, float("nan")]])).isnan().item()


def test_area_refuses_other_input() -> None:
    for shape in [(2, 1), (3,)]:
        with pytest.raises(ValueError, match=r"Expected `curves` to be \(N, P\) with P >= 2"):
            area_under_curve(torch.zeros(shape))
    for points in ([0, 1], [0, 1, 1], [0, 2, 1]):
        with pytest.raises(ValueError, match="Expected `points` to be 3 increasing numbers"):
            area_under_curve(torch.zeros(1, 3), points=points)


def test_drops_by_hand() -> None:
    before, after = torch.tensor([0.8, 0.5, 0.0, 1.0]), torch.tensor([0.2, 0.75, 0.3, 1.0])
    assert relative_drop(before, after).tolist() == pytest.approx([0.25, 1.5, float("nan"), 1.0], nan_ok=True)
    assert average_drop(before, after).tolist() == pytest.approx([0.75, 0.0, float("nan"), 0.0], nan_ok=True)
    assert confidence_increase(before, after).tolist() == [0.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("metric", [relative_drop, average_drop, confidence_increase])
def test_drops_refuse_other_input(metric: Callable[[Tensor, Tensor], Tensor]) -> None:
    good = torch.tensor([0.5])
    assert metric(good, good).dtype == torch.float64
    with pytest.raises(ValueError, match=r"Expected `before` and `after` to be \(N,\) alike"):
        metric(good, torch.tensor([0.5, 0.5]))
    with pytest.raises(ValueError, match=r"Expected `before` and `after` to be \(N,\) alike"):
        metric(good[:, None], good[:, None])
    with pytest.raises(ValueError, match="Expected `before` to give probabilities"):
        metric(good + 1, good)
    with pytest.raises(ValueError, match="Expected `after` to give probabilities"):
        metric(good, good * float("nan"))


def test_highlight_fades_to_the_mean() -> None:
    images = torch.full((2, 2, 1, 4), 3.0)
    maps = torch.tensor([[[4.0, 1.0, -2.0, 0.0]], [[-1.0, -2.0, 0.0, -1.0]]])
    shown = highlight(images, maps)
    assert shown.dtype == torch.float32
    assert shown[0].tolist() == [[[3.0, 0.75, 0.0, 0.0]]] * 2
    assert shown[1].abs().max() == 0


def test_highlight_resizes_the_map() -> None:
    assert highlight(torch.ones(1, 1, 1, 4), torch.tensor([[[0.0, 4.0]]]))[0, 0, 0].tolist() == [0.0, 0.25, 0.75, 1.0]
