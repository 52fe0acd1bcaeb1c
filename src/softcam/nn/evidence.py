"""Evidence: the logits of a batch together with the class evidence maps they are the mean of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from softcam.errors import IdentityError
from softcam.nn.display import draw_evidence
from softcam.nn.heads.several import resize
from softcam.nn.regions import Placement, Regions, find_regions

Classes = int | Tensor


@dataclass(frozen=True)
class Evidence:
    """What a SoftCAM model says about a batch of images, and where it says it.

    The grid is (h, w) for images, (l,) for signals and (d, h, w) for volumes.

    Args:
        logits: Class scores (N, K).
        maps: Class evidence maps (N, K, *grid), signed, in logit units; their mean over the cells is `logits`.
        multi_label: Whether classes are independent (sigmoid) rather than exclusive (softmax). An only class excludes
            none: it is read by its sigmoid either way.

    Reference:
        Djoumessi & Berens, "SoftCAM: Making black box models self-explainable", MIDL 2026, figure 1.

    Example:
        >>> maps = torch.tensor([[[[4.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, -2.0]]]])
        >>> evidence = Evidence(maps.mean((-2, -1)), maps)
        >>> evidence.margin(0, against=1).mean().item()
        1.5
    """

    logits: Tensor
    maps: Tensor
    multi_label: bool = False

    def __post_init__(self) -> None:
        """Refuse shapes that cannot belong together."""
        if not all(isinstance(part, Tensor) for part in (self.logits, self.maps)):
            return  # torch.export and pytree rebuild the dataclass around placeholders
        if self.logits.ndim != 2 or self.maps.ndim not in (3, 4, 5) or self.maps.shape[:2] != self.logits.shape:
            msg = (
                "Expected `logits` (N, K) and `maps` (N, K, h, w), (N, K, l) or (N, K, d, h, w) with equal N and K, "
                f"but got {tuple(self.logits.shape)} and {tuple(self.maps.shape)}."
            )
            raise ValueError(msg)

    def __len__(self) -> int:
        return len(self.logits)

    def __getitem__(self, index: int | slice | Tensor) -> Evidence:
        """Return the evidence of some images; a single index keeps the batch dimension."""
        rows = slice(index, index + 1 or None) if isinstance(index, int) else index
        if isinstance(index, int) and not -len(self) <= index < len(self):
            raise IndexError(f"Expected `index` to be within the batch of {len(self)}, but got {index}.")
        return replace(self, logits=self.logits[rows], maps=self.maps[rows])

    def __iter__(self) -> Iterator[Evidence]:
        return (self[index] for index in range(len(self)))

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return self.logits.shape[1]

    @property
    def grid(self) -> tuple[int, ...]:
        """The cells of a map along each dimension: (h, w), (l,) or (d, h, w)."""
        return tuple(self.maps.shape[2:])

    def probabilities(self) -> Tensor:
        """Return class probabilities (N, K) in [0, 1]: softmax, or sigmoid for an only class or `multi_label`."""
        independent = self.multi_label or self.num_classes == 1
        return self.logits.sigmoid() if independent else self.logits.softmax(dim=1)

    def predicted(self) -> Tensor:
        """Return the index (N,) of the highest logit; whether an independent class is present, a threshold decides."""
        return self.logits.argmax(dim=1)

    def runner_up(self, of: Classes | None = None) -> Tensor:
        """Return the index (N,) of the strongest class other than `of` (default: the predicted class)."""
        if self.num_classes < 2:
            raise ValueError("Expected at least two classes to name a runner-up, but got one.")
        excluded = self._class_index(self.predicted() if of is None else of)
        return self.logits.scatter(1, excluded[:, None], -torch.inf).argmax(dim=1)

    def map_of(self, target: Classes) -> Tensor:
        """Return the map (N, *grid) of one class, or of one class per image.

        Args:
            target: A class index, or indices (N,).
        """
        index = self._class_index(target)
        return self.maps[torch.arange(len(self), device=self.maps.device), index]

    def margin(self, a: Classes, against: Classes) -> Tensor:
        """Return the evidence (N, *grid) for class `a` rather than `against`; it averages to the logit difference.

        With softmax this, not a single class map, is the additive quantity: its mean is the log-odds of the two
        classes.

        Args:
            a: A class index, or indices (N,).
            against: A class index, or indices (N,).
        """
        return self.map_of(a) - self.map_of(against)

    def contribution(self, region: Tensor, target: Classes, against: Classes | None = None) -> Tensor:
        """Return how many logit units (N,) a region adds to a class; the regions of a partition add up to the logit.

        Args:
            region: Mask of cells (*grid) or (N, *grid), or of input pixels (*size) or (N, *size): boolean, or coverage
                in [0, 1]. A pixel mask counts each cell by the share of it that is covered.
            target: A class index, or indices (N,).
            against: If given, the contribution to the margin over this class.

        Raises:
            ValueError: If the mask has another number of dimensions or of images, or fewer pixels than cells.
        """
        evidence = self.map_of(target) if against is None else self.margin(target, against)
        return (evidence * self._coverage(region)).flatten(1).mean(1)

    def regions(
        self,
        target: Classes | None = None,
        against: Classes | None = None,
        *,
        share: float | None = None,
        threshold: float | None = None,
        at_most: int | None = None,
        placement: Placement | None = None,
    ) -> tuple[Regions, ...]:
        """Return the connected regions of each image's map, by what they add to the logit.

        The contributions of an image's regions and of the rest of its cells add up to the logit, in float64.

        Args:
            target: A class index, or indices (N,); default: the predicted class.
            against: If given, the regions of the margin over this class, which add up to the logit difference.
            share: Cells of at least this share of the image's strongest evidence, for or against, make regions; in
                (0, 1]. Default: a half, where no `threshold` is given.
            threshold: Logits per cell to take instead, above 0.
            at_most: How many regions of an image, those that contribute most; None for all.
            placement: Where the cells lie in the original, for boxes in its pixels and areas in its units; default: a
                cell is a pixel.

        Raises:
            ValueError: If a value is out of range, or both thresholds are given.
        """
        exact = self.to(torch.float64)
        chosen = self.predicted() if target is None else target
        maps = exact.map_of(chosen) if against is None else exact.margin(chosen, against)
        options: dict[str, Any] = {"share": share, "threshold": threshold, "at_most": at_most, "placement": placement}
        return tuple(find_regions(values, **options) for values in maps.detach().cpu().numpy())

    def upsample(self, size: Sequence[int]) -> Tensor:
        """Return the maps (N, K, *size) (bi-, tri-)linearly resized so that their mean stays the logit.

        Interpolation alone weighs border cells differently; the difference, one constant per map, is added back.

        Args:
            size: Height and width in pixels, or the sizes of a signal or volume.

        Raises:
            ValueError: If `size` has another number of dimensions than the grid, or an empty one.
        """
        if len(size) != len(self.grid) or min(size) < 1:
            raise ValueError(
                f"Expected `size` to be {len(self.grid)} lengths of at least 1, one for each dimension of the grid "
                f"{self.grid}, but got {tuple(size)}."
            )
        return resize(self.maps if self.maps.dtype == torch.float64 else self.maps.float(), size)

    def sum_error(self) -> Tensor:
        """Return the relative error (N,) of the identity "the mean of the maps is the logits", in float64.

        The absolute difference is divided by the largest of the absolute logits and of the mean absolute maps, so
        that a logit near zero, the balance of large opposite evidence, is judged by the numbers that were added.
        """
        maps, logits = self.maps.detach().double().flatten(2), self.logits.detach().double()
        scale = torch.maximum(logits.abs(), maps.abs().mean(-1)).amax(1)
        difference = (maps.mean(-1) - logits).abs().amax(1)
        return torch.where(difference == 0, 0.0, difference / scale)

    def check(self, tolerance: float = 1e-5) -> Evidence:
        """Return this evidence if it is finite and its maps average to its logits.

        Args:
            tolerance: Largest relative error that is accepted; 1e-5 suits float32. Half precision needs 1e-2, as do
                matrix products in TF32 (`torch.set_float32_matmul_precision("high")` on a GPU).

        Raises:
            IdentityError: If a value is NaN or infinite, or if an error exceeds `tolerance`.
        """
        finite = self.maps.isfinite().all() & self.logits.isfinite().all()
        if not bool(finite):
            raise IdentityError(
                "Expected finite evidence, but got NaN or infinity. Check the weights and the range of the images."
            )
        worst = float(self.sum_error().max()) if len(self) else 0.0
        if worst > tolerance:
            raise IdentityError(
                f"Expected the maps to average to the logits within {tolerance:g}, but got a relative error of "
                f"{worst:.3g}. Do not use these maps as an explanation of this prediction."
            )
        return self

    def to(self, *args: Any, **kwargs: Any) -> Evidence:
        """Return the evidence on another device or in another dtype (arguments of `Tensor.to`)."""
        return replace(self, logits=self.logits.to(*args, **kwargs), maps=self.maps.to(*args, **kwargs))

    def detach(self) -> Evidence:
        """Return the evidence without its autograd graph."""
        return replace(self, logits=self.logits.detach(), maps=self.maps.detach())

    def _repr_html_(self) -> str:
        return draw_evidence(self.logits, self.maps, independent=self.multi_label or self.num_classes == 1)

    def _class_index(self, target: Classes) -> Tensor:
        index = torch.as_tensor(target, device=self.logits.device, dtype=torch.long)
        if index.ndim > 1 or (index.ndim == 1 and len(index) != len(self)):
            msg = f"Expected a class index or indices ({len(self)},), but got shape {tuple(index.shape)}."
            raise ValueError(msg)
        if index.numel() and (int(index.min()) < 0 or int(index.max()) >= self.num_classes):
            raise IndexError(f"Expected class indices in [0, {self.num_classes - 1}], but got one outside.")
        return index.expand(len(self))

    def _coverage(self, region: Tensor) -> Tensor:
        mask = region.to(self.maps)
        dims = len(self.grid)
        mask = mask[None] if mask.ndim == dims else mask
        sizes = tuple(mask.shape[1:])
        fits = len(sizes) == dims and all(size >= cells for size, cells in zip(sizes, self.grid, strict=True))
        if not fits or len(mask) not in (1, len(self)):
            letters = {1: "l", 2: "h, w", 3: "d, h, w"}[dims]
            msg = (
                f"Expected `region` to be a mask of at least {self.grid} cells or pixels, ({letters}) or "
                f"({len(self)}, {letters}), but got {tuple(region.shape)}."
            )
            raise ValueError(msg)
        return _cell_coverage(mask, self.grid)


def _cell_coverage(mask: Tensor, grid: Sequence[int]) -> Tensor:
    # Overlap lengths of pixels with cells, one dimension after the other: a partition of unity for any size, where
    # adaptive pooling would count the pixels on a cell border twice.
    for dim, cells in enumerate(grid, start=1):
        if mask.shape[dim] != cells:
            overlap = cell_overlap(cells, mask.shape[dim]).to(mask)
            mask = (mask.movedim(dim, -1) @ overlap.T).movedim(-1, dim)
    return mask


def cell_overlap(cells: int, pixels: int) -> Tensor:
    """Return how much of each cell each pixel covers along one dimension, (cells, pixels); the rows add up to 1.

    Args:
        cells: Cells that tile a length.
        pixels: Pixels that tile the same length, also fewer than cells.
    """
    edges = torch.arange(pixels + 1, dtype=torch.float64) * cells / pixels
    starts = torch.arange(cells, dtype=torch.float64)[:, None]
    return (torch.minimum(edges[1:], starts + 1) - torch.maximum(edges[:-1], starts)).clamp_min(0.0)


def _flatten(evidence: Evidence) -> tuple[list[Any], bool]:
    return [evidence.logits, evidence.maps], evidence.multi_label


def _unflatten(leaves: Any, multi_label: bool) -> Evidence:  # noqa: FBT001 - the signature is torch's
    logits, maps = leaves
    return Evidence(logits, maps, multi_label)


# DDP, torch.export and torch.func look inside a module's output only if it is a registered container.
pytree.register_pytree_node(Evidence, _flatten, _unflatten, serialized_type_name="softcam.nn.Evidence")
