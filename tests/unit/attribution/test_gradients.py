from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from softcam.attribution.gradients import guided_backprop, integrated_gradients, smooth_grad
from softcam.errors import UnsupportedModelError

pytest.importorskip("captum")


def linear(weight: Tensor) -> nn.Module:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight
    return nn.Sequential(nn.Flatten(), layer)


def chain(activation: nn.Module) -> nn.Module:
    """Logit 0 = 2 a(x0) - a(x1) + a(x2); logit 1 = its negative."""
    head = nn.Linear(3, 2, bias=False)
    head.weight.data = torch.tensor([[2.0, -1.0, 1.0], [-2.0, 1.0, -1.0]])
    return nn.Sequential(nn.Flatten(), activation, head)


def pixels(*values: float) -> Tensor:
    return torch.tensor(values).reshape(1, 1, 1, len(values))


def test_integrated_gradients_of_a_linear_model_is_weight_times_input() -> None:
    weight = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.0, 0.0, 0.0, 0.0, 0.0, -1.0]])
    images = torch.tensor([1.0, -1.0, 2.0, 0.5, 0.0, 3.0]).reshape(1, 2, 1, 3).repeat(2, 1, 1, 1)
    maps = integrated_gradients(linear(weight), images, torch.tensor([0, 1]))
    # Channel sums per pixel: (1*1 + 4*.5, 2*-1 + 5*0, 3*2 + 6*3) and only the last weight for class 1.
    torch.testing.assert_close(maps, torch.tensor([[[3.0, -2.0, 24.0]], [[0.0, 0.0, -3.0]]]))


def test_integrated_gradients_add_up_to_the_logit_difference() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Softplus(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    images = torch.randn(3, 3, 6, 6)
    maps = integrated_gradients(model, images, torch.tensor([0, 1, 0]))
    difference = (model(images) - model(torch.zeros_like(images)))[torch.arange(3), torch.tensor([0, 1, 0])]
    torch.testing.assert_close(maps.sum((-2, -1)), difference.detach(), rtol=1e-3, atol=1e-4)


def test_more_images_than_one_internal_batch_and_no_warning() -> None:
    images = torch.randn(35, 1, 1, 3)
    model = linear(torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maps = integrated_gradients(model, images, torch.zeros(35, dtype=torch.long))
    torch.testing.assert_close(maps, images[:, 0] * torch.tensor([1.0, 2.0, 3.0]))


def test_steps_change_the_result_and_are_checked() -> None:
    model, images, target = chain(nn.Tanh()), pixels(3.0, -2.0, 1.0), torch.tensor([0])
    coarse = integrated_gradients(model, images, target, steps=2)
    assert not torch.allclose(coarse, integrated_gradients(model, images, target), atol=1e-3)
    with pytest.raises(ValueError, match="Expected `steps` to be at least 1, but got 0"):
        integrated_gradients(model, images, target, steps=0)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.ReLU6(inplace=True)])
def test_guided_backprop_by_hand(activation: nn.Module) -> None:
    # Gate open at x0 and x1; the gradient of x1 is -1 and is cut, that of x2 meets a closed gate.
    maps = guided_backprop(chain(activation), pixels(1.0, 1.0, -1.0), torch.tensor([0]))
    torch.testing.assert_close(maps, torch.tensor([[[2.0, 0.0, 0.0]]]))
    maps = guided_backprop(chain(activation), pixels(1.0, 1.0, -1.0), torch.tensor([1]))
    torch.testing.assert_close(maps, torch.tensor([[[0.0, 1.0, 0.0]]]))


def test_saturated_relu6_passes_nothing() -> None:
    maps = guided_backprop(chain(nn.ReLU6()), pixels(7.0, 1.0, 5.0), torch.tensor([0]))
    torch.testing.assert_close(maps, torch.tensor([[[0.0, 0.0, 1.0]]]))


def test_relu6_alone_is_not_guided_by_captum_so_ours_is_needed() -> None:
    captum = pytest.importorskip("captum.attr")
    images = pixels(1.0, 1.0, -1.0).requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unguided = captum.GuidedBackprop(chain(nn.ReLU6())).attribute(images, target=0)
    assert unguided[0, 0, 0, 1] == -1.0


def test_other_activations_keep_their_gradient() -> None:
    model = nn.Sequential(nn.ReLU(), chain(nn.Identity()))
    maps = guided_backprop(model, pixels(1.0, 1.0, 1.0), torch.tensor([0]))
    torch.testing.assert_close(maps, torch.tensor([[[2.0, 0.0, 1.0]]]))


def test_model_without_relu_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"nn\.ReLU or nn\.ReLU6 modules, but found none in Sequential"):
        guided_backprop(chain(nn.SiLU()), pixels(1.0, 1.0, 1.0), torch.tensor([0]))


def test_guided_backprop_is_silent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guided_backprop(chain(nn.ReLU()), pixels(1.0, 1.0, 1.0), torch.tensor([0]))


def test_smooth_grad_of_a_linear_model_is_the_size_of_its_weights() -> None:
    weight = torch.tensor([[1.0, -2.0, 3.0, -4.0, 5.0, 6.0], [0.0, 0.0, 0.0, 0.0, 0.0, -1.0]])
    maps = smooth_grad(linear(weight), torch.randn(2, 2, 1, 3), torch.tensor([0, 1]))
    torch.testing.assert_close(maps, torch.tensor([[[5.0, 7.0, 9.0]], [[0.0, 0.0, 1.0]]]))


def test_smooth_grad_averages_with_the_sign() -> None:
    # The gradient of |x| at noise around zero has both signs: their mean is small, the mean of their size would be 1.
    class Distance(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1).abs()

    maps = smooth_grad(Distance(), pixels(0.0, 10.0), torch.tensor([0]), samples=400)
    assert maps[0, 0, 0] < 0.2
    assert maps[0, 0, 1] == 0


def test_smooth_grad_has_the_noise_of_the_image_in_its_own_range() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Tanh(), nn.Linear(3, 2))
    images, target = torch.randn(2, 1, 1, 3), torch.tensor([0, 1])
    before = torch.get_rng_state()
    maps = smooth_grad(model, images, target)
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(smooth_grad(model, images[1:], target[1:]), maps[1:])
    assert not torch.allclose(smooth_grad(model, images, target, noise=0.5), maps, atol=1e-3)
    assert not torch.allclose(smooth_grad(model, images, target, samples=2), maps, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "`samples` to be at least 1, but got 0"),
        ({"noise": 0.0}, r"`noise` to be above 0, but got 0\.0"),
    ],
)
def test_smooth_grad_checks_its_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        smooth_grad(chain(nn.Tanh()), pixels(1.0, 1.0, 1.0), torch.tensor([0]), **options)  # type: ignore[arg-type]
