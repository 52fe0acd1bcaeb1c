"""What a metric accepts: maps, masks, vectors and groups, checked and turned into float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array: TypeAlias = NDArray[np.float64]
Values: TypeAlias = Tensor | NDArray[Any] | Sequence[Any]


def to_numpy(values: Values) -> NDArray[Any]:
    """Return a tensor, array or sequence as a NumPy array on the CPU; floating tensors become float64."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return (values.double() if values.is_floating_point() else values).numpy()
    return np.asarray(values)


def to_flags(targets: NDArray[Any], classes: int) -> NDArray[np.bool_]:
    """Return which image has which label, (N, K).

    Args:
        targets: (N,) class indices, or (N, K) of 0 and 1 where classes are independent.
        classes: K.

    Example:
        >>> to_flags(np.array([1, 0]), 2).tolist()
        [[False, True], [True, False]]
    """
    flags: NDArray[np.bool_] = targets > 0 if targets.ndim == 2 else targets[:, None] == np.arange(classes)
    return flags


def check_vector(values: Values, name: str, *, size: int | None = None, finite: bool = True) -> Array:
    """Return one number per image as float64.

    Args:
        values: (N,) numbers.
        name: What the caller calls them, for the message.
        size: The N that is required, if any.
        finite: Refuse NaN and infinity.

    Returns:
        (N,) float64.

    Raises:
        ValueError: If the shape is wrong, or a value is not finite where it has to be.
    """
    array = to_numpy(values).astype(np.float64)
    if array.ndim != 1 or array.size == 0 or size not in {None, array.size}:
        wanted = "(N,) with N >= 1" if size is None else f"({size},)"
        raise ValueError(f"Expected `{name}` to be of shape {wanted}, but got {array.shape}. Pass one value per image.")
    if finite and not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise ValueError(f"Expected `{name}` to be finite, but got {count} NaN or infinite value(s). Leave them out.")
    return array


def check_binary(targets: Values, name: str, *, size: int) -> NDArray[np.bool_]:
    """Return (N,) targets of 0 and 1 as booleans; ValueError for anything else."""
    array = check_vector(targets, name, size=size)
    if not np.isin(array, (0.0, 1.0)).all():
        raise ValueError(f"Expected `{name}` to be 0 or 1, but got other values. Binarize the labels first.")
    positive: NDArray[np.bool_] = array == 1.0
    return positive


def check_groups(groups: Values | None, size: int) -> NDArray[np.intp]:
    """Number the groups (patients) 0, 1, … in order of appearance; without groups every image is its own.

    Raises:
        ValueError: If there is not one name per image, or a name is missing (None or NaN).
    """
    if groups is None:
        return np.arange(size)
    # tolist() turns array scalars into hashable Python objects; a pandas column arrives as an object array.
    names: list[Any] = to_numpy(groups).tolist()
    if len(names) != size:
        raise ValueError(f"Expected `groups` to have {size} entries, but got {len(names)}. Name one group per image.")
    if any(name is None or name != name for name in names):  # noqa: PLR0124 - NaN alone differs from itself
        raise ValueError("Expected `groups` to name a group for every image, but got missing names. Fill them first.")
    codes: dict[Any, int] = {}
    return np.asarray([codes.setdefault(name, len(codes)) for name in names], dtype=np.intp)


def check_maps(maps: Tensor, name: str = "maps", *, finite: bool = True) -> Tensor:
    """Return (N, h, w) maps as detached float64.

    Args:
        maps: (N, h, w).
        name: What the caller calls them, for the message.
        finite: Refuse NaN and infinity.

    Raises:
        TypeError: If `maps` are not floating point.
        ValueError: If the shape is wrong, or a value is NaN or infinite where it has to be finite.
    """
    if not maps.is_floating_point():
        raise TypeError(f"Expected `{name}` to be floating point, but got {maps.dtype}. Convert with `.float()`.")
    if maps.ndim != 3 or maps.numel() == 0:
        raise ValueError(
            f"Expected `{name}` to be of shape (N, h, w) without empty sides, but got {tuple(maps.shape)}. "
            "Pass one map per image, such as `evidence.maps[:, k]`."
        )
    if finite and not torch.isfinite(maps).all():
        raise ValueError(f"Expected `{name}` to be finite, but got NaN or infinity. Check the model that made them.")
    return maps.detach().double()


def check_masks(masks: Tensor, maps: Tensor) -> Tensor:
    """Return (N, H, W) masks as booleans on the device of `maps`, whose shape they must have.

    Raises:
        ValueError: If the shapes differ or a mask holds anything but 0 and 1.
    """
    if masks.shape != maps.shape:
        raise ValueError(
            f"Expected `masks` to be of the shape of `maps`, {tuple(maps.shape)}, but got {tuple(masks.shape)}. "
            "Resize the maps to the network's input first."
        )
    if not ((masks == 0) | (masks == 1)).all():
        raise ValueError("Expected `masks` to be 0 or 1, but got other values. Binarize them first.")
    return masks.detach().to(maps.device).bool()


def check_positive(value: int, name: str) -> int:
    """Return a whole number of at least 1; ValueError for anything smaller."""
    if value < 1:
        raise ValueError(f"Expected `{name}` to be at least 1, but got {value}. Choose a positive whole number.")
    return value
