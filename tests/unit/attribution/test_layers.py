from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from softcam.attribution import find_target_layer
from softcam.errors import UnsupportedModelError
from softcam.nn import convert


class Nested(nn.Module):
    """Features inside a named block, then pooling and classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.block = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(6, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.pool(self.block(self.stem(images))).flatten(1))


class Tokens(nn.Module):
    """A patch embedding whose grid becomes a table of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 4, stride=4)
        self.norm = nn.LayerNorm(8)
        self.fc = nn.Linear(8, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.norm(self.embed(images).flatten(2).transpose(1, 2)).mean(1))


class ChannelsLast(nn.Module):
    """A grid that a later layer holds as (N, h, w, D), as Swin does, and that a last module turns back."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 24, 4, stride=4)
        self.norm = nn.LayerNorm(24)
        self.fc = nn.Linear(24, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.norm(self.embed(images).permute(0, 2, 3, 1)).mean((1, 2)))


def test_outermost_of_nested_modules_is_named() -> None:
    assert find_target_layer(Nested(), torch.zeros(2, 3, 8, 8)) == "block"


def test_module_with_one_cell_is_passed_over() -> None:
    assert find_target_layer(Nested(), torch.zeros(1, 3, 2, 2)) == "stem"


def test_softcam_is_explained_at_its_features() -> None:
    model = convert(Nested(), images=torch.randn(1, 3, 8, 8))
    assert find_target_layer(model, torch.zeros(1, 3, 8, 8)) == "features"


def test_channels_last_grid_is_not_taken_for_a_feature_map() -> None:
    assert find_target_layer(ChannelsLast(), torch.zeros(1, 3, 16, 16)) == "embed"


def test_image_need_not_be_square() -> None:
    assert find_target_layer(Nested(), torch.zeros(1, 3, 9, 22)) == "block"


def test_tokens_have_no_spatial_layer() -> None:
    with pytest.raises(UnsupportedModelError, match=r"Expected `model` to end in a layer .* found none in Tokens"):
        find_target_layer(Tokens(), torch.zeros(1, 3, 8, 8))


def test_no_module_with_a_grid() -> None:
    with pytest.raises(UnsupportedModelError, match="found none in Sequential"):
        find_target_layer(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.zeros(1, 3, 2, 2))


def test_hooks_and_mode_are_restored_after_a_failure() -> None:
    model = Nested().train()
    with pytest.raises(RuntimeError):
        find_target_layer(model, torch.zeros(1, 5, 8, 8))
    assert all(module.training and not module._forward_hooks for module in model.modules())
