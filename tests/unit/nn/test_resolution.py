from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from softcam.errors import UnsupportedModelError
from softcam.nn import convert
from softcam.nn.resolution import refine
from softcam.survey.weights import randomise

IMAGES = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def run_all(network: nn.Module, images: Tensor) -> Tensor:
    return network(images)


class Squeeze(nn.Module):
    """Gates channels by their mean over the image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + 0.1 * self.gate(x.mean((2, 3), keepdim=True)).sigmoid())


class Shortcut(nn.Module):
    """A residual block of stride 2 whose shortcut averages, as in ResNet-D."""

    def __init__(self) -> None:
        super().__init__()
        self.main = nn.Conv2d(6, 6, 3, 2, 1)
        self.past = nn.Sequential(nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), nn.Conv2d(6, 6, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.main(x) + self.past(x))


def conv(stride: int, kernel: int = 3, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(6, 6, kernel, stride, dilation * (kernel - 1) // 2, dilation)


def stem() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1))


KEPT: dict[str, Callable[[], nn.Module]] = {
    "convolutions": lambda: nn.Sequential(stem(), conv(2), nn.ReLU(), conv(1), conv(2), nn.ReLU(), conv(1)),
    "wide kernels": lambda: nn.Sequential(stem(), conv(2, 5), conv(1, 7), conv(2, 5), conv(1, 5)),
    "dilated already": lambda: nn.Sequential(stem(), conv(2), conv(2), conv(1, 3, 2)),
    "max pooling": lambda: nn.Sequential(stem(), nn.MaxPool2d(3, 2, 1), conv(1), nn.MaxPool2d(2, 2), conv(1)),
    "average pooling": lambda: nn.Sequential(stem(), nn.AvgPool2d(2, 2), conv(1), nn.AvgPool2d(2, 2), conv(1)),
    "shortcuts": lambda: nn.Sequential(stem(), Shortcut(), conv(1), Shortcut(), conv(1)),
    "even kernels": lambda: nn.Sequential(stem(), nn.Conv2d(6, 6, 2, 2), conv(1), nn.Conv2d(6, 6, 2, 2), conv(1)),
}


@pytest.mark.parametrize(("stride", "count"), [(8, 1), (4, 2)])
@pytest.mark.parametrize("name", KEPT)
def test_the_old_features_survive_on_the_old_cells(name: str, stride: int, count: int) -> None:
    torch.manual_seed(1)
    network = KEPT[name]().eval()
    before = network(IMAGES)
    keys = list(network.state_dict())
    found = refine(network, IMAGES, run_all, stride=stride)
    after = network(IMAGES)
    factor = 16 // stride
    assert (found.stride_before, found.stride_after) == (16, stride)
    assert len(found.changed) in (count, 2 * count)  # a shortcut has a stride of its own
    assert after.shape[2:] == (factor * before.shape[2], factor * before.shape[3])
    torch.testing.assert_close(after[..., ::factor, ::factor], before, atol=1e-5, rtol=0)
    assert found.drift <= 1e-5
    assert not torch.allclose(after[..., 1::factor, ::factor], before, atol=1e-3), "new cells say something new"
    assert list(network.state_dict()) == keys


def test_other_images_and_sizes_follow() -> None:
    torch.manual_seed(1)
    network = KEPT["shortcuts"]().eval()
    images = torch.randn(2, 3, 128, 64)
    before = network(images)
    refine(network, IMAGES, run_all, stride=8)
    torch.testing.assert_close(network(images)[..., ::2, ::2], before, atol=1e-5, rtol=0)


def test_a_gate_by_the_mean_drifts_and_says_so() -> None:
    torch.manual_seed(1)
    network = nn.Sequential(stem(), conv(2), conv(2), Squeeze(6), conv(1)).eval()
    found = refine(network, IMAGES, run_all, stride=8)
    assert 1e-4 < found.drift < 0.1
    assert "features drift by" in found.notes[0]


class Pixelated(nn.Module):
    """Halves its grid by hand, which no dilation undoes."""

    def forward(self, x: Tensor) -> Tensor:
        return x[..., ::2, ::2]


class Position(nn.Module):
    """Adds what depends on the place in the grid."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 10 * torch.arange(x.shape[-1]).to(x)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "by hand": (
        lambda: nn.Sequential(stem(), Pixelated(), Pixelated()), "its stride comes from no convolution or pooling"
    ),
    "position": (lambda: nn.Sequential(stem(), conv(2), conv(2), Position()), "on the old cells they differ by"),
    "flattened": (
        lambda: nn.Sequential(stem(), conv(2), conv(2), nn.Flatten(2), nn.Linear(24, 24), nn.Unflatten(2, (4, 6))),
        "the network does not run with it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_survive_is_refused_and_left_as_it_was(name: str) -> None:
    make, reason = REFUSED[name]
    torch.manual_seed(1)
    network = make().eval()
    before, text = network(IMAGES), repr(network)
    with pytest.raises(UnsupportedModelError, match=f"{reason}.* Use images of 2 times the size"):
        refine(network, IMAGES, run_all, stride=8)
    assert torch.equal(network(IMAGES), before)
    assert repr(network) == text
    assert not any(module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize("stride", [16, 32, 7, 0, -8])
def test_a_stride_that_is_no_fraction_is_refused(stride: int) -> None:
    network = KEPT["convolutions"]().eval()
    with pytest.raises(UnsupportedModelError, match="a fraction of the network's 16, such as 8, but got"):
        refine(network, IMAGES, run_all, stride=stride)


def test_a_layer_used_twice_is_refused() -> None:
    down = conv(2)
    network = nn.Sequential(stem(), down, nn.ReLU(), down).eval()
    with pytest.raises(UnsupportedModelError, match="a layer is used at several places"):
        refine(network, IMAGES, run_all, stride=8)


def forward_features(network: nn.Module, images: Tensor) -> Tensor:
    return network.forward_features(images)  # type: ignore[operator, no-any-return]


SURVIVING = ("resnet18", "resnetv2_18", "mobilenetv2_035", "tf_efficientnet_lite0", "convnext_atto", "starnet_s050")


@pytest.mark.parametrize("stride", [16, 8])
@pytest.mark.parametrize("name", SURVIVING)
def test_real_networks_survive(name: str, stride: int) -> None:
    network = randomise(timm.create_model(name))
    assert refine(network, IMAGES, forward_features, stride=stride).drift <= 1e-4


@pytest.mark.slow
def test_timm_s_own_dilation_computes_the_same() -> None:
    torch.manual_seed(2)
    network = randomise(timm.create_model("resnet50", num_classes=2))
    theirs = timm.create_model("resnet50", num_classes=2, output_stride=16).eval()
    theirs.load_state_dict(network.state_dict())
    refine(network, IMAGES, forward_features, stride=16)
    expected = theirs.forward_features(IMAGES)
    found = network.forward_features(IMAGES)
    assert found.shape == expected.shape
    assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-5


@pytest.mark.slow
def test_torchvision_s_own_dilation_computes_the_same() -> None:
    torch.manual_seed(2)
    network = randomise(torchvision.models.resnet50(num_classes=2))
    theirs = torchvision.models.resnet50(num_classes=2, replace_stride_with_dilation=[False, False, True]).eval()
    theirs.load_state_dict(network.state_dict())
    model = convert(network, map_stride=16, images=IMAGES).eval()
    torch.testing.assert_close(model(IMAGES), theirs(IMAGES), atol=1e-4, rtol=1e-4)


def test_a_converted_model_has_finer_maps_and_says_what_changed() -> None:
    network = randomise(timm.create_model("resnet18", num_classes=3))
    model = convert(network, map_stride=16, images=IMAGES).eval()
    report = model.conversion
    assert (report.grid, report.map_stride, report.exact) == ((4, 6), (16, 16), False)
    assert report.error is not None
    assert report.error <= 5e-6
    assert report.drift is not None
    assert 0 < report.drift < 1
    assert "map stride 32 -> 16 by dilation" in " ".join(report.notes)
    model.evidence(IMAGES).check(1e-5)
    means = model.evidence(IMAGES).maps.mean((2, 3))
    old = network(IMAGES)
    assert float((means - old).abs().max() / old.abs().max()) == pytest.approx(report.drift, rel=1e-3)
