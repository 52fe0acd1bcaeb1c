"""Whether a cell of a map is about the pixels under it: what it reacts to, and whether its surroundings change it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

MapFunction = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) to maps (N, h, w), one per image, differentiable."""


def effective_receptive_field(maps: MapFunction, images: Tensor, cells: Tensor, *, share: float = 0.5) -> Tensor:
    """Radius around a cell's centre within which a share of the energy of its gradient lies.

    The energy of a pixel is the squared gradient of the cell with respect to it, summed over channels. A map that is
    wholly about its own pixels has about the radius of a cell; one that sees everything alike, that of the image.

    Args:
        maps: The model and the class, images to maps.
        images: (N, C, H, W), floating point.
        cells: (N, 2) row and column of one cell per image.
        share: In (0, 1).

    Returns:
        (N,) float64 in pixels, lower is more local; NaN where the cell depends on no pixel.

    Raises:
        ValueError: If a shape is wrong, a cell lies outside of the map, or `share` is out of range.

    Reference: Luo et al. 2016, NeurIPS, "Understanding the effective receptive field"; half of the energy as a radius.
    """
    if not 0 < share < 1:
        raise ValueError(f"Expected `share` to lie in (0, 1), but got {share}.")
    with torch.enable_grad():
        inputs = images.detach().requires_grad_()
        found = maps(inputs)
        values = _pick(found, cells, len(images))
        (gradient,) = torch.autograd.grad(values.sum(), inputs)
    energy = gradient.double().square().sum(1).flatten(1)
    distance = _distances(cells, found.shape[1:], images.shape[2:]).flatten(1).to(energy.device)
    order = distance.argsort(1)
    total = energy.gather(1, order).cumsum(1)
    # Gradients of float32 networks are rounded: pixels alike must not add up to slightly less than their share.
    reached = (total >= share * (1 - 1e-6) * total[:, -1:]).to(torch.uint8).argmax(1, keepdim=True)
    radius = distance.gather(1, order).gather(1, reached)[:, 0]
    return radius.masked_fill(total[:, -1] == 0, torch.nan).cpu()


def context_swap_change(
    maps: MapFunction, images: Tensor, others: Tensor, cells: Tensor, *, windows: Sequence[int]
) -> Tensor:
    """How much a cell changes when everything outside of a window around it is taken from another image.

    Measured in units of what it changes by, on average over the images, if the window is taken from there too: 0 says
    that the cell is about its window alone, 1 that the window might as well be gone. Pasting makes edges, which can
    take it above 1.

    Args:
        maps: The model and the class, images to maps.
        images: (N, C, H, W).
        others: (N, C, H, W), what surrounds the windows.
        cells: (N, 2) row and column of one cell per image.
        windows: Sides of the square windows in pixels, at least 1, cut off at the edges of the image.

    Returns:
        (N, W) float64, at least 0, lower is more local; its mean over images is the locality at each window. NaN where
        no cell changes even if everything is replaced.

    Raises:
        ValueError: If a shape is wrong, a cell lies outside of the map, or a window is below 1.

    Reference: defined here; Brendel & Bethge 2019, ICLR, for evidence that is local by construction.
    """
    return scale_changes(*measure_changes(maps, images, others, cells, windows=windows))


def scale_changes(replaced: Tensor, changes: Tensor) -> Tensor:
    """Return changes in units of the mean change if everything is replaced, (N, W); NaN if that is 0.

    Args:
        replaced: (N,) how much a cell changes if everything is replaced.
        changes: (N, W) how much it changes if everything outside of a window is.
    """
    reference = replaced.mean()
    return (changes / reference).masked_fill(reference == 0, torch.nan)


def measure_changes(
    maps: MapFunction, images: Tensor, others: Tensor, cells: Tensor, *, windows: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return how much a cell changes, (N,) if everything and (N, W) if all outside of a window is from another image.

    In the units of the maps, float64 on the CPU: what `context_swap_change` scales, for images that come in batches.

    Args:
        maps: As for `context_swap_change`, like all others.
        images: (N, C, H, W).
        others: (N, C, H, W).
        cells: (N, 2).
        windows: Sides in pixels.

    Raises:
        ValueError: As `context_swap_change`.
    """
    if images.shape != others.shape or images.ndim != 4:
        raise ValueError(f"Expected `others` to be images {tuple(images.shape)}, but got {tuple(others.shape)}.")
    if min(windows, default=0) < 1:
        raise ValueError(f"Expected `windows` to be sides of at least 1 px, but got {list(windows)}.")
    with torch.no_grad():
        found = maps(images)
        before = _pick(found, cells, len(images))
        replaced = (_pick(maps(others), cells, len(images)) - before).abs()
        changes = []
        for window in windows:
            inside = _windows(cells, found.shape[1:], images.shape[2:], window).to(images.device)
            mixed = torch.where(inside[:, None], images, others)
            changes.append((_pick(maps(mixed), cells, len(images)) - before).abs())
    return replaced.cpu(), torch.stack(changes, dim=1).cpu()


def _pick(maps: Tensor, cells: Tensor, count: int) -> Tensor:
    if maps.ndim != 3 or len(maps) != count or tuple(cells.shape) != (count, 2):
        raise ValueError(
            f"Expected maps (N, h, w) and cells (N, 2) of {count} images, but got {tuple(maps.shape)} and "
            f"{tuple(cells.shape)}."
        )
    places = cells.to(maps.device)
    if bool((places < 0).any()) or bool((places >= places.new_tensor(maps.shape[1:])).any()):
        raise ValueError(f"Expected cells within a grid of {tuple(maps.shape[1:])}, but got {cells.tolist()[:3]}.")
    return maps.double()[torch.arange(count, device=maps.device), places[:, 0], places[:, 1]]


def _centres(cells: Tensor, grid: torch.Size, size: torch.Size) -> tuple[Tensor, Tensor]:
    """Return where the centres of cells lie, in pixels from the edges."""
    scale = torch.tensor([size[0] / grid[0], size[1] / grid[1]], dtype=torch.float64)
    rows, columns = ((cells.cpu().double() + 0.5) * scale).unbind(1)
    return rows, columns


def _offsets(cells: Tensor, grid: torch.Size, size: torch.Size) -> tuple[Tensor, Tensor]:
    """Return the distances (N, H, 1) and (N, 1, W) of pixels' centres from those of the cells."""
    rows, columns = _centres(cells, grid, size)
    down = torch.arange(size[0], dtype=torch.float64)[None] + 0.5 - rows[:, None]
    across = torch.arange(size[1], dtype=torch.float64)[None] + 0.5 - columns[:, None]
    return down[:, :, None].abs(), across[:, None, :].abs()


def _distances(cells: Tensor, grid: torch.Size, size: torch.Size) -> Tensor:
    down, across = _offsets(cells, grid, size)
    return (down.square() + across.square()).sqrt()


def _windows(cells: Tensor, grid: torch.Size, size: torch.Size, window: int) -> Tensor:
    down, across = _offsets(cells, grid, size)
    return (down <= window / 2) & (across <= window / 2)
