from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from softcam.errors import UnsupportedModelError
from softcam.nn import convert, theoretical_receptive_field

EXAMPLE = torch.zeros(1, 3, 64, 64)


class Branches(nn.Module):
    """A sum and a concatenation of paths that see 1, 5 and 9 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 2, 1)
        self.five = nn.Conv2d(3, 2, 5, padding=2)
        self.nine = nn.Conv2d(3, 2, (1, 9), padding=(0, 4))

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self.one(images) + self.five(images), self.nine(images)], dim=1)


class Excited(nn.Module):
    """A squeeze-and-excitation block after a convolution."""

    def __init__(self, gate: type[nn.Module]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        self.gate = gate()

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv(images)
        return features * self.gate(features.mean((2, 3), keepdim=True))


class Attention(nn.Module):
    """One layer of attention among patches of 8 pixels, as tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 8, 8)
        self.attend = nn.MultiheadAttention(4, 1, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).mT
        return self.attend(tokens, tokens, tokens)[0]


class Picky(nn.Module):
    """A network that takes images of some sizes only."""

    def __init__(self, network: nn.Module, takes: Callable[[int, int], bool]) -> None:
        super().__init__()
        self.network = network
        self.takes = takes

    def forward(self, images: Tensor) -> Tensor:
        if not self.takes(*images.shape[2:]):
            raise AssertionError("wrong size")
        return self.network(images)


class ChannelsLast(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.permute(0, 2, 3, 1)


def stack(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (stack(nn.Conv2d(3, 2, 1)), (1, 1)),
        (stack(nn.Conv2d(3, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)), (5, 5)),
        (stack(nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, 3)), (5, 5)),
        (stack(nn.Conv2d(3, 2, 3, 2), nn.Conv2d(2, 2, 3)), (7, 7)),
        (stack(nn.Conv2d(3, 2, 3, dilation=4)), (9, 9)),
        (stack(nn.Conv2d(3, 2, 2, 2), nn.AvgPool2d(2), nn.Conv2d(2, 2, 3, padding=1)), (12, 12)),
        (stack(nn.MaxPool2d(3, 2, 1), nn.Conv2d(3, 2, 3, padding=1)), (7, 7)),
        (stack(nn.Conv2d(3, 2, (1, 3)), nn.Conv2d(2, 2, (5, 1), groups=2)), (5, 3)),
        (stack(nn.Conv2d(3, 2, 1, 3), nn.Conv2d(2, 2, 3)), (7, 7)),
        (stack(nn.PixelUnshuffle(4), nn.Conv2d(48, 2, 3, padding=1)), (12, 12)),
        (stack(nn.Conv2d(3, 2, 4, 4), nn.Upsample(scale_factor=2), nn.Conv2d(2, 2, 1)), (4, 4)),
        (Branches(), (5, 9)),
        (stack(nn.Conv2d(3, 2, 31)), (31, 31)),
    ],
    ids=lambda value: None if isinstance(value, tuple) else " ".join(type(m).__name__ for m in value.modules()),
)
def test_fields_by_hand(network: nn.Module, expected: tuple[int, int]) -> None:
    assert theoretical_receptive_field(network, EXAMPLE) == expected


@pytest.mark.parametrize("seed", range(6))
def test_random_stacks_follow_the_recursion(seed: int) -> None:
    # r_out = r_in + (k - 1) d j and j_out = j_in s: Araujo et al. 2019, equation 2.
    draw = random.Random(seed)
    layers: list[nn.Module] = []
    fields, jumps = [1, 1], [1, 1]
    for _ in range(5):
        kernel, stride, dilation = ([draw.choice(values) for _ in "hw"] for values in ((1, 2, 3, 5), (1, 1, 2), (1, 2)))
        padding = [draw.randint(0, k // 2) for k in kernel]
        channels = 3 if not layers else 4
        if draw.random() < 0.3:
            layers.append(nn.MaxPool2d(kernel, stride, padding, dilation))
            layers.append(nn.Conv2d(channels, 4, 1))
        else:
            layers += [nn.Conv2d(channels, 4, kernel, stride, padding, dilation), nn.BatchNorm2d(4), nn.GELU()]
        for axis in (0, 1):
            fields[axis] += (kernel[axis] - 1) * dilation[axis] * jumps[axis]
            jumps[axis] *= stride[axis]
    assert theoretical_receptive_field(stack(*layers), EXAMPLE) == tuple(fields)


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (stack(nn.Conv2d(3, 2, 3, dilation=100, padding=100)), 201),
        (stack(nn.Conv2d(3, 2, 16, 16), nn.Conv2d(2, 2, 3, padding=12, dilation=12)), 400),
        (stack(nn.Conv2d(3, 2, 3, dilation=1000, padding=1000)), 2001),
    ],
)
def test_holes_in_a_field_hide_none_of_it(network: nn.Module, expected: int) -> None:
    assert theoretical_receptive_field(network, EXAMPLE) == (expected, expected)


def test_weights_do_not_matter() -> None:
    network = stack(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))
    nn.init.zeros_(network[2].weight)
    nn.init.constant_(network[0].bias, -1e4)
    assert theoretical_receptive_field(network, EXAMPLE) == (5, 5)


@pytest.mark.parametrize(
    "activation",
    [nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Mish, nn.PReLU, nn.Softplus],
)
def test_activations_hand_on(activation: type[nn.Module]) -> None:
    assert theoretical_receptive_field(stack(nn.Conv2d(3, 2, 3), activation()), EXAMPLE) == (3, 3)


@pytest.mark.parametrize(
    ("network", "until"),
    [
        (Excited(nn.Sigmoid), None),
        (Excited(nn.Hardsigmoid), None),
        (stack(Attention(), nn.Identity()), "0"),
        (stack(nn.Conv2d(3, 2, 3), nn.GroupNorm(1, 2)), None),
        (stack(nn.Conv2d(3, 2, 3), nn.InstanceNorm2d(2)), None),
    ],
    ids=["excitation", "hard excitation", "attention", "group norm", "instance norm"],
)
def test_global_steps_have_no_bound(network: nn.Module, until: str | None) -> None:
    assert theoretical_receptive_field(network, EXAMPLE, until=until) == (math.inf, math.inf)


def test_one_dimension_may_be_global_alone() -> None:
    class Rows(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images + images.mean(3, keepdim=True)

    network = stack(nn.Conv2d(3, 2, 3), Rows())
    assert theoretical_receptive_field(network, EXAMPLE) == (3, math.inf)


def test_what_does_not_depend_on_the_image_sees_nothing() -> None:
    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.ones_like(images)

    assert theoretical_receptive_field(Constant(), EXAMPLE) == (0, 0)


def test_signals_and_volumes() -> None:
    signals = stack(nn.Conv1d(1, 2, 5, padding=2), nn.MaxPool1d(3, 2, 1), nn.Conv1d(2, 2, 3))
    assert theoretical_receptive_field(signals, torch.zeros(2, 1, 300)) == (11,)
    volumes = stack(nn.Conv3d(1, 2, (1, 3, 5)), nn.Conv3d(2, 2, (1, 3, 5)))
    assert theoretical_receptive_field(volumes, torch.zeros(1, 1, 8, 16, 16)) == (1, 5, 9)


def test_a_softcam_model_is_measured_at_its_features(black_box: nn.Module, images: Tensor) -> None:
    model = convert(black_box, images=images)
    assert theoretical_receptive_field(model, images) == (7, 7)
    assert model.conversion.receptive_field == (7, 7)
    earlier = convert(black_box, images=images, at="body.2", num_classes=2)
    assert theoretical_receptive_field(earlier, images) == (3, 3)


def test_the_widest_of_several_places_counts(black_box: nn.Module, images: Tensor) -> None:
    model = convert(black_box, images=images, at=(2, 4), num_classes=2)
    assert theoretical_receptive_field(model, images) == (7, 7)


def test_places_are_named_or_given_by_stride(black_box: nn.Module, images: Tensor) -> None:
    fields = [theoretical_receptive_field(black_box, images, until=place) for place in ("body.0", 2, "body.3", 4)]
    assert fields == [(3, 3), (3, 3), (7, 7), (7, 7)]


def test_channels_may_come_last() -> None:
    network = stack(nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 5, 3, padding=1), ChannelsLast())
    assert theoretical_receptive_field(network, EXAMPLE, until="2") == (12, 12)


@pytest.mark.parametrize(
    "takes",
    [lambda h, w: (h, w) == (64, 64), lambda h, w: min(h, w) >= 50, lambda h, w: h == w],
    ids=["one size", "large ones", "square ones"],
)
def test_networks_may_refuse_sizes(takes: Callable[[int, int], bool]) -> None:
    network = Picky(stack(nn.Conv2d(3, 2, 7, 2, 3), nn.Conv2d(2, 2, 3, padding=1)), takes)
    assert theoretical_receptive_field(network, EXAMPLE) == (11, 11)


def test_the_limit_is_the_longest_side_that_is_tried() -> None:
    network = stack(nn.Conv2d(3, 2, (201, 1), padding=(100, 0)), nn.Conv2d(2, 2, (1, 201), padding=(0, 100)))
    assert theoretical_receptive_field(network, EXAMPLE, limit=255) == (math.inf, math.inf)
    assert theoretical_receptive_field(network, EXAMPLE, limit=256) == (201, 201)


def test_the_network_is_left_as_it_was() -> None:
    network = stack(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)).train()
    network[1].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state, cudnn = torch.get_rng_state(), torch.backends.cudnn.enabled
    assert theoretical_receptive_field(network, EXAMPLE, until="1") == (3, 3)
    assert [module.training for module in network.modules()] == [True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.backends.cudnn.enabled is cudnn


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions(dtype: torch.dtype) -> None:
    network = stack(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3)).to(dtype)
    assert theoretical_receptive_field(network, EXAMPLE.to(dtype)) == (5, 5)
    assert network[0].weight.dtype == dtype


def test_logits_are_no_feature_map(black_box: nn.Module, images: Tensor) -> None:
    with pytest.raises(UnsupportedModelError, match="Expected the network to return a feature map"):
        theoretical_receptive_field(black_box, images)
    with pytest.raises(UnsupportedModelError, match="'fc' gives none"):
        theoretical_receptive_field(black_box, images, until="fc")


def test_arguments_that_do_not_fit_are_refused(black_box: nn.Module, images: Tensor) -> None:
    with pytest.raises(ValueError, match="Expected `limit` to be at least 128 pixels, but got 127"):
        theoretical_receptive_field(black_box, images, limit=127)
    with pytest.raises(ValueError, match="but got 'nowhere'"):
        theoretical_receptive_field(black_box, images, until="nowhere")
    with pytest.raises(ValueError, match="Expected `images` to be a filled batch"):
        theoretical_receptive_field(black_box, images[0], until="body")


def test_features_have_to_be_finite() -> None:
    network = stack(nn.Conv2d(3, 2, 3))
    nn.init.constant_(network[0].bias, torch.nan)
    with pytest.raises(UnsupportedModelError, match="Expected finite features of noise"):
        theoretical_receptive_field(network, EXAMPLE)


def build(name: str) -> nn.Module:
    torchvision = pytest.importorskip("torchvision")
    # Inception's own initialisation takes a minute.
    options = {"init_weights": False} if name == "inception_v3" else {}
    return torchvision.models.get_model(name, **options).eval()


@pytest.mark.parametrize(
    ("name", "until", "expected"),
    [
        ("resnet18", "layer3", 211),
        ("resnet18", "layer4", 435),
        ("resnet50", "layer2", 91),
        ("alexnet", "features", 195),
        ("mobilenet_v2", "features", 491),
        ("mobilenet_v3_small", "features", math.inf),
        pytest.param("resnet50", "layer3", 267, marks=pytest.mark.slow),
        pytest.param("resnet50", "layer4", 427, marks=pytest.mark.slow),
        pytest.param("vgg16", "features", 212, marks=pytest.mark.slow),
        pytest.param("inception_v3", "Mixed_7c", 1311, marks=pytest.mark.slow),
    ],
)
def test_known_networks(name: str, until: str, expected: float) -> None:
    # As in the table of Araujo et al. 2019, but for ResNets, whose stride torchvision puts into the 3x3 convolution.
    field = theoretical_receptive_field(build(name), torch.zeros(1, 3, 224, 224), until=until)
    assert field == (expected, expected)
