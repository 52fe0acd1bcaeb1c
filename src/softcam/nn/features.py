"""Feature extractors: a black box without its pooling and classifier, giving (N, D, h, w)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from softcam.errors import UnsupportedModelError
from softcam.nn.watch import PoolingWatch

Layout = Literal["NCHW", "NHWC", "NLC"]


class Features(nn.Module):
    """A network up to its last feature map, with the channels moved to the second place.

    Args:
        network: The black box; parts after the pooling may have been replaced by `nn.Identity`.
        layout: Order of dimensions of the map inside the network.
    """

    def __init__(self, network: nn.Module, layout: Layout = "NCHW") -> None:
        super().__init__()
        self.network = network
        self.layout: Layout = layout

    def forward(self, images: Tensor) -> Tensor:
        """Return features (N, D, h, w) of images (N, C, H, W)."""
        return to_nchw(self.raw(images), self.layout, images)

    def raw(self, images: Tensor) -> Tensor:
        """Return the features in the network's own layout."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Return the layout for `repr`."""
        return f"layout={self.layout}"


class TimmFeatures(Features):
    """A network that names its own halves, `forward_features` and `forward_head`, as timm's do."""

    def raw(self, images: Tensor) -> Tensor:
        """Return what `forward_features` gives."""
        output: Tensor = self.network.forward_features(images)  # type: ignore[operator]
        return output


class WatchedFeatures(Features):
    """Any network, run as it is; the input of its last pooling call is what comes out."""

    def raw(self, images: Tensor) -> Tensor:
        """Return the input of the last pooling call."""
        watch = PoolingWatch()
        with watch:
            self.network(images)
        if watch.features is None:
            raise UnsupportedModelError("Expected the network to pool its features, but no pooling call was seen.")
        return watch.features


def to_nchw(features: Tensor, layout: Layout, images: Tensor) -> Tensor:
    """Return features (N, D, h, w) from the given layout.

    Args:
        features: (N, D, h, w), (N, h, w, D) or tokens (N, h*w, D).
        layout: Which of these it is.
        images: The input (N, C, H, W); its shape tells the token grid.
    """
    if layout == "NCHW":
        return features
    if layout == "NHWC":
        return features.permute(0, 3, 1, 2)
    height, width = token_grid(features.shape[1], images.shape[-2], images.shape[-1])
    return features.transpose(1, 2).reshape(len(features), -1, height, width)


def token_grid(tokens: int, height: int, width: int) -> tuple[int, int]:
    """Return the grid (h, w) of square patches that `tokens` patches of an image form.

    Args:
        tokens: Number of patch tokens.
        height: Image height in pixels.
        width: Image width in pixels.

    Raises:
        UnsupportedModelError: If no grid of square patches has that many tokens.

    Example:
        >>> token_grid(12, 48, 64)
        (3, 4)
    """
    stride = (height * width / tokens) ** 0.5
    rows, columns = round(height / stride), round(width / stride)
    if rows * columns != tokens:
        raise UnsupportedModelError(
            f"Expected {tokens} tokens to form a grid over {height}x{width} px, but {rows}x{columns} does not fit. "
            "The network seems to keep class tokens among its patches; these have no place in the image."
        )
    return rows, columns
