"""From pixels to network input, with the record of how, so that evidence can be traced back to the pixel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from softcam.imaging.geometry import Geometry
from softcam.imaging.image import DecodedImage
from softcam.imaging.records import read_record

Fit = Literal["shorter", "squash"]
Interpolation = Literal["bilinear", "bicubic"]
Pixels = npt.NDArray[np.float32]
Window = npt.NDArray[np.uint8] | Pixels

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's grey


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's square input.

    A centred window of the original is resampled, with antialiasing, in one step. Unlike torchvision's resize followed
    by a crop, neither the resized sides nor the window are rounded to whole pixels: the window is exactly centred, the
    scale is exactly the same on both axes ("shorter"), and a panorama costs no more memory than a square.

    Args:
        size: Side of the network input in pixels.
        fit: "shorter" takes a square window, which keeps the shape of things and loses what lies beyond it;
            "squash" takes the whole image and gives up its proportions.
        crop_fraction: Side of the window as a fraction of the shorter side ("shorter") or of each side ("squash"),
            in (0, 1].
        mean: Mean to subtract, one number per channel, for inputs in [0, 1].
        std: Standard deviation to divide by, one positive number per channel.
        interpolation: "bilinear" or "bicubic".
        channels: 1 or 3. Grey is repeated to 3; RGB becomes BT.601 luma for 1.

    Raises:
        ValueError: If a value is out of range or `mean` and `std` do not have one number per channel.

    Example:
        >>> grey = DecodedImage(np.full((20, 30), 255, np.uint8), "array", "")
        >>> tensor, geometry = Preprocessing(size=10)(grey)
        >>> tuple(tensor.shape), geometry.view
        ((3, 10, 10), Rectangle(x=5.0, y=0.0, width=20.0, height=20.0))
    """

    size: int = 224
    fit: Fit = "shorter"
    crop_fraction: float = 1.0
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: Interpolation = "bilinear"
    channels: int = 3

    def __post_init__(self) -> None:
        # JSON and YAML know lists only; the record compares equal to the one that was written.
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        _check_choice("fit", self.fit, get_args(Fit))
        _check_choice("interpolation", self.interpolation, get_args(Interpolation))
        _check_choice("channels", self.channels, (1, 3))
        _check_window(self.size, self.crop_fraction)
        _check_statistics(self.mean, self.std, self.channels)

    @property
    def least_side(self) -> int:
        """Shorter side, in pixels, to which an image may be reduced before: two pixels for each one of the input."""
        return math.ceil(2 * self.size / self.crop_fraction)

    def __call__(self, image: DecodedImage) -> tuple[Tensor, Geometry]:
        """Resize and normalise.

        Args:
            image: The decoded original, which may have been reduced while it was decoded.

        Returns:
            The network input (channels, size, size) float32, and where it lies in the original.
        """
        window, geometry = self.sample(image)
        return self.to_input(window), geometry

    def sample(self, image: DecodedImage) -> tuple[Window, Geometry]:
        """Resample the window and leave the rest to `to_input`, so that few bytes have to be handed on.

        Args:
            image: The decoded original, which may have been reduced while it was decoded.

        Returns:
            The window (size, size, C) with as many channels as the original has, and where it lies in the original:
            uint8 in [0, 255] of an original of eight bits, float32 in [0, 1] of any other.
        """
        geometry = self.locate(*image.full_size)
        left, top, right, bottom = (edge / image.reduction for edge in geometry.view.corners)
        window = _resample(image.pixels, (left, top, right, bottom), self.size, _FILTERS[self.interpolation])
        return window, geometry

    def to_input(self, window: Window) -> Tensor:
        """Normalise what `sample` returned.

        Args:
            window: (size, size, C), which stays as it is.

        Returns:
            The network input (channels, size, size) float32.
        """
        values = self._scale(window)
        # In place, and in numpy: large arrays cost more to allocate than to compute, and torch's threads are for the
        # network.
        values -= np.array(self.mean, np.float32).reshape(-1, 1, 1)
        values /= np.array(self.std, np.float32).reshape(-1, 1, 1)
        return torch.from_numpy(values)

    def resize(self, image: DecodedImage) -> tuple[Tensor, Geometry]:
        """Resample the window without normalising, which is also what to show as "what the network saw".

        Eight-bit images are resampled as such, 16-bit images in floating point, so that no precision is lost.

        Args:
            image: The decoded original, which may have been reduced while it was decoded.

        Returns:
            The input (channels, size, size) float32 in [0, 1], and where it lies in the original.
        """
        window, geometry = self.sample(image)
        return torch.from_numpy(self._scale(window)), geometry

    def resize_mask(self, mask: npt.NDArray[np.bool_]) -> Tensor:
        """Return ground truth as the network sees it: a pixel belongs to it where it covers any part of it.

        Small findings would be lost if a pixel had to be covered by half.

        Args:
            mask: (H, W) of the original.

        Returns:
            (size, size) bool.
        """
        geometry = self.locate(*mask.shape)
        size = (geometry.input_width, geometry.input_height)
        plane = Image.fromarray(mask.astype(np.float32))
        return torch.from_numpy(np.array(plane.resize(size, Image.Resampling.BOX, geometry.view.corners)) > 0)

    def normalize(self, images: Tensor) -> Tensor:
        """Subtract the mean and divide by the standard deviation.

        Args:
            images: (..., channels, H, W), floating point in [0, 1].

        Returns:
            A new tensor of the same shape, type and device.

        Raises:
            ValueError: If the number of channels differs from this record's.
        """
        if images.dim() < 3 or images.shape[-3] != self.channels:
            raise ValueError(
                f"Expected `images` to be (..., {self.channels}, H, W), but got shape {tuple(images.shape)}. "
                "Pass what `resize` returned."
            )
        mean, std = (images.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (images - mean) / std

    def locate(self, height: int, width: int) -> Geometry:
        """Return where the network input lies in an original, without touching pixels.

        Args:
            height: Height of the original in pixels.
            width: Width of the original in pixels.
        """
        sides = (width, height) if self.fit == "squash" else (min(width, height),) * 2
        seen_x, seen_y = (side * self.crop_fraction for side in sides)
        return Geometry(
            original_height=height,
            original_width=width,
            input_height=self.size,
            input_width=self.size,
            scale_x=seen_x / self.size,
            scale_y=seen_y / self.size,
            offset_x=(width - seen_x) / 2,
            offset_y=(height - seen_y) / 2,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary that JSON can hold."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Preprocessing:
        """Build the record from a dictionary such as `to_dict`'s.

        Args:
            values: Fields by name; those left out take their default.

        Raises:
            TypeError: If `values` is not a mapping.
            ValueError: If a key is unknown, with the closest field named, or a value is out of range.
        """
        return read_record(cls, values)

    def _scale(self, window: Window) -> Pixels:
        """Return an array of its own, (channels, size, size) in [0, 1]."""
        planes = np.ascontiguousarray(np.moveaxis(window, 2, 0))
        values = planes.astype(np.float32)
        if window.dtype == np.uint8:
            values /= np.float32(255)
        return np.ascontiguousarray(_with_channels(values, self.channels))


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise ValueError(f"Expected `{name}` to be one of {', '.join(map(repr, choices))}, but got {value!r}.")


def _check_window(size: int, crop_fraction: float) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"Expected `size` to be a whole number of at least 1, but got {size!r}.")
    if not 0 < crop_fraction <= 1:
        raise ValueError(f"Expected `crop_fraction` to be in (0, 1], but got {crop_fraction}.")


def _check_statistics(mean: tuple[float, ...], std: tuple[float, ...], channels: int) -> None:
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise ValueError(f"Expected `{name}` to hold {channels} number(s), one per channel, but got {len(values)}.")
        if not all(map(math.isfinite, values)) or (name == "std" and min(values) <= 0):
            constraint = "finite and positive" if name == "std" else "finite"
            raise ValueError(f"Expected `{name}` to be {constraint}, but got {values}.")


def _resample(
    pixels: npt.NDArray[Any], box: tuple[float, float, float, float], side: int, resampling: Image.Resampling
) -> Window:
    """Return what the network sees as (side, side, C): eight bits as such, everything else in [0, 1]."""
    size = (side, side)
    if pixels.dtype == np.uint8:
        return np.atleast_3d(np.asarray(Image.fromarray(pixels).resize(size, resampling, box)))
    planes = [Image.fromarray(plane.astype(np.float32)) for plane in np.moveaxis(np.atleast_3d(pixels), 2, 0)]
    window: Pixels = np.stack([np.asarray(plane.resize(size, resampling, box)) for plane in planes], axis=2)
    # Bicubic overshoots at edges; eight-bit resampling saturates by itself.
    window /= np.float32(np.iinfo(pixels.dtype).max)
    return window.clip(0, 1)


def _with_channels(window: Pixels, channels: int) -> Pixels:
    """Repeat grey (1, H, W) or weigh RGB (3, H, W) to what the network wants."""
    if len(window) == channels:
        return window
    if channels == 3:
        return np.broadcast_to(window, (3, *window.shape[1:]))
    weighted: Pixels = window * np.array(_LUMA, np.float32).reshape(3, 1, 1)
    return np.add.reduce(weighted, axis=0, keepdims=True)
