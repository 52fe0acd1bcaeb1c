from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from softcam.errors import UnsupportedModelError
from softcam.nn.features import (
    Features,
    NamedFeatures,
    TimmFeatures,
    WatchedFeatures,
    count_prefix,
    to_grid,
    token_grid,
)


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
    assert torch.equal(to_grid(features, "NCHW", images.shape[2:]), features)
    assert torch.equal(to_grid(features.permute(0, 2, 3, 1), "NHWC", images.shape[2:]), features)
    assert torch.equal(to_grid(features.flatten(2).transpose(1, 2), "NLC", images.shape[2:]), features)


def test_tokens_before_the_grid_are_left_out() -> None:
    features = torch.randn(2, 5, 3, 4)
    tokens = torch.cat([torch.randn(2, 2, 5), features.flatten(2).transpose(1, 2)], dim=1)
    assert torch.equal(to_grid(tokens, "NLC", (48, 64), prefix=2), features)


def test_signals_and_volumes_keep_their_grid() -> None:
    signal, volume = torch.randn(2, 5, 7), torch.randn(2, 5, 2, 3, 4)
    assert torch.equal(to_grid(signal, "NCL", (28,)), signal)
    assert torch.equal(to_grid(signal.transpose(1, 2), "NLC", (28,)), signal)
    assert torch.equal(to_grid(volume, "NCDHW", (8, 12, 16)), volume)
    assert torch.equal(to_grid(volume.movedim(1, -1), "NDHWC", (8, 12, 16)), volume)
    assert torch.equal(to_grid(volume.flatten(2).transpose(1, 2), "NLC", (8, 12, 16)), volume)


@pytest.mark.parametrize(
    ("tokens", "declared", "prefix"), [(196, None, 0), (197, None, 1), (201, None, 5), (198, 2, 2)]
)
def test_leading_tokens_are_counted(tokens: int, declared: int | None, prefix: int) -> None:
    network = nn.Identity()
    if declared is not None:
        network.num_prefix_tokens = declared
    assert count_prefix(network, tokens, (224, 224)) == prefix


def test_the_token_grid_follows_the_shape_of_the_images() -> None:
    tokens = torch.randn(1, 12, 5)
    assert to_grid(tokens, "NLC", (48, 64)).shape == (1, 5, 3, 4)
    assert to_grid(tokens, "NLC", (64, 48)).shape == (1, 5, 4, 3)


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


def test_named_features_end_at_the_module() -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 4, stride=4), nn.ReLU(), nn.Conv2d(9, 9, 1))  # the last could not run
    features = NamedFeatures(network, name="1")
    images = torch.randn(2, 3, 16, 20)
    assert torch.equal(features(images), network[0](images).relu())


def test_the_watch_may_end_before_a_module() -> None:
    class TwoPools(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.fc = nn.Conv2d(3, 5, 4, stride=4), nn.Linear(5, 2)

        def forward(self, images: Tensor) -> Tensor:
            features = self.trunk(images)
            return self.fc(features.mean((2, 3))) + (features * 2).amax((2, 3)).sum()

    network, images = TwoPools(), torch.randn(2, 3, 16, 20)
    assert torch.equal(WatchedFeatures(network)(images), 2 * network.trunk(images))
    assert torch.equal(WatchedFeatures(network, until="fc")(images), network.trunk(images))
