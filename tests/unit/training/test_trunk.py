from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from softcam.errors import RunError
from softcam.nn import convert, run_from, run_until
from softcam.training.trunk import find_trunk


class Net(nn.Module):
    """A trunk with what hooks alone would miss: a bare parameter, and a norm without parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1, 4, 1, 1), 2.0))
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4, affine=False), nn.ReLU())
        self.act = nn.ReLU()
        self.middle = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.tail = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Dropout(0.5))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(6, 2)

    def forward(self, images: Tensor) -> Tensor:
        features = self.act(self.middle(self.stem(images) * self.scale))
        return self.head(self.pool(self.act(self.tail(features))).flatten(1))


class Leaky(Net):
    """A later layer that sees an earlier one past the middle."""

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images) * self.scale
        return self.head(self.pool(self.tail(self.middle(stem) + stem)).flatten(1))


IMAGES = torch.randn(3, 1, 40, 40, generator=torch.Generator().manual_seed(0))


def test_everything_before_and_within_the_submodule_is_trunk() -> None:
    net = Net()
    trunk = find_trunk(net, "middle", IMAGES)
    expected = {net.scale, *net.stem.parameters(), *net.middle.parameters()}
    assert set(trunk.parameters) == expected
    # The ReLU serves both halves, and the network owns the scale but also the head: both keep their mode.
    assert set(trunk.modules) == {net.stem, *net.stem, net.middle, *net.middle}
    assert trunk.example.shape == (1, 1, 32, 32)


def test_nothing_is_left_behind() -> None:
    net = Net().train()
    net.head.weight.requires_grad_(requires_grad=False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    find_trunk(net, "stem", IMAGES)
    assert all(module.training for module in net.modules())
    assert [name for name, item in net.named_parameters() if not item.requires_grad] == ["head.weight"]
    assert all(item.grad is None for item in net.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_softcam_model_is_cut_by_the_name_in_its_black_box() -> None:
    torch.manual_seed(0)
    net = Net().eval()
    model = convert(net, images=IMAGES)
    ours, theirs = find_trunk(model, "middle", IMAGES), find_trunk(net, "middle", IMAGES)
    assert [tuple(item.shape) for item in ours.parameters] == [tuple(item.shape) for item in theirs.parameters]


def test_cached_and_whole_forward_agree() -> None:
    torch.manual_seed(0)
    net = Net().eval()
    trunk = find_trunk(net, "middle", IMAGES)
    with torch.no_grad():
        half = run_until(net, "middle", IMAGES).half().float()
        assert torch.allclose(run_from(net, "middle", half, trunk.example), net(IMAGES), atol=2e-3)


def test_a_path_around_the_submodule_is_refused() -> None:
    with pytest.raises(RunError, match=r"to cut the network in two, but .* the only way"):
        find_trunk(Leaky(), "middle", IMAGES)


def test_an_unknown_submodule_is_refused() -> None:
    with pytest.raises(RunError, match="but got 'nowhere'"):
        find_trunk(Net(), "nowhere", IMAGES)
