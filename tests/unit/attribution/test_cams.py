from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from softcam.attribution.cams import grad_cam, grad_cam_plus_plus, hires_cam, layer_cam

pytest.importorskip("pytorch_grad_cam")


class Net(nn.Module):
    """Two convolutions and a head with a square in it, so that gradients differ from cell to cell."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.features = nn.Conv2d(3, 5, 3, stride=2, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(5, 3)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))

    def head(self, features: Tensor) -> Tensor:
        return self.fc((features.square() + features).mean((-2, -1)))


class InPlace(Net):
    """A network that overwrites its features by a functional ReLU, as torchvision's DenseNet does."""

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.relu_(self.features(images)))


def images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 8, 6, generator=torch.Generator().manual_seed(0))


def gradients(model: Net, batch: Tensor, target: Tensor, *, relu: bool = False) -> tuple[Tensor, Tensor]:
    double = model.double()
    features = double.features(batch.double()).detach().requires_grad_()
    logits = double.head(features.relu() if relu else features)
    logits[torch.arange(len(batch)), target].sum().backward()
    gradient, features = features.grad, features.detach()
    model.float()
    assert gradient is not None
    return features, gradient


def test_grad_cam_equals_a_float64_reference() -> None:
    model, target = Net(), torch.tensor([2, 0])
    features, gradient = gradients(model, images(), target)
    expected = (gradient.mean((-2, -1), keepdim=True) * features).sum(1).relu()
    assert expected.max() > 0
    torch.testing.assert_close(grad_cam(model, images(), target), expected.float(), rtol=1e-4, atol=1e-5)


def test_layer_cam_equals_a_float64_reference() -> None:
    model, target = Net(), torch.tensor([1, 1])
    features, gradient = gradients(model, images(), target)
    expected = (gradient.relu() * features).sum(1).relu()
    assert expected.max() > 0
    torch.testing.assert_close(layer_cam(model, images(), target), expected.float(), rtol=1e-4, atol=1e-5)


def test_hires_cam_equals_a_float64_reference() -> None:
    model, target = Net(), torch.tensor([1, 2])
    features, gradient = gradients(model, images(), target)
    expected = (gradient * features).sum(1).relu()
    assert expected.max() > 0
    torch.testing.assert_close(hires_cam(model, images(), target), expected.float(), rtol=1e-4, atol=1e-5)


def test_grad_cam_plus_plus_equals_a_float64_reference() -> None:
    model, target = Net(), torch.tensor([0, 2])
    features, gradient = gradients(model, images(), target)
    total = features.sum((-2, -1), keepdim=True)
    share = gradient.square() / (2 * gradient.square() + total * gradient**3 + 1e-6)
    weights = (gradient.relu() * share.where(gradient != 0, 0.0)).sum((-2, -1), keepdim=True)
    expected = (weights * features).sum(1).relu()
    assert expected.max() > 0
    found = grad_cam_plus_plus(model, images(), target)
    torch.testing.assert_close(found, expected.float(), rtol=1e-3, atol=1e-4)


def test_a_later_in_place_activation_does_not_change_the_features() -> None:
    model, target = InPlace(), torch.tensor([2, 1])
    features, gradient = gradients(model, images(), target, relu=True)
    expected = (gradient.mean((-2, -1), keepdim=True) * features).sum(1).relu()
    torch.testing.assert_close(grad_cam(model, images(), target), expected.float(), rtol=1e-4, atol=1e-5)


def test_values_are_raw() -> None:
    model, target = Net(), torch.tensor([2, 0])
    once = grad_cam(model, images(), target)
    model.fc.weight.data *= 3
    torch.testing.assert_close(grad_cam(model, images(), target), 3 * once)


def test_target_changes_the_map() -> None:
    model = Net()
    first, second = (layer_cam(model, images(1), torch.tensor([index])) for index in (0, 1))
    assert not torch.allclose(first, second)


def test_works_where_no_parameter_requires_gradients() -> None:
    model, target = Net(), torch.tensor([2, 0])
    expected = grad_cam(model, images(), target)
    torch.testing.assert_close(grad_cam(model.requires_grad_(requires_grad=False), images(), target), expected)
