"""Random changes of training images, described by a record of numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

Range: TypeAlias = tuple[float, float]
UNCHANGED: Range = (1.0, 1.0)


@dataclass(frozen=True)
class Augmentation:
    """Numbers from which the random changes of a training image are built; all are off by default.

    Each change that is on (crop, flips, rotation, shift, colour) happens with probability `p`, independently of the
    others. Pixels that come into view from outside are black.

    Args:
        p: Probability of each change, in [0, 1].
        hflip: Mirror left and right.
        vflip: Mirror top and bottom.
        rotation: Largest angle in degrees to either side, in [0, 180].
        scale: Area of a crop as a share of the image's, from and to; a crop that would not fit is drawn again.
        ratio: Width of a crop divided by its height, from and to.
        translate: Largest shift to either side as a share of the side, in [0, 1].
        brightness: Factor on the pixels, from and to.
        contrast: Factor on the distance to the image's mean, from and to.
        saturation: Factor on the distance to grey, from and to.
        hue: Largest shift on the colour circle to either side as a share of it, in [0, 0.5].

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> change = Augmentation(p=1.0, hflip=True).build()
        >>> change(torch.tensor([[[0.0, 1.0]]]))
        tensor([[[1., 0.]]])
    """

    p: float = 0.5
    hflip: bool = False
    vflip: bool = False
    rotation: float = 0.0
    scale: Range = UNCHANGED
    ratio: Range = UNCHANGED
    translate: float = 0.0
    brightness: Range = UNCHANGED
    contrast: Range = UNCHANGED
    saturation: Range = UNCHANGED
    hue: float = 0.0

    def __post_init__(self) -> None:
        for name, most in {"p": 1.0, "rotation": 180.0, "translate": 1.0, "hue": 0.5}.items():
            _check_number(name, getattr(self, name), most)
        for name in ("scale", "ratio", "brightness", "contrast", "saturation"):
            _check_range(name, getattr(self, name), above_zero=name in {"scale", "ratio"})
            object.__setattr__(self, name, tuple(getattr(self, name)))  # YAML and JSON bring lists

    @property
    def is_off(self) -> bool:
        """Whether every image stays as it is."""
        return self.p == 0.0 or all(getattr(self, field.name) == field.default for field in fields(self)[1:])

    def build(self) -> Callable[[Tensor], Tensor]:
        """Return a function from a float tensor (C, H, W) in [0, 1] to another; it draws from torch's CPU generator."""
        colours = (self.brightness, self.contrast, self.saturation)
        bilinear = v2.InterpolationMode.BILINEAR
        steps: dict[nn.Module, bool] = {
            _Crop(self.scale, self.ratio): (self.scale, self.ratio) != (UNCHANGED, UNCHANGED),
            v2.RandomHorizontalFlip(p=1.0): self.hflip,
            v2.RandomVerticalFlip(p=1.0): self.vflip,
            v2.RandomRotation(self.rotation, interpolation=bilinear): self.rotation > 0,
            v2.RandomAffine(0, translate=(self.translate, self.translate), interpolation=bilinear): self.translate > 0,
            v2.ColorJitter(*colours, hue=self.hue): (*colours, self.hue) != (*[UNCHANGED] * 3, 0.0),
        }
        return nn.Sequential(*(v2.RandomApply([step], p=self.p) for step, is_on in steps.items() if is_on))


class _Crop(nn.Module):
    """A random crop that is brought back to the image's own size."""

    def __init__(self, scale: Range, ratio: Range) -> None:
        super().__init__()
        self._scale = list(scale)
        self._ratio = list(ratio)

    def forward(self, image: Tensor) -> Tensor:
        top, left, height, width = v2.RandomResizedCrop.get_params(image, self._scale, self._ratio)
        return torch.as_tensor(functional.resized_crop(image, top, left, height, width, list(image.shape[-2:])))


def _check_number(name: str, value: float, most: float) -> None:
    if not 0.0 <= value <= most:
        raise ValueError(f"Expected `{name}` to be in [0, {most:g}], but got {value!r}. See Augmentation for its unit.")


def _check_range(name: str, value: Range, *, above_zero: bool) -> None:
    low, high = value if len(value) == 2 else (float("nan"), float("nan"))
    if not (low > 0.0 or (low == 0.0 and not above_zero)) or not low <= high < float("inf"):
        least = "above 0" if above_zero else "from 0"
        raise ValueError(
            f"Expected `{name}` to be (low, high) {least} with low <= high, but got {value!r}. Correct them."
        )
