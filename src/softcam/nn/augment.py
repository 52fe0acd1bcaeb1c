"""The same model on flipped and turned images: the mean of logits and of maps that were turned back is exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from softcam.nn.ensemble import for_head
from softcam.nn.features import as_parts
from softcam.nn.model import SoftCAM, pool_features


class View(NamedTuple):
    """A way to look at an image under which cells lie on cells.

    Args:
        turns: Quarter turns, counter-clockwise.
        mirrored: Whether left and right are exchanged before.
    """

    turns: int
    mirrored: bool

    def apply(self, images: Tensor) -> Tensor:
        """Return images (..., H, W) as this view shows them."""
        return torch.rot90(images.flip(-1) if self.mirrored else images, self.turns, (-2, -1))

    def undo(self, maps: Tensor) -> Tensor:
        """Return maps (..., h, w) of such images as they lie on the images themselves."""
        straight = torch.rot90(maps, -self.turns, (-2, -1))
        return straight.flip(-1) if self.mirrored else straight


_FLIPS = (View(0, mirrored=False), View(0, mirrored=True), View(2, mirrored=True), View(2, mirrored=False))

AUGMENTATIONS: dict[str, tuple[View, ...]] = {
    "mirror": _FLIPS[:2],
    "flips": _FLIPS,
    "turns": tuple(View(turns, mirrored=False) for turns in range(4)),
    "all": tuple(View(turns, mirrored=mirrored) for mirrored in (False, True) for turns in range(4)),
}
"""Views of an image by name: as it is, and mirrored; all flips; all quarter turns; both. The first is the image."""


class Augmented(SoftCAM):
    """A SoftCAM model whose logits and maps are the means over several views of an image.

    The maps of each view average to its logits, and cells lie exactly on cells when they are turned back; so the mean
    maps average to the mean logits.

    Args:
        model: A model of images; its weights are shared, not copied.
        name: One of `AUGMENTATIONS`.

    Raises:
        ValueError: If there is no such augmentation, or the model takes no images.
    """

    def __init__(self, model: SoftCAM, name: str) -> None:
        views = find_views(name)
        report = model.conversion
        if len(report.input_size) != 2:
            raise ValueError(f"Expected a model of images to look at them in {len(views)} views, but got another.")
        notes = (*report.notes, f"the mean of {len(views)} views of each image ({name})")
        features, head = ViewFeatures(model.features, views), ViewEvidence(model.head, views)
        super().__init__(
            cast("Any", features), cast("Any", head), replace(report, notes=notes), multi_label=model.multi_label
        )
        self.training = model.training

    def pool(self, features: Tensor | tuple[Tensor, ...]) -> Tensor:
        """Return the spatial mean of the features of the image as it is, (N, D)."""
        parts = as_parts(features)
        return pool_features(parts[: len(parts) // len(cast("Any", self.head).views)])


class ViewFeatures(nn.Module):
    """The features of every view, one after the other.

    Args:
        inner: The model's extractor.
        views: The views.
    """

    def __init__(self, inner: nn.Module, views: Sequence[View]) -> None:
        super().__init__()
        self.inner = inner
        self.views = tuple(views)

    @property
    def network(self) -> nn.Module:
        """The network that looks."""
        return cast("nn.Module", self.inner.network)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return all features (N, D, h, w) of images (N, C, H, W)."""
        return tuple(part for view in self.views for part in as_parts(self.inner(view.apply(images))))


class ViewEvidence(nn.Module):
    """The mean of a class evidence layer over the views.

    Args:
        inner: The layer.
        views: The views.
    """

    def __init__(self, inner: nn.Module, views: Sequence[View]) -> None:
        super().__init__()
        self.inner = inner
        self.views = tuple(views)

    @property
    def kind(self) -> str:
        """What kind of layer it is."""
        return str(cast("Any", self.inner).kind)

    @property
    def classifier(self) -> nn.Module:
        """The 1x1 convolution, or a list of them."""
        return cast("nn.Module", self.inner.classifier)

    @property
    def channels(self) -> int:
        """D, channels of the features of one view."""
        return int(cast("Any", self.inner).channels)

    @property
    def num_classes(self) -> int:
        """K, number of classes."""
        return int(cast("Any", self.inner).num_classes)

    @property
    def dropout(self) -> float:
        """Probability of dropping a feature channel in training."""
        return float(cast("Any", self.inner).dropout)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits (N, K) of the features of all views."""
        return torch.stack([self.inner(part) for part in self._split(features)]).mean(0)

    def evidence(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits (N, K) and maps (N, K, h, w) that lie on the images as they are.

        Raises:
            ValueError: If a turned map has another grid.
        """
        found = [cast("Any", self.inner).evidence(part) for part in self._split(features)]
        maps = [view.undo(maps) for view, (_, maps) in zip(self.views, found, strict=True)]
        if any(turned.shape != maps[0].shape for turned in maps):
            raise ValueError(
                f"Expected every view to have the cells of the image itself, {tuple(maps[0].shape[2:])}, but got "
                f"{sorted({tuple(turned.shape[2:]) for turned in maps})}. Take the augmentation flips."
            )
        return torch.stack([logits for logits, _ in found]).mean(0), torch.stack(maps).mean(0)

    def _split(self, features: Sequence[Tensor]) -> list[Any]:
        width = len(features) // len(self.views)
        starts = range(0, len(features), width)
        return [for_head(self.inner, features[start : start + width]) for start in starts]


def find_views(name: str) -> tuple[View, ...]:
    """Return the views of an augmentation.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in AUGMENTATIONS:
        raise ValueError(f"Expected `augment` to be one of {', '.join(AUGMENTATIONS)}, but got {name!r}.")
    return AUGMENTATIONS[name]
