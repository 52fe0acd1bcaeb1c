from __future__ import annotations

import warnings
from contextlib import suppress

import pytest
import torch
from torch import Tensor, nn

from softcam.attribution.deep_lift import deep_lift
from softcam.errors import UnsupportedModelError

pytest.importorskip("captum")

IMAGES = torch.randn(2, 3, 9, 8, generator=torch.Generator().manual_seed(0))
TARGET = torch.tensor([1, 0])


def network(*activations: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    first, second = activations or (nn.ReLU(), nn.ReLU())
    trunk = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), first, nn.MaxPool2d(3, 2, 1), nn.Conv2d(6, 6, 3), second]
    return nn.Sequential(*trunk, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)).eval()


class Functional(nn.Module):
    """A network whose second activation is a function."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = network()[:5]
        self.fc = nn.Linear(6, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(torch.relu(self.trunk(images)).mean((-2, -1)))


class Gated(nn.Module):
    """A network that multiplies its features by gates, as squeeze and excitation does."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = network()[:6]
        self.gate = nn.Sequential(nn.Linear(6, 6), nn.Sigmoid())
        self.fc = nn.Linear(6, 2)

    def forward(self, images: Tensor) -> Tensor:
        means = self.trunk(images).mean((-2, -1))
        return self.fc(means * self.gate(20 * means))


def test_by_hand() -> None:
    # relu(2 x - 1) at x = 2 is 3 and 0 at zero, so the whole 3 belongs to the pixel; the gradient would say 4.
    layer = nn.Linear(1, 1)
    layer.weight.data, layer.bias.data = torch.tensor([[2.0]]), torch.tensor([-1.0])
    maps = deep_lift(nn.Sequential(nn.Flatten(), layer, nn.ReLU()), torch.full((1, 1, 1, 1), 2.0), torch.tensor([0]))
    torch.testing.assert_close(maps, torch.full((1, 1, 1), 3.0))


@pytest.mark.parametrize(
    "kind", [nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish, nn.Sigmoid, nn.Tanh, nn.ELU, nn.LeakyReLU]
)
def test_maps_add_up_to_the_difference_of_logits(kind: type[nn.Module]) -> None:
    model = network(kind(), kind())
    with torch.no_grad():
        difference = (model(3 * IMAGES) - model(0 * IMAGES))[torch.arange(2), TARGET]
    torch.testing.assert_close(deep_lift(model, 3 * IMAGES, TARGET).sum((-2, -1)), difference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [nn.ReLU, nn.ReLU6])
def test_activations_in_place_give_the_same_map(kind: type[nn.Module]) -> None:
    expected = deep_lift(network(kind(), kind()), IMAGES, TARGET)
    torch.testing.assert_close(deep_lift(network(kind(inplace=True), kind(inplace=True)), IMAGES, TARGET), expected)


def test_an_activation_called_twice_is_refused_and_named() -> None:
    reused = nn.ReLU()
    with pytest.raises(UnsupportedModelError, match=r"called once, but '2' is called 2 times\. Give every call"):
        deep_lift(network(reused, reused), IMAGES, TARGET)


@pytest.mark.parametrize("kind", [Functional, Gated])
def test_what_the_rule_does_not_reach_is_refused(kind: type[nn.Module]) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"add up .* but in {kind.__name__} the sum is off by .*nn\.ReLU"):
        deep_lift(kind().eval(), 3 * IMAGES, TARGET)


@pytest.mark.parametrize("model", [network(), Functional().eval(), network(*2 * [nn.ReLU()])])
def test_nothing_stays_on_the_modules_or_in_the_library(model: nn.Module) -> None:
    library = pytest.importorskip("captum.attr._core.deep_lift")
    before, rules = [set(vars(module)) for module in model.modules()], dict(library.SUPPORTED_NON_LINEAR)
    with suppress(UnsupportedModelError):
        deep_lift(model, 3 * IMAGES, TARGET)
    assert [set(vars(module)) for module in model.modules()] == before
    assert rules == library.SUPPORTED_NON_LINEAR


def test_is_silent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        deep_lift(network(), IMAGES, TARGET)
