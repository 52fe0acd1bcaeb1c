from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from softcam.errors import UnsupportedModelError
from softcam.nn.features import Features, TimmFeatures, WatchedFeatures, to_nchw, token_grid


@pytest.mark.parametrize(
    ("tokens", "height", "width", "grid"),
    [(49, 224, 224, (7, 7)), (12, 48, 64, (3, 4)), (12, 64, 48, (4, 3)), (2, 16, 32, (1, 2)), (1, 9, 9, (1, 1))],
)
def test_token_grid(tokens: int, height: int, width: int, grid: tuple[int, int]) -> None:
    assert token_grid(tokens, height, width) == grid


@pytest.mark.parametrize(("tokens", "height", "width"), [(197, 224, 224), (50, 224, 224), (13, 48, 64)])
def test_tokens_that_form_no_grid_are_refused(tokens: int, height: int, width: int) -> None:
    with pytest.raises(
        UnsupportedModelError, match=f"Expected {tokens} tokens to form a grid over {height}x{width} px"
    ):
        token_grid(tokens, height, width)


def test_layouts_agree_on_every_cell() -> None:
    features, images = torch.randn(2, 5, 3, 4), torch.empty(2, 3, 48, 64)
    assert torch.equal(to_nchw(features, "NCHW", images), features)
    assert torch.equal(to_nchw(features.permute(0, 2, 3, 1), "NHWC", images), features)
    assert torch.equal(to_nchw(features.flatten(2).transpose(1, 2), "NLC", images), features)


def test_the_token_grid_follows_the_shape_of_the_images() -> None:
    tokens = torch.randn(1, 12, 5)
    assert to_nchw(tokens, "NLC", torch.empty(1, 3, 48, 64)).shape == (1, 5, 3, 4)
    assert to_nchw(tokens, "NLC", torch.empty(1, 3, 64, 48)).shape == (1, 5, 4, 3)


class Named(nn.Module):
    """Names its features, and cannot run as a whole."""

    def forward_features(self, images: Tensor) -> Tensor:
        return images[:, :, ::4, ::4].permute(0, 2, 3, 1)


def test_named_features() -> None:
    images = torch.randn(2, 3, 16, 20)
    features = TimmFeatures(Named(), "NHWC")
    assert torch.equal(features.raw(images), images[:, :, ::4, ::4].permute(0, 2, 3, 1))
    assert torch.equal(features(images), images[:, :, ::4, ::4])


def test_watched_features_are_the_input_of_the_last_pooling(images: Tensor) -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 4, stride=4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2))
    expected = network[0](images)
    assert torch.equal(WatchedFeatures(network)(images), expected)


def test_watched_features_follow_the_image_size() -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 4, stride=4), nn.AdaptiveAvgPool2d(1))
    features = WatchedFeatures(network)
    assert features(torch.randn(1, 3, 16, 20)).shape == (1, 5, 4, 5)
    assert features(torch.randn(3, 3, 32, 8)).shape == (3, 5, 8, 2)


def test_watched_features_without_a_pooling_are_refused(images: Tensor) -> None:
    with pytest.raises(UnsupportedModelError, match="no pooling call was seen"):
        WatchedFeatures(nn.Conv2d(3, 5, 4))(images)


def test_the_base_class_extracts_nothing(images: Tensor) -> None:
    with pytest.raises(NotImplementedError):
        Features(nn.Identity())(images)


def test_repr_names_the_layout() -> None:
    assert "layout=NLC" in repr(TimmFeatures(Named(), "NLC"))
