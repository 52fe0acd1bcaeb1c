"""Evidence beside its images, as a matplotlib figure with one colour scale in logit units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from torch import Tensor

from softcam.imaging import overlay, scale_limit, signed_colors
from softcam.nn.evidence import Evidence
from softcam.reporting.figures import chart_style
from softcam.reporting.wording import number

_MOST_CLASSES = 4
_PANEL_INCHES = {1: (3.6, 1.4), 2: (2.2, 2.2)}
"""Width and height of a panel, for signals and for images."""


class _Panel(NamedTuple):
    title: str
    values: npt.NDArray[np.float32]


@chart_style()
def plot(  # noqa: PLR0913 - two optional pairs, (target, against) and (mean, std), are one choice each
    evidence: Evidence,
    images: Tensor,
    *,
    classes: Sequence[str] | None = None,
    target: int | None = None,
    against: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    limit: float | None = None,
    depth: int | None = None,
) -> Figure:
    """Draw one row per image: the image, then its evidence as signed overlays; equal colours are equal logits.

    A signal is drawn as a line for each channel over the colours of its cells, a volume as one of its slices.

    Without `target` and `against` every class has its panel, or the three strongest where there are more than four.
    With `target` that class alone is drawn, with `against` the evidence for the target (default: the predicted class)
    rather than that class, whose mean is exactly the difference of their logits.

    Args:
        evidence: What `SoftCAM.evidence(images)` returned, N images.
        images: (N, C, H, W) with 1 or 3 channels, in [0, 1] or normalised; signals (N, C, L) of any channels and
            unit; volumes (N, C, D, H, W) as images.
        classes: K names; numbers are shown without them.
        target: Class index in [0, K).
        against: Class index in [0, K), other than `target`.
        mean: What was subtracted in normalisation, one per channel; given together with `std`.
        std: What was divided by. Without both, an image that leaves [0, 1] is stretched to its own range.
        limit: Logits at which the colour is full, positive; by default the 99.5 % quantile of all that is drawn.
        depth: For volumes, the slice in [0, D) that is drawn, with the layer of cells that it lies in.

    Returns:
        A figure that belongs to no window; call `savefig` on it or let a notebook show it.

    Raises:
        ValueError: If a shape, an index or a number of names does not fit.

    Example:
        >>> maps = torch.tensor([[[[4.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, -2.0]]]])
        >>> figure = plot(Evidence(maps.mean((-2, -1)), maps), torch.rand(1, 1, 8, 8), classes=["cat", "dog"])
        >>> [axes.get_title().splitlines()[0] for axes in figure.axes[:3]]
        ['image', 'cat', 'dog']
    """
    evidence = evidence.detach().to(device="cpu", dtype=torch.float32)
    names = _class_names(evidence, classes)
    _check_indices(evidence, target, against)
    _check_images(images, evidence)
    layer = _find_layer(images, evidence, depth)
    photos = _photographs(images if depth is None else images[:, :, depth], mean, std)
    rows = [_panels(evidence[index], names, target, against) for index in range(len(evidence))]
    rows = [[panel if layer is None else panel._replace(values=panel.values[layer]) for panel in row] for row in rows]
    if limit is None:
        limit = scale_limit(np.stack([panel.values for row in rows for panel in row]))
    return _draw(photos, rows, limit, "image" if depth is None else f"slice {depth} of 0-{images.shape[2] - 1}")


def _draw(photos: Sequence[npt.NDArray[Any]], rows: Sequence[Sequence[_Panel]], limit: float, title: str) -> Figure:
    columns = 1 + len(rows[0])
    dims = rows[0][0].values.ndim
    width, height = _PANEL_INCHES[dims]
    figure = Figure(figsize=(width * columns + 0.9, (height + 0.45) * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    show = _show_signal if dims == 1 else _show_image
    for axes, photo, row in zip(grid, photos, rows, strict=True):
        show(axes[0], photo, None, limit)
        axes[0].set_title("signal" if dims == 1 else title, fontsize=8.5)
        for place, panel in zip(axes[1:], row, strict=True):
            show(place, photo, panel.values, limit)
            place.set_title(panel.title, fontsize=8.5)
    colors = ListedColormap(signed_colors(np.linspace(-1, 1, 511)[None], 1.0)[0] / 255)
    bar = ScalarMappable(Normalize(-limit, limit), colors)
    figure.colorbar(bar, ax=grid, label="evidence per cell (logits)", shrink=0.9, aspect=30 * len(rows) ** 0.5)
    return figure


def _show_image(axes: Axes, pixels: npt.NDArray[Any], values: npt.NDArray[np.float32] | None, limit: float) -> None:
    axes.imshow(pixels if values is None else overlay(pixels, values, limit), cmap="gray", vmin=0, vmax=255)
    axes.set_axis_off()


def _show_signal(axes: Axes, lines: npt.NDArray[Any], values: npt.NDArray[np.float32] | None, limit: float) -> None:
    """Draw lines (C, L), over the colours of the cells (l,), which tile the length evenly."""
    length = lines.shape[1]
    margin = 0.05 * float(lines.max() - lines.min()) or 1.0
    low, high = float(lines.min()) - margin, float(lines.max()) + margin
    if values is not None:
        extent = (0.0, float(length), low, high)
        axes.imshow(signed_colors(values[None], limit), extent=extent, aspect="auto", interpolation="nearest")
    axes.plot(np.arange(length) + 0.5, lines.T, color="black", linewidth=0.7)
    axes.set_xlim(0, length)
    axes.set_ylim(low, high)
    axes.set_axis_off()


def _panels(one: Evidence, names: Sequence[str], target: int | None, against: int | None) -> list[_Panel]:
    if against is not None:
        chosen = int(one.predicted()[0]) if target is None else target
        # The predicted class may be the very class it is to be weighed against; then its rival takes its place.
        chosen = int(one.runner_up()[0]) if chosen == against else chosen
        total = float(one.logits[0, chosen] - one.logits[0, against])
        title = f"{names[chosen]} against {names[against]}\nmean {number(total, 2, signed=True)} logits"
        return [_Panel(title, one.margin(chosen, against)[0].numpy())]
    ranked = one.logits[0].argsort(descending=True)[:3].tolist()
    shown = [target] if target is not None else list(range(one.num_classes))
    shown = ranked if len(shown) > _MOST_CLASSES else shown
    probability = one.probabilities()[0]
    return [
        _Panel(
            f"{names[index]}\nlogit {number(float(one.logits[0, index]), 2, signed=True)}, "
            f"p {number(float(probability[index]), 2)}",
            one.maps[0, index].numpy(),
        )
        for index in shown
    ]


def _check_images(images: Tensor, evidence: Evidence) -> None:
    dims = len(evidence.grid)
    shown = dims == 1 or images.shape[1:2] in ((1,), (3,))
    if images.ndim != dims + 2 or len(images) != len(evidence) or not shown or not images.numel():
        sizes = {1: "C, L", 2: "1 or 3, H, W", 3: "1 or 3, D, H, W"}[dims]
        raise ValueError(
            f"Expected `images` to be ({len(evidence)}, {sizes}), at least one, but got {tuple(images.shape)}. "
            "Pass the images that the evidence was computed from."
        )


def _find_layer(images: Tensor, evidence: Evidence, depth: int | None) -> int | None:
    """Return the layer of cells in which a slice of a volume lies; None for images and signals."""
    if len(evidence.grid) < 3:
        if depth is not None:
            raise ValueError("Expected `depth` to be left out, since only a volume has slices to choose from.")
        return None
    slices = images.shape[2]
    if depth is None or not 0 <= depth < slices:
        raise ValueError(
            f"Expected `depth` to be the slice of the volumes to draw, in [0, {slices - 1}], but got {depth}. "
            f"The middle one is {slices // 2}."
        )
    return depth * evidence.grid[0] // slices


def _photographs(
    images: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None
) -> Sequence[npt.NDArray[Any]]:
    """Return what is drawn of images (N, C, H, W), uint8, or of signals (N, C, L), in their own unit."""
    pixels = images.detach().to(device="cpu", dtype=torch.float32)
    if (mean is None) != (std is None):
        raise ValueError("Expected `mean` and `std` to be given together, but got one of them. Give both or neither.")
    if mean is not None and std is not None:
        pixels = pixels * _per_channel("std", std, images) + _per_channel("mean", mean, images)
    elif images.ndim == 4:
        pixels = torch.stack([_stretched(image) for image in pixels])
    if images.ndim == 3:
        return list(pixels.numpy())
    rounded = (255 * pixels.clamp(0, 1)).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [photo[..., 0] if photo.shape[-1] == 1 else photo for photo in rounded]


def _stretched(image: Tensor) -> Tensor:
    low, high = image.min(), image.max()
    return image if low >= 0 and high <= 1 else (image - low) / (high - low).clamp_min(1e-12)


def _per_channel(name: str, values: Sequence[float], images: Tensor) -> Tensor:
    found = torch.as_tensor(values, dtype=torch.float32)
    if found.shape != (images.shape[1],):
        raise ValueError(f"Expected `{name}` to hold {images.shape[1]} values, one per channel, but got {len(values)}.")
    return found.reshape(-1, *[1] * (images.ndim - 2))


def _class_names(evidence: Evidence, classes: Sequence[str] | None) -> list[str]:
    if classes is None:
        return [f"class {index}" for index in range(evidence.num_classes)]
    if len(classes) != evidence.num_classes:
        raise ValueError(f"Expected `classes` to hold {evidence.num_classes} names, but got {len(classes)}.")
    return [str(name) for name in classes]


def _check_indices(evidence: Evidence, target: int | None, against: int | None) -> None:
    for name, index in (("target", target), ("against", against)):
        if index is not None and not 0 <= index < evidence.num_classes:
            raise ValueError(f"Expected `{name}` to be in [0, {evidence.num_classes - 1}], but got {index}.")
    if target is not None and target == against:
        raise ValueError(f"Expected `against` to be another class than `target`, but both are {target}.")
    if against is not None and evidence.num_classes < 2:
        raise ValueError("Expected at least two classes to weigh one against another, but got one.")
