from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from softcam.attribution import find_target_layer
from softcam.attribution.layers import find_stages, get_layer, read_features
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


class Staged(nn.Module):
    """Two stages of blocks; the first block of the second stage still works on the grid of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.first = nn.Sequential(nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, stride=2, padding=1))
        self.fc = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.second(self.first(self.stem(images))).mean((-2, -1)))


@pytest.mark.parametrize(
    ("count", "names"), [(1, ("second",)), (2, ("first", "second")), (9, ("stem", "first", "second"))]
)
def test_stages_end_where_the_outermost_modules_do(count: int, names: tuple[str, ...]) -> None:
    assert find_stages(Staged(), torch.zeros(1, 3, 16, 24), count=count) == names


def test_stages_of_a_model_without_a_grid() -> None:
    with pytest.raises(UnsupportedModelError, match="found none in Tokens"):
        find_stages(Tokens(), torch.zeros(1, 3, 8, 8), count=3)


def test_layer_by_name_or_by_watching() -> None:
    model = Nested()
    assert get_layer(model, torch.zeros(1, 3, 8, 8), "stem") is model.stem
    assert get_layer(model, torch.zeros(1, 3, 8, 8), None) is model.block
    with pytest.raises(ValueError, match="Expected `layer` to name a module of the model, but got 'blok'"):
        get_layer(model, torch.zeros(1, 3, 8, 8), "blok")


def test_features_are_a_copy_without_gradient() -> None:
    model, images = Nested(), torch.randn(2, 3, 8, 8)
    found = read_features(model, images, model.block)
    torch.testing.assert_close(found, model.block(model.stem(images)).detach())
    assert not found.requires_grad
    assert not model.block._forward_hooks


def test_a_layer_without_a_grid_or_that_never_runs_has_no_features() -> None:
    model = Nested()
    with pytest.raises(UnsupportedModelError, match=r"give features \(N, D, h, w\), but got \(1, 2\)"):
        read_features(model, torch.zeros(1, 3, 8, 8), model.fc)
    model.spare = nn.Conv2d(3, 4, 1)
    with pytest.raises(UnsupportedModelError, match="but got none"):
        read_features(model, torch.zeros(1, 3, 8, 8), model.spare)
