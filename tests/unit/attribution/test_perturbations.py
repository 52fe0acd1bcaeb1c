from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softcam.attribution.perturbations import ablation_cam, draw_masks, occlusion, rise, score_cam
from softcam.errors import UnsupportedModelError


class Net(nn.Module):
    """More channels than one batch of masks, features of both signs and a head with a square in it."""

    def __init__(self, channels: int = 40) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(channels, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))

    def head(self, features: Tensor) -> Tensor:
        return self.fc((self.relu(features) + 0.1 * features.square()).mean((-2, -1)))


class Linear(nn.Module):
    """Logits that are weighted sums of the pixels of the first channel."""

    def __init__(self, *weights: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack(weights))

    def forward(self, images: Tensor) -> Tensor:
        return torch.einsum("nhw,khw->nk", images[:, 0], self.weight)


IMAGES = torch.randn(2, 3, 8, 6, generator=torch.Generator().manual_seed(0))
TARGET = torch.tensor([2, 0])


@pytest.fixture
def net() -> Net:
    torch.manual_seed(1)
    return Net().eval()


@torch.no_grad()
def test_score_cam_equals_a_float64_reference(net: Net) -> None:
    found, double = score_cam(net, IMAGES, TARGET, layer="features"), net.double()
    for image, index, mine in zip(IMAGES.double(), TARGET, found, strict=True):
        features = double.features(image[None])[0]
        scores = []
        for feature in features:
            mask = F.interpolate(feature[None, None], (8, 6), mode="bilinear", align_corners=True)[0, 0]
            mask = (mask - mask.min()) / (mask.max() - mask.min())
            scores.append(double(image[None] * mask)[0, index])
        expected = sum(w * f for w, f in zip(torch.stack(scores).softmax(0), features, strict=True)).relu()
        assert expected.max() > 0
        torch.testing.assert_close(mine, expected.float(), rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_ablation_cam_equals_a_float64_reference(net: Net) -> None:
    found, double = ablation_cam(net, IMAGES, TARGET, layer="features"), net.double()
    for image, index, mine in zip(IMAGES.double(), TARGET, found, strict=True):
        features = double.features(image[None])
        expected = torch.zeros(features.shape[-2:], dtype=torch.float64)
        for channel in range(features.shape[1]):
            without = features.clone()
            without[:, channel] = 0
            expected += (double.head(features.clone()) - double.head(without))[0, index] * features[0, channel]
        assert expected.max() > 0
        torch.testing.assert_close(mine, expected.relu().float(), rtol=1e-3, atol=1e-5)


def test_ablation_cam_by_hand() -> None:
    # Features x and 2 x; logit = 3 mean(x) - mean(2 x), so the channels lose 3 and -2 times the mean 2.5.
    convolution, head = nn.Conv2d(1, 2, 1, bias=False), nn.Linear(2, 1)
    convolution.weight.data = torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1)
    head.weight.data, head.bias.data = torch.tensor([[3.0, -1.0]]), torch.tensor([-100.0])
    model = nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    maps = ablation_cam(model, image, torch.tensor([0]))
    # 7.5 x - 5 * 2 x is negative everywhere although the logit is negative as well.
    torch.testing.assert_close(maps, torch.zeros(1, 2, 2))
    head.weight.data = torch.tensor([[5.0, -1.0]])
    torch.testing.assert_close(ablation_cam(model, image, torch.tensor([0])), 2.5 * image[:, 0])


def test_the_library_ablates_by_the_place_in_the_batch_so_ours_is_needed() -> None:
    library = pytest.importorskip("pytorch_grad_cam.ablation_layer")
    layer = library.AblationLayer()
    layer.indices, layer.activations = [0, 0], -torch.ones(2, 1, 1, 1)
    first, second = layer(torch.empty(0)).flatten().tolist()
    assert second < first < -1e6


@pytest.mark.parametrize("method", [score_cam, ablation_cam])
def test_a_later_in_place_activation_does_not_change_the_features(method: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)]
    expected = method(nn.Sequential(*parts), IMAGES, TARGET, layer="0")
    parts[1] = nn.ReLU()
    torch.testing.assert_close(method(nn.Sequential(*parts), IMAGES, TARGET, layer="0"), expected)


@pytest.mark.parametrize("method", [score_cam, ablation_cam])
def test_a_layer_without_a_grid_is_refused(method: Callable[..., Tensor], net: Net) -> None:
    with pytest.raises(UnsupportedModelError, match=r"features \(N, D, h, w\), but got \(1, 3\)"):
        method(net, IMAGES, TARGET, layer="fc")


def test_occlusion_by_hand() -> None:
    pytest.importorskip("captum")
    # Windows of 1 x 2 pixels that move by one: each pixel is the mean of the two windows over it, or of one at the end.
    model = Linear(torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0]]))
    maps = occlusion(model, torch.ones(1, 2, 1, 14), torch.tensor([0]))
    assert maps.shape == (1, 1, 14)
    torch.testing.assert_close(maps[0, 0, :3], torch.tensor([3.0, 4.0, 6.0]))
    torch.testing.assert_close(maps[0, 0, -2:], torch.tensor([26.0, 27.0]))


def test_occlusion_has_the_sign_of_what_is_lost_and_the_class_of_each_image() -> None:
    pytest.importorskip("captum")
    model = Linear(torch.ones(7, 7), -torch.ones(7, 7))
    maps = occlusion(model, torch.ones(2, 1, 7, 7), torch.tensor([0, 1]))
    torch.testing.assert_close(maps, torch.stack([torch.ones(7, 7), -torch.ones(7, 7)]))


@torch.no_grad()
def test_rise_equals_a_float64_reference(net: Net) -> None:
    masks = torch.cat(list(draw_masks(40, (8, 6)))).double()
    found, double = rise(net, IMAGES, TARGET, masks=40), net.double()
    for image, index, mine in zip(IMAGES.double(), TARGET, found, strict=True):
        logits = torch.stack([double(image[None] * mask)[0, index] for mask in masks])
        expected = sum((y - logits.mean()) * mask for y, mask in zip(logits, masks, strict=True)) / (40 * 0.5)
        torch.testing.assert_close(mine, expected.float(), rtol=1e-3, atol=1e-5)


def test_rise_finds_what_the_logit_is_made_of() -> None:
    weight = torch.zeros(14, 14)
    weight[2:4, 2:4], weight[10:12, 10:12] = 1.0, -1.0
    maps = rise(Linear(weight, weight), torch.ones(1, 1, 14, 14), torch.tensor([1]))
    assert divmod(int(maps[0].argmax()), 14) in {(y, x) for y in (2, 3) for x in (2, 3)}
    assert divmod(int(maps[0].argmin()), 14) in {(y, x) for y in (10, 11) for x in (10, 11)}


def test_a_constant_logit_leaves_no_noise_in_rise() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    model[1].weight.data.zero_()
    maps = rise(model, torch.randn(1, 3, 2, 2), torch.tensor([0]), masks=64)
    torch.testing.assert_close(maps, torch.zeros(1, 2, 2), atol=1e-6, rtol=0)


def test_masks_are_shares_half_open_shifted_and_always_the_same() -> None:
    first, second = (torch.cat(list(draw_masks(1000, (20, 13)))) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (1000, 20, 13)
    assert (first.min(), first.max()) == (0, 1)
    assert abs(float(first.mean()) - 0.5) < 0.01
    # Without the shift the borders of cells would lie at the same pixels and the mean would not be even.
    assert float((first.mean(0) - 0.5).abs().max()) < 0.06
    assert float(first.std(0).min()) > 0.25


def test_masks_of_rise_change_the_result_and_are_checked(net: Net) -> None:
    few, more = (rise(net, IMAGES, TARGET, masks=count) for count in (2, 33))
    assert not torch.allclose(few, more, atol=1e-3)
    with pytest.raises(ValueError, match="Expected `masks` to be at least 2, but got 1"):
        rise(net, IMAGES, TARGET, masks=1)
