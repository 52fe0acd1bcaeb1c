from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from softcam.attribution.cams import (
    eigen_cam,
    finer_cam,
    grad_cam,
    grad_cam_plus_plus,
    hires_cam,
    layer_cam,
    refine_cam,
    xgrad_cam,
)
from softcam.errors import UnsupportedModelError

pytest.importorskip("pytorch_grad_cam")


class Net(nn.Module):
    """Two convolutions and a head with a square in it, so that gradients differ from cell to cell."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.features = nn.Conv2d(3, 5, 3, stride=2, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(5, classes)
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


def two_classes() -> Net:
    """A network whose logits lie so close that their probabilities do not vanish."""
    model = Net(classes=2)
    model.fc.weight.data *= 0.1
    return model


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


def test_xgrad_cam_equals_a_float64_reference() -> None:
    model, target = Net(), torch.tensor([1, 2])
    features, gradient = gradients(model, images(), target)
    share = features / features.sum((-2, -1), keepdim=True)
    expected = ((gradient * share).sum((-2, -1), keepdim=True) * features).sum(1).relu()
    assert expected.max() > 0
    torch.testing.assert_close(xgrad_cam(model, images(), target), expected.float(), rtol=1e-3, atol=1e-4)


def test_finer_cam_of_two_classes_is_grad_cam_of_target_minus_rival() -> None:
    model, contrast, target = two_classes(), two_classes(), torch.tensor([1, 0])
    contrast.fc.weight.data = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]) @ model.fc.weight.data
    expected = grad_cam(contrast, images(), target)
    assert expected.max() > 0
    torch.testing.assert_close(finer_cam(model, images(), target), expected)


def test_finer_cam_equals_a_float64_reference() -> None:
    model, target = Net(classes=5), torch.tensor([1, 4])
    double = model.double()
    features = double.features(images().double()).detach().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    for logits, index in zip(double.head(features), target, strict=True):
        others = [k for k in range(5) if k != index]
        others.sort(key=lambda k, logits=logits, index=index: abs(logits.detach()[k] - logits.detach()[index]))  # type: ignore[misc]
        weights = logits.softmax(0)[others[:3]]
        total = total + (weights * (logits[index] - logits[others[:3]])).sum() / weights.sum()
    total.backward()
    assert features.grad is not None
    expected = (features.grad.mean((-2, -1), keepdim=True) * features.detach()).sum(1).relu()
    assert expected.max() > 0
    found = finer_cam(model.float(), images(), target)
    torch.testing.assert_close(found, expected.float(), rtol=1e-3, atol=1e-5)


def test_finer_cam_keeps_its_sign_on_a_certain_prediction_and_the_librarys_objective_does_not() -> None:
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    if not hasattr(targets, "FinerWeightedTarget"):
        pytest.skip("this grad-cam has no Finer-CAM")
    logits = torch.tensor([30.0, 0.0], requires_grad=True)
    targets.FinerWeightedTarget(0, [1], 1.0)(logits).backward()
    assert logits.grad is not None
    assert logits.grad[0] < 0
    model, target = two_classes(), torch.tensor([0, 0])
    model.fc.bias.data = torch.tensor([0.0, 0.0])
    expected = finer_cam(model, images(), target)
    model.fc.bias.data = torch.tensor([100.0, 0.0])
    torch.testing.assert_close(finer_cam(model, images(), target), expected)
    assert expected.max() > 0


def test_finer_cam_needs_a_rival() -> None:
    with pytest.raises(UnsupportedModelError, match=r"at least two classes, but got logits \(2, 1\)\. Use grad_cam"):
        finer_cam(Net(classes=1), images(), torch.tensor([0, 0]))


class Stages(nn.Sequential):
    """Three grids, 8 x 6, 4 x 3 and 2 x 2."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        first, second, third = (
            nn.Conv2d(a, b, 3, stride=s, padding=1) for a, b, s in ((3, 4, 1), (4, 5, 2), (5, 6, 2))
        )
        super().__init__(first, second, third, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))


def test_refine_cam_is_the_product_of_the_scaled_maps_of_the_stages() -> None:
    model, target = Stages(), torch.tensor([2, 1])
    expected = torch.ones(2, 8, 6)
    for layer in "012":
        maps = grad_cam_plus_plus(model, images(), target, layer=layer)[:, None]
        maps = nn.functional.interpolate(maps, (8, 6), mode="bilinear", align_corners=False)[:, 0]
        low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
        expected *= (maps - low) / (high - low)
    assert (expected.amax((1, 2)) > 0).all()
    torch.testing.assert_close(refine_cam(model, images(), target), expected)


def test_refine_cam_needs_two_stages() -> None:
    with pytest.raises(UnsupportedModelError, match=r"two or more grids, but got only 'relu'\. Use grad_cam_plus_plus"):
        refine_cam(Relu(), images(), torch.tensor([0, 0]))


class Relu(Net):
    """A network with one grid."""

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.relu(self.features(images)))


def test_eigen_cam_is_the_first_principal_component_with_its_farthest_value_positive() -> None:
    model, target = Net(), torch.tensor([0, 0])
    table = model.double().features(images().double()).detach().flatten(2).transpose(1, 2)
    table = table - table.mean(1, keepdim=True)
    covariance = table.transpose(1, 2) @ table
    expected = (table @ torch.linalg.eigh(covariance).eigenvectors[..., -1:])[..., 0]
    farthest = expected.gather(1, expected.abs().argmax(1, keepdim=True))
    expected = (expected * farthest.sign()).relu().reshape(2, 4, 3)
    torch.testing.assert_close(eigen_cam(model.float(), images(), target), expected.float(), rtol=1e-3, atol=1e-4)


def test_eigen_cam_does_not_depend_on_the_sign_of_the_features() -> None:
    model, target = Net(), torch.tensor([0, 0])
    found = eigen_cam(model, images(), target)
    model.features.weight.data *= -1
    model.features.bias.data *= -1  # type: ignore[union-attr]
    torch.testing.assert_close(eigen_cam(model, images(), target), found)


def test_a_layer_without_a_grid_is_refused() -> None:
    with pytest.raises(
        UnsupportedModelError, match=r"features \(N, D, h, w\), but got \(1, 3\)\. Name another `layer`"
    ):
        grad_cam(Net(), images(), torch.tensor([0, 1]), layer="fc")
